//! Raw reply → verdict and usage. A pure function: a better parser is a free recomputation over stored bytes.

use crate::completion::{BadBody, Completion, Finish};
use crate::parse::{Style, parse};
use rlaif_core::money::Usage;
use rlaif_core::records::{NoVerdict, Verdict};
use std::collections::BTreeMap;

/// What is read from the body of one reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The verdict, or why there is none.
    pub verdict: Verdict,
    /// Why, in words: what was matched, or what was missing.
    pub reason: String,
    /// Tokens, where the provider counted them.
    pub usage: Option<Usage>,
    /// The provider's word for how the reply ended.
    pub finish_reason: Option<String>,
    /// The model that answered, which may not be the one that was asked.
    pub model: Option<String>,
}

/// Whether the model that answered is the one that was asked, or a snapshot of it (`gpt-x` is answered by `gpt-x-2026-01-31`). Folders
/// and owners before the name do not count, nor does the case.
pub fn is_same_model(asked: &str, served: &str) -> bool {
    let name = |model: &str| model.rsplit('/').next().unwrap_or(model).to_lowercase();
    let (asked, served) = (name(asked.trim()), name(served.trim()));
    let asked = asked.strip_suffix("-latest").unwrap_or(&asked);
    let Some(rest) = served.strip_prefix(asked) else { return false };
    let snapshot = |rest: &str| rest.chars().all(|c| c.is_ascii_digit() || c == '-');
    rest.is_empty() || rest == "-latest" || rest.strip_prefix(['-', '@']).is_some_and(snapshot)
}

/// What makes a reply no use, though it was paid for. A refusal or a filter is an answer, and is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Cut off at its token limit.
    Truncated,
    /// Cut off after nothing but blanks: a grammar that allows them lets some models write them for ever.
    Blanks,
    /// No body or no text.
    Empty,
    /// Neither a completion nor a verdict can be read: HTML, an error, broken JSON, no choices, a label that was not offered,
    /// two verdicts.
    Malformed,
}

impl Fault {
    /// The ledger's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Blanks => "blanks",
            Self::Empty => "empty",
            Self::Malformed => "malformed",
        }
    }
}

/// What is wrong with a reply that gave no verdict for this reason, if asking again may help.
pub fn fault(reason: &NoVerdict, body: &[u8]) -> Option<Fault> {
    match reason {
        NoVerdict::Truncated if Completion::read(body).is_ok_and(|reply| reply.blank_tail().is_some()) => {
            Some(Fault::Blanks)
        }
        NoVerdict::Truncated => Some(Fault::Truncated),
        NoVerdict::Empty => Some(Fault::Empty),
        NoVerdict::Unparsable | NoVerdict::Ambiguous | NoVerdict::Failed(_) => Some(Fault::Malformed),
        _ => None,
    }
}

/// The body with which to ask again after a [`Fault`], and its limit of tokens: four times as many after one that was cut off, else
/// the same.
pub fn again_body(body: &str, fault: &str, max_tokens: u32) -> (String, u32) {
    if fault != Fault::Truncated.as_str() {
        return (body.to_owned(), max_tokens);
    }
    let Ok(mut request) = serde_json::from_str::<serde_json::Value>(body) else {
        return (body.to_owned(), max_tokens);
    };
    let more = max_tokens.saturating_mul(4);
    for name in ["max_tokens", "max_completion_tokens"] {
        if let Some(limit) = request.get_mut(name) {
            *limit = more.into();
            return (request.to_string(), more);
        }
    }
    (body.to_owned(), max_tokens)
}

/// Reads a reply of any provider: refusal, filter and truncation first, then the text in the given style. `max_tokens` is what
/// was asked for.
pub fn read_reply(body: &[u8], style: Style, max_tokens: usize) -> Reading {
    match Completion::read(body) {
        Ok(completion) => read_completion(&completion, style, max_tokens),
        Err(bad) => Reading {
            verdict: Verdict::none(no_reply(&bad)),
            reason: bad.to_string(),
            usage: None,
            finish_reason: None,
            model: None,
        },
    }
}

/// The same, of a body that was read already.
pub fn read_completion(completion: &Completion, style: Style, max_tokens: usize) -> Reading {
    let (verdict, reason) = match text_of(completion, max_tokens) {
        Ok(text) => verdict_of(text, style),
        Err(none) => *none,
    };
    Reading {
        verdict,
        reason,
        usage: completion.usage,
        finish_reason: completion.finish_word.clone(),
        model: completion.model.clone(),
    }
}

