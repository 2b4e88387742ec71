//! From a request and what it meets to the reply: status, headers, bytes, and whether they cost money.

use crate::ask::{Ask, Format, Provider};
use crate::chaos::Mode;
use crate::connection::Break;
use crate::extract::{self, Question};
use crate::logprobs::logprobs;
use crate::opinion::{self, Opinion};
use crate::options::Options;
use crate::wire::{ApiError, Completion, Content, Finish, LONE_SURROGATE, invalid};
use crate::writing::{self, Written, count_tokens, first_tokens};
use rand::RngExt;
use rand::seq::IndexedRandom;
use rlaif_core::money::Usage;
use rlaif_core::records::Choice;
use std::time::{Duration, SystemTime};

/// Most tokens of a reply that sets no limit.
const DEFAULT_MAX_TOKENS: u64 = 4096;

/// Above the megabyte that a careful client reads.
const HUGE: usize = 1_300_000;

/// A reply, before it is sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    pub billed: bool,
    pub usage: Usage,
    /// How the connection ends early, if it does.
    pub broken: Option<Break>,
    /// Hang this long before anything else.
    pub hang: Option<Duration>,
    pub opinion: Option<Opinion>,
}

impl Reply {
    pub(crate) fn json(status: u16, body: String) -> Self {
        Self {
            status,
            content_type: "application/json",
            headers: Vec::new(),
            body,
            billed: false,
            usage: Usage::default(),
            broken: None,
            hang: None,
            opinion: None,
        }
    }

    pub(crate) fn error(ask: Provider, status: u16, error: &ApiError<'_>, id: &str) -> Self {
        Self::json(status, error.body(ask, &format!("req_{id}")))
    }

    fn html(status: u16, title: &str) -> Self {
        let body = format!(
            "<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n<body><h1>{title}</h1><p>proxy</p></body></html>\n"
        );
        Self { content_type: "text/html; charset=utf-8", ..Self::json(status, body) }
    }

    fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// A request on its way to a reply.
pub(crate) struct Case<'a> {
    pub options: &'a Options,
    pub ask: &'a Ask,
    /// The request's own random stream is derived from this.
    pub index: u64,
    /// Attempt at this request, from 1.
    pub attempt: u32,
    pub mode: Mode,
    /// Name of this call.
    pub id: &'a str,
    /// `standard` or `batch`.
    pub service_tier: &'static str,
}

