//! Every way in which a server fails a call, and which one a call meets.
//!
//! The draw depends on (seed, request, attempt), so that a run with the same seed meets the same failures in the same requests,
//! whatever the order in which they come.

use rand::RngExt;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Defines [`Mode`] with its names and groups in one place.
macro_rules! modes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $group:ident;)+) => {
        /// What a call meets. The numbers in brackets are the rows of the failure catalogue in `docs/mock-judge.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Mode { $($(#[doc = $doc])+ $variant,)+ }

        impl Mode {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word on the command line and in the ledger.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What kind of failure it is.
            pub const fn group(self) -> Group {
                match self { $(Self::$variant => Group::$group,)+ }
            }

            /// One line for `--list-modes`.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// No failure.
    None,
    /// The call gets no reply that could be read; the same call succeeds later.
    Transient,
    /// A reply came and was mostly paid for, and is no clean verdict.
    Content,
    /// No other call would succeed either; drawn only when asked for by name.
    Fatal,
    /// The server's own answers to what callers do; cannot be drawn.
    Own,
}

modes! {
    /// a verdict, as it should be
    Answer = "answer", None;

    /// (1) the connection is reset as if the request had never been read; not billed
    ResetBeforeBody = "reset_before_body", Transient;
    /// (2) 429 with Retry-After in whole seconds
    RetryAfterSeconds = "retry_after_seconds", Transient;
    /// (2) 429 with Retry-After as a fraction of seconds
    RetryAfterFraction = "retry_after_fraction", Transient;
    /// (2) 429 with `retry-after-ms`
    RetryAfterMs = "retry_after_ms", Transient;
    /// (2) 429 with Retry-After as an HTTP date
    RetryAfterDate = "retry_after_date", Transient;
    /// (2) 429 that does not say when to come back
    RetryAfterAbsent = "retry_after_absent", Transient;
    /// (16) 429 with Retry-After as a date by a clock that is an hour ahead, as its Date header shows
    ClockSkew = "clock_skew", Transient;
    /// (16) 429 with Retry-After as a date in the past
    RetryAfterPast = "retry_after_past", Transient;
    /// (4) 500
    ServerError = "server_error", Transient;
    /// (4) 502, with a page of HTML
    BadGateway = "bad_gateway", Transient;
    /// (4) 503
    Unavailable = "unavailable", Transient;
    /// (4) 504 after the work was begun; billed or not, by a coin
    GatewayTimeout = "gateway_timeout", Transient;
    /// (4) 529, Anthropic's `overloaded_error`
    Overloaded = "overloaded", Transient;
    /// (5) no answer until the caller gives up; billed or not, by a coin
    Hang = "hang", Transient;
    /// (5) the connection is reset after the request was read; billed or not, by a coin
    ResetAfterBody = "reset_after_body", Transient;
    /// (5) the connection is closed after the request was read; billed or not, by a coin
    ClosedAfterBody = "closed_after_body", Transient;
    /// (5) the connection is closed in the middle of the reply; billed
    ClosedInReply = "closed_in_reply", Transient;

    /// (6) 200, and an error event where the reply should be; billed or not, by a coin
    SseError = "sse_error", Content;
    /// (7) cut off at the token limit, and says so
    Truncated = "truncated", Content;
    /// (7) cut off at exactly the token limit, and says `stop`
    TruncatedLying = "truncated_lying", Content;
    /// (8) the beginning of JSON, then spaces and line breaks to the token limit
    WhitespaceLoop = "whitespace_loop", Content;
    /// (9) the judge refuses
    Refusal = "refusal", Content;
    /// (10) the content filter refuses the prompt: 400, not billed
    FilterRejected = "filter_rejected", Content;
    /// (10) the content filter withholds the reply: 200, billed
    FilterWithheld = "filter_withheld", Content;
    /// (11) JSON that breaks off, with `stop`
    MalformedJson = "malformed_json", Content;
    /// (11) a verdict, and more prose after it
    ExtraProse = "extra_prose", Content;
    /// (11) a verdict in a code fence
    CodeFence = "code_fence", Content;
    /// (11) JSON with the verdict's key twice, and two verdicts
    DuplicateKeys = "duplicate_keys", Content;
    /// (11) half of a surrogate pair in the text
    LoneSurrogate = "lone_surrogate", Content;
    /// (11) a number that no double holds: 1e999
    HugeNumber = "huge_number", Content;
    /// (11) a verdict that was not offered
    WrongLabel = "wrong_label", Content;
    /// (12) 400: longer than the model's context
    ContextOverflow = "context_overflow", Content;
    /// (13) 200 without a body
    EmptyBody = "empty_body", Content;
    /// (13) 200 with a proxy's page of HTML
    Html = "html", Content;
    /// (13) 200 with an empty list of choices
    NoChoices = "no_choices", Content;
    /// (13) 200 with null where the text should be
    NullContent = "null_content", Content;
    /// (13) 200 with more than a megabyte; billed
    HugeBody = "huge_body", Content;
    /// (14) a verdict by another model than the one that was asked
    WrongModel = "wrong_model", Content;

    /// (3) 401
    Unauthorized = "unauthorized", Fatal;
    /// (3) 402, Anthropic's `billing_error`
    BillingError = "billing_error", Fatal;
    /// (3) 403
    Forbidden = "forbidden", Fatal;
    /// (3) 429 with `insufficient_quota`
    InsufficientQuota = "insufficient_quota", Fatal;
    /// (15) 400: a parameter that the model does not know
    UnsupportedParameter = "unsupported_parameter", Fatal;

    /// the limit of `--requests-per-minute` or `--tokens-per-minute` was reached
    Limited = "limited", Own;
    /// the request could not be read
    BadRequest = "bad_request", Own;
    /// a batch's results were downloaded
    Download = "download", Own;
    /// a batch ended before this request's turn
    Expired = "expired", Own;
}

impl Mode {
    /// True if nothing was wrong with what came back.
    pub const fn is_clean(self) -> bool {
        matches!(self, Self::Answer | Self::WrongModel)
    }

    /// True if it can be asked for on the command line.
    pub fn can_be_drawn(self) -> bool {
        !matches!(self.group(), Group::Own)
    }

    /// True if the judge worked before the call failed, so that it takes as long as an answer.
    pub(crate) fn takes_time(self) -> bool {
        use Mode as M;
        let prompt = matches!(
            self,
            M::ResetBeforeBody
                | M::RetryAfterSeconds
                | M::RetryAfterFraction
                | M::RetryAfterMs
                | M::RetryAfterDate
                | M::RetryAfterAbsent
                | M::RetryAfterPast
                | M::ClockSkew
                | M::FilterRejected
                | M::ContextOverflow
        );
        !prompt && !matches!(self.group(), Group::Fatal | Group::Own)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let drawn = Self::ALL.iter().copied().filter(|mode| mode.can_be_drawn());
        let mut found = drawn.filter(|mode| mode.as_str() == name.trim());
        found.next().ok_or_else(|| format!("`{name}` is no mode; `--list-modes` shows them all"))
    }
}

/// A mode, or a group of them, with the weight of each in the draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    modes: Vec<Mode>,
    weight: f64,
}

