//! The container: a header of typed metadata, then tensors at aligned places (version 3, little-endian).

use std::path::Path;

use super::dequantize::GgmlType;
use super::quantize::quantize;
use crate::error::{ModelError, Result};
use crate::safetensors_io::write_atomically;
use crate::weights::check_finite;

/// The format's default, which needs no `general.alignment`.
const ALIGNMENT: usize = 32;
const VERSION: u32 = 3;

/// A metadata value, with the type that llama.cpp asks for under its key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
}

impl Entry {
    /// The type's number and the value's bytes.
    fn encoded(&self) -> (u32, Vec<u8>) {
        match self {
            Entry::U32(value) => (4, value.to_le_bytes().to_vec()),
            Entry::I32s(values) => (9, array(5, values.iter().map(|value| value.to_le_bytes().to_vec()))),
            Entry::F32(value) => (6, value.to_le_bytes().to_vec()),
            Entry::Bool(value) => (7, vec![u8::from(*value)]),
            Entry::Text(text) => (8, string(text)),
            Entry::Texts(texts) => (9, array(8, texts.iter().map(|text| string(text)))),
        }
    }
}

/// A tensor to write.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    /// Its name in the file.
    pub name: String,
    /// Row-major shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// How its values are stored.
    pub kind: GgmlType,
}

impl Planned {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn bytes(&self) -> usize {
        self.len() / self.kind.block_len() * self.kind.block_bytes()
    }
}

/// Writes a GGUF, all of it or nothing. `load(i)` gives the values of `tensors[i]`, row-major, and is asked for one at a time.
///
/// # Errors
/// If `load` fails or gives a wrong number of values, a value is not finite or beyond float16 where that is asked for, or the file
/// cannot be written.
pub(crate) fn write_gguf(
    path: &Path,
    metadata: &[(String, Entry)],
    tensors: &[Planned],
    mut load: impl FnMut(usize) -> Result<Vec<f32>>,
) -> Result<()> {
    let header = header(metadata, tensors);
    write_atomically(path, |writer| {
        let mut write = |bytes: &[u8]| writer.write_all(bytes).map_err(ModelError::write(path));
        write(&header)?;
        for (i, tensor) in tensors.iter().enumerate() {
            let values = load(i)?;
            if values.len() != tensor.len() {
                let (name, expected) = (tensor.name.clone(), tensor.shape.clone());
                return Err(ModelError::TensorShape { name, expected, got: vec![values.len()] });
            }
            check_finite(&tensor.name, &values)?;
            let bytes = quantize(tensor.kind, &values).ok_or_else(|| {
                ModelError::unsupported(format!("writing {:?}", tensor.kind), "F32, F16, BF16, Q8_0")
            })?;
            write(&bytes)?;
            write(&vec![0; bytes.len().next_multiple_of(ALIGNMENT) - bytes.len()])?;
        }
        Ok(())
    })
}

fn header(metadata: &[(String, Entry)], tensors: &[Planned]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, entry) in metadata {
        let (kind, bytes) = entry.encoded();
        out.extend(string(key));
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    }
    let mut offset = 0;
    for tensor in tensors {
        out.extend(string(&tensor.name));
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        for dim in tensor.shape.iter().rev() {
            out.extend((*dim as u64).to_le_bytes());
        }
        out.extend(tensor.kind.code().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn array(kind: u32, elements: impl ExactSizeIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((elements.len() as u64).to_le_bytes());
    bytes.extend(elements.flatten());
    bytes
}
