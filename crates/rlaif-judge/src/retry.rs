//! Which failures are worth another attempt, and when.

use crate::chat::{CallError, CallErrorKind, CallFate};
use rand::{Rng, RngExt};
use std::time::{Duration, SystemTime};

/// Full-jitter exponential backoff (AWS architecture blog, "Exponential backoff and jitter", 2015), which a provider's
/// Retry-After overrides upwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub max_retries: usize,
    /// How many of those may repeat a call that was possibly billed.
    pub max_resends: usize,
    /// Upper end of the first wait.
    pub base: Duration,
    /// Upper end of every wait of our own choosing.
    pub cap: Duration,
    /// Time from a task's first attempt after which there is none any more, however many are left.
    pub deadline: Duration,
}

impl RetryPolicy {
    /// The policy for a judge's `max_retries`: waits of up to 0.5, 1, 2, … 30 s, at most 2 resends of what may be billed, and any
    /// Retry-After within a day.
    pub fn new(max_retries: usize) -> Self {
        Self {
            max_retries,
            max_resends: max_retries.min(2),
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            deadline: Duration::from_secs(86_400),
        }
    }

    /// How long to wait before the next attempt, or `None` if there shall be none.
    ///
    /// `retries` attempts beyond the first were made so far, `resends` of them after a call that was possibly billed, and the first was
    /// `age` ago. An endpoint that says that it is asked too much says nothing of the task: that may happen four times as often.
    pub fn wait<R: Rng>(
        &self,
        error: &CallError,
        retries: usize,
        resends: usize,
        age: Duration,
        rng: &mut R,
    ) -> Option<Duration> {
        let most = if error.kind.is_congestion() { self.max_retries * 4 } else { self.max_retries };
        if !error.kind.is_transient() || retries >= most {
            return None;
        }
        if error.fate == CallFate::MaybeBilled && resends >= self.max_resends {
            return None;
        }
        let exponent = u32::try_from(retries).unwrap_or(u32::MAX).min(20);
        let ceiling = self.base.saturating_mul(1 << exponent).min(self.cap);
        let jittered = ceiling.mul_f64(rng.random::<f64>());
        let wait = match error.retry_after {
            // A little jitter on top, so that a thousand parked calls do not come back in the same millisecond.
            Some(asked) => asked + jittered.min(asked / 10 + Duration::from_millis(100)),
            // A rate limit without a hint is about a minute's quota: half a second is too soon.
            None if error.kind == CallErrorKind::RateLimited => self.base + jittered,
            None => jittered,
        };
        (age + wait <= self.deadline).then_some(wait)
    }
}

