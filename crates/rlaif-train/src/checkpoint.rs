//! Checkpoints: everything a trainer needs to go on as if it had never stopped.
//!
//! ```text
//! DIR/checkpoints/step-000050/tensors.safetensors    parameters (masters, where weights are bfloat16) and moments, float32
//!                             state.json             step, fingerprint, running numbers, BLAKE3 of the tensors
//! ```
//!
//! A checkpoint is written beside its place, synced, and renamed: it is there whole or not at all. The last two are kept; if
//! the newest is damaged all the same, the one before it is used.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use rlaif_model::{Decoder, Trainable};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use serde::{Deserialize, Serialize};

use crate::data::{PreferenceExample, ResponseExample};
use crate::error::{Result, TrainError};
use crate::learner::to_host;

const TENSORS: &str = "tensors.safetensors";
const STATE: &str = "state.json";
/// The newest, and the one before it in case the newest is damaged.
const KEPT: usize = 2;

/// What goes into a checkpoint.
#[derive(Debug, Default)]
pub struct Snapshot<'a> {
    tensors: BTreeMap<String, Cow<'a, [f32]>>,
    numbers: BTreeMap<String, Vec<f64>>,
}

impl<'a> Snapshot<'a> {
    /// Adds float32 values under a name.
    pub fn tensor(&mut self, name: String, values: Cow<'a, [f32]>) {
        self.tensors.insert(name, values);
    }

    /// Adds running numbers under a name.
    pub fn numbers(&mut self, name: String, values: Vec<f64>) {
        self.numbers.insert(name, values);
    }
}

/// What came out of one.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Steps done when it was written.
    pub step: u64,
    tensors: BTreeMap<String, Vec<f32>>,
    numbers: BTreeMap<String, Vec<f64>>,
}

impl Checkpoint {
    /// Takes out all tensors whose names start with `prefix`; the names come without it.
    pub fn take_tensors(&mut self, prefix: &str) -> BTreeMap<String, Vec<f32>> {
        let names: Vec<String> =
            self.tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        names
            .into_iter()
            .filter_map(|name| Some((name[prefix.len()..].to_string(), self.tensors.remove(&name)?)))
            .collect()
    }

    /// The running numbers of a name.
    ///
    /// # Errors
    /// If there are none.
    pub fn numbers(&self, name: &str) -> Result<&[f64]> {
        self.numbers.get(name).map(Vec::as_slice).ok_or_else(|| self.lacks(name))
    }

    /// A single running number.
    ///
    /// # Errors
    /// If it is not there.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.numbers(name)?.first().copied().ok_or_else(|| self.lacks(name))
    }

    fn lacks(&self, name: &str) -> TrainError {
        TrainError::Checkpoint { path: self.path.clone(), reason: format!("`{name}` is not in it") }
    }
}

/// `state.json`. Numbers are the bits of `f64`, so that reading gives back exactly what was written.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    step: u64,
    fingerprint: String,
    tensors_blake3: String,
    numbers: BTreeMap<String, Vec<u64>>,
}

/// The checkpoints of one training run.
#[derive(Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    fingerprint: String,
}

impl Checkpoints {
    /// Opens `DIR/checkpoints`, making it if need be. Checkpoints of another fingerprint are not used, and go away when this
    /// run writes its own.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(dir: &Path, fingerprint: String) -> Result<Self> {
        let dir = dir.join("checkpoints");
        fs::create_dir_all(&dir).map_err(TrainError::io("create", &dir))?;
        Ok(Self { dir, fingerprint })
    }

    /// The newest checkpoint that is whole and of this run; each damaged one that is passed over is told to `warn`.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn newest(&self, warn: &mut dyn FnMut(&str)) -> Result<Option<Checkpoint>> {
        for (step, path) in self.list()?.into_iter().rev() {
            match read(&path, &self.fingerprint) {
                Ok(Some(checkpoint)) if checkpoint.step == step => return Ok(Some(checkpoint)),
                Ok(Some(_)) => {
                    warn(&format!("checkpoint `{}` is of another step than its name says", path.display()))
                }
                Ok(None) => {} // of another config or other data
                Err(error) => warn(&format!("{error}; going back to the one before it")),
            }
        }
        Ok(None)
    }

    /// Writes a checkpoint and removes all but the last two of this run.
    ///
    /// # Errors
    /// If the disk does not take it; older checkpoints are then still there.
    pub fn save(&self, step: u64, snapshot: &Snapshot<'_>) -> Result<()> {
        let place = self.dir.join(format!("step-{step:06}"));
        let unfinished = self.dir.join(format!(".unfinished-step-{step:06}"));
        remove(&unfinished)?;
        fs::create_dir_all(&unfinished).map_err(TrainError::io("create", &unfinished))?;

        let tensors = unfinished.join(TENSORS);
        write_tensors(&tensors, snapshot)?;
        let state = State {
            step,
            fingerprint: self.fingerprint.clone(),
            tensors_blake3: hash_file(&tensors)?,
            numbers: snapshot
                .numbers
                .iter()
                .map(|(name, values)| (name.clone(), values.iter().map(|v| v.to_bits()).collect()))
                .collect(),
        };
        let path = unfinished.join(STATE);
        let text = serde_json::to_vec_pretty(&state).expect("strings and integers always serialise");
        let mut file = File::create(&path).map_err(TrainError::io("create", &path))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(TrainError::io("write", &path))?;
        sync(&tensors)?;
        sync(&unfinished)?;
        remove(&place)?;
        fs::rename(&unfinished, &place).map_err(TrainError::io("rename", &unfinished))?;
        sync(&self.dir)?;
        self.prune(step)
    }

    /// Step and path of each, oldest first.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(TrainError::io("list", &self.dir))? {
            let entry = entry.map_err(TrainError::io("list", &self.dir))?;
            let name = entry.file_name();
            let step = name.to_str().and_then(|n| n.strip_prefix("step-")).and_then(|n| n.parse().ok());
            found.extend(step.map(|step| (step, entry.path())));
        }
        found.sort();
        Ok(found)
    }

    /// Keeps the last two up to `newest`; what is beyond it is of another run, or was damaged.
    fn prune(&self, newest: u64) -> Result<()> {
        let (mut ours, others): (Vec<_>, Vec<_>) = self.list()?.into_iter().partition(|(step, path)| {
            *step <= newest && read_state(path).is_ok_and(|state| state.fingerprint == self.fingerprint)
        });
        ours.truncate(ours.len().saturating_sub(KEPT));
        ours.iter().chain(&others).try_for_each(|(_, path)| remove(path))
    }
}

