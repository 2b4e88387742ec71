//! `rlaif export CONFIG`: preferences and responses as JSONL, each with a card; trained models for others (see [`super::export_model`]).

use super::export_model;
use crate::card::{self, Exported, Facts, data_card};
use crate::cli::{ConfigArgs, ExportArgs, ExportWhat};
use crate::context::load_config;
use crate::error::{DONE, UserError};
use crate::people;
use crate::run_folder::RunFolder;
use anyhow::Result;
use rlaif_core::Config;
use rlaif_core::people::HumanChoice;
use rlaif_core::records::PreferenceRow;
use rlaif_store::Store;
use rlaif_store::jsonl::preference_lines;
use rlaif_store::store::{BASELINE, DPO, HumanVerdict, PPO, ReviewPair, TRAIN_PAIRS};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Reads a run, also while another process writes it, and changes nothing in it.
pub fn run(args: &ExportArgs) -> Result<u8> {
    let Some(path) = &args.config else {
        return export_model::run(args, None);
    };
    let config = load_config(&ConfigArgs { config: path.clone(), set: args.set.clone() })?.config;
    let folder = RunFolder::open_to_read(&config)?;
    let what = args.what.unwrap_or(match args.stage {
        Some(_) => ExportWhat::Model,
        None => ExportWhat::Preferences,
    });
    if what == ExportWhat::Model {
        return export_model::run(args, Some(&folder));
    }
    let lines = lines(&folder, &config, what)?;
    if lines.is_empty() {
        let (what, hint) = match what {
            ExportWhat::Preferences => {
                ("preferences", format!("Run `rlaif run {} --until label` first", path.display()))
            }
            ExportWhat::HumanVerdicts => {
                ("verdicts of people", format!("Run `rlaif review {}` first", path.display()))
            }
            ExportWhat::Responses | ExportWhat::Model => {
                ("responses", format!("Run `rlaif run {} --until label` first", path.display()))
            }
        };
        return Err(UserError::new(format!("the run in `{}` has no {what}", folder.root().display()))
            .hint(hint)
            .into());
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    super::write_out(args.output.as_deref(), &text)?;
    if let Some(place) = card_place(args) {
        let card = card(&folder, &config, args, what, &lines)?;
        super::write_out(Some(&place), &card)?;
    }
    Ok(DONE)
}

/// Beside a file, unless another place is named; a stream has none beside it.
fn card_place(args: &ExportArgs) -> Option<PathBuf> {
    let beside = || args.output.as_deref().filter(|output| output.is_file()).map(card::beside);
    args.card.clone().or_else(beside)
}

fn card(
    folder: &RunFolder,
    config: &Config,
    args: &ExportArgs,
    what: ExportWhat,
    lines: &[Value],
) -> Result<String> {
    let path = args.config.clone().unwrap_or_default();
    let typed = ConfigArgs { config: path.clone(), set: args.set.clone() }.as_typed();
    let exported = Exported {
        what,
        lines,
        file: args.output.as_deref(),
        config_as_typed: &typed,
        base: path.parent().unwrap_or(Path::new("")),
    };
    let facts = Facts::read(folder, &config.run.name)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open_read_only(&folder.database()).await?;
        data_card(&facts, &store, config, &exported).await
    })
}

fn lines(folder: &RunFolder, config: &Config, what: ExportWhat) -> Result<Vec<Value>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open_read_only(&folder.database()).await?;
        if what == ExportWhat::Preferences {
            let pairs = people::preferred_pairs(&store, config).await?;
            let rows: Vec<PreferenceRow> = pairs.into_iter().map(|pair| pair.row).collect();
            return Ok(weighted(&rows, config));
        }
        if what == ExportWhat::HumanVerdicts {
            return human_verdicts(&store).await;
        }
        let mut lines = Vec::new();
        for policy in [BASELINE, PPO, DPO] {
            for response in store.responses(policy, None).await? {
                let mut line = json!({ "policy": policy });
                if let (Some(line), Value::Object(fields)) =
                    (line.as_object_mut(), serde_json::to_value(&response)?)
                {
                    line.extend(fields);
                }
                lines.push(line);
            }
        }
        Ok(lines)
    })
}

/// Preferences as lines. Where people made any, every row has a `weight`: all rows need the same fields.
fn weighted(rows: &[PreferenceRow], config: &Config) -> Vec<Value> {
    let any = rows.iter().any(|row| people::weight(config, &row.judges) != 1.0);
    let mut lines: Vec<Value> = preference_lines(rows).collect();
    for (line, row) in lines.iter_mut().zip(rows).filter(|_| any) {
        line["weight"] = people::weight(config, &row.judges).into();
    }
    lines
}

/// One line a verdict, in the order in which they were given: which text stood on which side, and what was said of the sides.
async fn human_verdicts(store: &Store) -> Result<Vec<Value>> {
    let shown = store.reviewed_pairs().await?;
    let mut pair_ids: HashMap<String, Vec<String>> = HashMap::new();
    for ReviewPair { pair, key, .. } in store.review_pairs(TRAIN_PAIRS).await? {
        pair_ids.entry(key.hash).or_default().push(pair.id);
    }
    let line = |verdict: HumanVerdict| {
        let pair = shown.get(&verdict.pair_key)?;
        let side = |choice: HumanChoice| match choice {
            HumanChoice::First if verdict.first_left => "left",
            HumanChoice::Second if !verdict.first_left => "left",
            HumanChoice::First | HumanChoice::Second => "right",
            HumanChoice::Tie => "tie",
            HumanChoice::Skip => "skip",
        };
        let criteria: BTreeMap<&String, &str> =
            verdict.criteria.iter().map(|(name, choice)| (name, side(*choice))).collect();
        let (left, right) = match verdict.first_left {
            true => (&pair.first, &pair.second),
            false => (&pair.second, &pair.first),
        };
        Some(json!({
            "id": verdict.id, "reviewer": verdict.reviewer, "queue": verdict.queue, "prompt": pair.prompt, "left": left,
            "right": right, "choice": side(verdict.choice), "criteria": criteria, "note": verdict.note,
            "shown_ms": verdict.shown_ms, "judged_ms": verdict.judged_ms, "undone_ms": verdict.undone_ms,
            "pair_key": verdict.pair_key, "pair_ids": pair_ids.get(&verdict.pair_key).cloned().unwrap_or_default(),
        }))
    };
    Ok(store.human_verdicts().await?.into_iter().filter_map(line).collect())
}