/// Reads `retry-after-ms` (milliseconds) and `Retry-After` (seconds, or an HTTP date measured against the server's own `Date`
/// so that a skewed clock does no harm). The longer one counts; a date in the past is no wait at all.
pub fn retry_after<'a>(header: impl Fn(&str) -> Option<&'a str>, now: SystemTime) -> Option<Duration> {
    // A day bounds what a hostile or broken server can make of `Duration`.
    let seconds = |value: f64| {
        (value.is_finite() && value >= 0.0).then(|| Duration::from_secs_f64(value.min(86_400.0)))
    };
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let in_ms = header("retry-after-ms").and_then(number).and_then(|ms| seconds(ms / 1000.0));
    let plain = header("retry-after").and_then(|text| match number(text) {
        Some(value) => seconds(value),
        None => {
            let until = httpdate::parse_http_date(text.trim()).ok()?;
            let now = header("date").and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
            seconds(until.duration_since(now).unwrap_or(Duration::ZERO).as_secs_f64())
        }
    });
    in_ms.max(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn error(kind: CallErrorKind, fate: CallFate) -> CallError {
        CallError::new(kind, fate, "x")
    }

    #[test]
    fn waits_grow_with_full_jitter_up_to_the_cap() {
        let policy = RetryPolicy::new(100);
        let mut rng = rlaif_core::seed::stream(1, "test", 0);
        let server = error(CallErrorKind::Server, CallFate::Rejected);
        for (retries, ceiling) in [(0, 0.5), (1, 1.0), (3, 4.0), (9, 30.0), (90, 30.0)] {
            let waits: Vec<f64> = (0..500)
                .map(|_| policy.wait(&server, retries, 0, Duration::ZERO, &mut rng).unwrap().as_secs_f64())
                .collect();
            assert!(waits.iter().all(|&w| w <= ceiling), "retry {retries}");
            let mean = waits.iter().sum::<f64>() / 500.0;
            assert!((mean / ceiling - 0.5).abs() < 0.06, "uniform on [0, {ceiling}], got mean {mean}");
        }
    }

    #[test]
    fn retry_after_is_a_lower_bound_within_the_deadline() {
        let policy = RetryPolicy::new(5);
        let mut rng = rlaif_core::seed::stream(1, "test", 0);
        let limited = |seconds| CallError {
            retry_after: Some(Duration::from_secs(seconds)),
            ..error(CallErrorKind::RateLimited, CallFate::Rejected)
        };
        for _ in 0..100 {
            let wait = policy.wait(&limited(20), 0, 0, Duration::ZERO, &mut rng).unwrap().as_secs_f64();
            assert!((20.0..=22.1).contains(&wait), "{wait}");
        }
        assert!(policy.wait(&limited(3600), 19, 0, Duration::from_secs(80_000), &mut rng).is_some());
        assert_eq!(policy.wait(&limited(3600), 0, 0, Duration::from_secs(83_000), &mut rng), None);
        assert_eq!(policy.wait(&limited(1), 20, 0, Duration::ZERO, &mut rng), None);
    }

    #[test]
    fn what_is_not_worth_another_attempt() {
        let policy = RetryPolicy::new(3);
        let mut rng = rlaif_core::seed::stream(1, "test", 0);
        let mut again = |kind, fate, retries, resends| {
            policy.wait(&error(kind, fate), retries, resends, Duration::ZERO, &mut rng).is_some()
        };
        assert!(!again(CallErrorKind::Unauthorized, CallFate::Rejected, 0, 0));
        assert!(!again(CallErrorKind::BadRequest, CallFate::Rejected, 0, 0));
        assert!(!again(CallErrorKind::TooLong, CallFate::Rejected, 0, 0));
        assert!(again(CallErrorKind::Connect, CallFate::NotSent, 2, 0));
        assert!(!again(CallErrorKind::Connect, CallFate::NotSent, 3, 0));
        assert!(again(CallErrorKind::Timeout, CallFate::MaybeBilled, 1, 1));
        assert!(!again(CallErrorKind::Timeout, CallFate::MaybeBilled, 2, 2));
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        let read = |headers: &[(&'static str, &'static str)]| {
            let map: HashMap<&str, &str> = headers.iter().copied().collect();
            retry_after(|name| map.get(name).copied(), SystemTime::UNIX_EPOCH).map(|d| d.as_millis())
        };
        assert_eq!(read(&[("retry-after", "7")]), Some(7000));
        assert_eq!(read(&[("retry-after", " 1.5 ")]), Some(1500));
        assert_eq!(read(&[("retry-after-ms", "250")]), Some(250));
        assert_eq!(read(&[("retry-after-ms", "250"), ("retry-after", "2")]), Some(2000));
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(read(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), date]), Some(30_000));
        assert_eq!(read(&[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT"), date]), Some(0));
        assert_eq!(read(&[("retry-after", "1e300")]), Some(86_400_000));
        for nonsense in ["-3", "NaN", "inf", "soon", ""] {
            assert_eq!(
                read(&[("retry-after", Box::leak(nonsense.to_owned().into_boxed_str()))]),
                None,
                "{nonsense}"
            );
        }
        assert_eq!(read(&[]), None);
    }
}
