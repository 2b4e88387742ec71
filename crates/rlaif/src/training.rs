//! What the training stages share: preferences as token ids, and what a trainer says while it runs.

use crate::context::Context;
use crate::error::{Interrupted, UserError};
use crate::preference_data::Examples;
use crate::progress::{Progress, say};
use crate::report::data::Estimate;
use crate::run_folder::write_whole;
use crate::tensorboard::EventFile;
use crate::{interrupt, people, preference_data};
use anyhow::{Context as _, Result};
use rlaif_core::config::{Dtype, LoraConfig, OptimConfig, Stage};
use rlaif_core::metrics::MetricRow;
use rlaif_core::records::Prompt;
use rlaif_model::{Adapter, SaveDtype, ScalarHead};
use rlaif_train::{Hooks, Outcome, PreferenceExample};
use std::collections::{BTreeSet, HashMap};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What a stage trains on, in token ids: what people said elsewhere, the run's own preferences in the order of the store, then revised
/// over original answers, then the rows of its files.
///
/// # Errors
/// If the store or a file cannot be read, or nothing is left to train on.
pub fn examples(context: &Context, stage: Stage) -> Result<Examples> {
    let mut all = Examples::default();
    if preference_data::reads_labels(&context.config, stage) {
        all.pairs = labelled_examples(context)?;
    }
    let name = stage.name();
    let left_out = |count: usize, of: &str| {
        if count > 0 {
            say(&format!(
                "{name}: {count} rows of {of} are left out: a side is longer than `policy.max_length` or the model's context"
            ));
        }
    };
    if preference_data::reads_revisions(&context.config, stage) {
        let revised = preference_data::revised(context)?;
        left_out(revised.too_long, "revised and original answers");
        say(&format!("{name}: {} pairs are revised over original answers", revised.pairs.len()));
        all.pairs.extend(revised.pairs);
    }
    let of_people = preference_data::of_people(context)?;
    left_out(of_people.too_long, "`route.human_data`");
    let of_files = preference_data::read(context, stage)?;
    left_out(of_files.too_long, &format!("`{name}.data`"));
    // A prompt that the run has too must be held out with the run's pairs of it.
    let known: HashMap<Vec<u32>, String> =
        all.pairs.iter().map(|e| (e.prompt_ids.clone(), e.prompt_id.clone())).collect();
    let id = |prompt_ids: &Vec<u32>, id: String| known.get(prompt_ids).cloned().unwrap_or(id);
    let known_pair = |mut pair: PreferenceExample| {
        pair.prompt_id = id(&pair.prompt_ids, pair.prompt_id);
        pair
    };
    if !of_people.pairs.is_empty() {
        say(&format!("{name}: {} pairs were labelled by people elsewhere", of_people.pairs.len()));
    }
    let own = std::mem::take(&mut all.pairs);
    all.pairs = of_people.pairs.into_iter().map(known_pair).chain(own).collect();
    all.pairs.extend(of_files.pairs.into_iter().map(known_pair));
    all.responses.extend(of_files.responses.into_iter().map(|mut response| {
        response.prompt_id = id(&response.prompt_ids, response.prompt_id);
        response
    }));
    if all.pairs.is_empty() && all.responses.is_empty() {
        let hint = match waiting(context) {
            0 => "Look at what became of the pairs in `report.html`; a lower `label.tie_margin`, more pairs or another judge may help".into(),
            pairs => format!("{pairs} pairs wait for people: `rlaif review {}`", context.arguments),
        };
        return Err(UserError::new("no preference is left to train on").hint(hint).into());
    }
    Ok(all)
}

/// How many pairs are not trained on before people have labelled them.
fn waiting(context: &Context) -> u64 {
    let label = context.manifest.stage(Stage::Label);
    label.and_then(|record| record.numbers.pointer("/routing/not_trained_on")?.as_u64()).unwrap_or(0)
}

