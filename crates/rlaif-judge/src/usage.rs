//! The `usage` object of a reply.

use rlaif_core::money::Usage;
use serde_json::Value;

/// Reads OpenAI's `usage` (also of compatible servers): `prompt_tokens` includes the cached ones, `completion_tokens`
/// the reasoning ones. `None` if there is no usage or its counts are no whole numbers, so that the cost is unknown
/// rather than 0.
pub fn parse_usage(reply: &Value) -> Option<Usage> {
    let usage = reply.get("usage")?;
    let count = |path: &str| usage.pointer(path).and_then(Value::as_u64);
    let prompt_tokens = count("/prompt_tokens").or_else(|| count("/input_tokens"))?;
    // A reply cut off by a filter may have no completion at all; vLLM then leaves the field out.
    let completion_tokens = count("/completion_tokens").or_else(|| count("/output_tokens"));
    let completion_tokens = completion_tokens.or_else(|| {
        usage.get("total_tokens").and_then(Value::as_u64).map(|total| total.saturating_sub(prompt_tokens))
    })?;
    Some(Usage {
        prompt_tokens,
        cached_tokens: count("/prompt_tokens_details/cached_tokens").unwrap_or(0).min(prompt_tokens),
        completion_tokens,
        reasoning_tokens: count("/completion_tokens_details/reasoning_tokens").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::money::{MicroUsd, Price};
    use serde_json::json;

    #[test]
    fn cached_and_reasoning_tokens_are_parts_not_extras() {
        let reply = json!({"usage": {"prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 256, "accepted_prediction_tokens": 0}}});
        let usage = parse_usage(&reply).unwrap();
        assert_eq!(
            usage,
            Usage { prompt_tokens: 2006, cached_tokens: 1920, completion_tokens: 300, reasoning_tokens: 256 }
        );
        // 86 · 2.50 + 1920 · 1.25 + 300 · 10 dollars per million = 5615 micro-dollars.
        let price = Price::from_dollars(2.5, 10.0, Some(1.25)).unwrap();
        assert_eq!(price.cost(&usage), MicroUsd(5615));
    }

    #[test]
    fn details_may_be_null_and_missing_counts_are_unknown() {
        let vllm =
            json!({"usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": null}});
        assert_eq!(parse_usage(&vllm).unwrap().cached_tokens, 0);
        let filtered = json!({"usage": {"prompt_tokens": 9, "total_tokens": 9}});
        assert_eq!(parse_usage(&filtered).unwrap().completion_tokens, 0);
        for unknown in
            [json!({}), json!({"usage": null}), json!({"usage": {"prompt_tokens": -1}}), json!([1])]
        {
            assert_eq!(parse_usage(&unknown), None, "{unknown}");
        }
    }
}
