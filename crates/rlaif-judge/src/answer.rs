//! Raw reply → what the judge answered, before anyone asks what it means: text, log-probabilities, or why there is none.

use crate::completion::{Completion, Finish, TokenLogprob};
use crate::local::Greedy;
use crate::reply::{no_reply, text_of};
use rlaif_core::money::Usage;
use rlaif_core::records::NoVerdict;

/// What came back for one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The whole text, or why there is none that counts.
    pub text: Result<String, NoText>,
    /// Tokens billed, where the provider counted them.
    pub usage: Option<Usage>,
    /// The reply that it is from; none for a local model's.
    pub completion: Option<Completion>,
}

/// Why an answer has no text that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoText {
    /// The verdict's reason.
    pub reason: NoVerdict,
    /// What the judge said of it, such as its refusal.
    pub said: Option<String>,
}

impl Answer {
    /// An answer that is only a text, such as a local model's.
    pub fn of_text(text: impl Into<String>) -> Self {
        Self { text: Ok(text.into()), usage: None, completion: None }
    }

    /// What a local model said; cut off where it did not end its turn.
    pub fn of_local(reply: Greedy) -> Self {
        if reply.text.trim().is_empty() {
            return Self::none(NoVerdict::Empty, None);
        }
        match reply.ended {
            true => Self::of_text(reply.text),
            false => Self {
                text: Err(NoText { reason: NoVerdict::Truncated, said: Some(reply.text) }),
                ..Self::none(NoVerdict::Truncated, None)
            },
        }
    }

    /// The tokens of the text with their likeliest alternatives; none where the endpoint gave none.
    pub fn tokens(&self) -> &[TokenLogprob] {
        self.completion.as_ref().map_or(&[], |completion| completion.logprobs.as_slice())
    }

    fn none(reason: NoVerdict, usage: Option<Usage>) -> Self {
        Self { text: Err(NoText { reason, said: None }), usage, completion: None }
    }
}

/// Reads a reply of any provider: refusal, filter and truncation first, then the text. See [`crate::read_reply`] for what
/// `max_tokens` is for. One token is whole however the reply ends: with `max_tokens` of a step that wants a token, give
/// `usize::MAX`.
pub fn read_answer(body: &[u8], max_tokens: usize) -> Answer {
    let mut completion = match Completion::read(body) {
        Ok(completion) => completion,
        Err(bad) => return Answer::none(no_reply(&bad), None),
    };
    if max_tokens == usize::MAX && completion.finish == Finish::Length {
        completion.finish = Finish::Stop;
    }
    let usage = completion.usage;
    let text = match text_of(&completion, max_tokens) {
        Ok(text) if !text.trim().is_empty() => Ok(text.to_owned()),
        Ok(_) => Err(NoText { reason: NoVerdict::Empty, said: None }),
        Err(none) => match none.0.choice {
            Err(reason) => Err(NoText { reason, said: none.0.explanation }),
            Ok(_) => Err(NoText { reason: NoVerdict::Unparsable, said: None }),
        },
    };
    Answer { text, usage, completion: Some(completion) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(reply: Value, max_tokens: usize) -> Answer {
        read_answer(reply.to_string().as_bytes(), max_tokens)
    }

    #[test]
    fn what_has_no_text_says_why() {
        let completion = |content: Value, finish: &str, tokens: u64| {
            json!({"choices": [{"finish_reason": finish, "message": {"content": content}}],
                "usage": {"prompt_tokens": 9, "completion_tokens": tokens}})
        };
        let refused = json!({"choices": [{"finish_reason": "stop", "message": {"content": null, "refusal": "I can't."}}]});
        for (reply, max_tokens, want) in [
            (completion(json!("x"), "length", 3), 10, Some(NoVerdict::Truncated)),
            (completion(json!("x"), "stop", 10), 10, Some(NoVerdict::Truncated)),
            (completion(json!("A"), "length", 1), usize::MAX, None),
            (completion(json!("x"), "content_filter", 3), 10, Some(NoVerdict::Filtered)),
            (completion(json!(" "), "stop", 3), 10, Some(NoVerdict::Empty)),
            (completion(json!([{"type": "text", "text": "x"}]), "stop", 3), 10, None),
            (json!({"error": {"message": "boom"}}), 10, Some(NoVerdict::Failed("boom".into()))),
            (refused, 10, Some(NoVerdict::Refused)),
            (json!({"choices": []}), 10, Some(NoVerdict::Unparsable)),
        ] {
            assert_eq!(read(reply.clone(), max_tokens).text.err().map(|no| no.reason), want, "{reply}");
        }
        assert_eq!(read_answer(b"<html>", 9).text.unwrap_err().reason, NoVerdict::Unparsable);
        assert_eq!(read_answer(b"", 9).text.unwrap_err().reason, NoVerdict::Empty);
    }
}