impl Weighted {
    /// One mode with a weight.
    pub fn mode(mode: Mode, weight: f64) -> Self {
        Self { modes: vec![mode], weight }
    }

    /// All modes of a group, each with weight 1.
    pub fn group(group: Group) -> Self {
        Self { modes: Mode::ALL.iter().copied().filter(|mode| mode.group() == group).collect(), weight: 1.0 }
    }
}

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
        let weight: f64 = weight.trim().parse().map_err(|_| format!("`{weight}` is no weight"))?;
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(format!("a weight is 0 or more, got {weight}"));
        }
        let in_groups = |groups: &[Group]| {
            Mode::ALL.iter().copied().filter(|mode| groups.contains(&mode.group())).collect()
        };
        let modes = match name.trim() {
            "default" => in_groups(&[Group::Transient, Group::Content]),
            "transient" => in_groups(&[Group::Transient]),
            "content" => in_groups(&[Group::Content]),
            "fatal" => in_groups(&[Group::Fatal]),
            name => vec![name.parse()?],
        };
        Ok(Self { modes, weight })
    }
}

/// What a request has met so far.
#[derive(Debug, Clone, Copy, Default)]
struct Past {
    /// How often it came.
    came: u32,
    /// How often it came as far as a draw: past the rate limits and readable.
    drawn: u32,
    failed_in_a_row: u32,
}

