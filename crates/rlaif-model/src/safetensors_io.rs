//! Safetensors folders in (`model.safetensors`, or shards with an index), one safetensors file out.
//!
//! Only the Hugging Face layout, only plain numbers: a pickle can run code when it is opened, so `.bin`, `.pt` and their
//! kin are refused by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::error::{ModelError, Result};
use crate::weights::{WeightSource, check_finite};

/// Maps a regular file into memory. The file must not change while it is mapped.
pub(crate) fn map_file(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(ModelError::read(path))?;
    if !file.metadata().map_err(ModelError::read(path))?.is_file() {
        return Err(ModelError::corrupt(path, "it is not a regular file"));
    }
    // SAFETY: the map is read-only, and its contents are checked before use. Should another process cut the file short
    // meanwhile, the operating system ends us with a bus error: no worse than any program that maps files.
    unsafe { Mmap::map(&file) }.map_err(ModelError::read(path))
}

/// Reads a whole text file that should be small.
pub(crate) fn read_text(path: &Path, max_bytes: u64) -> Result<String> {
    let size = std::fs::metadata(path).map_err(ModelError::read(path))?.len();
    if size > max_bytes {
        let reason = format!("it has {size} bytes, and such a file has at most {max_bytes}");
        return Err(ModelError::corrupt(path, reason));
    }
    std::fs::read_to_string(path).map_err(ModelError::read(path))
}

/// Reads a JSON file that should be small.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    const MAX_JSON_BYTES: u64 = 1 << 26;
    let text = read_text(path, MAX_JSON_BYTES)?;
    serde_json::from_str(&text).map_err(|error| ModelError::corrupt(path, format!("not valid JSON: {error}")))
}

/// Writes a file so that a reader sees the old one or the whole new one, whenever the power goes.
pub(crate) fn write_atomically(
    path: &Path,
    contents: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let temporary = folder.join(format!(".{file_name}.{}.tmp", std::process::id()));
    let write_all = || -> Result<()> {
        let file = File::create(&temporary).map_err(ModelError::write(&temporary))?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        contents(&mut writer)?;
        let file = writer.into_inner().map_err(|error| ModelError::write(&temporary)(error.into_error()))?;
        file.sync_all().map_err(ModelError::write(&temporary))?;
        std::fs::rename(&temporary, path).map_err(ModelError::write(path))?;
        #[cfg(unix)] // elsewhere a folder cannot be opened
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(ModelError::write(folder))?;
        Ok(())
    };
    let result = write_all();
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary); // it may never have been made; the first error is the one to report
    }
    result
}

struct Shard {
    path: PathBuf,
    bytes: Mmap,
}

struct StoredTensor {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// The tensors of a safetensors folder.
pub struct SafetensorsWeights {
    shards: Vec<Shard>,
    tensors: BTreeMap<String, StoredTensor>,
}

impl SafetensorsWeights {
    /// Opens `model.safetensors`, or the shards of `model.safetensors.index.json`, in a folder.
    ///
    /// # Errors
    /// If there is neither; if a header lies about its file; if the index leads out of the folder or to a tensor that is
    /// not there.
    pub fn open(folder: &Path) -> Result<Self> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        if single.is_file() {
            Self::open_files(vec![single])
        } else if index.is_file() {
            Self::open_sharded(folder, &index)
        } else {
            Err(no_weights(folder))
        }
    }

    /// Opens some safetensors files as one bag.
    ///
    /// # Errors
    /// If a header lies about its file, or two files have a tensor of one name.
    pub fn open_files(paths: Vec<PathBuf>) -> Result<Self> {
        let mut source = SafetensorsWeights { shards: Vec::new(), tensors: BTreeMap::new() };
        for path in paths {
            source.add_shard(path)?;
        }
        Ok(source)
    }

