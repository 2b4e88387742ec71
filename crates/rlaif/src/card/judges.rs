//! Who judged, and how: from the recipe of the stage that asked them.

use super::facts::{Facts, plain};
use super::markdown::{Card, code, text};
use rlaif_core::config::Stage;
use serde_json::Value;

/// What of a judge a reader wants to know, in the config's words.
const KEYS: [&str; 14] = [
    "kind",
    "protocol",
    "model",
    "votes",
    "weight",
    "principle",
    "opposite",
    "temperature",
    "sampling_temperature",
    "logprobs",
    "reasoning_effort",
    "verdict_codes",
    "structured_output",
    "only_if_unsure_below",
];

/// Tells the judges of `label` or `evaluate`, with templates and criteria.
pub fn tell(card: &mut Card, facts: &Facts, stage: Stage) {
    let Some(record) = facts.stage(stage) else { return };
    let recipe = &record.recipe;
    let judges = recipe[format!("{}.judges", stage.name()).as_str()].as_array();
    for judge in judges.into_iter().flatten() {
        let name = judge["name"].as_str().unwrap_or_default();
        let settings: Vec<String> = KEYS
            .iter()
            .filter_map(|key| {
                Some(format!("{key} {}", plain(judge.get(*key).filter(|value| !value.is_null())?)))
            })
            .collect();
        card.item(&format!("Judge {}: {}", code(name), settings.join(", ")));
        if let Some(hash) = facts.input(stage, &format!("model of judge `{name}`")) {
            card.item(&format!("The files of the model of judge {}: BLAKE3 {}", code(name), code(hash)));
        }
    }
    for (input, hash) in recipe["inputs"].as_object().into_iter().flatten() {
        if let Some(template) = input.strip_prefix("template `").and_then(|rest| rest.strip_suffix('`')) {
            let hash = hash.as_str().unwrap_or_default();
            card.item(&format!("Template {}, fingerprint {}", code(template), code(hash)));
        }
    }
    let section = match stage {
        Stage::Label => &recipe["label"],
        _ => &recipe["label.asking"],
    };
    let criteria: Vec<String> = section["criteria"].as_array().into_iter().flatten().map(criterion).collect();
    if !criteria.is_empty() {
        card.item(&format!("Criteria, where a template names them: {}", criteria.join("; ")));
    }
    let principles: Vec<String> =
        section["principles"].as_array().into_iter().flatten().filter_map(Value::as_str).map(text).collect();
    if !principles.is_empty() {
        card.item(&format!("Principles, one drawn for each call: {}", principles.join("; ")));
    }
}

/// A name, or a name and what it means.
fn criterion(of: &Value) -> String {
    let name = of.as_str().or_else(|| of["name"].as_str()).unwrap_or_default();
    match of["description"].as_str() {
        Some(description) => format!("{} ({})", text(name), text(description)),
        None => text(name),
    }
}