/// Draws what each call meets, and counts attempts.
#[derive(Debug)]
pub(crate) struct Chaos {
    seed: u64,
    share: f64,
    in_a_row: u32,
    script: Vec<Mode>,
    fatal: Option<(Mode, u64)>,
    weights: Vec<(Mode, f64)>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    calls: u64,
    requests: HashMap<[u8; 16], Past>,
}

impl Chaos {
    pub(crate) fn new(options: &crate::Options) -> Self {
        // A later word overrides an earlier one, so that `default,hang=5` means what it says.
        let mut weights: Vec<(Mode, f64)> = Vec::new();
        for weighted in &options.chaos_modes {
            for &mode in &weighted.modes {
                weights.retain(|(other, _)| *other != mode);
                weights.push((mode, weighted.weight));
            }
        }
        Self {
            seed: options.seed,
            share: options.chaos,
            in_a_row: options.chaos_in_a_row,
            script: options.script.clone(),
            fatal: options.fatal.map(|mode| (mode, options.fatal_after)),
            weights,
            seen: Mutex::default(),
        }
    }

    /// A panic elsewhere leaves counts that are still counts.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of this attempt, from 1, and what it meets.
    pub(crate) fn next(&self, request: &blake3::Hash) -> (u32, Mode) {
        let key = key(request);
        let mut seen = self.seen();
        seen.calls += 1;
        let calls = seen.calls;
        let past = seen.requests.entry(key).or_default();
        past.came += 1;
        past.drawn += 1;
        let mode = self.mode(calls, *past, key);
        past.met(mode);
        (past.came, mode)
    }

    /// Counts an attempt that meets no draw, since a limit or its own form stopped it.
    pub(crate) fn came(&self, request: &blake3::Hash) -> u32 {
        let mut seen = self.seen();
        let past = seen.requests.entry(key(request)).or_default();
        past.came += 1;
        past.came
    }

    /// Remembers what an earlier mock with the same ledger did.
    pub(crate) fn restore(&self, request: &str, mode: &str) {
        let Ok(request) = blake3::Hash::from_hex(request) else { return };
        let Some(&mode) = Mode::ALL.iter().find(|known| known.as_str() == mode) else { return };
        let mut seen = self.seen();
        let past = seen.requests.entry(key(&request)).or_default();
        past.came += 1;
        if mode.can_be_drawn() {
            past.drawn += 1;
            past.met(mode);
            seen.calls += 1;
        }
    }

    fn mode(&self, calls: u64, past: Past, key: [u8; 16]) -> Mode {
        if let Some((mode, after)) = self.fatal
            && calls > after
        {
            return mode;
        }
        if let Some(&mode) = self.script.get(past.drawn as usize - 1) {
            return mode;
        }
        if self.share == 0.0 || (self.in_a_row > 0 && past.failed_in_a_row >= self.in_a_row) {
            return Mode::Answer;
        }
        let request = u64::from_le_bytes(key[..8].try_into().expect("8 of 16 bytes"));
        let index = request.wrapping_add(u64::from(past.drawn));
        let mut rng = rlaif_core::seed::stream(self.seed, "mock/chaos", index);
        if rng.random::<f64>() >= self.share {
            return Mode::Answer;
        }
        let total: f64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = rng.random::<f64>() * total;
        for &(mode, weight) in &self.weights {
            at -= weight;
            if at < 0.0 {
                return mode;
            }
        }
        Mode::Answer
    }
}

impl Past {
    fn met(&mut self, mode: Mode) {
        self.failed_in_a_row = if mode == Mode::Answer { 0 } else { self.failed_in_a_row + 1 };
    }
}

