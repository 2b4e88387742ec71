//! How far people agree with each other, and judges with people. Intervals are over prompts: pairs of one prompt depend on each other.

use super::App;
use crate::judging;
use anyhow::Result;
use rlaif_core::config::{Aggregation, JudgeConfig, LabelConfig};
use rlaif_core::people::{HumanChoice, Votes};
use rlaif_core::stats::Interval;
use rlaif_core::stats::agreement::cohen_kappa;
use rlaif_core::stats::interval::{bootstrap, cluster_mean, wilson};
use rlaif_judge::aggregate;
use rlaif_store::store::{ReviewPair, TRAIN_PAIRS};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Bootstrap draws of each interval.
const RESAMPLES: usize = 1000;

/// Two who said something of the same pairs.
pub struct Row {
    /// Who.
    pub who: String,
    /// With whom.
    pub with: String,
    /// Pairs on which both have a choice.
    pub n: usize,
    /// Of these, those on which neither calls it a tie.
    pub decisive: usize,
    /// The share of the decisive ones on which they choose the same.
    pub agreement: Option<Interval>,
    /// Cohen's kappa over all of them, ties as a third choice.
    pub kappa: Option<Interval>,
}

/// Everything on the page.
pub struct Agreement {
    /// Labels that stand, of each reviewer.
    pub reviewers: Vec<(String, usize)>,
    /// Each two of them.
    pub people: Vec<Row>,
    /// Each judge, and the preferences, against what most people say, on a random sample of the pairs.
    pub audit: Vec<Row>,
    /// The same on everything that people judged.
    pub all: Vec<Row>,
    /// How often people preferred a known-bad response, and of how many.
    pub known_bad: Option<(Interval, u64)>,
}

/// Choices of two on one pair, with the prompt on which the pair depends.
type Both<'a> = (&'a str, HumanChoice, HumanChoice);

/// Adds up what stands in the ledger.
///
/// # Errors
/// If the store cannot be read.
pub async fn agreement(app: &App) -> Result<Agreement> {
    let (store, config) = (&app.store, &app.config);
    let pairs = store.review_pairs(TRAIN_PAIRS).await?;
    let mut said: HashMap<String, BTreeMap<String, HumanChoice>> = HashMap::new();
    let mut reviewers: BTreeMap<String, usize> = BTreeMap::new();
    for verdict in store.human_verdicts().await?.into_iter().filter(|verdict| verdict.undone_ms.is_none()) {
        if verdict.choice != HumanChoice::Skip {
            *reviewers.entry(verdict.reviewer.clone()).or_default() += 1;
        }
        said.entry(verdict.pair_key).or_default().insert(verdict.reviewer, verdict.choice);
    }

    let names: Vec<&String> = reviewers.keys().collect();
    let mut people = Vec::new();
    for (i, one) in names.iter().enumerate() {
        for other in &names[i + 1..] {
            let both = pairs.iter().filter_map(|pair| {
                let said = said.get(&pair.key.hash)?;
                Some((pair.pair.prompt_id.as_str(), *said.get(*one)?, *said.get(*other)?))
            });
            people.push(row(one, other, both, config.run.seed));
        }
    }

    let votes: HashMap<&str, Votes> = pairs
        .iter()
        .filter_map(|pair| Some((pair.pair.id.as_str(), votes(pair, said.get(&pair.key.hash)?))))
        .collect();
    let opinions = opinions(app, &pairs).await?;
    let sample = audited(app, &said).await;
    let against = |sample: Option<&BTreeSet<String>>| -> Vec<Row> {
        let of_judge = |(judge, of): &(String, HashMap<String, f64>)| {
            let both = pairs.iter().filter_map(|pair| {
                let id = pair.pair.id.as_str();
                sample.is_none_or(|sample| sample.contains(id)).then_some(())?;
                let choice = of_p(*of.get(id)?, config.label.tie_margin);
                Some((pair.pair.prompt_id.as_str(), votes.get(id)?.majority()?, choice))
            });
            row(judge, "people", both, config.run.seed)
        };
        opinions.iter().map(of_judge).filter(|row| row.n > 0).collect()
    };
    Ok(Agreement {
        people: people.into_iter().filter(|row| row.n > 0).collect(),
        audit: against(Some(&sample)),
        all: against(None),
        known_bad: known_bad(app, &said).await?,
        reviewers: reviewers.into_iter().collect(),
    })
}

/// The pairs of the audit's random order up to the first that nobody has answered: a random sample, whatever other queues did.
async fn audited(app: &App, said: &HashMap<String, BTreeMap<String, HumanChoice>>) -> BTreeSet<String> {
    let desk = app.desk.lock().await;
    let Some(queue) = desk.queues().queue(super::queues::AUDIT) else { return BTreeSet::new() };
    let items = queue.items.iter().map(|place| &desk.queues().items[*place]);
    items.take_while(|item| said.contains_key(&item.key.hash)).map(|item| item.pair.id.clone()).collect()
}