/// The verdict of a body that is no reply.
pub fn no_reply(bad: &BadBody) -> NoVerdict {
    match bad {
        BadBody::Empty => NoVerdict::Empty,
        BadBody::CutOff | BadBody::Html | BadBody::Compressed | BadBody::NotJson | BadBody::OtherJson => {
            NoVerdict::Unparsable
        }
        BadBody::Duplicate(_) => NoVerdict::Ambiguous,
    }
}

/// The text of a whole reply; or the verdict of one that refused, was withheld, failed, was cut off or is empty, and why in words.
///
/// # Errors
/// As said.
pub fn text_of(completion: &Completion, max_tokens: usize) -> Result<&str, Box<(Verdict, String)>> {
    let none = |reason: NoVerdict, words: &str| Err(Box::new((Verdict::none(reason), words.to_owned())));
    if let Some(refusal) = &completion.refusal {
        let verdict = Verdict { explanation: refusal.text.clone(), ..Verdict::none(NoVerdict::Refused) };
        let words = match &refusal.category {
            Some(category) => format!("the judge refused ({category})"),
            None => "the judge refused".into(),
        };
        return Err(Box::new((verdict, words)));
    }
    if completion.finish == Finish::Filter {
        return none(NoVerdict::Filtered, "the provider's content filter withheld the reply");
    }
    if let Some(error) = &completion.error {
        return none(NoVerdict::Failed(error.clone()), "the reply is an error");
    }
    if completion.finish == Finish::Error {
        return none(NoVerdict::Failed("the server says that it failed".into()), "the reply is an error");
    }
    if completion.cut_off(max_tokens) {
        return match completion.blank_tail() {
            Some(blank) => {
                let words = format!(
                    "the reply was cut off at its token limit after {blank} blank characters: the server's grammar allows them without end"
                );
                none(NoVerdict::Truncated, &words)
            }
            None => none(NoVerdict::Truncated, "the reply was cut off at its token limit"),
        };
    }
    match &completion.text {
        Some(text) => Ok(text),
        None => none(NoVerdict::Empty, "the reply has no text"),
    }
}

