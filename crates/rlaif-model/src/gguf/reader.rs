//! The header of a GGUF file, read without trusting it.
//!
//! Each length is held against the bytes that are left before anything is allocated for it, each sum and product is
//! checked, and each count has a cap, so that a hostile file costs an error and neither memory nor a panic.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::dequantize::{GgmlType, dequantize};
use crate::error::{ModelError, Result};

/// Llama 3.1 405B has 1,138 tensors.
const MAX_TENSORS: u64 = 1 << 17;
/// Real files have some dozens.
const MAX_METADATA: u64 = 1 << 14;
/// Over all arrays of a file. Real files: a vocabulary of 256 Ki entries and as many scores, types and merges.
const MAX_ARRAY_ELEMENTS: u64 = 1 << 23;
/// The specification's cap on keys.
const MAX_KEY_BYTES: u64 = 65_535;
/// llama.cpp's cap is 64; some converters go beyond.
const MAX_NAME_BYTES: u64 = 1024;
/// Chat templates are the longest strings, some tens of KiB.
const MAX_STRING_BYTES: u64 = 1 << 22;
/// The format's own cap.
const MAX_DIMS: u32 = 4;
/// Arrays within arrays; nobody writes any.
const MAX_DEPTH: usize = 2;
const DEFAULT_ALIGNMENT: u64 = 32;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// Either float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// Text.
    String(String),
    /// Values of one type.
    Array(Vec<GgufValue>),
}

impl GgufValue {
    /// An integer of either kind that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            GgufValue::Unsigned(value) => Some(*value),
            GgufValue::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A float, or an integer as one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            GgufValue::Float(value) => Some(*value),
            GgufValue::Unsigned(value) => Some(*value as f64),
            GgufValue::Signed(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// Text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            GgufValue::String(value) => Some(value),
            _ => None,
        }
    }

    /// The elements of an array.
    pub fn as_array(&self) -> Option<&[GgufValue]> {
        match self {
            GgufValue::Array(values) => Some(values),
            _ => None,
        }
    }
}

/// Where a tensor lies and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its name in the file, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// Row-major shape, outermost dimension first (the file has it the other way round).
    pub shape: Vec<usize>,
    /// How its values are stored.
    pub kind: GgmlType,
    /// First byte, from the start of the file.
    start: usize,
    /// Bytes.
    len: usize,
}

/// An opened GGUF file: its metadata, and its tensors over a memory map.
pub struct Gguf {
    path: PathBuf,
    bytes: Box<dyn AsRef<[u8]> + Send + Sync>,
    metadata: BTreeMap<String, GgufValue>,
    tensors: BTreeMap<String, GgufTensor>,
}

impl Gguf {
    /// Maps a file and reads its header. The file must not change while it is open.
    ///
    /// # Errors
    /// If it cannot be read, or is not a sound little-endian GGUF of version 2 or 3.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = crate::safetensors_io::map_file(path)?;
        Self::from_bytes(path, bytes)
    }

    /// Reads a header from bytes; `path` is for messages.
    ///
    /// # Errors
    /// If the bytes are not a sound little-endian GGUF of version 2 or 3.
    pub fn from_bytes(path: &Path, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        let header = Header::read(bytes.as_ref()).map_err(|stop| match stop {
            Stop::Corrupt(reason) => ModelError::corrupt(path, reason),
            Stop::Unsupported { what, supported } => ModelError::unsupported(what, supported),
        })?;
        let Header { metadata, tensors } = header;
        Ok(Gguf { path: path.to_path_buf(), bytes: Box::new(bytes), metadata, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every byte of the file.
    pub fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// A metadata value.
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    /// All metadata, by key.
    pub fn metadata(&self) -> &BTreeMap<String, GgufValue> {
        &self.metadata
    }

    /// All tensors, by their names in the file.
    pub fn tensors(&self) -> &BTreeMap<String, GgufTensor> {
        &self.tensors
    }

    /// A tensor's values as float32, row-major.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn load_f32(&self, name: &str) -> Result<Vec<f32>> {
        let missing = || ModelError::MissingTensor { name: name.to_string() };
        let tensor = self.tensors.get(name).ok_or_else(missing)?;
        let data = &self.bytes()[tensor.start..tensor.start + tensor.len];
        Ok(dequantize(tensor.kind, data))
    }
}

/// Why the header was refused.
enum Stop {
    Corrupt(String),
    Unsupported { what: String, supported: String },
}

struct Header {
    metadata: BTreeMap<String, GgufValue>,
    tensors: BTreeMap<String, GgufTensor>,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Header, Stop> {
        let mut cursor = Cursor { bytes, at: 0, array_elements_left: MAX_ARRAY_ELEMENTS };
        if cursor.take(4, "the magic")? != b"GGUF" {
            return Err(Stop::Corrupt("it does not begin with `GGUF`".to_string()));
        }
        match cursor.u32("the version")? {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 2 | 3) => {
                let what = "a big-endian GGUF file".to_string();
                return Err(Stop::Unsupported { what, supported: "little-endian files".to_string() });
            }
            version => {
                let what = format!("GGUF version {version}");
                return Err(Stop::Unsupported { what, supported: "versions 2 and 3".to_string() });
            }
        }
        let num_tensors = cursor.count("tensors", MAX_TENSORS)?;
        let num_metadata = cursor.count("metadata entries", MAX_METADATA)?;

        let mut metadata = BTreeMap::new();
        for _ in 0..num_metadata {
            let key = cursor.string("a metadata key", MAX_KEY_BYTES)?;
            let kind = cursor.u32("a metadata type")?;
            let value = cursor.value(kind, 0)?;
            if metadata.contains_key(&key) {
                return Err(Stop::Corrupt(format!("the metadata key `{key}` is there twice")));
            }
            metadata.insert(key, value);
        }
        let alignment = alignment(&metadata)?;

        let mut infos = Vec::new();
        let mut names = HashSet::new();
        for _ in 0..num_tensors {
            let info = cursor.tensor_info()?;
            if !names.insert(info.name.clone()) {
                return Err(Stop::Corrupt(format!("the tensor `{}` is there twice", info.name)));
            }
            infos.push(info);
        }
        let data_start = (cursor.at as u64)
            .checked_next_multiple_of(alignment)
            .ok_or_else(|| Stop::Corrupt("its header ends beyond any file".to_string()))?;
        let tensors = place_tensors(infos, data_start, alignment, bytes.len() as u64)?;
        Ok(Header { metadata, tensors })
    }
}

