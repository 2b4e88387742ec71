//! How fast an endpoint may be asked: what the user and the provider's headers allow, and how many calls it bears at once.
//!
//! * Requests and tokens are paced evenly over the minute, so that a provider's bucket never runs dry: a full minute's worth sent in
//!   the first second is what providers answer with 429 ("acceleration limits").
//! * The number of calls in flight falls to 0.7 of itself when the endpoint says that it is too much (429, 503, 529), once for
//!   all calls that were in flight then, and grows again by 1 % of the maximum, at least 1, for each full window of replies.
//! * One instant for all: after a Retry-After nothing is sent before it.

use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How far ahead of an even pace a burst may be.
const BURST: Duration = Duration::from_millis(250);

/// Share of the calls in flight that is left after a sign of congestion.
const DECREASE: f64 = 0.7;

/// First guess of tokens in a byte of a prompt, until replies tell: English has about 0.25.
const TOKENS_A_BYTE: f64 = 0.35;

/// How much of the latest reply enters that guess.
const LEARNING: f64 = 0.05;

/// What the user says that the endpoint allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitOptions {
    /// Requests a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute, of prompts and of the most that replies may have.
    pub tokens_per_minute: Option<u32>,
}

/// What one reply's headers say of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitHint {
    /// How much a minute.
    pub limit: Option<u64>,
    /// How much is left now.
    pub remaining: Option<u64>,
    /// When all of it is there again.
    pub reset: Option<Duration>,
}

/// What one reply's headers say of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitHints {
    /// Requests.
    pub requests: LimitHint,
    /// Tokens; where input and output are limited apart, those of the input.
    pub tokens: LimitHint,
}

impl LimitHints {
    /// Reads `x-ratelimit-*` (OpenAI) and `anthropic-ratelimit-*`; `None` if there are none. Times are measured against the server's
    /// own `Date`.
    pub fn read<'a>(header: impl Fn(&str) -> Option<&'a str>, now: SystemTime) -> Option<Box<Self>> {
        let now = header("date").and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
        let hint = |names: &[[&str; 3]]| {
            let number = |name: &str| header(name)?.trim().parse::<u64>().ok();
            let found = names
                .iter()
                .find(|[limit, remaining, _]| header(limit).is_some() || header(remaining).is_some());
            found.map_or_else(LimitHint::default, |[limit, remaining, reset]| LimitHint {
                limit: number(limit),
                remaining: number(remaining),
                reset: header(reset).and_then(|text| until(text.trim(), now)),
            })
        };
        let requests = hint(&[
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
            [
                "anthropic-ratelimit-requests-limit",
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-reset",
            ],
        ]);
        let tokens = hint(&[
            ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
            [
                "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-remaining",
                "anthropic-ratelimit-tokens-reset",
            ],
            [
                "anthropic-ratelimit-input-tokens-limit",
                "anthropic-ratelimit-input-tokens-remaining",
                "anthropic-ratelimit-input-tokens-reset",
            ],
        ]);
        let hints = Self { requests, tokens };
        (hints != Self::default()).then(|| Box::new(hints))
    }
}

