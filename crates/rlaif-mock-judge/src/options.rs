//! How the judge behaves. One struct serves the library and the command line, so that `--help` is its documentation.

use crate::chaos::{Mode, Weighted};
use clap::{Args, Parser, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The position that a biased judge names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Position {
    /// The response shown first
    First,
    /// The response shown second
    Second,
}

/// How a verdict is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnswerStyle {
    /// As the request asks: JSON for a schema, a rating for a single response, a bare label where there is room for nothing
    /// else, `[[A]]` where the prompt shows it, else the house style
    Auto,
    /// An explanation, then `Better response: 1`
    House,
    /// The label alone: `1`, `A`
    Label,
    /// An explanation, then `[[A]]`
    Brackets,
    /// `{"explanation": …, "verdict": …}`
    Json,
    /// A number from 1 to 10
    Rating,
}

/// A form to which a request may hold its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum FormKind {
    /// One of a few texts (vLLM's `structured_outputs.choice`)
    Choice,
    /// JSON, by a schema or not (`response_format`, Anthropic's `output_config`)
    JsonSchema,
    /// The input of a tool (Anthropic)
    Tool,
}

/// How a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BatchEnd {
    /// Every request has a result
    Completed,
    /// OpenAI: fails in validation with `token_limit_exceeded`; Anthropic: every request errors
    Failed,
    /// Half of the requests are done when time is up, the others expire
    Expired,
}

