//! What became of length, ends and repetition: tuned policies against the baseline on the same held-out prompts.

use crate::report::data::Estimate;
use crate::report::evidence::{Change, Measure};
use crate::report::view::View;
use anyhow::Result;
use rlaif_core::records::{FinishReason, Response, Split};
use rlaif_core::stats::diversity::{distinct, repeated};
use rlaif_core::stats::paired::paired_difference;
use rlaif_store::store::BASELINE;
use std::collections::BTreeMap;

/// A response's value; `None` where it has none.
type Of = fn(&Response) -> Option<f64>;

/// Those with a value a response, and therefore an interval over prompts.
const BY_RESPONSE: [(Measure, Of); 3] = [
    (Measure::Length, |response| Some(response.token_ids.len() as f64)),
    (Measure::Ended, |response| Some(f64::from(u8::from(response.finish_reason == FinishReason::Stop)))),
    (Measure::Repeated4, |response| repeated(&response.token_ids, 4)),
];

/// Every measure of every tuned policy that has answered held-out prompts.
///
/// # Errors
/// If the store cannot be read.
pub async fn changes(run: &View<'_>) -> Result<Vec<Change>> {
    let baseline = run.store.responses(BASELINE, Some(Split::Eval)).await?;
    let mut changes = Vec::new();
    for policy in ["ppo", "dpo"] {
        let tuned = run.store.responses(policy, Some(Split::Eval)).await?;
        changes.extend(of_policy(policy, &baseline, &tuned));
    }
    Ok(changes)
}

fn of_policy(policy: &str, baseline: &[Response], tuned: &[Response]) -> Vec<Change> {
    let mut changes: Vec<Change> = BY_RESPONSE
        .iter()
        .filter_map(|(measure, of)| {
            let (before, after) = both(baseline, tuned, *of);
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            (!before.is_empty()).then(|| Change {
                policy: policy.into(),
                measure: *measure,
                before: mean(&before),
                after: mean(&after),
                difference: paired_difference(&before, &after)
                    .map(|paired| Estimate::of(paired.difference, paired.n)),
            })
        })
        .collect();
    let distinct_2 = |responses: &[Response]| {
        let tokens: Vec<&[u32]> = responses.iter().map(|response| response.token_ids.as_slice()).collect();
        distinct(&tokens, 2)
    };
    if let (Some(before), Some(after)) = (distinct_2(baseline), distinct_2(tuned)) {
        let measure = Measure::Distinct2;
        changes.push(Change { policy: policy.into(), measure, before, after, difference: None });
    }
    changes
}

/// Means a prompt, over the prompts for which both have a value.
fn both(baseline: &[Response], tuned: &[Response], of: Of) -> (Vec<f64>, Vec<f64>) {
    let (before, after) = (by_prompt(baseline, of), by_prompt(tuned, of));
    before.iter().filter_map(|(prompt, before)| Some((*before, *after.get(prompt)?))).unzip()
}

fn by_prompt(responses: &[Response], of: Of) -> BTreeMap<&str, f64> {
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for response in responses {
        if let Some(value) = of(response) {
            values.entry(&response.prompt_id).or_default().push(value);
        }
    }
    values.into_iter().map(|(id, values)| (id, values.iter().sum::<f64>() / values.len() as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(policy: &str, prompt: usize, index: usize, tokens: &[u32], ended: bool) -> Response {
        Response {
            id: format!("{policy}/{prompt}/{index}"),
            prompt_id: format!("p{prompt}"),
            index,
            text: String::new(),
            token_ids: tokens.to_vec(),
            logprobs: vec![0.0; tokens.len()],
            finish_reason: if ended { FinishReason::Stop } else { FinishReason::Length },
        }
    }

    #[test]
    fn a_change_is_of_the_same_prompts_and_samples_of_a_prompt_count_once() {
        let before = [
            response("baseline", 0, 0, &[1, 2], true),
            response("baseline", 0, 1, &[1, 2, 3, 4], true),
            response("baseline", 1, 0, &[5, 6, 7], true),
            response("baseline", 2, 0, &[9; 50], false), // has no counterpart
        ];
        let after = [response("ppo", 0, 0, &[1, 2, 3, 4, 5, 6], true), response("ppo", 1, 0, &[7; 8], false)];
        let changes = of_policy("ppo", &before, &after);
        let of = |measure| changes.iter().find(|change| change.measure == measure).unwrap();
        // By hand: 3 and 3 tokens became 6 and 8.
        let length = of(Measure::Length);
        assert_eq!((length.before, length.after, length.difference.unwrap().value), (3.0, 7.0, 4.0));
        assert_eq!(length.difference.unwrap().n, Some(2), "prompts, not responses");
        let ended = of(Measure::Ended);
        assert_eq!((ended.before, ended.after), (1.0, 0.5));
        // Only the first prompt has 4-grams on both sides.
        let repeated = of(Measure::Repeated4);
        assert_eq!((repeated.before, repeated.after, repeated.difference), (0.0, 0.0, None));
        assert!(of(Measure::Distinct2).after < of(Measure::Distinct2).before.max(1.0));
        assert!(of_policy("ppo", &before, &[]).is_empty());
    }
}
