//! What can go wrong with a model's files, its tokenizer or its use, with the facts in fields.

use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;

/// Everything that can go wrong in `rlaif-model`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The model a user named is not there.
    #[error("no model at `{spec}`: {reason}")]
    NotFound {
        /// What the user wrote.
        spec: String,
        /// What was looked for, and what would be accepted.
        reason: String,
    },
    /// The operating system refused to read or write a file.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// "read", "write", …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is damaged, cut short, or lies about its own contents.
    #[error("`{}` is damaged or not what it claims to be: {reason}; download it again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong, and at which byte where that is known.
        reason: String,
    },
    /// A file asks for something we do not have, or do not allow.
    #[error("{what} is not supported; supported: {supported}")]
    Unsupported {
        /// The thing, by the name its file gives it.
        what: String,
        /// What would work.
        supported: String,
    },
    /// A value in `config.json`, or in a GGUF's metadata, is missing or impossible.
    #[error("model config: `{field}` {problem}")]
    Config {
        /// The key as its file has it.
        field: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// The weights, as float32, are more than this machine's memory.
    #[error(
        "the weights need {:.1} GiB as float32, and this machine has {:.1} GiB of memory; use a smaller model",
        *needed as f64 / (1u64 << 30) as f64,
        *available as f64 / (1u64 << 30) as f64
    )]
    Memory {
        /// Bytes of all parameters as float32.
        needed: u64,
        /// Bytes of memory.
        available: u64,
    },
    /// A tensor that the architecture needs is not in the file.
    #[error("the model's files have no tensor `{name}`")]
    MissingTensor {
        /// Its Hugging Face name.
        name: String,
    },
    /// A tensor has another shape than the config says.
    #[error("tensor `{name}` has shape {got:?}, and the config asks for {expected:?}")]
    TensorShape {
        /// Its Hugging Face name.
        name: String,
        /// From the config.
        expected: Vec<usize>,
        /// From the file.
        got: Vec<usize>,
    },
    /// A weight is NaN or infinite.
    #[error("tensor `{name}` has the value {value} at element {index}; the checkpoint is broken")]
    NonFinite {
        /// Its Hugging Face name.
        name: String,
        /// Row-major index of the first such element.
        index: usize,
        /// NaN, inf or -inf.
        value: f32,
    },
    /// The tokenizer's files are unusable, or do not fit the model.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What is wrong.
        reason: String,
    },
    /// A chat template does not compile, or failed on these messages.
    #[error("chat template `{template}`, line {line}: {reason}")]
    ChatTemplate {
        /// The file or metadata key that it came from.
        template: String,
        /// Line in the template, from 1; 0 where it is unknown.
        line: usize,
        /// What the template engine said, or what the template raised.
        reason: String,
    },
    /// A device name is unknown, or not in this build.
    #[error("device `{name}`: {reason}")]
    Device {
        /// What the user wrote.
        name: String,
        /// Why it cannot be used, and what can.
        reason: String,
    },
    /// A caller's input cannot be used: an empty prompt, a token id outside the vocabulary, a prompt beyond the context.
    #[error("{reason}")]
    Input {
        /// What is wrong with it.
        reason: String,
    },
}

impl ModelError {
    /// For `map_err` on a read.
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> ModelError + '_ {
        move |source| ModelError::Io { action: "read", path: path.to_path_buf(), source }
    }

    /// For `map_err` on a write.
    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> ModelError + '_ {
        move |source| ModelError::Io { action: "write", path: path.to_path_buf(), source }
    }

    pub(crate) fn corrupt(path: &Path, reason: impl Into<String>) -> ModelError {
        ModelError::Corrupt { path: path.to_path_buf(), reason: reason.into() }
    }

    pub(crate) fn config(field: impl Into<String>, problem: impl Into<String>) -> ModelError {
        ModelError::Config { field: field.into(), problem: problem.into() }
    }

    pub(crate) fn unsupported(what: impl Into<String>, supported: impl Into<String>) -> ModelError {
        ModelError::Unsupported { what: what.into(), supported: supported.into() }
    }

    pub(crate) fn tokenizer(reason: impl std::fmt::Display) -> ModelError {
        ModelError::Tokenizer { reason: reason.to_string() }
    }
}