    /// The files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    fn open_sharded(folder: &Path, index: &Path) -> Result<Self> {
        let json = read_json(index)?;
        let weight_map = json
            .get("weight_map")
            .and_then(Value::as_object)
            .ok_or_else(|| ModelError::corrupt(index, "it has no object `weight_map`"))?;
        let mut files: Vec<&str> = Vec::new();
        for (name, file) in weight_map {
            let file = file
                .as_str()
                .ok_or_else(|| ModelError::corrupt(index, format!("`{name}` has no file name")))?;
            files.push(file);
        }
        files.sort_unstable();
        files.dedup();
        let paths =
            files.into_iter().map(|file| shard_path(folder, index, file)).collect::<Result<Vec<_>>>()?;
        let source = Self::open_files(paths)?;
        for (name, file) in weight_map {
            let shard = source.tensors.get(name).map(|tensor| &source.shards[tensor.shard].path);
            if shard.and_then(|path| path.file_name()?.to_str()) != file.as_str() {
                return Err(ModelError::corrupt(
                    index,
                    format!("`{name}` is not in the file it names, {file}"),
                ));
            }
        }
        Ok(source)
    }

    fn add_shard(&mut self, path: PathBuf) -> Result<()> {
        let bytes = map_file(&path)?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| {
            ModelError::corrupt(&path, format!("its safetensors header is wrong ({error}; is it cut short?)"))
        })?;
        let data = 8 + header; // the header's length stands before it in eight bytes
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let tensor = StoredTensor {
                shard: self.shards.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: data + start,
                end: data + end,
            };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(ModelError::corrupt(&path, format!("the tensor `{name}` is in two files")));
            }
        }
        self.shards.push(Shard { path, bytes });
        Ok(())
    }
}

impl WeightSource for SafetensorsWeights {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|tensor| tensor.shape.clone())
    }

    fn load_f32(&self, name: &str) -> Result<Vec<f32>> {
        let missing = || ModelError::MissingTensor { name: name.to_string() };
        let tensor = self.tensors.get(name).ok_or_else(missing)?;
        let bytes = &self.shards[tensor.shard].bytes[tensor.start..tensor.end];
        let values: Vec<f32> = match tensor.dtype {
            Dtype::F32 => {
                bytes.par_chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Dtype::F16 => {
                bytes.par_chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            Dtype::BF16 => {
                bytes.par_chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            other => {
                let what = format!("dtype {other:?} (tensor `{name}`)");
                return Err(ModelError::unsupported(what, "F32, F16, BF16"));
            }
        };
        check_finite(name, &values)?;
        Ok(values)
    }
}

/// A shard's path, if its name stays in the folder.
fn shard_path(folder: &Path, index: &Path, file: &str) -> Result<PathBuf> {
    let escape =
        || ModelError::corrupt(index, format!("it names `{file}`, which is not a file of its folder"));
    let plain = !file.is_empty()
        && Path::new(file).file_name().is_some_and(|name| name == file)
        && !file.contains(['/', '\\', '\0']);
    if !plain {
        return Err(escape());
    }
    let path = folder.join(file);
    if !path.exists() {
        let reason = format!("it names `{file}`, which is not there (is the download complete?)");
        return Err(ModelError::corrupt(index, reason));
    }
    let home = folder.canonicalize().map_err(ModelError::read(folder))?;
    let target = path.canonicalize().map_err(ModelError::read(&path))?;
    // The Hub's cache keeps `snapshots/REVISION/FILE` as links to `blobs/HASH`: the one way out that is allowed.
    let blobs = home.parent().filter(|parent| parent.ends_with("snapshots")).and_then(Path::parent);
    let blobs = blobs.map(|repository| repository.join("blobs"));
    let parent = target.parent();
    if parent == Some(home.as_path()) || (blobs.is_some() && parent == blobs.as_deref()) {
        Ok(path)
    } else {
        Err(escape())
    }
}

/// Says what is missing, and names a pickle if that is what lies there instead.
fn no_weights(folder: &Path) -> ModelError {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let pickle = files
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            extension.is_some_and(|end| ["bin", "pt", "pth", "pkl", "ckpt"].contains(&end))
        })
        .min();
    match pickle {
        Some(path) => ModelError::unsupported(
            format!("`{}` is a Python pickle, which can run code when it is opened, and", path.display()),
            "`model.safetensors` (in Python: `model.save_pretrained(folder, safe_serialization=True)`) or a `.gguf`",
        ),
        None => ModelError::NotFound {
            spec: folder.display().to_string(),
            reason: "the folder has neither `model.safetensors` nor `model.safetensors.index.json`"
                .to_string(),
        },
    }
}

/// How weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveDtype {
    /// Four bytes a value; exact.
    F32,
    /// Two bytes a value, rounded to nearest even; at most 65504.
    F16,
    /// Two bytes a value, rounded to nearest even.
    Bf16,
}