/// Everything that can be set. `Options::default()` is an honest, fast, free judge on a free port.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Options {
    /// Address to listen on; only this machine's own (127.0.0.1, ::1). Port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", help_heading = "Server")]
    pub listen: SocketAddr,
    /// Seed of everything that is drawn: the same request gets the same answer under the same seed
    #[arg(long, default_value_t = 0, help_heading = "Server")]
    pub seed: u64,
    /// The model's name in replies that are not asked for one, and in the list of models
    #[arg(long, default_value = "mock-judge", help_heading = "Server")]
    pub model: String,
    /// Key that callers must send; without it any key will do, and none
    #[arg(long, value_name = "KEY", help_heading = "Server")]
    pub require_key: Option<String>,
    /// File to which each call is appended as a line of JSON: the truth about what was asked, answered and billed
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub ledger: Option<PathBuf>,
    /// Do not keep the calls in memory (`GET /ledger/summary` works all the same)
    #[arg(long, help_heading = "Server")]
    pub forget_calls: bool,

    /// Probability of naming the better response, in requests that are not position-biased
    #[arg(long, default_value_t = 1.0, value_parser = share, help_heading = "Judging")]
    pub accuracy: f64,
    /// Share of requests in which the judge names a fixed position, whatever stands there
    #[arg(long, default_value_t = 0.0, value_parser = share, help_heading = "Judging")]
    pub position_bias: f64,
    /// The position that those requests name
    #[arg(long, value_enum, default_value_t = Position::First, help_heading = "Judging")]
    pub biased_to: Position,
    /// Logit added for a response per unit of relative length, (its characters − the other's) / their mean
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, help_heading = "Judging")]
    pub length_bias: f64,
    /// Words for which it has a weakness, such as names
    #[arg(long, value_name = "WORD", value_delimiter = ',', help_heading = "Judging")]
    pub bias_for: Vec<String>,
    /// Logit added for a response that has one of the words of `--bias-for` where the other has none
    #[arg(long, default_value_t = 2.0, allow_negative_numbers = true, help_heading = "Judging")]
    pub word_bias: f64,
    /// Text by which the judge knows responses of its own model, such as `[own]`
    #[arg(long, value_name = "TEXT", help_heading = "Judging")]
    pub own_mark: Option<String>,
    /// Logit added for a response with `--own-mark` against one without
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, help_heading = "Judging")]
    pub self_preference: f64,
    /// Say `tie` where the qualities differ by less than this and the prompt offers a tie
    #[arg(long, default_value_t = 0.0, value_parser = share, help_heading = "Judging")]
    pub tie_below: f64,
    /// How verdicts are written
    #[arg(long, value_enum, default_value_t = AnswerStyle::Auto, help_heading = "Judging")]
    pub style: AnswerStyle,
    /// Share of the probability that log-probabilities put on the labels together
    #[arg(long, default_value_t = 0.98, value_parser = share, help_heading = "Judging")]
    pub label_mass: f64,

    /// Forms that requests ask for in vain: the reply is free text, as of a server that does not know the field
    #[arg(long, value_enum, value_delimiter = ',', help_heading = "Judging")]
    pub ignore_forms: Vec<FormKind>,
    /// Forms that are refused with a 400, as by a server that knows which fields it knows
    #[arg(long, value_enum, value_delimiter = ',', help_heading = "Judging")]
    pub refuse_forms: Vec<FormKind>,

    /// Time to answer: `200ms`, or a uniform range such as `0.5s..2s`
    #[arg(long, default_value = "0ms", value_parser = latency, help_heading = "Time and limits")]
    pub latency: Latency,
    /// Requests a minute; more are answered 429 with Retry-After
    #[arg(long, value_name = "N", help_heading = "Time and limits")]
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute, prompt and `max_tokens` counted when a request comes; more are answered 429 with Retry-After
    #[arg(long, value_name = "N", help_heading = "Time and limits")]
    pub tokens_per_minute: Option<u32>,
    /// Seconds' worth of a limit that can be used at once
    #[arg(long, default_value_t = 60.0, help_heading = "Time and limits")]
    pub burst_seconds: f64,
    /// Longest prompt in tokens; longer ones are refused as every provider does
    #[arg(long, default_value_t = 128_000, help_heading = "Time and limits")]
    pub context_tokens: u64,

    /// Share of attempts that fail
    #[arg(long, default_value_t = 0.0, value_parser = share, help_heading = "Failures")]
    pub chaos: f64,
    /// What these attempts fail with: names, each with a weight if wanted, such as `rate_limited=5,hang`. Groups: `transient`,
    /// `content`, `default` (both), `fatal` (a wrong key and the like, which stop a run)
    #[arg(long, value_delimiter = ',', default_value = "default", help_heading = "Failures")]
    pub chaos_modes: Vec<Weighted>,
    /// Attempts of one request that may fail one after another; 0 for no limit
    #[arg(long, default_value_t = 1, help_heading = "Failures")]
    pub chaos_in_a_row: u32,
    /// What every request meets at its first, second, … attempt, such as `server_error,answer`; chaos is drawn after that
    #[arg(long, value_delimiter = ',', help_heading = "Failures")]
    pub script: Vec<Mode>,
    /// Answer every call with this once `--fatal-after` calls have come, such as `insufficient_quota`
    #[arg(long, value_name = "MODE", help_heading = "Failures")]
    pub fatal: Option<Mode>,
    /// Calls before `--fatal` begins
    #[arg(long, default_value_t = 0, help_heading = "Failures")]
    pub fatal_after: u64,
    /// Share of new connections that are reset before a byte is read
    #[arg(long, default_value_t = 0.0, value_parser = share, help_heading = "Failures")]
    pub refuse_connections: f64,
    /// Seconds that Retry-After asks for in 429 of chaos
    #[arg(long, default_value_t = 0.2, help_heading = "Failures")]
    pub retry_after: f64,
    /// How long a call hangs that never gets an answer
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration, help_heading = "Failures")]
    pub hang: Duration,

    /// Dollars per million prompt tokens
    #[arg(long, default_value_t = 0.0, help_heading = "Bill")]
    pub usd_per_million_input: f64,
    /// Dollars per million completion tokens
    #[arg(long, default_value_t = 0.0, help_heading = "Bill")]
    pub usd_per_million_output: f64,
    /// Dollars per million cached prompt tokens; without it the price of input
    #[arg(long, help_heading = "Bill")]
    pub usd_per_million_cached_input: Option<f64>,
    /// Share of each prompt that is reported, and billed, as cached
    #[arg(long, default_value_t = 0.0, value_parser = share, help_heading = "Bill")]
    pub cached_share: f64,
    /// Reasoning tokens that each answer reports, and bills, besides its text
    #[arg(long, default_value_t = 0, help_heading = "Bill")]
    pub reasoning_tokens: u64,

    /// Times that a batch must be asked for before it moves to its next state
    #[arg(long, default_value_t = 1, help_heading = "Batches")]
    pub batch_polls: u32,
    /// Least time that a batch takes from its creation to its end
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, help_heading = "Batches")]
    pub batch_delay: Duration,
    /// How batches end
    #[arg(long, value_enum, default_value_t = BatchEnd::Completed, help_heading = "Batches")]
    pub batch_end: BatchEnd,
}

impl Default for Options {
    /// The defaults of the command line.
    fn default() -> Self {
        #[derive(Parser)]
        struct Bare {
            #[command(flatten)]
            options: Options,
        }
        Bare::parse_from([""]).options
    }
}