impl Case<'_> {
    /// The reply. The same case has the same reply, but for times.
    pub(crate) fn reply(&self) -> Reply {
        use Mode as M;
        let wait = self.options.retry_after;
        match self.mode {
            M::RetryAfterSeconds => self.limited().with("retry-after", format!("{}", wait.ceil())),
            M::RetryAfterFraction => self.limited().with("retry-after", format!("{wait}")),
            M::RetryAfterMs => self.limited().with("retry-after-ms", format!("{}", (wait * 1000.0).ceil())),
            M::RetryAfterDate => self.limited().with("retry-after", date(0.0, wait)),
            M::RetryAfterPast => self.limited().with("retry-after", date(0.0, -30.0)),
            M::ClockSkew => {
                self.limited().with("retry-after", date(3600.0, wait)).with("date", date(3600.0, 0.0))
            }
            M::RetryAfterAbsent => self.limited(),
            M::ServerError => self.failed(500, "The server had an error while processing your request.", "api_error"),
            M::BadGateway => Reply::html(502, "502 Bad Gateway"),
            M::Unavailable => self.failed(503, "The engine is currently overloaded, please try again later.", "api_error"),
            M::GatewayTimeout => Reply { billed: self.coin(), usage: self.answer().usage, ..Reply::html(504, "504 Gateway Time-out") },
            M::Overloaded => self.failed(529, "Overloaded", "overloaded_error"),
            M::Unauthorized => self.fatal(401, "Incorrect API key provided: sk-mock****key.", "invalid_request_error", "invalid_api_key", "authentication_error"),
            M::BillingError => self.fatal(402, "Your account has a billing problem.", "billing_error", "billing_error", "billing_error"),
            M::Forbidden => self.fatal(403, "Your key may not use this model.", "invalid_request_error", "", "permission_error"),
            M::InsufficientQuota => self.quota(),
            M::UnsupportedParameter => {
                let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
                self.error(400, &ApiError { code: "unsupported_parameter", ..invalid(message, "max_tokens") })
            }
            M::FilterRejected => self.filter_rejected(),
            M::ContextOverflow => self.overflow(),
            M::Hang => Reply { hang: Some(self.options.hang), broken: Some(Break::CloseAfter(0)), ..self.paid_by_coin() },
            M::ResetBeforeBody => Reply { broken: Some(Break::Reset), ..Reply::json(200, String::new()) },
            M::ResetAfterBody => Reply { broken: Some(Break::Reset), ..self.paid_by_coin() },
            M::ClosedAfterBody => Reply { broken: Some(Break::CloseAfter(0)), ..self.paid_by_coin() },
            M::ClosedInReply => {
                let reply = self.answer();
                // A head has more than 100 bytes, so that this is always less than the whole.
                Reply { broken: Some(Break::CloseAfter(100 + reply.body.len() / 2)), ..reply }
            }
            M::SseError => self.event_error(),
            M::EmptyBody => Reply { body: String::new(), ..self.paid_by_coin() },
            M::Html => Reply { billed: self.coin(), usage: self.answer().usage, ..Reply::html(200, "One moment please") },
            _ => self.answer(),
        }
        .settled()
    }

    fn coin(&self) -> bool {
        let index = self.index.wrapping_add(u64::from(self.attempt));
        rlaif_core::seed::stream(self.options.seed, "mock/coin", index).random_bool(0.5)
    }

    fn paid_by_coin(&self) -> Reply {
        Reply { billed: self.coin(), ..self.answer() }
    }

    fn error(&self, status: u16, error: &ApiError<'_>) -> Reply {
        Reply::error(self.ask.provider, status, error, self.id)
    }

    fn failed(&self, status: u16, message: &str, anthropic: &str) -> Reply {
        self.error(status, &ApiError { message, kind: "server_error", code: "", param: "", anthropic })
    }

    fn fatal(&self, status: u16, message: &str, kind: &str, code: &str, anthropic: &str) -> Reply {
        self.error(status, &ApiError { message, kind, code, param: "", anthropic })
    }

    fn limited(&self) -> Reply {
        limited(self.ask.provider, &self.ask.model, "requests", self.options.retry_after, self.id)
    }

    fn quota(&self) -> Reply {
        let message = "You exceeded your current quota, please check your plan and billing details.";
        match self.ask.provider {
            Provider::OpenAi => self.fatal(429, message, "insufficient_quota", "insufficient_quota", ""),
            // Anthropic says it with a 400 of the most common type; only the words tell.
            Provider::Anthropic => {
                let message =
                    "Your credit balance is too low to access the API. Please go to Plans & Billing.";
                self.error(400, &invalid(message, ""))
            }
        }
    }

    fn filter_rejected(&self) -> Reply {
        match self.ask.provider {
            Provider::OpenAi => {
                // Azure's shape, with its null type and inner error.
                let body = serde_json::json!({"error": {
                    "message": "The response was filtered due to the prompt triggering content management policy.",
                    "type": null, "param": "prompt", "code": "content_filter", "status": 400,
                    "innererror": {"code": "ResponsibleAIPolicyViolation",
                        "content_filter_result": {"violence": {"filtered": true, "severity": "medium"}}}}});
                Reply::json(400, body.to_string())
            }
            Provider::Anthropic => {
                self.error(400, &invalid("Output blocked by content filtering policy", ""))
            }
        }
    }

    pub(crate) fn overflow(&self) -> Reply {
        let (limit, got) = (self.options.context_tokens, self.ask.prompt_tokens);
        // Chaos says it of a prompt of any length.
        let got = if got > limit { got } else { limit + got };
        match self.ask.provider {
            Provider::OpenAi => {
                let message = format!(
                    "This model's maximum context length is {limit} tokens. However, your messages resulted in {got} tokens."
                );
                self.error(
                    400,
                    &ApiError { code: "context_length_exceeded", ..invalid(&message, "messages") },
                )
            }
            Provider::Anthropic => {
                let message = format!("prompt is too long: {got} tokens > {limit} maximum");
                self.error(400, &invalid(&message, ""))
            }
        }
    }

    fn event_error(&self) -> Reply {
        let overloaded = ApiError {
            message: "Overloaded",
            kind: "server_error",
            code: "overloaded",
            param: "",
            anthropic: "overloaded_error",
        };
        let error = overloaded.body(self.ask.provider, &format!("req_{}", self.id));
        let body = match self.ask.provider {
            Provider::OpenAi => format!("data: {error}\n\n"),
            Provider::Anthropic => format!("event: error\ndata: {error}\n\n"),
        };
        Reply { content_type: "text/event-stream", body, ..self.paid_by_coin() }
    }

    /// A reply with status 200 and a completion, with or without something wrong in it.
    fn answer(&self) -> Reply {
        let (options, ask) = (self.options, self.ask);
        let question = extract::question(&ask.messages);
        let mut rng = rlaif_core::seed::stream(options.seed, "mock/judge", self.index);
        let whole = ask.messages.last().map_or("", |(_, text)| text.as_str());
        let opinion = opinion::decide(&question, whole, options, &mut rng);
        let written = writing::write(ask, &question, &opinion, options.style, &mut rng);
        let most = ask.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS).max(1);
        let reasoning = options.reasoning_tokens.min(most);
        let room = most - reasoning;
        let (content, mut finish) = self.content(&written, &question, room);
        let mut text = match content {
            Content::Text(text) => Some(text),
            _ => None,
        };
        let mut tokens = match &text {
            Some(_) if self.mode == Mode::HugeBody => room.saturating_sub(1),
            Some(text) => count_tokens(text),
            None if self.mode == Mode::Refusal => room.min(12),
            None => 0,
        };
        // Where there is no room even for the end of the reply, every provider says so.
        if tokens >= room && self.mode != Mode::TruncatedLying && text.is_some() {
            finish = Finish::Length;
            tokens = room;
            text = text.map(|text| first_tokens(&text, room).to_owned());
        }
        let shown = text.as_deref().filter(|_| self.mode != Mode::HugeBody);
        let logprobs = ask.top_logprobs.zip(shown).map(|(top, text)| {
            let unmoved = text == written.text;
            let end = text.len();
            let place = Written {
                verdict: if unmoved { written.verdict.clone() } else { end..end },
                ..written.clone()
            };
            logprobs(&place, text, &opinion, top, options.label_mass, &mut rng)
        });
        let usage = Usage {
            prompt_tokens: ask.prompt_tokens,
            cached_tokens: (ask.prompt_tokens as f64 * options.cached_share) as u64,
            completion_tokens: tokens + reasoning,
            reasoning_tokens: reasoning,
            ..Usage::default()
        };
        let other_model = format!("{}-mini", ask.model);
        let completion = Completion {
            id: self.id,
            model: if self.mode == Mode::WrongModel { &other_model } else { &ask.model },
            content: match text {
                Some(text) => Content::Text(text),
                None => content_without_text(self.mode),
            },
            finish,
            usage,
            logprobs,
            service_tier: self.service_tier,
        };
        // A step before the verdict says none.
        let opinion = (self.mode.is_clean() && !written.verdict.is_empty()).then_some(opinion);
        Reply { billed: true, usage, opinion, ..Reply::json(200, completion.body(ask)) }
    }

    /// What the reply says, and why it ends.
    fn content(&self, written: &Written, question: &Question, room: u64) -> (Content, Finish) {
        use Mode as M;
        let said = &written.text[written.verdict.clone()];
        let explanation = "Response 1 says more, and response 2 is more to the point.";
        let json =
            |rest: &str| format!("{{\"explanation\": \"{explanation}\", \"verdict\": \"{said}\"{rest}");
        let wants_json = matches!(self.ask.format, Format::Json(_) | Format::Tool(..));
        // Rambling without an end: more tokens than any limit that a judge is given.
        let ramble = || {
            let start = if wants_json { "{\"explanation\": \"" } else { "" };
            let sentences = usize::try_from(room.min(50_000)).unwrap_or(50_000) / 8 + 2;
            format!("{start}{}", "Then again, one could also say this. ".repeat(sentences))
        };
        let text = match self.mode {
            M::Truncated => return (Content::Text(ramble()), Finish::Length),
            M::TruncatedLying => {
                return (Content::Text(first_tokens(&ramble(), room).to_owned()), Finish::Stop);
            }
            M::WhitespaceLoop => {
                let start = format!("{{\"explanation\": \"{explanation}\",");
                let blanks = usize::try_from(room.min(50_000)).unwrap_or(50_000);
                return (Content::Text(format!("{start}{}", " \n".repeat(blanks / 2 + 1))), Finish::Length);
            }
            M::Refusal | M::FilterWithheld | M::NullContent | M::NoChoices => {
                let finish = match self.mode {
                    M::Refusal => Finish::Refusal,
                    M::FilterWithheld => Finish::Filter,
                    _ => Finish::Stop,
                };
                return (content_without_text(self.mode), finish);
            }
            M::MalformedJson => json(", \"confidence\": 0."),
            M::DuplicateKeys => {
                let labels = question.labels.clone().unwrap_or_else(|| ["1".into(), "2".into()]);
                let other = if labels[0] == said { &labels[1] } else { &labels[0] };
                json(&format!(", \"verdict\": \"{other}\"}}"))
            }
            M::HugeNumber => json(", \"confidence\": 1e999}"),
            M::ExtraProse => format!(
                "{}\n\nI hope this helps! If response 1 were shorter or response 2 longer, I might decide otherwise.",
                written.text
            ),
            M::CodeFence if wants_json => format!("```json\n{}\n```", written.text),
            M::CodeFence => format!("```\n{}\n```", written.text),
            M::LoneSurrogate => format!("{LONE_SURROGATE}{}", written.text),
            M::WrongLabel => {
                let (before, after) =
                    (&written.text[..written.verdict.start], &written.text[written.verdict.end..]);
                let wrong = ["3", "Z", "both", "none of them"];
                let mut rng = rlaif_core::seed::stream(self.options.seed, "mock/wrong", self.index);
                format!("{before}{}{after}", wrong.choose(&mut rng).unwrap_or(&"3"))
            }
            M::HugeBody => format!("{}{}", "Much could be said. ".repeat(HUGE / 20), written.text),
            _ => written.text.clone(),
        };
        (Content::Text(text), Finish::Stop)
    }
}