fn write_tensors(path: &Path, snapshot: &Snapshot<'_>) -> Result<()> {
    let bad = |error: safetensors::SafeTensorError| match error {
        safetensors::SafeTensorError::IoError(source) => TrainError::io("write", path)(source),
        other => TrainError::Checkpoint { path: path.to_path_buf(), reason: other.to_string() },
    };
    let mut views = Vec::with_capacity(snapshot.tensors.len());
    for (name, values) in &snapshot.tensors {
        views.push((
            name,
            TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values)).map_err(bad)?,
        ));
    }
    serialize_to_file(views, None, path).map_err(bad)
}

/// A checkpoint, or none if it is of another run.
fn read(path: &Path, fingerprint: &str) -> Result<Option<Checkpoint>> {
    let state = read_state(path)?;
    if state.fingerprint != fingerprint {
        return Ok(None);
    }
    let bad = |reason: String| TrainError::Checkpoint { path: path.to_path_buf(), reason };
    let file = path.join(TENSORS);
    if hash_file(&file)? != state.tensors_blake3 {
        return Err(bad(format!("`{TENSORS}` is not what was written")));
    }
    let map = map_file(&file)?;
    let stored = SafeTensors::deserialize(&map).map_err(|error| bad(error.to_string()))?;
    let tensors = stored
        .iter()
        .map(|(name, view)| (name.to_string(), view.data().chunks_exact(4).map(le_f32).collect()))
        .collect();
    let numbers = state
        .numbers
        .into_iter()
        .map(|(name, bits)| (name, bits.into_iter().map(f64::from_bits).collect()))
        .collect();
    Ok(Some(Checkpoint { path: path.to_path_buf(), step: state.step, tensors, numbers }))
}

fn le_f32(bytes: &[u8]) -> f32 {
    f32::from_le_bytes(bytes.try_into().expect("chunks_exact(4) gives 4 bytes"))
}