fn key(request: &blake3::Hash) -> [u8; 16] {
    request.as_bytes()[..16].try_into().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn hash(index: u32) -> blake3::Hash {
        blake3::hash(&index.to_le_bytes())
    }

    #[test]
    fn names_are_unique_and_read_back() {
        for &mode in Mode::ALL {
            assert_eq!(Mode::ALL.iter().filter(|other| other.as_str() == mode.as_str()).count(), 1, "{mode}");
            assert_eq!(mode.as_str().parse::<Mode>().is_ok(), mode.can_be_drawn(), "{mode}");
        }
        assert!("hang=0.5".parse::<Weighted>().is_ok());
        for bad in ["hangs", "hang=x", "hang=-1", "limited"] {
            assert!(bad.parse::<Weighted>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_share_fails_uniformly_and_the_second_attempt_succeeds() {
        let chaos = Chaos::new(&Options { chaos: 0.2, ..Options::default() });
        let mut counts: HashMap<Mode, u32> = HashMap::new();
        for index in 0..40_000 {
            let (attempt, mode) = chaos.next(&hash(index));
            assert_eq!(attempt, 1);
            *counts.entry(mode).or_default() += 1;
            if mode != Mode::Answer {
                assert_eq!(chaos.next(&hash(index)), (2, Mode::Answer));
            }
        }
        let drawn = Mode::ALL.iter().filter(|m| matches!(m.group(), Group::Transient | Group::Content));
        let modes = drawn.clone().count() as f64;
        let expected = 40_000.0 * 0.2 / modes;
        for mode in drawn {
            let seen = f64::from(counts.remove(mode).unwrap_or_default());
            assert!((seen - expected).abs() < 5.0 * expected.sqrt(), "{mode}: {seen}, expected {expected}");
        }
        let answered = f64::from(counts.remove(&Mode::Answer).unwrap());
        assert!((answered - 32_000.0).abs() < 5.0 * (40_000.0 * 0.16_f64).sqrt(), "{answered}");
        assert!(counts.is_empty(), "fatal ones are not drawn unless named: {counts:?}");
    }

    #[test]
    fn the_order_of_requests_changes_nothing() {
        let options = Options { chaos: 0.5, chaos_in_a_row: 0, ..Options::default() };
        let (forth, back) = (Chaos::new(&options), Chaos::new(&options));
        let ahead: Vec<_> = (0..300).map(|index| forth.next(&hash(index))).collect();
        let mut behind: Vec<_> = (0..300).rev().map(|index| back.next(&hash(index))).collect();
        behind.reverse();
        assert_eq!(ahead, behind);
        let other = Chaos::new(&Options { seed: 1, ..options });
        assert_ne!(ahead, (0..300).map(|index| other.next(&hash(index))).collect::<Vec<_>>());
    }

    #[test]
    fn a_restarted_mock_goes_on_where_it_was() {
        let options = Options { script: vec![Mode::Hang, Mode::Refusal], ..Options::default() };
        let chaos = Chaos::new(&options);
        chaos.restore(&hash(0).to_hex(), "hang");
        chaos.restore(&hash(0).to_hex(), "limited");
        assert_eq!(chaos.next(&hash(0)), (3, Mode::Refusal));
        assert_eq!(chaos.came(&hash(0)), 4);
    }

    #[test]
    fn script_weights_and_fatal() {
        let scripted = Chaos::new(&Options {
            script: vec![Mode::Hang, Mode::Answer, Mode::Refusal],
            ..Options::default()
        });
        let met: Vec<Mode> = (0..4).map(|_| scripted.next(&hash(0)).1).collect();
        assert_eq!(met, [Mode::Hang, Mode::Answer, Mode::Refusal, Mode::Answer]);
        let weights = ["default=0", "hang=1", "refusal=3"].map(|text| text.parse().unwrap());
        let weighted = Chaos::new(&Options { chaos: 1.0, chaos_modes: weights.into(), ..Options::default() });
        let hangs = (0..4000).filter(|&index| weighted.next(&hash(index)).1 == Mode::Hang).count();
        assert!((860..1140).contains(&hangs), "a quarter of 4000, got {hangs}");
        let fatal = Chaos::new(&Options {
            fatal: Some(Mode::InsufficientQuota),
            fatal_after: 2,
            ..Options::default()
        });
        let met: Vec<Mode> = (0..4).map(|index| fatal.next(&hash(index)).1).collect();
        assert_eq!(met, [Mode::Answer, Mode::Answer, Mode::InsufficientQuota, Mode::InsufficientQuota]);
    }
}
