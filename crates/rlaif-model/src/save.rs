//! Writing a model in the Hugging Face layout: it loads here and in transformers.
//!
//! [`save_causal_lm`] and [`save_reward_model`] write a decoder in memory, [`export_safetensors`] the files of one in another dtype.

use std::path::Path;

use serde_json::{Value, json};

use crate::decoder::{Decoder, transposed};
use crate::error::{ModelError, Result};
use crate::heads::{HEADS_FILE, SCORE, SCORES, ScalarHead};
use crate::params::{Slot, host_values};
use crate::safetensors_io::{SaveDtype, save_safetensors, save_sharded, write_atomically};
use crate::source::ModelFiles;
use crate::tokenizer::Tokenizer;

/// Writes a causal language model: `config.json`, `model.safetensors` and the tokenizer's files. Adapters are merged into what is
/// written; the decoder itself keeps them.
///
/// # Errors
/// If the folder cannot be written, or a weight is not finite or does not fit the dtype.
pub fn save_causal_lm(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    folder: &Path,
    dtype: SaveDtype,
) -> Result<()> {
    save(decoder, None, tokenizer, folder, dtype)
}

/// Writes a reward model as transformers' classifier of the family (`LlamaForSequenceClassification`) with one label: no output
/// head, `score.weight` instead. Of an ensemble that is the mean head, and the heads are beside it in `heads.safetensors`.
///
/// # Errors
/// As [`save_causal_lm`].
pub fn save_reward_model(
    decoder: &Decoder,
    head: &ScalarHead,
    tokenizer: &Tokenizer,
    folder: &Path,
    dtype: SaveDtype,
) -> Result<()> {
    save(decoder, Some(head), tokenizer, folder, dtype)
}

fn save(
    decoder: &Decoder,
    head: Option<&ScalarHead>,
    tokenizer: &Tokenizer,
    folder: &Path,
    dtype: SaveDtype,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(ModelError::write(folder))?;
    let mut merged = decoder.clone();
    merged.merge_lora();

    let mut config = merged.config().to_hf_json();
    let mut tensors = merged.config().tensor_shapes();
    let mut tokenizer = std::borrow::Cow::Borrowed(tokenizer);
    if head.is_some() {
        tokenizer = std::borrow::Cow::Owned(tokenizer.with_pad_apart_from_eos());
        config["pad_token_id"] = json!(tokenizer.pad());
        let output_head = format!("{}.weight", merged.config().architecture.names.head);
        tensors.retain(|(name, _)| *name != output_head);
        tensors.push((SCORE.to_string(), vec![1, merged.config().hidden_size]));
        config["architectures"] = json!([merged.config().architecture.classifier]);
        config["num_labels"] = json!(1);
        config["id2label"] = json!({"0": "LABEL_0"}); // transformers counts labels by this
        config["label2id"] = json!({"LABEL_0": 0});
        config["problem_type"] = json!("regression");
    }

    // The weights last: a folder with weights is a whole model.
    tokenizer.save(folder)?;
    write_config(folder, config, dtype)?;
    if let Some(head) = head {
        save_heads(head, folder, dtype)?;
    }
    let mean = head.map(ScalarHead::mean_head);
    let stored = merged.stored_tensors();
    save_safetensors(&folder.join("model.safetensors"), &tensors, dtype, |name| match (name, &mean) {
        (SCORE, Some(head)) => Ok(head.values()),
        _ => {
            let found = stored.iter().find(|(n, _, _)| n == name);
            let (_, slot, tensor) =
                found.ok_or_else(|| ModelError::MissingTensor { name: name.to_string() })?;
            Ok(file_values(*slot, tensor.clone()))
        }
    })
}

/// Writes the files of a model again in another dtype, a reward model with its head: tensor by tensor, so that little memory is taken.
/// Above `max_shard_bytes` the weights are cut into shards.
///
/// # Errors
/// If a file cannot be read or written, or a value does not fit the dtype.
pub fn export_safetensors(
    files: &ModelFiles,
    folder: &Path,
    dtype: SaveDtype,
    max_shard_bytes: usize,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(ModelError::write(folder))?;
    files.tokenizer.save(folder)?;
    let config = files.config_json.clone().unwrap_or_else(|| files.config.to_hf_json());
    write_config(folder, config, dtype)?;
    let mut tensors = files.config.tensor_shapes();
    if let Some(shape) = files.weights.shape(SCORE) {
        tensors.push((SCORE.to_string(), shape));
    }
    save_sharded(folder, &tensors, dtype, max_shard_bytes, |name| files.weights.load_f32(name))
}

fn write_config(folder: &Path, mut config: Value, dtype: SaveDtype) -> Result<()> {
    config["dtype"] = Value::from(dtype.torch_name()); // transformers 5
    config["torch_dtype"] = Value::from(dtype.torch_name()); // transformers 4
    let path = folder.join("config.json");
    let text = format!("{config:#}\n");
    write_atomically(&path, |file| file.write_all(text.as_bytes()).map_err(ModelError::write(&path)))
}

/// Writes an ensemble's heads; of a single one, takes away what an ensemble left there.
fn save_heads(head: &ScalarHead, folder: &Path, dtype: SaveDtype) -> Result<()> {
    let path = folder.join(HEADS_FILE);
    let heads = head.each();
    if let [_] = heads.as_slice() {
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ModelError::write(&path)(error))
            }
            _ => Ok(()),
        };
    }
    let shape = vec![heads.len(), heads[0].len()];
    save_safetensors(&path, &[(SCORES.to_string(), shape)], dtype, |_| Ok(heads.concat()))
}

impl Decoder {
    fn stored_tensors(&self) -> Vec<(String, Slot, burn::tensor::Tensor<2>)> {
        let mut found = Vec::new();
        self.clone().walk(&mut |name, slot, tensor| found.push((name.to_string(), slot, tensor.clone())));
        found
    }
}

/// A tensor in the layout of the file: linear weights are `[out, in]` there.
fn file_values(slot: Slot, tensor: burn::tensor::Tensor<2>) -> Vec<f32> {
    let [rows, columns] = tensor.dims();
    let values = host_values(tensor);
    match slot {
        Slot::Linear => transposed(&values, rows, columns),
        Slot::Embedding | Slot::Vector | Slot::Conv1d | Slot::Lora => values,
    }
}