fn alignment(metadata: &BTreeMap<String, GgufValue>) -> Result<u64, Stop> {
    let Some(value) = metadata.get("general.alignment") else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    match value.as_u64() {
        Some(alignment) if alignment.is_power_of_two() && alignment <= 1 << 20 => Ok(alignment),
        _ => Err(Stop::Corrupt(format!("`general.alignment` must be a power of two, and is {value:?}"))),
    }
}

/// A tensor's entry in the header; `offset` counts from the start of the data.
struct TensorInfo {
    name: String,
    shape: Vec<usize>,
    kind: GgmlType,
    offset: u64,
    len: u64,
}

/// Holds every tensor's bytes against the file and against each other.
fn place_tensors(
    infos: Vec<TensorInfo>,
    data_start: u64,
    alignment: u64,
    file_len: u64,
) -> Result<BTreeMap<String, GgufTensor>, Stop> {
    let mut spans = Vec::with_capacity(infos.len());
    let mut tensors = BTreeMap::new();
    for info in infos {
        let TensorInfo { name, shape, kind, offset, len } = info;
        if offset % alignment != 0 {
            let reason =
                format!("tensor `{name}` begins at {offset}, which is not a multiple of {alignment}");
            return Err(Stop::Corrupt(reason));
        }
        let start = data_start.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(len));
        let (Some(start), Some(end)) = (start, end.filter(|end| *end <= file_len)) else {
            let reason =
                format!("tensor `{name}` ends beyond the file's {file_len} bytes (is it cut short?)");
            return Err(Stop::Corrupt(reason));
        };
        spans.push((start, end, name.clone()));
        let (start, len) = (start as usize, len as usize); // within a mapped file, so within usize
        tensors.insert(name.clone(), GgufTensor { name, shape, kind, start, len });
    }
    spans.sort();
    for pair in spans.windows(2) {
        if pair[1].0 < pair[0].1 {
            return Err(Stop::Corrupt(format!("tensors `{}` and `{}` overlap", pair[0].2, pair[1].2)));
        }
    }
    Ok(tensors)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    array_elements_left: u64,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8], Stop> {
        if count > self.left() {
            return Err(Stop::Corrupt(format!(
                "{what} at byte {} needs {count} bytes and {} are left (is it cut short?)",
                self.at,
                self.left()
            )));
        }
        let slice = &self.bytes[self.at..self.at + count as usize];
        self.at += count as usize;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Stop> {
        let slice = self.take(N as u64, what)?;
        Ok(slice.try_into().expect("`take` gave N bytes"))
    }

    fn u32(&mut self, what: &str) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn count(&mut self, what: &str, cap: u64) -> Result<u64, Stop> {
        let count = self.u64(what)?;
        if count > cap {
            return Err(Stop::Corrupt(format!("it claims {count} {what}; at most {cap} are believed")));
        }
        Ok(count)
    }

    fn string(&mut self, what: &str, cap: u64) -> Result<String, Stop> {
        let at = self.at;
        let len = self.u64(what)?;
        if len > cap {
            let reason = format!("{what} at byte {at} claims {len} bytes; at most {cap} are believed");
            return Err(Stop::Corrupt(reason));
        }
        match std::str::from_utf8(self.take(len, what)?) {
            Ok(text) => Ok(text.to_string()),
            Err(_) => Err(Stop::Corrupt(format!("{what} at byte {at} is not UTF-8"))),
        }
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<GgufValue, Stop> {
        const WHAT: &str = "a metadata value";
        Ok(match kind {
            0 => GgufValue::Unsigned(u8::from_le_bytes(self.array(WHAT)?).into()),
            1 => GgufValue::Signed(i8::from_le_bytes(self.array(WHAT)?).into()),
            2 => GgufValue::Unsigned(u16::from_le_bytes(self.array(WHAT)?).into()),
            3 => GgufValue::Signed(i16::from_le_bytes(self.array(WHAT)?).into()),
            4 => GgufValue::Unsigned(u32::from_le_bytes(self.array(WHAT)?).into()),
            5 => GgufValue::Signed(i32::from_le_bytes(self.array(WHAT)?).into()),
            6 => GgufValue::Float(f32::from_le_bytes(self.array(WHAT)?).into()),
            7 => match self.array::<1>(WHAT)? {
                [0] => GgufValue::Bool(false),
                [1] => GgufValue::Bool(true),
                [other] => {
                    return Err(Stop::Corrupt(format!("a boolean at byte {} is {other}", self.at - 1)));
                }
            },
            8 => GgufValue::String(self.string(WHAT, MAX_STRING_BYTES)?),
            9 => self.array_value(depth + 1)?,
            10 => GgufValue::Unsigned(u64::from_le_bytes(self.array(WHAT)?)),
            11 => GgufValue::Signed(i64::from_le_bytes(self.array(WHAT)?)),
            12 => GgufValue::Float(f64::from_le_bytes(self.array(WHAT)?)),
            other => return Err(Stop::Corrupt(format!("metadata type {other} does not exist"))),
        })
    }

    fn array_value(&mut self, depth: usize) -> Result<GgufValue, Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::Corrupt(format!("its metadata has arrays more than {MAX_DEPTH} deep")));
        }
        let kind = self.u32("an array's type")?;
        let count = self.u64("an array's length")?;
        let smallest: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            other => return Err(Stop::Corrupt(format!("metadata type {other} does not exist"))),
        };
        if count.checked_mul(smallest).is_none_or(|bytes| bytes > self.left()) {
            return Err(Stop::Corrupt(format!(
                "an array at byte {} claims {count} elements and {} bytes are left (is it cut short?)",
                self.at,
                self.left()
            )));
        }
        self.array_elements_left = self.array_elements_left.checked_sub(count).ok_or_else(|| {
            Stop::Corrupt(format!("its arrays have more than {MAX_ARRAY_ELEMENTS} elements together"))
        })?;
        let mut values = Vec::with_capacity(count as usize);
        for _ in 0..count {
            values.push(self.value(kind, depth)?);
        }
        Ok(GgufValue::Array(values))
    }

    fn tensor_info(&mut self) -> Result<TensorInfo, Stop> {
        let name = self.string("a tensor's name", MAX_NAME_BYTES)?;
        let num_dims = self.u32("a tensor's number of dimensions")?;
        if num_dims == 0 || num_dims > MAX_DIMS {
            let reason = format!("tensor `{name}` claims {num_dims} dimensions; 1 to {MAX_DIMS} exist");
            return Err(Stop::Corrupt(reason));
        }
        let mut dims = Vec::with_capacity(num_dims as usize);
        for _ in 0..num_dims {
            dims.push(self.u64("a tensor's dimension")?);
        }
        let code = self.u32("a tensor's type")?;
        let offset = self.u64("a tensor's offset")?;
        let kind = GgmlType::from_code(code).map_err(|type_name| Stop::Unsupported {
            what: format!("tensor type {type_name} (tensor `{name}`)"),
            supported: GgmlType::SUPPORTED.to_string(),
        })?;

        let impossible = || Stop::Corrupt(format!("tensor `{name}` claims the impossible shape {dims:?}"));
        let elements = dims.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim));
        let elements = elements.filter(|elements| *elements > 0).ok_or_else(impossible)?;
        let (block, block_bytes) = (kind.block_len() as u64, kind.block_bytes() as u64);
        if dims[0] % block != 0 {
            let reason = format!("tensor `{name}` has rows of {} and {kind:?} blocks of {block}", dims[0]);
            return Err(Stop::Corrupt(reason));
        }
        let len = (elements / block).checked_mul(block_bytes).ok_or_else(impossible)?;
        let shape: Option<Vec<usize>> = dims.iter().rev().map(|dim| usize::try_from(*dim).ok()).collect();
        let shape = shape.ok_or_else(impossible)?;
        Ok(TensorInfo { name, shape, kind, offset, len })
    }
}