fn content_without_text(mode: Mode) -> Content {
    match mode {
        Mode::Refusal => Content::Refused("I'm sorry, but I can't assist with comparing these responses."),
        Mode::NoChoices => Content::Nothing,
        _ => Content::Null,
    }
}

impl Reply {
    /// Nothing is used where nothing is billed.
    fn settled(mut self) -> Self {
        if !self.billed {
            self.usage = Usage::default();
        }
        self
    }

    /// The response that the verdict names.
    pub(crate) fn said(&self) -> Option<Choice> {
        self.opinion.map(|opinion| opinion.choice)
    }
}

/// 429, without saying when to come back.
pub(crate) fn limited(provider: Provider, model: &str, what: &str, seconds: f64, id: &str) -> Reply {
    let message =
        format!("Rate limit reached for {model} on {what} per min. Please try again in {seconds}s.");
    let error = ApiError {
        message: &message,
        kind: what,
        code: "rate_limit_exceeded",
        param: "",
        anthropic: "rate_limit_error",
    };
    Reply::error(provider, 429, &error, id)
}

/// An HTTP date, by a clock that is `ahead` seconds ahead, in `from_now` seconds; rounded up, since dates have whole seconds.
fn date(ahead: f64, from_now: f64) -> String {
    let now = SystemTime::now();
    let offset = ahead + from_now;
    let time = if offset >= 0.0 {
        now + Duration::from_secs_f64(offset)
    } else {
        now - Duration::from_secs_f64(-offset)
    };
    let rounded_up = if from_now > 0.0 { time + Duration::from_millis(999) } else { time };
    httpdate::fmt_http_date(rounded_up)
}
