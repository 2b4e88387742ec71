//! What a run trains on, as one set.

use crate::context::Context;
use crate::people;
use crate::preference_data::{files, reads_revisions, rows_of};
use crate::revisions;
use anyhow::Result;
use rlaif_core::config::Stage;
use rlaif_core::preference_set::{LabelledPair, LabelledResponse};
use rlaif_core::records::PreferenceRow;
use rlaif_store::jsonl::TuningRow;
use rlaif_store::store::TRAIN_PAIRS;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// Preferences and single responses, wherever they come from.
#[derive(Debug, Default)]
pub struct TrainingSet {
    /// The run's own, people's over judges'; then those of `reward.data` and `dpo.data`, then revised over original answers.
    pub pairs: Vec<LabelledPair>,
    /// Single responses of `dpo.data`.
    pub responses: Vec<LabelledResponse>,
}

/// Reads what `reward` and `dpo` train on; a file that both name stands in it once.
///
/// # Errors
/// If the store or a file cannot be read, or any row of a file is not what it should be.
pub fn read(context: &Context) -> Result<TrainingSet> {
    let mut set = TrainingSet { pairs: own(context)?, responses: Vec::new() };
    let stages = [Stage::Reward, Stage::Dpo];
    let mut named: BTreeMap<PathBuf, Stage> = BTreeMap::new();
    for stage in stages {
        for file in files(&context.config, stage) {
            named.entry(context.resolve(file)).or_insert(stage);
        }
    }
    for (path, stage) in named {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        for row in rows_of(&path, stage)? {
            match row {
                TuningRow::Pair(data) => {
                    set.pairs.push(labelled(data.row, format!("{name}:{}", data.line), data.source));
                }
                TuningRow::Response(data) => set.responses.push(LabelledResponse {
                    id: format!("{name}:{}", data.line),
                    prompt: data.prompt.display(),
                    response: data.completion,
                }),
            }
        }
    }
    if stages.into_iter().any(|stage| reads_revisions(&context.config, stage)) {
        let rows = revisions::read(&context.folder.revisions())?;
        set.pairs.extend(rows.iter().filter_map(|revision| revision.pair()).map(|row| {
            let (id, source) = (format!("revised {}", row.prompt_id), row.judges.join("+"));
            labelled(row, id, source)
        }));
    }
    Ok(set)
}

/// The run's own preferences, with the prompts' tags and which response is called a.
fn own(context: &Context) -> Result<Vec<LabelledPair>> {
    let (pairs, preferred) = context.wait(async {
        let pairs = context.store.pairs(TRAIN_PAIRS).await?;
        anyhow::Ok((pairs, people::preferred_pairs(&context.store, &context.config).await?))
    })?;
    let first: HashMap<&str, &str> = pairs.iter().map(|pair| (pair.id.as_str(), pair.a.as_str())).collect();
    let tags: HashMap<&str, &Vec<String>> =
        context.prompts.train.iter().map(|prompt| (prompt.id.as_str(), &prompt.tags)).collect();
    let own = |pair: rlaif_store::store::PreferredPair| {
        let chosen_is_a = first.get(pair.row.pair_id.as_str()).map(|a| *a == pair.chosen.id);
        let tags = tags.get(pair.row.prompt_id.as_str()).map(|tags| (*tags).clone()).unwrap_or_default();
        let (id, source) = (pair.row.pair_id.clone(), pair.row.judges.join("+"));
        LabelledPair { chosen_is_a, tags, ..labelled(pair.row, id, source) }
    };
    Ok(preferred.into_iter().map(own).collect())
}

fn labelled(row: PreferenceRow, id: String, source: String) -> LabelledPair {
    LabelledPair {
        id,
        prompt: row.prompt.display(),
        prompt_id: row.prompt_id,
        chosen: row.chosen,
        rejected: row.rejected,
        p: row.p,
        source,
        tags: Vec::new(),
        chosen_is_a: None,
    }
}
