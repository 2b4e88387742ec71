//! `[policy]`.

use serde::{Deserialize, Serialize};

/// `[policy]`: the supervised baseline. It is the starting point of every trained model and the frozen reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// A Hugging Face folder, a `.gguf` file, or `hf:owner/name`. Paths are relative to the working folder.
    /// Default `models/SmolLM2-135M-Instruct.Q4_1.gguf`.
    pub model: String,
    /// Longest prompt plus response, in tokens; a prompt that leaves no room is set aside with its reason. Default 1024,
    /// or the model's own limit if that is smaller.
    pub max_length: usize,
    /// The model that the first round of `rlaif iterate` started from, in later rounds; they set it themselves. Local judges whose
    /// model is `policy` are this one then, and the evaluation compares with it too. It must have the policy's tokens. Default none.
    pub origin: Option<String>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { model: "models/SmolLM2-135M-Instruct.Q4_1.gguf".into(), max_length: 1024, origin: None }
    }
}
