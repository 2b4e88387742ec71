//! The `usage` object of a reply, in every provider's shape.

use rlaif_core::money::{ServiceTier, Usage};
use serde_json::Value;

/// Reads what a reply says of its tokens. `None` if there is no usage or its counts are no whole numbers, so that the cost is
/// unknown rather than 0.
///
/// * OpenAI and compatible servers: `prompt_tokens` includes the cached and written ones, `completion_tokens` the reasoning ones.
/// * Anthropic: `input_tokens` includes neither; they are added here, so that the prompt means the same everywhere.
pub fn parse_usage(reply: &Value) -> Option<Usage> {
    let usage = reply.get("usage")?;
    let word = reply.get(TIER).or_else(|| usage.get("service_tier")).or_else(|| reply.get("service_tier"));
    let tier = tier(word);
    let read = if is_anthropic(usage) { anthropic(usage) } else { openai(usage) };
    read.map(|usage| Usage { tier, ..usage })
}

/// A field of ours in the replies of batches: providers do not all say in the reply that it was one.
const TIER: &str = "rlaif_service_tier";

/// The body of a reply out of a batch, marked as one, so that it is priced as one whenever it is read.
pub(crate) fn mark_batch(mut reply: Value) -> Vec<u8> {
    if let Some(object) = reply.as_object_mut() {
        object.insert(TIER.into(), "batch".into());
    }
    reply.to_string().into_bytes()
}

/// Anthropic has `input_tokens` beside counts of its cache; OpenAI's other API has `input_tokens` with details.
fn is_anthropic(usage: &Value) -> bool {
    usage.get("input_tokens").is_some()
        && usage.get("prompt_tokens").is_none()
        && usage.get("input_tokens_details").is_none()
}

fn openai(usage: &Value) -> Option<Usage> {
    let count = |path: &str| usage.pointer(path).and_then(Value::as_u64);
    let prompt_tokens = count("/prompt_tokens").or_else(|| count("/input_tokens"))?;
    // A reply cut off by a filter may have no completion at all; vLLM then leaves the field out.
    let completion_tokens = count("/completion_tokens").or_else(|| count("/output_tokens"));
    let completion_tokens = completion_tokens
        .or_else(|| count("/total_tokens").map(|total| total.saturating_sub(prompt_tokens)))?;
    let detail = |name: &str| {
        let of = |details: &str| count(&format!("/{details}/{name}"));
        of("prompt_tokens_details").or_else(|| of("input_tokens_details")).unwrap_or(0)
    };
    let cached_tokens = detail("cached_tokens").min(prompt_tokens);
    let reasoning = count("/completion_tokens_details/reasoning_tokens")
        .or_else(|| count("/output_tokens_details/reasoning_tokens"));
    Some(Usage {
        prompt_tokens,
        cached_tokens,
        cache_write_tokens: detail("cache_write_tokens").min(prompt_tokens - cached_tokens),
        completion_tokens,
        reasoning_tokens: reasoning.unwrap_or(0),
        ..Usage::default()
    })
}

fn anthropic(usage: &Value) -> Option<Usage> {
    let count = |path: &str| usage.pointer(path).and_then(Value::as_u64);
    let fresh = count("/input_tokens")?;
    let cached_tokens = count("/cache_read_input_tokens").unwrap_or(0);
    let written = count("/cache_creation_input_tokens").unwrap_or(0);
    let one_hour = count("/cache_creation/ephemeral_1h_input_tokens").unwrap_or(0);
    // Where the total is missing or too small, its parts are believed.
    let five_minutes = count("/cache_creation/ephemeral_5m_input_tokens").unwrap_or(0);
    let five_minutes = five_minutes.max(written.saturating_sub(one_hour));
    let whole = [fresh, cached_tokens, five_minutes, one_hour];
    Some(Usage {
        prompt_tokens: whole.into_iter().fold(0, u64::saturating_add),
        cached_tokens,
        cache_write_tokens: five_minutes,
        cache_write_1h_tokens: one_hour,
        completion_tokens: count("/output_tokens")?,
        ..Usage::default()
    })
}

