//! A model's files, wherever they are: a Hugging Face folder, a `.gguf`, or a repository of the Hub.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::config::{ModelConfig, token_ids};
use crate::error::{ModelError, Result};
use crate::gguf::{Gguf, GgufWeights};
use crate::safetensors_io::{SafetensorsWeights, map_file, read_json};
use crate::tokenizer::Tokenizer;
use crate::weights::WeightSource;

/// A model, opened: checked against its own config, its weights not yet read.
pub struct ModelFiles {
    /// What the decoder is.
    pub config: ModelConfig,
    /// Its tensors.
    pub weights: Box<dyn WeightSource + Send + Sync>,
    /// Its tokenizer and chat template.
    pub tokenizer: Tokenizer,
    /// Tensors that are not the decoder's, e.g. `score.weight` of a reward model.
    pub extra_weights: Vec<String>,
    /// `config.json` as it was read; `None` for a GGUF.
    pub config_json: Option<Value>,
    paths: Vec<PathBuf>,
}

impl ModelFiles {
    /// Opens a folder, a `.gguf` file, or `hf:owner/name[@revision]`.
    ///
    /// # Errors
    /// If there is nothing of the kind; if a file is damaged, hostile or unsupported; if a tensor is missing or has another
    /// shape than the config says; if the weights are more than the machine's memory.
    pub fn open(spec: &str) -> Result<Self> {
        if let Some(repository) = spec.strip_prefix("hf:") {
            return Self::open_folder(&download(repository)?);
        }
        let path = Path::new(spec);
        let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        if path.is_dir() {
            Self::open_folder(path)
        } else if path.is_file() && is_gguf {
            Self::open_gguf(path)
        } else if path.is_file() {
            Err(ModelError::unsupported(
                format!("the file `{spec}`"),
                "a folder with `config.json`, `tokenizer.json` and `model.safetensors`, a `.gguf` file, or `hf:owner/name`",
            ))
        } else {
            Err(ModelError::NotFound {
                spec: spec.to_string(),
                reason: "there is no such file or folder; give a Hugging Face folder, a `.gguf` file or `hf:owner/name`"
                    .to_string(),
            })
        }
    }

    /// Opens a folder of the Hugging Face layout.
    ///
    /// # Errors
    /// As [`ModelFiles::open`].
    pub fn open_folder(folder: &Path) -> Result<Self> {
        let config_path = folder.join("config.json");
        if !config_path.is_file() {
            let spec = folder.display().to_string();
            let reason = "the folder has no `config.json`, so it is no model of the Hugging Face layout";
            return Err(ModelError::NotFound { spec, reason: reason.to_string() });
        }
        let config_json = read_json(&config_path)?;
        let mut config = ModelConfig::from_hf_json(&config_json)?;
        let weights = SafetensorsWeights::open(folder)?;
        // A reward model has no use for an output head and is saved without one.
        let head = format!("{}.weight", config.architecture.names.head);
        if weights.shape(&head).is_none() && weights.shape("score.weight").is_some() {
            config.tie_word_embeddings = true;
        }
        let mut tokenizer = Tokenizer::from_folder(folder)?;
        tokenizer.add_eos_ids(&config.eos_token_ids);
        let generation_path = folder.join("generation_config.json");
        if generation_path.is_file() {
            let generation = read_json(&generation_path)?;
            if let Some(fields) = generation.as_object() {
                tokenizer.add_eos_ids(&token_ids(fields, "eos_token_id")?);
            }
        }
        let optional = ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"];
        let mut paths = vec![config_path, folder.join("tokenizer.json")];
        paths.extend(optional.iter().map(|name| folder.join(name)).filter(|path| path.is_file()));
        paths.extend(weights.paths().map(Path::to_path_buf));
        Self::checked(config, Box::new(weights), tokenizer, Some(config_json), paths)
    }

