//! Preferences of people from elsewhere (`route.human_data`): `reward` and `dpo` learn from them, and judges can be measured on them
//! before their own labels are used.

use crate::context::Context;
use crate::data_files::{missing_of, named, refuse_bad_of};
use crate::error::UserError;
use crate::judging::{self, Assignment};
use crate::probe;
use crate::progress::say;
use anyhow::{Context as _, Result};
use rlaif_core::config::{JudgeConfig, LabelConfig};
use rlaif_core::people::{HUMAN, PairKey};
use rlaif_core::records::Fate;
use rlaif_core::routing::{Look, look, words_of};
use rlaif_core::seed;
use rlaif_store::jsonl::{PreferenceData, ProbePair, Rows, read_preference_data};
use std::collections::HashSet;

/// Name of the sample's pairs, and of the "policy" that its responses come from.
pub const IMPORTED: &str = "imported";

/// The key of the files.
const KEY: &str = "route.human_data";

/// Prompts that are named; of more, their number is told.
const MOST_NAMED: usize = 5;

/// The rows of the files, as labels of people that weigh `review.weight` times what the row says.
///
/// # Errors
/// If a file cannot be read, a row is no preference, or its prompt is one of the evaluation's.
pub fn read(context: &Context) -> Result<Vec<PreferenceData>> {
    let mut rows = Vec::new();
    // Spacing, punctuation and case make no other prompt.
    let held_out: HashSet<Vec<String>> =
        context.prompts.eval.iter().map(|prompt| words_of(&prompt.prompt.display())).collect();
    let mut leaked = Vec::new();
    for file in &context.config.route.human_data {
        let path = context.resolve(file);
        if !path.is_file() {
            return Err(missing_of(&path, KEY).into());
        }
        let Rows { good, bad } =
            read_preference_data(&path).with_context(|| format!("reading the rows of `{KEY}`"))?;
        refuse_bad_of(&path, KEY, &bad, r#"{"prompt", "chosen", "rejected"}"#, "docs/routing.md")?;
        for mut data in good {
            if held_out.contains(&words_of(&data.row.prompt.display())) {
                leaked.push(format!("{}:{}", path.display(), data.line));
            }
            data.weight *= context.config.review.weight;
            (data.source, data.row.judges) = (HUMAN.into(), vec![HUMAN.into()]);
            rows.push(data);
        }
    }
    refuse_leaked(&leaked)?;
    Ok(rows)
}

/// What is trained on says nothing when it is held out.
fn refuse_leaked(leaked: &[String]) -> Result<(), UserError> {
    if leaked.is_empty() {
        return Ok(());
    }
    let named = named(leaked.iter().cloned(), MOST_NAMED);
    let message =
        format!("{} rows of `{KEY}` are about prompts that the evaluation holds out:{named}", leaked.len());
    Err(UserError::new(message)
        .hint("Delete these rows, or hold other prompts out; nothing has been computed or paid for"))
}

/// BLAKE3 of each file, by name.
///
/// # Errors
/// If one cannot be read.
pub fn fingerprints(context: &Context) -> Result<Vec<(String, String)>> {
    let hash = |file: &std::path::PathBuf| {
        let path = context.resolve(file);
        let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => missing_of(&path, KEY).into(),
            _ => anyhow::Error::from(error).context(format!("reading `{}`", path.display())),
        })?;
        Ok((format!("human data `{}`", file.display()), blake3::hash(&bytes).to_hex()[..32].to_string()))
    };
    context.config.route.human_data.iter().map(hash).collect()
}

/// `route.bootstrap` pairs of the files on which people decide, drawn at random, as pairs in the ledger with the better response as a.
///
/// # Errors
/// If the files cannot be read, or the store not be written.
pub fn sample<'a>(
    context: &Context,
    judges: &'a [JudgeConfig],
    label: &'a LabelConfig,
) -> Result<Assignment<'a>> {
    let mut rows = read(context)?;
    rows.retain(|data| data.row.p != 0.5);
    rows.sort_by_cached_key(|data| {
        let key = PairKey::of(&data.row.prompt, &data.row.chosen, &data.row.rejected);
        (seed::derive(context.config.run.seed, "route/bootstrap", key.number()), key.hash)
    });
    rows.truncate(context.config.route.bootstrap);
    let pairs = rows.into_iter().map(|PreferenceData { row, .. }| ProbePair {
        prompt: row.prompt,
        better: row.chosen,
        worse: row.rejected,
    });
    probe::labelled_pairs(context, pairs, IMPORTED, judges, label)
}

/// How far judges agree with people on a sample of `route.human_data`; `None` without one.
///
/// # Errors
/// If the files cannot be read, or a judge cannot go on.
pub fn measure(context: &mut Context) -> Result<Option<Look>> {
    if !context.config.route.measures() {
        return Ok(None);
    }
    let label = judging::calibration_label(&context.config.label);
    let judges = probe::without_cascade(&context.config.label.judges);
    let work = sample(context, &judges, &label)?;
    let preferences = judging::judge(context, &work)?.preferences;
    let decided = preferences.iter().filter(|preference| preference.fate == Fate::Kept);
    let agrees: Vec<(&str, bool)> =
        decided.filter_map(|preference| Some((preference.prompt_id.as_str(), preference.p? > 0.5))).collect();
    let bound = context.config.route.min_agreement;
    let Some(look) = look(&agrees, bound.unwrap_or(0.0), context.config.run.seed) else { return Ok(None) };
    let agreement = look.agreement.scaled(100.0);
    say(&format!(
        "label: judges agree with people on {:.0} % of {} pairs of `{KEY}` that they decide, of {} (95 % {:.0} to {:.0})",
        agreement.estimate,
        look.n,
        preferences.len(),
        agreement.low,
        agreement.high
    ));
    if look.below {
        say(&format!(
            "warning: label: that is below `route.min_agreement` = {}: no label of judges alone is trained on",
            bound.unwrap_or_default()
        ));
    }
    Ok(Some(look))
}
