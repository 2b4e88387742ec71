//! What an error body says, in every provider's shape, and which class of failure it is.

use crate::chat::CallErrorKind;
use regex::Regex;
use serde_json::Value;
use std::sync::LazyLock;

/// `sk-…` and its relatives, anything that providers have masked with stars, and bearer tokens.
pub(crate) static KEY_LIKE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)bearer\s+[^\s,;]+|\b(?:sk|pk|rk|gsk|xai|hf|key)[-_][\w*.-]{6,}|[\w.-]*\*{3,}[\w*.-]*")
        .expect("a constant pattern")
});

/// What an error body says, in whichever of the providers' shapes.
#[derive(Debug, Default)]
pub(crate) struct ErrorDetail {
    pub(crate) message: String,
    /// `code` and `type` together, lower case.
    code: String,
}

impl ErrorDetail {
    pub(crate) fn of(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            let text = String::from_utf8_lossy(body).trim().to_owned();
            return Self {
                message: if text.is_empty() { "no explanation".into() } else { text },
                code: String::new(),
            };
        };
        let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(&value);
        let word = |name: &str| match error.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let message =
            [error.as_str().map(str::to_owned).unwrap_or_default(), word("message"), word("detail")];
        let message = message.into_iter().find(|text| !text.is_empty()).unwrap_or_else(|| error.to_string());
        Self { message, code: format!("{} {}", word("code"), word("type")).to_lowercase() }
    }

    /// True if the code or the message holds one of the phrases.
    fn says(&self, phrases: &[&str]) -> bool {
        let message = self.message.to_lowercase();
        phrases.iter().any(|phrase| self.code.contains(phrase) || message.contains(phrase))
    }
}

pub(crate) fn classify(status: u16, detail: &ErrorDetail) -> CallErrorKind {
    use CallErrorKind as K;
    let broke =
        ["insufficient_quota", "billing", "insufficient balance", "insufficient credits", "credit balance"];
    match status {
        300..=399 => K::Redirect,
        401 => K::Unauthorized,
        402 => K::Quota,
        403 if detail.says(&broke) => K::Quota,
        403 => K::Forbidden,
        404 => K::NotFound,
        408 | 409 | 425 => K::Server,
        413 => K::TooLong,
        429 if detail.says(&broke) => K::Quota,
        429 => K::RateLimited,
        503 | 529 => K::Overloaded,
        500.. => K::Server,
        400 if detail.says(&["credit balance"]) => K::Quota,
        _ if detail.says(&["content_filter", "content management policy"]) => K::Filtered,
        _ if detail.says(&[
            "context_length",
            "context length",
            "maximum context",
            "too long",
            "too many tokens",
        ]) =>
        {
            K::TooLong
        }
        _ if detail.says(&[
            "unsupported_",
            "unsupported parameter",
            "unknown_parameter",
            "unknown parameter",
            "unrecognized request argument",
            "extra inputs are not permitted",
            "extra_forbidden",
            "not supported",
        ]) =>
        {
            K::UnsupportedParameter
        }
        _ => K::BadRequest,
    }
}

/// The last cause says what happened ("connection refused"); the first ones repeat the URL.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
