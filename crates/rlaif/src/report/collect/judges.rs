//! The judges of `[label]`: validity, what became of pairs by each alone, and what its choices hang on.

use super::{named, numbers};
use crate::judging;
use crate::manifest::State;
use crate::report::data::{JudgeSummary, LabelNumbers};
use crate::report::view::View;
use anyhow::Result;
use rlaif_core::config::{Aggregation, Criterion, JudgeConfig, LabelConfig, Protocol, Stage};
use rlaif_core::records::{Fate, Pair};
use rlaif_judge::{JudgeVerdict, aggregate, voter_reports, voters};
use rlaif_store::store::TRAIN_PAIRS;
use std::collections::{BTreeMap, HashMap};

/// Every judge of `[label]`; none before that stage began.
///
/// # Errors
/// If the store or the manifest cannot be read.
pub async fn judges(run: &View<'_>) -> Result<Vec<JudgeSummary>> {
    let label = &run.config.label;
    let Some(record) = run.manifest.stage(Stage::Label) else { return Ok(Vec::new()) };
    let numbers = match record.state {
        State::Done => numbers::<LabelNumbers>(run.manifest, Stage::Label)?.unwrap_or_default(),
        State::Started => LabelNumbers::default(),
    };
    let verdicts = run.store.verdicts(TRAIN_PAIRS).await?;
    let pairs = run.store.pairs(TRAIN_PAIRS).await?;
    let alone = LabelConfig {
        aggregation: Aggregation::Mean,
        keep_ties: false,
        keep_inconsistent: false,
        ..label.clone()
    };
    let spend = run.store.spend_by_judge().await?;
    let summary = |judge: &JudgeConfig| {
        let said = judging::said(&verdicts, std::slice::from_ref(judge));
        let of_pairs: Vec<_> = pairs
            .iter()
            .filter_map(|pair| Some(voters(said.get(pair.id.as_str())?, label.vote_smoothing)))
            .collect();
        let voters = voter_reports(&of_pairs);
        let spent = spend.get(&judge.name).copied().unwrap_or_default();
        JudgeSummary {
            name: judge.name.clone(),
            kind: judge.kind.name().into(),
            protocol: match judge.protocol {
                Protocol::Pairwise => "pairwise".into(),
                Protocol::Rating => "rating".into(),
                Protocol::Contrastive => "contrastive".into(),
            },
            model: judge.model.clone(),
            rubric: rubric(judge, &label.criteria),
            probe: numbers.probes.get(&judge.name).copied(),
            tripwires: numbers.tripwires.get(&judge.name).copied(),
            fates: named(&fates_of(&pairs, &said, &alone)),
            // Of several templates, the one that was read on most pairs; the others stand in `voters`.
            position: voters.iter().filter_map(|voter| voter.position).max_by_key(|position| position.pairs),
            voters,
            fitted: numbers.fitted.iter().filter(|voter| voter.judge == judge.name).cloned().collect(),
            micro_usd: (spent.unknown_calls == 0).then_some(spent.known.0),
        }
    };
    Ok(label.judges.iter().map(summary).collect())
}

fn rubric(judge: &JudgeConfig, criteria: &[Criterion]) -> String {
    match (&judge.principle, &judge.opposite, judge.protocol) {
        (Some(principle), Some(opposite), Protocol::Contrastive) => {
            format!("“{principle}” against “{opposite}”")
        }
        (_, _, Protocol::Contrastive) => String::new(),
        (_, _, Protocol::Pairwise | Protocol::Rating) => {
            let names: Vec<&str> = criteria.iter().map(|criterion| criterion.name.trim()).collect();
            format!("Criteria: {}", names.join(", "))
        }
    }
}

/// What would become of the pairs if this judge were the only one; those that it was not asked about are left out.
fn fates_of(
    pairs: &[Pair],
    said: &HashMap<&str, Vec<JudgeVerdict>>,
    label: &LabelConfig,
) -> BTreeMap<Fate, u64> {
    let mut counts = BTreeMap::new();
    for pair in pairs {
        let Some(said) = said.get(pair.id.as_str()) else { continue };
        *counts.entry(aggregate(pair, said, label, None).fate).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::records::{Choice, NoVerdict, Order, Verdict};
    use rlaif_store::store::VerdictRow;

    fn row(order: Order, verdict: Verdict) -> VerdictRow {
        let (judge, template) = ("judge".into(), "explain".into());
        VerdictRow { pair_id: "p/0-1".into(), judge, template, order, vote: 0, verdict }
    }

    #[test]
    fn a_pair_has_the_fate_that_its_verdicts_say() {
        let ab = |verdict| row(Order::Ab, verdict);
        let ba = |verdict| row(Order::Ba, verdict);
        let (first, second, tie) = (Choice::First, Choice::Second, Choice::Tie);
        let cases = [
            (vec![ab(Verdict::choice(first)), ba(Verdict::choice(second))], Fate::Kept),
            (vec![ab(Verdict::choice(first)), ba(Verdict::choice(first))], Fate::Inconsistent),
            (vec![ab(Verdict::choice(tie)), ba(Verdict::choice(tie))], Fate::Tie),
            (vec![ab(Verdict::none(NoVerdict::Empty)), ba(Verdict::choice(second))], Fate::NoVerdict),
            (vec![ab(Verdict::none(NoVerdict::Refused))], Fate::NoVerdict),
            (vec![ab(Verdict::none(NoVerdict::Failed("429".into())))], Fate::Failed),
        ];
        let judge = JudgeConfig { protocol: Protocol::Pairwise, ..JudgeConfig::default() };
        let pair = |id: &str| Pair { id: id.into(), prompt_id: "p".into(), a: "p/0".into(), b: "p/1".into() };
        for (rows, want) in &cases {
            let said = judging::said(rows, std::slice::from_ref(&judge));
            let fates = fates_of(&[pair("p/0-1"), pair("p/0-2")], &said, &LabelConfig::default());
            assert_eq!(fates, BTreeMap::from([(*want, 1)]), "{rows:?}");
        }
    }
}
