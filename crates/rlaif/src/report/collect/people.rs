//! What people said, whose labels are trained on, and where judges and people chose differently.

use crate::agreement::{self, TOGETHER};
use crate::people as standing;
use crate::report::evidence::{Count, Disagreement, Disagreements, LabelSources, PersonSaid};
use crate::report::view::View;
use crate::review::agreement::{self as reviewed, Agreement};
use crate::review::queues::Queues;
use anyhow::Result;
use rlaif_core::people::HumanChoice;
use rlaif_core::records::{Fate, Preference};
use rlaif_store::store::{HumanVerdict, ReviewPair, TRAIN_PAIRS};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Pairs on the page, with all their texts.
const SHOWN: usize = 100;

/// All of it; what there is nothing of is `None` or empty.
#[derive(Default)]
pub struct People {
    /// Whose labels are trained on.
    pub labels: Option<LabelSources>,
    /// How far people agree, with each other and with judges.
    pub agreement: Option<Agreement>,
    /// Pairs on which judges and people chose differently.
    pub disagreements: Option<Disagreements>,
}

/// Reads it from the ledger.
///
/// # Errors
/// If the store cannot be read.
pub async fn people(run: &View<'_>) -> Result<People> {
    let store = run.store;
    let standing = standing::standing(store, run.config).await?;
    let verdicts: Vec<HumanVerdict> =
        store.human_verdicts().await?.into_iter().filter(|verdict| verdict.undone_ms.is_none()).collect();
    if standing.is_empty() && verdicts.is_empty() {
        return Ok(People::default());
    }
    let pairs = store.review_pairs(TRAIN_PAIRS).await?;
    let judged = store.preferences(TRAIN_PAIRS).await?;
    let labels = Some(sources(run, &standing, &judged, &pairs, &verdicts).await?);
    if verdicts.is_empty() {
        return Ok(People { labels, ..People::default() });
    }
    let audit = Queues::read(store, run.config).await?.audit_order();
    let agreement = reviewed::agreement(store, run.config, &audit).await?;
    let disagreements = Some(disagreements(run, &pairs, &judged, &verdicts).await?);
    Ok(People { labels, agreement: Some(agreement), disagreements })
}

async fn sources(
    run: &View<'_>,
    standing: &[Preference],
    judged: &[Preference],
    pairs: &[ReviewPair],
    verdicts: &[HumanVerdict],
) -> Result<LabelSources> {
    let mut trained: BTreeMap<String, u64> = BTreeMap::new();
    for preference in standing.iter().filter(|preference| preference.fate == Fate::Kept) {
        *trained.entry(preference.judges.join(" and ")).or_default() += 1;
    }
    let mut reviewers: BTreeMap<String, u64> = BTreeMap::new();
    for verdict in standing::labels(verdicts) {
        *reviewers.entry(verdict.reviewer.clone()).or_default() += 1;
    }
    let asked: BTreeSet<String> =
        run.store.verdicts(TRAIN_PAIRS).await?.into_iter().map(|verdict| verdict.pair_id).collect();
    let of_people: BTreeMap<&str, &Preference> = standing
        .iter()
        .filter(|preference| standing::is_of_people(preference))
        .map(|preference| (preference.pair_id.as_str(), preference))
        .collect();
    let mut routes = [("judges only", 0), ("people only", 0), ("judges and people", 0), ("nobody yet", 0)];
    for pair in pairs {
        let id = pair.pair.id.as_str();
        let route = match (asked.contains(id), of_people.contains_key(id)) {
            (true, false) => 0,
            (false, true) => 1,
            (true, true) => 2,
            (false, false) => 3,
        };
        routes[route].1 += 1;
    }
    let over: Vec<(f64, f64)> = judged
        .iter()
        .filter_map(|judged| Some((judged.p?, of_people.get(judged.pair_id.as_str())?.p?)))
        .collect();
    let counts = |counts: BTreeMap<String, u64>| -> Vec<Count> {
        let mut counts: Vec<Count> = counts.into_iter().map(|(name, count)| Count { name, count }).collect();
        counts.sort_by_key(|it| Reverse(it.count));
        counts
    };
    Ok(LabelSources {
        trained: counts(trained),
        reviewers: counts(reviewers),
        routes: routes.map(|(name, count)| Count { name: name.into(), count }).to_vec(),
        over_judges: over.len() as u64,
        turned: over.iter().filter(|(judges, people)| (judges - 0.5) * (people - 0.5) < 0.0).count() as u64,
        weight: run.config.review.weight,
    })
}

async fn disagreements(
    run: &View<'_>,
    pairs: &[ReviewPair],
    judged: &[Preference],
    verdicts: &[HumanVerdict],
) -> Result<Disagreements> {
    let opinions = agreement::opinions(run.store, &run.config.label, pairs).await?;
    let together = opinions.iter().find(|(name, _)| name == TOGETHER).map(|(_, p)| p);
    let explanations: HashMap<&str, &String> =
        judged.iter().filter_map(|it| Some((it.pair_id.as_str(), it.explanation.as_ref()?))).collect();
    let mut said: HashMap<&str, Vec<&HumanVerdict>> = HashMap::new();
    for verdict in verdicts {
        said.entry(&verdict.pair_key).or_default().push(verdict);
    }
    let mut found = Vec::new();
    let mut of = 0;
    for pair in pairs {
        let (Some(people), Some(p)) =
            (said.get(pair.key.hash.as_str()), together.and_then(|p| p.get(&pair.pair.id)))
        else {
            continue;
        };
        let votes = agreement::votes(pair, people.iter().map(|verdict| verdict.choice));
        let Some(majority) = votes.majority() else { continue };
        of += 1;
        let judges = agreement::choice_of(*p, run.config.label.tie_margin);
        if judges != majority {
            let is_tie = majority == HumanChoice::Tie || judges == HumanChoice::Tie;
            found.push((is_tie, *p, pair, votes, people));
        }
    }
    found.sort_by(|x, y| x.0.cmp(&y.0).then((y.1 - 0.5).abs().total_cmp(&(x.1 - 0.5).abs())));
    let total = found.len() as u64;
    let mut shown = Vec::new();
    for (_, p, pair, votes, people) in found.into_iter().take(SHOWN) {
        let id = &pair.pair.id;
        let Some((prompt, a, b)) = run.store.pair_texts(id).await? else { continue };
        let alone = opinions.iter().filter(|(name, _)| name != TOGETHER);
        shown.push(Disagreement {
            pair_id: id.clone(),
            tags: pair.tags.clone(),
            prompt: prompt.display(),
            a,
            b,
            p,
            judges: alone.filter_map(|(name, p)| Some((name.clone(), *p.get(id)?))).collect(),
            explanation: explanations.get(id.as_str()).map(|text| (*text).clone()),
            votes: (votes.a, votes.b, votes.ties),
            people: people.iter().map(|verdict| person(verdict, pair)).collect(),
        });
    }
    Ok(Disagreements { total, of, pairs: shown })
}

fn person(verdict: &HumanVerdict, pair: &ReviewPair) -> PersonSaid {
    let choice = if pair.key.a_first { verdict.choice } else { verdict.choice.swapped() };
    PersonSaid {
        reviewer: verdict.reviewer.clone(),
        choice: match choice {
            HumanChoice::First => "a",
            HumanChoice::Second => "b",
            HumanChoice::Tie => "tie",
            HumanChoice::Skip => "skip",
        }
        .into(),
        note: verdict.note.clone(),
    }
}