impl SaveDtype {
    /// The name transformers has for it in `config.json`.
    pub fn torch_name(self) -> &'static str {
        match self {
            SaveDtype::F32 => "float32",
            SaveDtype::F16 => "float16",
            SaveDtype::Bf16 => "bfloat16",
        }
    }

    /// Its name in a safetensors header.
    fn safetensors_name(self) -> &'static str {
        match self {
            SaveDtype::F32 => "F32",
            SaveDtype::F16 => "F16",
            SaveDtype::Bf16 => "BF16",
        }
    }

    /// Bytes of a value.
    fn width(self) -> usize {
        match self {
            SaveDtype::F32 => 4,
            SaveDtype::F16 | SaveDtype::Bf16 => 2,
        }
    }

    fn bytes_of(self, values: &[f32]) -> Vec<u8> {
        match self {
            SaveDtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            SaveDtype::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            SaveDtype::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        }
    }
}

/// Writes a safetensors file that transformers loads (`{"format": "pt"}`), all of it or nothing.
///
/// `load` gives a tensor's values, row-major, and is asked for one at a time in the order of `tensors`, so that no more
/// than one needs to be in memory as float32.
///
/// # Errors
/// If `load` fails or gives a wrong number of values, a value is NaN, infinite or too large for `dtype`, or the file cannot be
/// written.
pub fn save_safetensors(
    path: &Path,
    tensors: &[(String, Vec<usize>)],
    dtype: SaveDtype,
    mut load: impl FnMut(&str) -> Result<Vec<f32>>,
) -> Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0;
    for (name, shape) in tensors {
        let end = offset + shape.iter().product::<usize>() * dtype.width();
        let entry = json!({"dtype": dtype.safetensors_name(), "shape": shape, "data_offsets": [offset, end]});
        if header.insert(name.clone(), entry).is_some() {
            return Err(ModelError::Input { reason: format!("the tensor `{name}` would be written twice") });
        }
        offset = end;
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));

    write_atomically(path, |writer| {
        let mut write = |bytes: &[u8]| writer.write_all(bytes).map_err(ModelError::write(path));
        write(&(header.len() as u64).to_le_bytes())?;
        write(header.as_bytes())?;
        for (name, shape) in tensors {
            let values = load(name)?;
            if values.len() != shape.iter().product::<usize>() {
                return Err(ModelError::TensorShape {
                    name: name.clone(),
                    expected: shape.clone(),
                    got: vec![values.len()],
                });
            }
            check_finite(name, &values)?;
            if dtype == SaveDtype::F16 {
                check_fits_f16(name, &values, 1.0)?;
            }
            values.chunks(1 << 16).try_for_each(|part| write(&dtype.bytes_of(part)))?;
        }
        Ok(())
    })
}

/// [`save_safetensors`] into a folder: `model.safetensors`, or shards of at most `max_shard_bytes` (a larger tensor has one to itself)
/// with `model.safetensors.index.json`, as transformers names them.
///
/// # Errors
/// As [`save_safetensors`].
pub fn save_sharded(
    folder: &Path,
    tensors: &[(String, Vec<usize>)],
    dtype: SaveDtype,
    max_shard_bytes: usize,
    mut load: impl FnMut(&str) -> Result<Vec<f32>>,
) -> Result<()> {
    let bytes = |shape: &[usize]| shape.iter().product::<usize>() * dtype.width();
    let mut shards: Vec<Vec<(String, Vec<usize>)>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in tensors {
        let size = bytes(&tensor.1);
        if filled > 0 && filled + size > max_shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size;
        shards.last_mut().expect("there is always one").push(tensor.clone());
    }
    if let [all] = shards.as_slice() {
        return save_safetensors(&folder.join("model.safetensors"), all, dtype, load);
    }
    let mut weight_map = Map::new();
    for (number, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        save_safetensors(&folder.join(&name), shard, dtype, &mut load)?;
        weight_map.extend(shard.iter().map(|(tensor, _)| (tensor.clone(), json!(name))));
    }
    let total: usize = tensors.iter().map(|(_, shape)| bytes(shape)).sum();
    let path = folder.join("model.safetensors.index.json");
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    let text = format!("{index:#}\n");
    write_atomically(&path, |file| file.write_all(text.as_bytes()).map_err(ModelError::write(&path)))
}

/// Refuses what `value / divisor` in float16 would make infinite.
pub(crate) fn check_fits_f16(name: &str, values: &[f32], divisor: f32) -> Result<()> {
    match values.iter().find(|value| f16::from_f32(**value / divisor).is_infinite()) {
        None => Ok(()),
        Some(value) => Err(ModelError::Input {
            reason: format!(
                "tensor `{name}` has the value {value}, which is beyond float16; write it as bf16 or f32"
            ),
        }),
    }
}