/// The run's own preferences, in the order of the store.
fn labelled_examples(context: &Context) -> Result<Vec<PreferenceExample>> {
    let prompts: HashMap<&str, &Prompt> = context.prompts.train.iter().map(|p| (p.id.as_str(), p)).collect();
    let mut examples = Vec::new();
    for pair in context.wait(people::preferred_pairs(&context.store, &context.config))? {
        let prompt =
            prompts.get(pair.row.prompt_id.as_str()).context("a preference is about a prompt of the run")?;
        examples.push(PreferenceExample {
            prompt_id: prompt.id.clone(),
            prompt_ids: context.prompt_ids(prompt)?,
            chosen_ids: pair.chosen.token_ids,
            rejected_ids: pair.rejected.token_ids,
            p: pair.row.p,
            weight: people::weight(&context.config, &pair.row.judges),
            source: pair.row.judges.join("+"),
            ..PreferenceExample::default()
        });
    }
    Ok(examples)
}

/// Keeps a trained adapter beside the model that it was merged into (`models/STAGE/adapter/`), for `rlaif export --format peft`.
///
/// # Errors
/// If the folder cannot be written.
pub fn save_adapter(
    base: &str,
    adapter: Option<&Adapter>,
    head: Option<&ScalarHead>,
    model: &Path,
) -> Result<()> {
    let Some(adapter) = adapter else { return Ok(()) };
    let folder = adapter_of(model);
    adapter.save(head, base, &folder).with_context(|| format!("saving the adapter in `{}`", folder.display()))
}

/// What a trained model is saved as, exactly: bfloat16 if it computed with such weights, unless adapters were merged into them.
pub fn saved_dtype(optim: &OptimConfig, lora: Option<&LoraConfig>) -> SaveDtype {
    match (optim.dtype, lora) {
        (Dtype::Bfloat16, None) => SaveDtype::Bf16,
        (Dtype::Bfloat16, Some(_)) | (Dtype::Float32, _) => SaveDtype::F32,
    }
}

/// Where the adapter of a model is kept.
pub fn adapter_of(model: &Path) -> PathBuf {
    model.join("adapter")
}

/// What a trainer made, or the message that it was interrupted.
///
/// # Errors
/// [`Interrupted`].
pub fn finished<T>(outcome: Outcome<T>, stage: &str) -> Result<T> {
    match outcome {
        Outcome::Finished(made) => Ok(made),
        Outcome::Interrupted { .. } => Err(Interrupted { stage: stage.into() }.into()),
    }
}

/// Writes metrics to `metrics/{stage}.jsonl` and to TensorBoard's `tensorboard/{stage}/`, moves the bar, and listens to Ctrl-C.
pub struct StageHooks {
    /// How the bar and what is said name it.
    name: String,
    unit: &'static str,
    path: PathBuf,
    events_folder: PathBuf,
    events: Option<EventFile>,
    resumed_at: u64,
    /// Rows that the file has for the step that training resumed after: (step, names).
    have: Option<BTreeSet<(u64, Vec<String>)>>,
    progress: Option<Progress>,
    failure: Option<std::io::Error>,
}

impl StageHooks {
    /// Hooks of one stage.
    pub fn new(context: &Context, stage: &str, unit: &'static str) -> Self {
        Self::of_part(context, stage.into(), stage, unit)
    }

    /// Hooks of a part of a stage that has files of its own, under `files`.
    pub fn of_part(context: &Context, name: String, files: &str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            path: context.folder.metrics(files),
            events_folder: context.folder.tensorboard(files),
            events: None,
            resumed_at: 0,
            have: None,
            progress: None,
            failure: None,
        }
    }

    /// Takes the bar away.
    ///
    /// # Errors
    /// If metrics could not be written.
    pub fn finish(self) -> Result<()> {
        if let Some(progress) = self.progress {
            progress.finish();
        }
        match self.failure {
            None => Ok(()),
            Some(error) => Err(error).with_context(|| format!("writing `{}`", self.path.display())),
        }
    }

    fn write(&mut self, row: &MetricRow) -> std::io::Result<()> {
        let have = match &mut self.have {
            Some(have) => have,
            // Rows after the checkpoint come again, so they go before the first one is written.
            None => {
                self.path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                self.have.insert(truncate(&self.path, self.resumed_at)?)
            }
        };
        if !have.insert((row.step, row.values.keys().cloned().collect())) {
            return Ok(());
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(format!("{}\n", row.to_json_line()).as_bytes())?;
        let events = match &mut self.events {
            Some(events) => events,
            None => self.events.insert(EventFile::create(&self.events_folder, self.resumed_at)?),
        };
        events.add(row)
    }
}