/// `default` and `auto` are the list price; `scale` is paid for by the month, so that a call has no price of its own.
fn tier(word: Option<&Value>) -> ServiceTier {
    match word {
        None | Some(Value::Null) => ServiceTier::Standard,
        Some(word) => match word.as_str() {
            Some("default" | "standard" | "auto" | "") => ServiceTier::Standard,
            Some("batch") => ServiceTier::Batch,
            Some("flex") => ServiceTier::Flex,
            Some("priority") => ServiceTier::Priority,
            _ => ServiceTier::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::money::{MicroUsd, Price};
    use serde_json::json;

    #[test]
    fn cached_written_and_reasoning_tokens_are_parts_not_extras() {
        let reply = json!({"service_tier": "default", "usage": {"prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0, "cache_write_tokens": 80},
            "completion_tokens_details": {"reasoning_tokens": 256, "accepted_prediction_tokens": 0}}});
        let usage = parse_usage(&reply).unwrap();
        let want = Usage {
            prompt_tokens: 2006,
            cached_tokens: 1920,
            cache_write_tokens: 80,
            completion_tokens: 300,
            reasoning_tokens: 256,
            ..Usage::default()
        };
        assert_eq!(usage, want);
        // 6 · 2.50 + 1920 · 1.25 + 80 · 3 + 300 · 10 dollars per million = 5655 micro-dollars.
        let price = Price::from_dollars(2.5, 10.0, Some(1.25)).unwrap().with_cache_writes(3.0, 3.0).unwrap();
        assert_eq!(price.cost(&usage), Some(MicroUsd(5655)));
    }

    #[test]
    fn anthropics_input_excludes_its_cache() {
        let reply = json!({"type": "message", "usage": {"input_tokens": 21, "cache_creation_input_tokens": 500,
            "cache_read_input_tokens": 1800, "output_tokens": 100, "service_tier": "standard",
            "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 100}}});
        let usage = parse_usage(&reply).unwrap();
        let want = Usage {
            prompt_tokens: 2321,
            cached_tokens: 1800,
            cache_write_tokens: 400,
            cache_write_1h_tokens: 100,
            completion_tokens: 100,
            ..Usage::default()
        };
        assert_eq!(usage, want);
        // Sonnet: 21 · 3 + 1800 · 0.30 + 400 · 3.75 + 100 · 6 + 100 · 15 = 4203 micro-dollars, and half of it in a batch.
        let price = Price::from_dollars(3.0, 15.0, Some(0.3)).unwrap().with_cache_writes(3.75, 6.0).unwrap();
        assert_eq!(price.cost(&usage), Some(MicroUsd(4203)));
        let mut batch = reply;
        batch["usage"]["service_tier"] = json!("batch");
        batch["usage"].as_object_mut().unwrap().shift_remove("cache_creation");
        let usage = parse_usage(&batch).unwrap();
        assert_eq!((usage.cache_write_tokens, usage.cache_write_1h_tokens), (500, 0));
        // (63 + 540 + 500 · 3.75 + 1500) / 2
        assert_eq!(price.cost(&usage), Some(MicroUsd(1989)));
    }

    #[test]
    fn the_tier_that_served_counts() {
        let tier = |word: Value| {
            let reply = json!({"service_tier": word, "usage": {"prompt_tokens": 1, "completion_tokens": 1}});
            parse_usage(&reply).unwrap().tier
        };
        assert_eq!(tier(json!("default")), ServiceTier::Standard);
        assert_eq!(tier(Value::Null), ServiceTier::Standard);
        assert_eq!(tier(json!("flex")), ServiceTier::Flex);
        assert_eq!(tier(json!("priority")), ServiceTier::Priority);
        assert_eq!(tier(json!("scale")), ServiceTier::Other);
        assert_eq!(tier(json!(3)), ServiceTier::Other);
    }

    #[test]
    fn details_may_be_null_and_missing_counts_are_unknown() {
        let vllm =
            json!({"usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": null}});
        assert_eq!(parse_usage(&vllm).unwrap().cached_tokens, 0);
        let filtered = json!({"usage": {"prompt_tokens": 9, "total_tokens": 9}});
        assert_eq!(parse_usage(&filtered).unwrap().completion_tokens, 0);
        for unknown in [
            json!({}),
            json!({"usage": null}),
            json!({"usage": {"prompt_tokens": -1}}),
            json!({"usage": {"input_tokens": 3}}),
            json!([1]),
        ] {
            assert_eq!(parse_usage(&unknown), None, "{unknown}");
        }
    }
}