    /// Opens a GGUF file.
    ///
    /// # Errors
    /// As [`ModelFiles::open`].
    pub fn open_gguf(path: &Path) -> Result<Self> {
        let gguf = Arc::new(Gguf::open(path)?);
        let config = ModelConfig::from_gguf(&gguf)?;
        let tokenizer = Tokenizer::from_gguf(&gguf)?;
        let weights = Box::new(GgufWeights::new(gguf, &config));
        Self::checked(config, weights, tokenizer, None, vec![path.to_path_buf()])
    }

    /// A hash of the contents of every file that was opened: the same model has the same one wherever it lies.
    ///
    /// # Errors
    /// If a file cannot be read again.
    pub fn fingerprint(&self) -> Result<String> {
        let mut whole = blake3::Hasher::new();
        for path in &self.paths {
            let bytes = map_file(path)?;
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // A GGUF may be called anything; the files of a folder have names that mean something.
            if self.config_json.is_some() {
                whole.update(name.as_bytes());
            }
            let mut one = blake3::Hasher::new();
            one.update_rayon(&bytes);
            whole.update(one.finalize().as_bytes());
        }
        Ok(whole.finalize().to_hex().to_string())
    }

    fn checked(
        mut config: ModelConfig,
        weights: Box<dyn WeightSource + Send + Sync>,
        mut tokenizer: Tokenizer,
        config_json: Option<Value>,
        paths: Vec<PathBuf>,
    ) -> Result<Self> {
        config.check_memory()?;
        let expected = config.tensor_shapes();
        let weights = Prefixed::wrap(weights, config.architecture.names.prefix, &expected);
        for (name, shape) in &expected {
            match weights.shape(name) {
                None => return Err(ModelError::MissingTensor { name: name.clone() }),
                Some(got) if got != *shape => {
                    return Err(ModelError::TensorShape { name: name.clone(), expected: shape.clone(), got });
                }
                Some(_) => {}
            }
        }
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(ModelError::tokenizer(format!(
                "it has {} tokens and the model {}; they do not belong together",
                tokenizer.vocab_size(),
                config.vocab_size
            )));
        }
        tokenizer.add_roles(config.bos_token_id, config.pad_token_id);
        config.bos_token_id = tokenizer.bos();
        config.pad_token_id = tokenizer.pad();
        config.eos_token_ids = tokenizer.eos_ids().to_vec();
        config.check()?;
        // An output head beside a tied embedding is a copy of it; `rope_freqs.weight` is in the config.
        let mut known: HashSet<String> = expected.into_iter().map(|(name, _)| name).collect();
        let architecture = config.architecture;
        known.extend([format!("{}.weight", architecture.names.head), "rope_freqs.weight".to_string()]);
        let stale = |name: &str| architecture.buffers.iter().any(|ending| name.ends_with(ending));
        let extra_weights =
            weights.names().into_iter().filter(|name| !known.contains(name) && !stale(name)).collect();
        Ok(ModelFiles { config, weights, tokenizer, extra_weights, config_json, paths })
    }
}

/// The tensors of a bare model, saved without its language model around it: GPT-2's `wte.weight` is `transformer.wte.weight`.
struct Prefixed {
    inner: Box<dyn WeightSource + Send + Sync>,
    prefix: &'static str,
    short: HashSet<String>,
}

impl Prefixed {
    /// Wraps a source that has one of the `expected` tensors only without `prefix`.
    fn wrap(
        inner: Box<dyn WeightSource + Send + Sync>,
        prefix: &'static str,
        expected: &[(String, Vec<usize>)],
    ) -> Box<dyn WeightSource + Send + Sync> {
        let short = |(name, _): &(String, Vec<usize>)| {
            let short = name.strip_prefix(prefix)?;
            (inner.shape(name).is_none() && inner.shape(short).is_some()).then(|| short.to_string())
        };
        let short: HashSet<String> = expected.iter().filter_map(short).collect();
        if short.is_empty() { inner } else { Box::new(Prefixed { inner, prefix, short }) }
    }