/// A Go duration (`6m0s`, `20ms`), plain seconds, or an RFC 3339 instant; at most a day.
fn until(text: &str, now: SystemTime) -> Option<Duration> {
    let at_most_a_day = |seconds: f64| {
        (seconds.is_finite() && seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(86_400.0)))
    };
    if let Ok(seconds) = text.parse::<f64>() {
        return at_most_a_day(seconds);
    }
    if text.contains('T') {
        let at = humantime::parse_rfc3339_weak(text).ok()?;
        return at_most_a_day(at.duration_since(now).unwrap_or_default().as_secs_f64());
    }
    let (mut seconds, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        seconds += number
            * match &rest[end..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    at_most_a_day(seconds)
}

/// An even pace, as the generic cell rate algorithm keeps it: each call moves the time at which the pace is met again.
#[derive(Debug)]
struct Pace {
    asked: Option<f64>,
    told: Option<f64>,
    met_at: Instant,
}

impl Pace {
    fn new(a_minute: Option<u32>, now: Instant) -> Self {
        Self { asked: a_minute.map(|n| f64::from(n.max(1)) / 60.0), told: None, met_at: now }
    }

    /// Units a second; the lower of what the user and the provider say.
    fn rate(&self) -> Option<f64> {
        match (self.asked, self.told) {
            (Some(asked), Some(told)) => Some(asked.min(told)),
            (asked, told) => asked.or(told),
        }
    }

    /// When a call may go.
    fn free_at(&self) -> Instant {
        let Some(rate) = self.rate() else { return self.met_at };
        // No burst at a slow pace: the bucket of the other side may hold a single call.
        let burst = BURST.saturating_sub(Duration::from_secs_f64((1.0 / rate).min(1.0)));
        self.met_at.checked_sub(burst).unwrap_or(self.met_at)
    }

    fn take(&mut self, amount: f64, now: Instant) {
        if let Some(rate) = self.rate() {
            self.met_at = self.met_at.max(now) + Duration::from_secs_f64((amount / rate).min(86_400.0));
        }
    }

    fn told(&mut self, hint: &LimitHint, next: f64, now: Instant) {
        if let Some(limit) = hint.limit.filter(|limit| *limit > 0) {
            self.told = Some(limit as f64 / 60.0);
        }
        // Less is left than the next call needs: somebody else uses the account too, or counts otherwise than we do.
        if let (Some(rate), Some(remaining)) = (self.rate(), hint.remaining)
            && (remaining as f64) < next
        {
            let missing = Duration::from_secs_f64(((next - remaining as f64) / rate).min(86_400.0));
            let wait = hint.reset.map_or(missing, |reset| missing.min(reset));
            self.met_at = self.met_at.max(now + wait);
        }
    }
}

/// The limits of one endpoint, as known now.
#[derive(Debug)]
pub struct Limits {
    requests: Pace,
    tokens: Pace,
    tokens_a_byte: f64,
    max_in_flight: usize,
    in_flight: f64,
    cut_at: Option<Instant>,
    not_before: Instant,
}

impl Limits {
    /// Nothing known beyond what the user says.
    pub fn new(options: LimitOptions, max_in_flight: usize) -> Self {
        let now = Instant::now();
        let max_in_flight = max_in_flight.max(1);
        Self {
            requests: Pace::new(options.requests_per_minute, now),
            tokens: Pace::new(options.tokens_per_minute, now),
            tokens_a_byte: TOKENS_A_BYTE,
            max_in_flight,
            in_flight: max_in_flight as f64,
            cut_at: None,
            not_before: now,
        }
    }

    /// Most calls in flight now.
    pub fn in_flight(&self) -> usize {
        (self.in_flight as usize).clamp(1, self.max_in_flight)
    }

    /// The first instant at which a call may be sent.
    pub fn free_at(&self) -> Instant {
        self.not_before.max(self.requests.free_at()).max(self.tokens.free_at())
    }

    /// Counts a call that is about to be sent.
    pub fn take(&mut self, prompt_tokens_at_most: u64, max_tokens: u64, now: Instant) {
        self.requests.take(1.0, now);
        self.tokens.take(self.estimate(prompt_tokens_at_most, max_tokens), now);
    }

    /// The provider asks for quiet.
    pub fn hold(&mut self, until: Instant) {
        self.not_before = self.not_before.max(until);
    }

    /// A call was turned away because it was too much. What was in flight at the last cut says nothing new.
    pub fn congested(&mut self, sent_at: Instant, in_flight: usize, now: Instant) {
        if self.cut_at.is_none_or(|cut| sent_at >= cut) {
            self.in_flight = (self.in_flight.min(in_flight as f64 + 1.0) * DECREASE).max(1.0);
            self.cut_at = Some(now);
        }
    }

    /// A call succeeded. `prompt_tokens` is what the provider counted for a prompt of at most so many.
    pub fn succeeded(&mut self, prompt_tokens: Option<u64>, prompt_tokens_at_most: u64) {
        let step = (self.max_in_flight as f64 / 100.0).max(1.0);
        self.in_flight = (self.in_flight + step / self.in_flight).min(self.max_in_flight as f64);
        if let Some(tokens) = prompt_tokens.filter(|tokens| *tokens > 0) {
            let seen = tokens as f64 / prompt_tokens_at_most.max(1) as f64;
            self.tokens_a_byte += LEARNING * (seen.min(1.0) - self.tokens_a_byte);
        }
    }

    /// What the headers of a reply say.
    pub fn told(&mut self, hints: &LimitHints, prompt_tokens_at_most: u64, max_tokens: u64, now: Instant) {
        self.requests.told(&hints.requests, 1.0, now);
        let next = self.estimate(prompt_tokens_at_most, max_tokens);
        self.tokens.told(&hints.tokens, next, now);
    }

    /// Tokens that the provider will count for a call.
    fn estimate(&self, prompt_tokens_at_most: u64, max_tokens: u64) -> f64 {
        prompt_tokens_at_most as f64 * self.tokens_a_byte + max_tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn read(headers: &[(&'static str, &'static str)]) -> Option<Box<LimitHints>> {
        let map: HashMap<&str, &str> = headers.iter().copied().collect();
        LimitHints::read(|name| map.get(name).copied(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn headers_of_both_providers() {
        let openai = read(&[
            ("x-ratelimit-limit-requests", "600"),
            ("x-ratelimit-remaining-requests", "599"),
            ("x-ratelimit-reset-requests", "100ms"),
            ("x-ratelimit-limit-tokens", "40000"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ]);
        let hint = |limit, remaining, ms| LimitHint {
            limit: Some(limit),
            remaining: Some(remaining),
            reset: Some(Duration::from_millis(ms)),
        };
        assert_eq!(
            *openai.unwrap(),
            LimitHints { requests: hint(600, 599, 100), tokens: hint(40_000, 0, 360_000) }
        );
        let anthropic = read(&[
            ("date", "Wed, 25 Feb 2026 20:02:30 GMT"),
            ("anthropic-ratelimit-input-tokens-limit", "30000"),
            ("anthropic-ratelimit-input-tokens-remaining", "29000"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-02-25T20:02:37Z"),
        ]);
        assert_eq!(anthropic.unwrap().tokens, hint(30_000, 29_000, 7000));
        assert_eq!(read(&[("content-type", "application/json")]), None);
    }

    #[test]
    fn nonsense_is_no_time() {
        for (text, ms) in [("1h2m3.5s", 3_723_500), ("20ms", 20), ("7", 7000), ("0s", 0), ("", 0)] {
            assert_eq!(until(text, SystemTime::UNIX_EPOCH), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["soon", "-3", "NaN", "5 parsecs", "s", "12T99"] {
            assert_eq!(until(text, SystemTime::UNIX_EPOCH), None, "{text}");
        }
        assert_eq!(until("99999h", SystemTime::UNIX_EPOCH), Some(Duration::from_secs(86_400)));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_paced_evenly_and_all_of_the_limit_is_used() {
        for a_minute in [30, 600, 60_000] {
            let options = LimitOptions { requests_per_minute: Some(a_minute), tokens_per_minute: None };
            let mut limits = Limits::new(options, 1000);
            let start = Instant::now();
            let mut sent = 0_u32;
            while start.elapsed() < Duration::from_secs(120) {
                tokio::time::sleep_until(limits.free_at()).await;
                limits.take(100, 10, Instant::now());
                sent += 1;
            }
            let allowed = 2.0 * f64::from(a_minute);
            assert!((f64::from(sent) / allowed - 1.0).abs() < 0.02, "{sent} of {allowed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_provider_may_lower_the_limit_but_not_raise_it() {
        let options = LimitOptions { requests_per_minute: Some(60), tokens_per_minute: None };
        let told = |limits: &mut Limits, limit| {
            let requests = LimitHint { limit: Some(limit), ..LimitHint::default() };
            limits.told(&LimitHints { requests, tokens: LimitHint::default() }, 1, 1, Instant::now());
        };
        let mut limits = Limits::new(options, 10);
        told(&mut limits, 6000);
        assert_eq!(limits.requests.rate(), Some(1.0));
        told(&mut limits, 6);
        assert_eq!(limits.requests.rate(), Some(0.1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_bucket_holds_the_next_call_back() {
        let mut limits = Limits::new(LimitOptions::default(), 10);
        let tokens =
            LimitHint { limit: Some(6000), remaining: Some(100), reset: Some(Duration::from_secs(59)) };
        limits.told(&LimitHints { requests: LimitHint::default(), tokens }, 1000, 750, Instant::now());
        let wait = limits.free_at() - Instant::now();
        // 1000 bytes are guessed as 350 tokens: 1100 are needed, 100 are there, 100 come a second.
        assert!((9.7..=10.0).contains(&wait.as_secs_f64()), "{wait:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_burst_of_refusals_is_one_cut_and_success_grows_back() {
        let mut limits = Limits::new(LimitOptions::default(), 100);
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..50 {
            limits.congested(sent, 99, Instant::now());
        }
        assert_eq!(limits.in_flight(), 70);
        limits.congested(Instant::now(), 69, Instant::now());
        assert_eq!(limits.in_flight(), 49);
        for _ in 0..52 {
            limits.succeeded(None, 1);
        }
        assert_eq!(limits.in_flight(), 50, "one more for a window of replies");
        for _ in 0..100_000 {
            limits.succeeded(None, 1);
        }
        assert_eq!(limits.in_flight(), 100);
        for _ in 0..40 {
            limits.congested(Instant::now(), 0, Instant::now());
        }
        assert_eq!(limits.in_flight(), 1, "never none");
    }
}