/// How long an answer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// Always this long.
    Fixed(Duration),
    /// Uniform between the two, drawn by request.
    Uniform(Duration, Duration),
}

impl Latency {
    /// The latency at a uniform draw from [0, 1).
    pub fn at(self, uniform: f64) -> Duration {
        match self {
            Self::Fixed(duration) => duration,
            Self::Uniform(low, high) => low + (high - low).mul_f64(uniform),
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(format!("must be from 0 to 1, got {text}")) }
}

fn latency(text: &str) -> Result<Latency, String> {
    let one = |text: &str| humantime::parse_duration(text.trim()).map_err(|error| error.to_string());
    match text.split_once("..") {
        None => Ok(Latency::Fixed(one(text)?)),
        Some((low, high)) => {
            let (low, high) = (one(low)?, one(high)?);
            if low > high {
                return Err(format!("the range `{text}` ends before it begins"));
            }
            Ok(Latency::Uniform(low, high))
        }
    }
}

/// Options that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// Others on the network could spend on, or be fooled by, a judge that is none.
    #[error("the mock judge listens on this machine only; `{0}` is not a loopback address, use 127.0.0.1:0")]
    NotLoopback(SocketAddr),
    /// A price that is no amount of money.
    #[error("a price per million tokens is no amount of money")]
    Price(#[from] rlaif_core::money::MoneyError),
    /// A number outside its range.
    #[error("`{name}` must be {must}, got {got}")]
    OutOfRange {
        /// The flag, without dashes.
        name: &'static str,
        /// What it must be.
        must: &'static str,
        /// What it is.
        got: f64,
    },
}

impl Options {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(&self) -> Result<(), OptionsError> {
        if !self.listen.ip().is_loopback() {
            return Err(OptionsError::NotLoopback(self.listen));
        }
        let shares = [
            ("accuracy", self.accuracy),
            ("position-bias", self.position_bias),
            ("tie-below", self.tie_below),
            ("label-mass", self.label_mass),
            ("chaos", self.chaos),
            ("refuse-connections", self.refuse_connections),
            ("cached-share", self.cached_share),
        ];
        for (name, got) in shares {
            if !(0.0..=1.0).contains(&got) {
                return Err(OptionsError::OutOfRange { name, must: "from 0 to 1", got });
            }
        }
        let biases = [
            ("length-bias", self.length_bias),
            ("self-preference", self.self_preference),
            ("word-bias", self.word_bias),
        ];
        for (name, got) in biases {
            if !got.is_finite() {
                return Err(OptionsError::OutOfRange { name, must: "a finite number", got });
            }
        }
        for (name, got) in [("burst-seconds", self.burst_seconds), ("retry-after", self.retry_after)] {
            if !(got > 0.0 && got <= 86_400.0) {
                return Err(OptionsError::OutOfRange { name, must: "above 0 and at most a day", got });
            }
        }
        self.price().map(drop)
    }

    /// What a call costs.
    ///
    /// # Errors
    /// If a price is negative or not finite.
    pub fn price(&self) -> Result<rlaif_core::money::Price, OptionsError> {
        let (input, output) = (self.usd_per_million_input, self.usd_per_million_output);
        Ok(rlaif_core::money::Price::from_dollars(input, output, self.usd_per_million_cached_input)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_can_ask() {
        for (listen, fine) in
            [("127.0.0.1:0", true), ("[::1]:0", true), ("0.0.0.0:0", false), ("10.0.0.1:80", false)]
        {
            let options = Options { listen: listen.parse().unwrap(), ..Options::default() };
            assert_eq!(options.validate().is_ok(), fine, "{listen}");
        }
    }

    #[test]
    fn numbers_outside_their_range_are_refused() {
        let default = Options::default;
        for bad in [
            Options { accuracy: 1.5, ..default() },
            Options { chaos: f64::NAN, ..default() },
            Options { burst_seconds: 0.0, ..default() },
            Options { length_bias: f64::INFINITY, ..default() },
            Options { word_bias: f64::NAN, ..default() },
            Options { self_preference: f64::NAN, ..default() },
            Options { usd_per_million_input: -1.0, ..default() },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
        assert!(default().validate().is_ok());
    }

    #[test]
    fn latency_is_a_duration_or_a_range() {
        let ms = Duration::from_millis;
        assert_eq!(latency("5s"), Ok(Latency::Fixed(ms(5000))));
        assert_eq!(latency("10ms..30ms").unwrap().at(0.5), ms(20));
        assert!(latency("3s..1s").is_err());
        assert!(latency("soon").is_err());
    }
}