impl Hooks for StageHooks {
    fn metrics(&mut self, row: &MetricRow) {
        if let Err(error) = self.write(row) {
            self.failure.get_or_insert(error);
        }
    }

    fn progress(&mut self, done: u64, total: u64, note: &str) {
        let progress = match &mut self.progress {
            Some(progress) => progress,
            None => self.progress.insert(Progress::new(&self.name, self.unit, done, total)),
        };
        progress.set(done, total, note);
    }

    fn should_stop(&self) -> bool {
        // A metrics file that cannot be written is a full disk: stop at the checkpoint rather than train into the dark.
        interrupt::requested() || self.failure.is_some()
    }

    fn resumed(&mut self, step: u64) {
        self.resumed_at = step;
        say(&format!("{}: goes on after step {step}", self.name));
    }

    fn warning(&mut self, message: &str) {
        say(&format!("warning: {}: {message}", self.name));
    }
}

/// Drops the rows after `step`, and whatever a kill left half written. Lines are kept as they are: JSON numbers do not survive
/// reading and writing to the last digit.
fn truncate(path: &Path, step: u64) -> std::io::Result<BTreeSet<(u64, Vec<String>)>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let row = |line: &str| serde_json::from_str::<MetricRow>(line).ok().filter(|row| row.step <= step);
    let (lines, rows): (Vec<&str>, Vec<MetricRow>) =
        text.lines().filter_map(|line| Some((line, row(line)?))).unzip();
    // Whole or not at all: a kill in the middle must not take the rows before the checkpoint along.
    let kept: String = lines.iter().map(|line| format!("{line}\n")).collect();
    write_whole(path, kept.as_bytes()).map_err(std::io::Error::other)?;
    Ok(rows.into_iter().map(|row| (row.step, row.values.into_keys().collect())).collect())
}

/// "ranks 83 % of 40 held-out pairs as labelled (95 % 71 to 92)".
pub fn share_text(verb: &str, share: Option<&Estimate>) -> String {
    let Some(share) = share else { return "no pairs held out".into() };
    let n = share.n.unwrap_or_default();
    format!("{verb} {:.0} % of {n} held-out pairs as labelled{}", 100.0 * share.value, interval_text(share))
}

/// "52 % (95 % 41 to 63)".
pub fn percent_text(share: &Estimate) -> String {
    format!("{:.0} %{}", 100.0 * share.value, interval_text(share))
}

fn interval_text(share: &Estimate) -> String {
    match share.interval() {
        Some((low, high)) => format!(" (95 % {:.0} to {:.0})", 100.0 * low, 100.0 * high),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_metrics_file_has_each_row_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dpo.jsonl");
        let row = |step: u64, name: &str| MetricRow::new("dpo", step, 0.0).with(name, step as f64);
        let text = format!(
            "{}\n{}\n{}\n{{\"sta",
            row(1, "loss").to_json_line(),
            row(2, "loss").to_json_line(),
            row(3, "loss").to_json_line()
        );
        std::fs::write(&path, text).unwrap();
        let mut hooks = StageHooks {
            name: "dpo".into(),
            unit: "steps",
            path: path.clone(),
            events_folder: folder.path().join("tensorboard"),
            events: None,
            resumed_at: 0,
            have: None,
            progress: None,
            failure: None,
        };
        hooks.resumed(2);
        for again in [row(2, "loss"), row(2, "eval_loss"), row(3, "loss"), row(4, "loss")] {
            hooks.metrics(&again);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let steps: Vec<u64> =
            text.lines().map(|line| serde_json::from_str::<MetricRow>(line).unwrap().step).collect();
        assert_eq!(steps, [1, 2, 2, 3, 4]);
        hooks.finish().unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("tensorboard")).unwrap().count(), 1);
    }
}