fn verdict_of(text: &str, style: Style) -> (Verdict, String) {
    let parsed = parse(text, style);
    let mut scores = BTreeMap::new();
    if let Some([first, second]) = parsed.scores.as_deref() {
        scores.insert("overall".to_owned(), (*first, *second));
    }
    let explanation = crate::parse::explanation(text);
    let verdict = Verdict { scores, explanation, ..Verdict::of(parsed.verdict) };
    (verdict, parsed.reason)
}
#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::records::Choice;
    use serde_json::{Value, json};

    fn read(reply: Value) -> Reading {
        read_reply(reply.to_string().as_bytes(), Style::BetterResponse, 100)
    }

    fn completion(content: Value, finish_reason: &str, completion_tokens: u64) -> Value {
        json!({"id": "x", "model": "judge-1-2026", "choices": [{"index": 0, "finish_reason": finish_reason,
            "message": {"role": "assistant", "content": content, "refusal": null}}],
            "usage": {"prompt_tokens": 50, "completion_tokens": completion_tokens}})
    }

    #[test]
    fn what_is_asked_for_again_and_with_how_many_tokens() {
        let fault_of = |reply: Value| {
            let body = reply.to_string();
            let reading = read_reply(body.as_bytes(), Style::BetterResponse, 100);
            reading.verdict.choice.err().and_then(|reason| fault(&reason, body.as_bytes()))
        };
        let verdict = json!("Better response: 2");
        let blanks = format!("{{\"verdict\": {}", " \n".repeat(40));
        let cases = [
            (completion(verdict.clone(), "stop", 12), None),
            (completion(json!("I think"), "length", 12), Some(Fault::Truncated)),
            (completion(verdict.clone(), "stop", 100), Some(Fault::Truncated)),
            (completion(json!(blanks), "length", 100), Some(Fault::Blanks)),
            (completion(Value::Null, "stop", 0), Some(Fault::Empty)),
            (completion(json!("Both are fine"), "stop", 3), Some(Fault::Malformed)),
            (completion(verdict, "content_filter", 12), None),
            (json!({"choices": []}), Some(Fault::Malformed)),
            (json!({"error": {"message": "boom"}}), Some(Fault::Malformed)),
        ];
        for (reply, want) in cases {
            assert_eq!(fault_of(reply.clone()), want, "{reply}");
        }
        let body = r#"{"model":"j","max_completion_tokens":64,"seed":7}"#;
        let more = r#"{"model":"j","max_completion_tokens":256,"seed":7}"#;
        assert_eq!(again_body(body, "truncated", 64), (more.to_owned(), 256));
        assert_eq!(again_body(body, "malformed", 64), (body.to_owned(), 64));
    }

    #[test]
    fn a_snapshot_is_the_same_model_and_a_sibling_is_not() {
        for (asked, served) in [
            ("gpt-x", "gpt-x-2026-01-31"),
            ("gpt-x", "GPT-X"),
            ("sonnet-latest", "sonnet-20260131"),
            ("meta-llama/Llama-8B", "Llama-8B"),
            ("judge@1", "judge@1"),
        ] {
            assert!(is_same_model(asked, served), "{asked} {served}");
        }
        for (asked, served) in
            [("gpt-x", "gpt-x-mini"), ("gpt-x", "gpt-x1"), ("gpt-x-mini", "gpt-x"), ("a", "")]
        {
            assert!(!is_same_model(asked, served), "{asked} {served}");
        }
    }

    #[test]
    fn a_whole_reply() {
        let reading = read(completion(json!("1 is vague.\n\nBetter response: 2"), "stop", 12));
        assert_eq!(reading.verdict.choice, Ok(Choice::Second));
        assert_eq!(reading.verdict.explanation.as_deref(), Some("1 is vague."));
        assert_eq!(reading.usage.unwrap().completion_tokens, 12);
        assert_eq!(reading.model.as_deref(), Some("judge-1-2026"));
        let parts =
            json!([{"type": "text", "text": "Fine.\nBetter "}, {"type": "text", "text": "response: 1"}]);
        assert_eq!(read(completion(parts, "stop", 9)).verdict.choice, Ok(Choice::First));
    }

    #[test]
    fn what_is_no_verdict_and_why() {
        let verdict = json!("Better response: 2");
        let refusal = json!({"choices": [{"finish_reason": "stop", "message": {"content": null, "refusal": "I can't."}}]});
        let cases = [
            (completion(verdict.clone(), "length", 12), NoVerdict::Truncated),
            // The finish reason lies: exactly max_tokens tokens came.
            (completion(verdict.clone(), "stop", 100), NoVerdict::Truncated),
            (completion(verdict, "content_filter", 12), NoVerdict::Filtered),
            (refusal, NoVerdict::Refused),
            (completion(Value::Null, "stop", 0), NoVerdict::Empty),
            (completion(json!("  \n"), "stop", 1), NoVerdict::Empty),
            (completion(json!("Both are fine"), "stop", 3), NoVerdict::Unparsable),
            (json!({"choices": []}), NoVerdict::Unparsable),
            (json!([1, 2]), NoVerdict::Unparsable),
            (json!({"error": {"message": "boom"}}), NoVerdict::Failed("boom".into())),
        ];
        for (reply, want) in cases {
            assert_eq!(read(reply.clone()).verdict.choice, Err(want), "{reply}");
        }
        let body = |bytes: &[u8]| read_reply(bytes, Style::BetterResponse, 100).verdict.choice;
        assert_eq!(body(b"<html>502 Bad Gateway"), Err(NoVerdict::Unparsable));
        assert_eq!(body(b"{\"choices\":[{\"message\":{\"con"), Err(NoVerdict::Unparsable));
        assert_eq!(body(b"\xff\xfe\x00"), Err(NoVerdict::Unparsable));
        assert_eq!(body(b""), Err(NoVerdict::Empty));
    }

    #[test]
    fn blank_space_to_the_limit_is_told_apart() {
        let text = format!("{{\"verdict\": \"1\"}}{}", "\n ".repeat(200));
        let reading = read(completion(json!(text), "length", 100));
        assert_eq!(reading.verdict.choice, Err(NoVerdict::Truncated));
        assert!(reading.reason.contains("after 400 blank characters"), "{}", reading.reason);
    }

    #[test]
    fn a_message_of_anthropic_is_read_like_any_other() {
        let message = |text: &str, stop_reason: &str, output_tokens: u64| {
            json!({"type": "message", "model": "claude-x", "stop_reason": stop_reason,
                "content": [{"type": "text", "text": text}],
                "usage": {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": output_tokens}})
        };
        let reading = read(message("Fine.\nBetter response: 2", "end_turn", 9));
        assert_eq!(reading.verdict.choice, Ok(Choice::Second));
        assert_eq!(reading.usage.unwrap().prompt_tokens, 10);
        let choice = |reply| read(reply).verdict.choice;
        assert_eq!(choice(message("Better response: 2", "max_tokens", 9)), Err(NoVerdict::Truncated));
        assert_eq!(choice(message("Better response: 2", "end_turn", 100)), Err(NoVerdict::Truncated));
        assert_eq!(
            choice(message("Better response: 2", "model_context_window_exceeded", 9)),
            Err(NoVerdict::Truncated)
        );
        assert_eq!(choice(message("I cannot.", "refusal", 9)), Err(NoVerdict::Refused));
    }
}