/// p of each judge as if it were alone, and of all of them together, by pair.
async fn opinions(app: &App, pairs: &[ReviewPair]) -> Result<Vec<(String, HashMap<String, f64>)>> {
    let label = &app.config.label;
    let alone = LabelConfig { aggregation: Aggregation::Mean, ..label.clone() };
    let verdicts = app.store.verdicts(TRAIN_PAIRS).await?;
    let of_judge = |judge: &JudgeConfig| {
        let said = judging::said(&verdicts, std::slice::from_ref(judge));
        let p = |pair: &ReviewPair| {
            let p = aggregate(&pair.pair, said.get(pair.pair.id.as_str())?, &alone, None).p?;
            Some((pair.pair.id.clone(), p))
        };
        (judge.name.clone(), pairs.iter().filter_map(p).collect())
    };
    let mut opinions: Vec<(String, HashMap<String, f64>)> = label.judges.iter().map(of_judge).collect();
    let together = app.store.preferences(TRAIN_PAIRS).await?;
    let together = together.into_iter().filter_map(|it| Some((it.pair_id, it.p?))).collect();
    opinions.push(("all judges together".into(), together));
    Ok(opinions)
}

/// How often most people preferred the known-bad response, which is a.
async fn known_bad(
    app: &App,
    said: &HashMap<String, BTreeMap<String, HumanChoice>>,
) -> Result<Option<(Interval, u64)>> {
    let (mut wins, mut n) = (0, 0);
    for set in app.store.pair_sets().await?.iter().filter(|set| set.starts_with(crate::robustness::TRIPWIRES))
    {
        for pair in app.store.review_pairs(set).await? {
            let majority = said.get(&pair.key.hash).and_then(|said| votes(&pair, said).majority());
            if let Some(choice) = majority {
                n += 1;
                wins += u64::from(choice == HumanChoice::First);
            }
        }
    }
    Ok(wilson(wins, n).map(|interval| (interval, n)))
}

/// What people say of a (first) and b (second).
fn votes(pair: &ReviewPair, said: &BTreeMap<String, HumanChoice>) -> Votes {
    let mut votes = Votes::default();
    said.values().for_each(|choice| votes.add(if pair.key.a_first { *choice } else { choice.swapped() }));
    votes
}

fn of_p(p: f64, tie_margin: f64) -> HumanChoice {
    match p - 0.5 {
        margin if margin == 0.0 || margin.abs() < tie_margin => HumanChoice::Tie,
        margin if margin > 0.0 => HumanChoice::First,
        _ => HumanChoice::Second,
    }
}

fn row<'a>(who: &str, with: &str, both: impl Iterator<Item = Both<'a>>, seed: u64) -> Row {
    let mut by_prompt: BTreeMap<&str, Vec<(HumanChoice, HumanChoice)>> = BTreeMap::new();
    for (prompt, one, other) in both {
        if one != HumanChoice::Skip && other != HumanChoice::Skip {
            by_prompt.entry(prompt).or_default().push((one, other));
        }
    }
    let clusters: Vec<Vec<(HumanChoice, HumanChoice)>> = by_prompt.into_values().collect();
    let decides =
        |(one, other): &&(HumanChoice, HumanChoice)| *one != HumanChoice::Tie && *other != HumanChoice::Tie;
    let same: Vec<Vec<f64>> = clusters
        .iter()
        .map(|cluster| cluster.iter().filter(decides).map(|(x, y)| f64::from(u8::from(x == y))).collect())
        .collect();
    let decisive = same.iter().map(Vec::len).sum();
    let kappa = |drawn: &[&Vec<(HumanChoice, HumanChoice)>]| {
        let (one, other): (Vec<_>, Vec<_>) = drawn.iter().flat_map(|cluster| cluster.iter().copied()).unzip();
        cohen_kappa(&one, &other)
    };
    Row {
        who: who.into(),
        with: with.into(),
        n: clusters.iter().map(Vec::len).sum(),
        decisive,
        agreement: cluster_mean(&same, RESAMPLES, seed),
        kappa: bootstrap(&clusters, RESAMPLES, seed, kappa),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HumanChoice::{First, Second, Skip, Tie};

    #[test]
    fn a_row_counts_what_both_decided() {
        let both = [
            ("p", First, First),
            ("p", First, Tie),
            ("q", Second, First),
            ("r", Second, Second),
            ("r", Skip, First),
        ];
        let row = row("ada", "bob", both.into_iter(), 7);
        assert_eq!((row.n, row.decisive), (4, 3));
        let agreement = row.agreement.unwrap();
        assert!((agreement.estimate - 2.0 / 3.0).abs() < 1e-12, "{agreement}");
        // By hand: they agree on 2 of 4, by chance on 0.5 · 0.5 + 0.5 · 0.25 = 0.375; (0.5 − 0.375) / 0.625.
        assert!((row.kappa.unwrap().estimate - 0.2).abs() < 1e-12);
    }

    #[test]
    fn one_prompt_has_no_interval_and_a_half_is_a_tie() {
        assert!(row("ada", "bob", [("p", First, First)].into_iter(), 7).agreement.is_none());
        assert_eq!(
            [of_p(0.5, 0.0), of_p(0.51, 0.02), of_p(0.9, 0.02), of_p(0.1, 0.0)],
            [Tie, Tie, First, Second]
        );
    }
}