fn read_state(path: &Path) -> Result<State> {
    let path = path.join(STATE);
    let text = fs::read(&path).map_err(TrainError::io("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| TrainError::Checkpoint { path, reason: error.to_string() })
}

fn map_file(path: &Path) -> Result<memmap2::Mmap> {
    let file = File::open(path).map_err(TrainError::io("read", path))?;
    // SAFETY: a checkpoint is never written again after it is renamed into place, and a run folder has one process (it is
    // locked by the program); a file cut short by someone else while we read it would stop the process, not corrupt it.
    unsafe { memmap2::Mmap::map(&file) }.map_err(TrainError::io("map", path))
}

/// Read in pieces: mapped, a checkpoint would count as memory of the process right after its training, when that is largest.
fn hash_file(path: &Path) -> Result<String> {
    let read = || blake3::Hasher::new().update_reader(File::open(path)?).map(|hasher| hasher.finalize());
    Ok(read().map_err(TrainError::io("read", path))?.to_hex().to_string())
}

fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(TrainError::io("sync", path))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// What a training run depends on: if any of it changes, its checkpoints are of another run.
#[derive(Debug)]
pub struct Fingerprint(blake3::Hasher);

impl Fingerprint {
    /// Of a trainer with its config and seed.
    pub fn new<C: Serialize>(trainer: &str, config: &C, seed: u64) -> Self {
        let mut fingerprint = Self(blake3::Hasher::new());
        let config = serde_json::to_string(config).expect("config structs always serialise");
        fingerprint.bytes(trainer.as_bytes()).bytes(config.as_bytes()).bytes(&seed.to_le_bytes());
        fingerprint
    }

    /// Adds bytes, with their number, so that two neighbours never read as one.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds token ids.
    pub fn ids(&mut self, ids: &[u32]) -> &mut Self {
        self.bytes(bytemuck::cast_slice(ids))
    }

    /// Adds preferences.
    pub fn preferences(&mut self, data: &[PreferenceExample]) -> &mut Self {
        for example in data {
            self.bytes(example.prompt_id.as_bytes()).ids(&example.prompt_ids);
            self.ids(&example.chosen_ids).ids(&example.rejected_ids).bytes(&example.p.to_le_bytes());
            self.bytes(&example.margin.to_le_bytes()).bytes(&example.weight.to_le_bytes());
        }
        self
    }

    /// Adds single responses.
    pub fn responses(&mut self, data: &[ResponseExample]) -> &mut Self {
        for example in data {
            self.bytes(example.prompt_id.as_bytes()).ids(&example.prompt_ids);
            self.ids(&example.response_ids).bytes(&example.p.to_le_bytes());
            // Checkpoints from before responses had weights go on.
            if example.weight != 1.0 {
                self.bytes(b"weight").bytes(&example.weight.to_le_bytes());
            }
        }
        self
    }

    /// Adds all weights that training starts from.
    pub fn weights(&mut self, decoder: &Decoder) -> &mut Self {
        let mut all = decoder.frozen();
        all.set_trainable(Trainable::Full);
        for (name, weight) in all.parameters() {
            self.bytes(name.as_bytes()).bytes(bytemuck::cast_slice(&to_host(weight)));
        }
        self
    }

    /// Adds plain numbers, such as a head's.
    pub fn numbers(&mut self, values: &[f32]) -> &mut Self {
        self.bytes(bytemuck::cast_slice(values))
    }

    /// As text.
    pub fn finish(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(checkpoints: &Checkpoints, step: u64) {
        let values = vec![step as f32, 0.1];
        let mut snapshot = Snapshot::default();
        snapshot.tensor("policy/parameter/w".into(), Cow::Borrowed(&values));
        snapshot.numbers("kl".into(), vec![0.1 + 0.2, f64::NAN]);
        checkpoints.save(step, &snapshot).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir.join("checkpoints"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn gives_back_what_was_written_and_keeps_two() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path(), "a".into()).unwrap();
        assert!(checkpoints.newest(&mut |w| panic!("{w}")).unwrap().is_none());
        (1..=3).for_each(|step| save(&checkpoints, step));
        assert_eq!(names(dir.path()), ["step-000002", "step-000003"]);
        let mut newest = checkpoints.newest(&mut |w| panic!("{w}")).unwrap().unwrap();
        assert_eq!((newest.step, newest.number("kl").unwrap()), (3, 0.1 + 0.2));
        assert!(newest.numbers("kl").unwrap()[1].is_nan());
        assert_eq!(newest.take_tensors("policy/parameter/")["w"], [3.0, 0.1]);
        assert!(newest.numbers("other").unwrap_err().to_string().contains("`other`"));
    }

    #[test]
    fn a_damaged_checkpoint_gives_way_to_the_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path(), "a".into()).unwrap();
        (1..=2).for_each(|step| save(&checkpoints, step));
        let file = dir.path().join("checkpoints/step-000002").join(TENSORS);
        let whole = fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&flipped[..], &whole[..whole.len() / 2], &[]] {
            fs::write(&file, damaged).unwrap();
            let mut warnings = Vec::new();
            let newest = checkpoints.newest(&mut |w| warnings.push(w.to_string())).unwrap().unwrap();
            assert_eq!((newest.step, warnings.len()), (1, 1), "{warnings:?}");
            assert!(warnings[0].contains("step-000002"), "{warnings:?}");
        }
        fs::remove_file(dir.path().join("checkpoints/step-000002").join(STATE)).unwrap();
        assert_eq!(checkpoints.newest(&mut |_| ()).unwrap().unwrap().step, 1);
        save(&checkpoints, 2);
        assert_eq!(checkpoints.newest(&mut |w| panic!("{w}")).unwrap().unwrap().step, 2);
    }

    #[test]
    fn checkpoints_of_another_run_are_not_used_and_go() {
        let dir = tempfile::tempdir().unwrap();
        save(&Checkpoints::open(dir.path(), "a".into()).unwrap(), 9);
        let other = Checkpoints::open(dir.path(), "b".into()).unwrap();
        assert!(other.newest(&mut |w| panic!("{w}")).unwrap().is_none());
        save(&other, 1);
        assert_eq!(names(dir.path()), ["step-000001"]);
    }
}
