//! The card of an exported model.

use super::facts::{Facts, estimate, plain};
use super::judges;
use super::markdown::{Card, code, text, yaml};
use crate::run_folder::RunFolder;
use anyhow::{Context as _, Result};
use rlaif_core::config::Stage;
use serde_json::Value;

/// What of a stage's settings a reader wants to know.
const KEYS: [&str; 16] = [
    "algorithm",
    "loss",
    "beta",
    "steps",
    "epochs",
    "batch_size",
    "prompts_per_step",
    "samples_per_prompt",
    "kl_coef",
    "kl_budget",
    "label_smoothing",
    "heads",
    "members",
    "batch_by",
    "optim",
    "lora",
];

/// The card of what a stage of a run made; `form` is `safetensors`, `peft` or `gguf`, `command` writes it again.
///
/// # Errors
/// If a file of the run is there and cannot be understood.
pub fn model_card(
    folder: &RunFolder,
    run: &str,
    stage: Stage,
    form: &str,
    config: &str,
    command: &str,
) -> Result<String> {
    let facts = Facts::read(folder, run)?;
    let mut card = Card(front_matter(&facts, stage, form));
    card.0 += &format!("\n# {} of the run {}\n\n", stage_title(stage), text(run));
    card.say(&format!(
        "{} Written by rlaif {} as {}.",
        what_it_is(stage),
        text(&facts.manifest.version),
        code(form)
    ));
    facts.warn_unfinished(&mut card, stage);
    card.section("What it was made from");
    card.item(&format!("Base model: {}", facts.policy()));
    method(&mut card, &facts, stage);
    data(&mut card, &facts, stage);
    evaluation(&mut card, folder, &facts, stage)?;
    facts.audited(&mut card, config, &["judges", "preferences", "bias", "repeat", "robustness"]);
    facts
        .made_with(&mut card, &[format!("rlaif run {config} --until {}", stage.name()), command.to_string()]);
    limits(&mut card, stage);
    Ok(card.finished())
}

fn front_matter(facts: &Facts, stage: Stage, form: &str) -> String {
    let mut front = String::from("---\nlicense: unknown\n");
    let base = facts.manifest.policy.strip_prefix("hf:").map(|name| name.split('@').next().unwrap_or(name));
    if let Some(base) = base {
        let relation = if form == "peft" { "adapter" } else { "finetune" };
        front += &format!("base_model: {}\nbase_model_relation: {relation}\n", yaml(base));
    }
    match form {
        "peft" => front += "library_name: peft\n",
        "safetensors" => front += "library_name: transformers\n",
        _ => {}
    }
    if stage != Stage::Reward {
        front += "pipeline_tag: text-generation\n";
    }
    front
        + &format!(
            "tags:\n- rlaif\n- {}\n---\n",
            if stage == Stage::Reward { "reward-model" } else { stage.name() }
        )
}

fn stage_title(stage: Stage) -> &'static str {
    match stage {
        Stage::Reward => "Reward model",
        Stage::Sft => "Fine-tuned policy",
        _ => "Tuned policy",
    }
}

fn what_it_is(stage: Stage) -> &'static str {
    match stage {
        Stage::Reward => {
            "A model that gives a response to a prompt one number: the higher, the better by the preferences it learnt from."
        }
        Stage::Sft => "A language model, fine-tuned on demonstrations.",
        Stage::Dpo => "A language model, tuned directly on preferences.",
        _ => "A language model, tuned on its own samples by a reward.",
    }
}

fn method(card: &mut Card, facts: &Facts, stage: Stage) {
    card.section("How it was trained");
    let Some(record) = facts.stage(stage) else {
        card.item("The run's manifest does not say.");
        return;
    };
    card.item(&format!("Stage `{}`: {}", stage.name(), text(&record.summary)));
    for key in KEYS {
        if let Some(value) = facts.setting(stage, stage.name(), key) {
            card.item(&format!("`{}.{key}`: {}", stage.name(), plain(value)));
        }
    }
}

fn data(card: &mut Card, facts: &Facts, stage: Stage) {
    card.section("Data");
    let inputs = facts.stage(stage).and_then(|record| record.recipe["inputs"].as_object());
    for (name, hash) in inputs.into_iter().flatten() {
        card.item(&format!("{}: fingerprint {}", text(name), code(hash.as_str().unwrap_or_default())));
    }
    let counts = &facts.manifest.prompts;
    card.item(&format!("{} prompts to train on, {} held out for evaluation", counts.train, counts.eval));
    if let Some(labels) = facts.stage(Stage::Label).filter(|_| stage != Stage::Sft) {
        card.item(&format!("Labels: {}", text(&labels.summary)));
        judges::tell(card, facts, Stage::Label);
    }
}

/// What `evaluation.json` says of it.
fn evaluation(card: &mut Card, folder: &RunFolder, facts: &Facts, stage: Stage) -> Result<()> {
    card.section("Evaluation");
    if stage == Stage::Reward {
        let numbers = facts.stage(stage).map_or(&Value::Null, |record| &record.numbers);
        let mut any = false;
        for (name, value) in numbers.as_object().into_iter().flatten() {
            if let Some(told) = estimate(value) {
                any = true;
                card.item(&format!("On held-out pairs, {}: {told}", code(name)));
            }
        }
        if !any {
            card.say("No pairs were held out, so nothing is known of how well it generalises.");
        }
        return Ok(());
    }
    let path = folder.evaluation();
    let evaluation: Value = match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).with_context(|| format!("reading `{}`", path.display()))?
        }
        Err(_) => Value::Null,
    };
    let mut policies = evaluation["policies"].as_array().into_iter().flatten();
    let Some(row) = policies.find(|row| row["policy"] == stage.name()) else {
        card.say("It was not evaluated in this run.");
        return Ok(());
    };
    card.say(&format!(
        "Against the baseline, on {} prompts that no stage trained on, {} samples each. Intervals resample prompts.",
        evaluation["prompts"], evaluation["samples_per_prompt"]
    ));
    for (name, value) in row.as_object().into_iter().flatten() {
        if let Some(told) = estimate(value) {
            card.item(&format!("{}: {told}", code(name)));
        }
    }
    card.0.push('\n');
    judges::tell(card, facts, Stage::Evaluate);
    if evaluation["judges_made_labels"] == true {
        card.0.push('\n');
        card.say("**The judges of the evaluation are those that made the labels: what pleases them may please nobody else.**");
    }
    Ok(())
}

fn limits(card: &mut Card, stage: Stage) {
    card.section("Intended use");
    card.say(match stage {
        Stage::Reward => "Scoring responses to prompts like those it was trained on: to tune policies, to choose among samples, to study what judges prefer.",
        _ => "Research on alignment from AI feedback. Whoever puts it before users evaluates it for that use first.",
    });
    card.section("Limits and risks");
    card.item(
        "It learnt what judges prefer, with their faults; people checked only as much as is told above.",
    );
    card.item("Beyond prompts like those of the training its numbers above say nothing.");
    if stage != Stage::Reward {
        card.item("It may say what is false, offensive or dangerous; nothing here was tuned or tested as a safeguard unless the data above says so.");
    }
    card.item("The terms of the base model and of the data hold for it; the program was not told them: `license` is therefore `unknown`.");
}
