//! Adapters by themselves, in PEFT's layout (`adapter_config.json`, `adapter_model.safetensors`): what training changed, beside the
//! model that it was merged into.

use std::path::Path;

use rlaif_core::config::LoraConfig;
use serde_json::{Value, json};

use crate::decoder::{Decoder, Layer, transposed};
use crate::error::{ModelError, Result};
use crate::heads::{SCORE, ScalarHead};
use crate::params::host_values;
use crate::safetensors_io::{SafetensorsWeights, SaveDtype, read_json, save_safetensors, write_atomically};
use crate::weights::WeightSource;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT wraps a model in.
const PREFIX: &str = "base_model.model.";

/// The adapters of a decoder, in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    config: LoraConfig,
    /// Projections that have one, by names that mean no other.
    target_modules: Vec<String>,
    /// Whether the adapted weights are `[in, out]` in the file (GPT-2).
    fan_in_fan_out: bool,
    /// PEFT's names, shapes `[rank, in]` and `[out, rank]`, values row-major.
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Decoder {
    /// The adapters as they are now; `None` where there are none.
    pub fn adapter(&self) -> Option<Adapter> {
        let config = self.lora.clone()?;
        let architecture = self.config.architecture;
        let mut layers = self.layers.clone();
        let mut tensors = Vec::new();
        for (number, layer) in layers.iter_mut().enumerate() {
            for linear in layer.projections_mut() {
                let Some(lora) = &linear.lora else { continue };
                let name = format!("{PREFIX}{}.{number}.{}", architecture.names.layers, linear.name);
                for (matrix, tensor) in [("lora_A", &lora.a), ("lora_B", &lora.b)] {
                    let [rows, columns] = tensor.dims();
                    let values = transposed(&host_values(tensor.clone()), rows, columns);
                    tensors.push((format!("{name}.{matrix}.weight"), vec![columns, rows], values));
                }
            }
        }
        let target_modules = layers.first_mut().map(target_modules).unwrap_or_default();
        Some(Adapter { config, target_modules, fan_in_fan_out: architecture.conv1d, tensors })
    }
}

/// The adapted projections' short names; longer ones where a short one also names a projection without an adapter.
fn target_modules(layer: &mut Layer) -> Vec<String> {
    let all: Vec<(&str, bool)> =
        layer.projections_mut().map(|linear| (linear.name, linear.lora.is_some())).collect();
    let short = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
    let mut targets: Vec<String> = Vec::new();
    for (name, _) in all.iter().filter(|(_, adapted)| *adapted) {
        let shared = all.iter().any(|(other, adapted)| short(other) == short(name) && !adapted);
        let target = if shared { name } else { short(name) };
        if !targets.iter().any(|known| known == target) {
            targets.push(target.to_string());
        }
    }
    targets
}

impl Adapter {
    /// Writes the adapter into a folder; `base_model` is where PEFT finds the model that it belongs to. The head of a reward model
    /// goes with it, as a module that PEFT saves whole.
    ///
    /// # Errors
    /// If the folder cannot be written, or a number is not finite.
    pub fn save(&self, head: Option<&ScalarHead>, base_model: &str, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(ModelError::write(folder))?;
        let mut tensors: Vec<(String, Vec<usize>)> =
            self.tensors.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
        let score = format!("{PREFIX}{SCORE}");
        let score_values = head.map(ScalarHead::values);
        tensors.extend(score_values.iter().map(|values| (score.clone(), vec![1, values.len()])));
        write_json(&folder.join(CONFIG), &self.peft_config(head.is_some(), base_model))?;
        save_safetensors(&folder.join(WEIGHTS), &tensors, SaveDtype::F32, |name| {
            let found = self.tensors.iter().find(|(known, _, _)| known == name).map(|(_, _, values)| values);
            let values = found.or(score_values.as_ref().filter(|_| name == score));
            values.cloned().ok_or_else(|| ModelError::MissingTensor { name: name.to_string() })
        })
    }

    fn peft_config(&self, reward_model: bool, base_model: &str) -> Value {
        json!({
            "peft_type": "LORA",
            "task_type": if reward_model { "SEQ_CLS" } else { "CAUSAL_LM" },
            "base_model_name_or_path": base_model,
            "revision": null,
            "inference_mode": true,
            "r": self.config.rank,
            "lora_alpha": self.config.alpha,
            "lora_dropout": self.config.dropout,
            "use_rslora": self.config.use_rslora,
            "target_modules": self.target_modules,
            "modules_to_save": if reward_model { json!(["classifier", "score"]) } else { Value::Null },
            "fan_in_fan_out": self.fan_in_fan_out,
            "bias": "none",
            "init_lora_weights": true,
        })
    }
}

/// Writes an adapter's folder again, for another base model (`owner/name@revision`, `owner/name` or a folder) or in another dtype.
///
/// # Errors
/// If `from` is no folder that [`Adapter::save`] wrote, or `to` cannot be written.
pub fn export_adapter(from: &Path, to: &Path, base_model: &str, dtype: SaveDtype) -> Result<()> {
    let mut config = read_json(&from.join(CONFIG))?;
    let weights = SafetensorsWeights::open_files(vec![from.join(WEIGHTS)])?;
    let (base_model, revision) = match base_model.split_once('@') {
        Some((name, revision)) => (name, json!(revision)),
        None => (base_model, Value::Null),
    };
    config["base_model_name_or_path"] = json!(base_model);
    config["revision"] = revision;
    let shape_of = |name: String| weights.shape(&name).map(|shape| (name, shape));
    let tensors: Vec<(String, Vec<usize>)> = weights.names().into_iter().filter_map(shape_of).collect();
    std::fs::create_dir_all(to).map_err(ModelError::write(to))?;
    write_json(&to.join(CONFIG), &config)?;
    save_safetensors(&to.join(WEIGHTS), &tensors, dtype, |name| weights.load_f32(name))
}

/// The model that an adapter belongs to, as its folder has it.
///
/// # Errors
/// If the folder's config cannot be read.
pub fn adapter_base(folder: &Path) -> Result<String> {
    let config = read_json(&folder.join(CONFIG))?;
    let base = config["base_model_name_or_path"].as_str();
    base.map(String::from).ok_or_else(|| ModelError::config("base_model_name_or_path", "is missing"))
}

/// Whether a folder holds an adapter.
pub fn is_adapter(folder: &Path) -> bool {
    folder.join(CONFIG).is_file() && folder.join(WEIGHTS).is_file()
}

fn write_json(path: &Path, json: &Value) -> Result<()> {
    let text = format!("{json:#}\n");
    write_atomically(path, |file| file.write_all(text.as_bytes()).map_err(ModelError::write(path)))
}
