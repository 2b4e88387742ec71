//! Rate limits as providers have them: a bucket of requests and one of tokens, and the headers that tell their state.

use crate::ask::Provider;
use crate::options::Options;
use crate::wire::rfc3339;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The buckets.
#[derive(Debug)]
pub(crate) struct Limits {
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    a_minute: u32,
    capacity: f64,
    level: f64,
    at: Instant,
}

/// What the limits say to a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It may go on.
    Go,
    /// It must come back after this time.
    Wait(Duration, &'static str),
}

impl Bucket {
    fn new(a_minute: u32, burst_seconds: f64, now: Instant) -> Self {
        let capacity = (f64::from(a_minute) * burst_seconds / 60.0).max(1.0);
        Self { a_minute, capacity, level: capacity, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + seconds * f64::from(self.a_minute) / 60.0).min(self.capacity);
        self.at = now;
    }

    /// Time until `amount` is there; what is more than the bucket holds passes when it is full.
    fn wait_for(&self, amount: f64) -> Duration {
        let missing = amount.min(self.capacity) - self.level;
        if missing <= 1e-9 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((missing * 60.0 / f64::from(self.a_minute.max(1))).min(86_400.0))
    }

    fn until_full(&self) -> Duration {
        self.wait_for(self.capacity)
    }
}

impl Limits {
    pub(crate) fn new(options: &Options, now: Instant) -> Self {
        let bucket = |a_minute: Option<u32>| a_minute.map(|n| Bucket::new(n, options.burst_seconds, now));
        let buckets = Buckets {
            requests: bucket(options.requests_per_minute),
            tokens: bucket(options.tokens_per_minute),
        };
        Self { buckets: Mutex::new(buckets) }
    }

    /// Takes a request and its tokens from the buckets, both or neither, and gives the headers that tell what is left.
    pub(crate) fn take(
        &self,
        provider: Provider,
        tokens: u64,
        now: Instant,
    ) -> (Verdict, Vec<(&'static str, String)>) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Buckets { requests, tokens: bucket } = &mut *buckets;
        let asked = [(requests, 1.0, "requests"), (bucket, tokens as f64, "tokens")];
        let mut verdict = Verdict::Go;
        let mut present: Vec<(&mut Bucket, f64, &'static str)> = asked
            .into_iter()
            .filter_map(|(bucket, amount, name)| Some((bucket.as_mut()?, amount, name)))
            .collect();
        for (bucket, amount, name) in &mut present {
            bucket.refill(now);
            let wait = bucket.wait_for(*amount);
            let longer = match verdict {
                Verdict::Go => !wait.is_zero(),
                Verdict::Wait(other, _) => wait > other,
            };
            if longer {
                verdict = Verdict::Wait(wait, name);
            }
        }
        let mut headers = Vec::new();
        for (bucket, amount, name) in present {
            if verdict == Verdict::Go {
                bucket.level -= amount.min(bucket.capacity);
            }
            state_headers(provider, name, bucket, &mut headers);
        }
        (verdict, headers)
    }
}

fn state_headers(provider: Provider, name: &str, bucket: &Bucket, headers: &mut Vec<(&'static str, String)>) {
    let values =
        |reset: String| [bucket.a_minute.to_string(), format!("{}", bucket.level.max(0.0) as u64), reset];
    let in_time = || rfc3339(SystemTime::now() + bucket.until_full());
    let (names, values): (&[[&'static str; 3]], [String; 3]) = match (provider, name) {
        (Provider::OpenAi, "requests") => (
            &[["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]],
            values(go_duration(bucket.until_full())),
        ),
        (Provider::OpenAi, _) => (
            &[["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]],
            values(go_duration(bucket.until_full())),
        ),
        (Provider::Anthropic, "requests") => (
            &[[
                "anthropic-ratelimit-requests-limit",
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-reset",
            ]],
            values(in_time()),
        ),
        // The mock has one bucket of tokens, which stands for Anthropic's three.
        (Provider::Anthropic, _) => (
            &[
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
                [
                    "anthropic-ratelimit-output-tokens-limit",
                    "anthropic-ratelimit-output-tokens-remaining",
                    "anthropic-ratelimit-output-tokens-reset",
                ],
            ],
            values(in_time()),
        ),
    };
    for three in names {
        headers.extend(three.iter().copied().zip(values.iter().cloned()));
    }
}

/// Go's way to write a duration, as OpenAI's reset headers have it: `20ms`, `1.5s`, `6m0s`.
fn go_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let seconds = (ms % 60_000) as f64 / 1000.0;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, m) => format!("{m}m{seconds}s"),
        (h, m) => format!("{h}h{m}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(options: Options) -> (Limits, Instant) {
        let now = Instant::now();
        (Limits::new(&options, now), now)
    }

    #[test]
    fn a_full_bucket_passes_its_burst_and_then_its_rate() {
        let (limits, start) =
            limits(Options { requests_per_minute: Some(600), burst_seconds: 1.0, ..Options::default() });
        let mut passed = 0;
        // Every 10 ms for 6 seconds: 10 at once, then 10 a second.
        for step in 0..600 {
            let now = start + Duration::from_millis(10 * step);
            passed += usize::from(limits.take(Provider::OpenAi, 1, now).0 == Verdict::Go);
        }
        assert!((68..=70).contains(&passed), "{passed}");
    }

    #[test]
    fn the_wait_is_just_long_enough_and_nothing_is_taken_meanwhile() {
        let (limits, start) =
            limits(Options { tokens_per_minute: Some(6000), burst_seconds: 60.0, ..Options::default() });
        assert_eq!(limits.take(Provider::OpenAi, 6000, start).0, Verdict::Go);
        let (verdict, headers) = limits.take(Provider::OpenAi, 150, start);
        assert_eq!(verdict, Verdict::Wait(Duration::from_millis(1500), "tokens"));
        let headers: std::collections::HashMap<_, _> = headers.into_iter().collect();
        assert_eq!(headers["x-ratelimit-limit-tokens"], "6000");
        assert_eq!(headers["x-ratelimit-remaining-tokens"], "0");
        assert_eq!(headers["x-ratelimit-reset-tokens"], "1m0s");
        let soon = start + Duration::from_millis(1490);
        assert!(matches!(limits.take(Provider::OpenAi, 150, soon).0, Verdict::Wait(..)));
        assert_eq!(limits.take(Provider::OpenAi, 150, start + Duration::from_millis(1501)).0, Verdict::Go);
    }

    #[test]
    fn each_provider_has_its_headers_and_no_limit_has_none() {
        let (limits, now) = limits(Options {
            requests_per_minute: Some(60),
            tokens_per_minute: Some(1000),
            ..Options::default()
        });
        let (_, headers) = limits.take(Provider::Anthropic, 100, now);
        assert_eq!(headers.len(), 12);
        let reset = headers.iter().find(|(name, _)| *name == "anthropic-ratelimit-input-tokens-reset");
        assert!(reset.unwrap().1.ends_with('Z') && reset.unwrap().1.len() == 20);
        let (free, now) = self::limits(Options::default());
        assert_eq!(free.take(Provider::OpenAi, 1_000_000, now), (Verdict::Go, Vec::new()));
    }

    #[test]
    fn durations_as_go_writes_them() {
        let ms = Duration::from_millis;
        let cases =
            [(20, "20ms"), (1000, "1s"), (1500, "1.5s"), (360_000, "6m0s"), (5_400_250, "1h30m0.25s")];
        for (millis, text) in cases {
            assert_eq!(go_duration(ms(millis)), text);
        }
    }
}