    /// The name in the file.
    fn stored<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(self.prefix).filter(|short| self.short.contains(*short)).unwrap_or(name)
    }
}

impl WeightSource for Prefixed {
    fn names(&self) -> Vec<String> {
        let full = |name: String| match self.short.contains(&name) {
            true => format!("{}{name}", self.prefix),
            false => name,
        };
        let mut names: Vec<String> = self.inner.names().into_iter().map(full).collect();
        names.sort();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.inner.shape(self.stored(name))
    }

    fn load_f32(&self, name: &str) -> Result<Vec<f32>> {
        self.inner.load_f32(self.stored(name))
    }
}

/// `owner/name[@revision]`, fetched into the Hub's cache. What the cache holds of that revision serves where the Hub cannot be reached.
#[cfg(feature = "hub")]
fn download(repository: &str) -> Result<PathBuf> {
    use hf_hub::HFError;
    let (owner, name, revision) = parse_repository(repository)?;
    let fail = |error: HFError| ModelError::NotFound {
        spec: format!("hf:{repository}"),
        reason: format!("the Hub answered: {error} (set HF_TOKEN for a model that asks for a login)"),
    };
    let wanted = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "*.safetensors",
        "model.safetensors.index.json",
    ];
    let model = hf_hub::HFClientSync::new().map_err(fail)?.model(owner, name);
    let snapshot = |local_files_only| {
        model
            .snapshot_download()
            .maybe_revision(revision.clone())
            .allow_patterns(wanted.map(String::from).to_vec())
            .local_files_only(local_files_only)
            .send()
    };
    snapshot(false).or_else(|error| match error {
        HFError::AuthRequired { .. }
        | HFError::Forbidden { .. }
        | HFError::RepoNotFound { .. }
        | HFError::RevisionNotFound { .. } => Err(fail(error)),
        unreachable => {
            let folder = snapshot(true).map_err(|_| fail(unreachable))?;
            tracing::warn!(repository, "the Hub cannot be reached; its copy in the cache is used");
            Ok(folder)
        }
    })
}

#[cfg(not(feature = "hub"))]
fn download(repository: &str) -> Result<PathBuf> {
    parse_repository(repository)?;
    Err(ModelError::unsupported(
        format!("downloading `hf:{repository}` in this build"),
        "a local folder or `.gguf`, or a build with `--features hub`",
    ))
}

/// Owner, name and revision; the characters that the Hub allows in them.
fn parse_repository(repository: &str) -> Result<(String, String, Option<String>)> {
    let wrong = || ModelError::NotFound {
        spec: format!("hf:{repository}"),
        reason: "a repository is written `hf:owner/name` or `hf:owner/name@revision`".to_string(),
    };
    let (path, revision) = match repository.split_once('@') {
        Some((path, revision)) => (path, Some(revision)),
        None => (repository, None),
    };
    let (owner, name) = path.split_once('/').ok_or_else(wrong)?;
    let plain = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && part.chars().all(allowed) && !part.starts_with('.')
    };
    let revision_is_plain = |revision: &str| revision.split('/').all(plain); // branches may have slashes
    if plain(owner) && plain(name) && revision.is_none_or(revision_is_plain) {
        Ok((owner.to_string(), name.to_string(), revision.map(String::from)))
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_owner_name_and_perhaps_a_revision() {
        let parsed = parse_repository("HuggingFaceTB/SmolLM2-135M-Instruct@refs/pr/1").unwrap();
        assert_eq!(
            parsed,
            ("HuggingFaceTB".into(), "SmolLM2-135M-Instruct".into(), Some("refs/pr/1".to_string()))
        );
        for wrong in ["gpt2", "a/b/c", "../x", "a/..", "a/b@", "a/b@../c", "a b/c"] {
            assert!(parse_repository(wrong).is_err(), "{wrong}");
        }
    }
}
