//! Money as whole micro-dollars, and what a call to a paid judge costs. Never floating point, never an unknown price as 0.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::iter::Sum;

/// Micro-dollars in a dollar.
const MICRO: i64 = 1_000_000;

/// An amount in millionths of a US dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MicroUsd(pub i64);

/// Why a text or number is no amount of money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a decimal number.
    #[error("`{0}` is not an amount in dollars, such as 0.15")]
    NotDecimal(String),
    /// More digits than a micro-dollar has.
    #[error("`{0}` is finer than a millionth of a dollar")]
    TooFine(String),
    /// Not finite, or beyond what 64 bits hold.
    #[error("`{0}` dollars is out of range")]
    OutOfRange(String),
}

impl MicroUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Sum, or `None` beyond 64 bits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Difference, or `None` beyond 64 bits.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// A multiple, or `None` beyond 64 bits.
    pub fn checked_mul(self, times: i64) -> Option<Self> {
        self.0.checked_mul(times).map(Self)
    }

    /// From dollars as a config file has them, rounded to the nearest micro-dollar (0.15 is exactly 150000).
    ///
    /// # Errors
    /// If the number is not finite or beyond 64 bits.
    pub fn from_dollars(dollars: f64) -> Result<Self, MoneyError> {
        let micro = (dollars * MICRO as f64).round();
        // 2^53: beyond it a double no longer holds every whole number, so the rounding would invent digits.
        if !micro.is_finite() || micro.abs() > 9_007_199_254_740_992.0 {
            return Err(MoneyError::OutOfRange(dollars.to_string()));
        }
        Ok(Self(micro as i64))
    }
}

/// Exact: `0.15`, `$2`, `-0.000001`.
impl std::str::FromStr for MicroUsd {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let bad = || MoneyError::NotDecimal(text.to_owned());
        let trimmed = text.trim();
        let (sign, rest) = trimmed.strip_prefix('-').map_or((1, trimmed), |rest| (-1, rest));
        let rest = rest.strip_prefix('$').unwrap_or(rest);
        let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
            return Err(bad());
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 6 {
            return Err(MoneyError::TooFine(text.to_owned()));
        }
        let padded = format!("{whole}{fraction:0<6}");
        let micro: i64 = padded.parse().map_err(|_| MoneyError::OutOfRange(text.to_owned()))?;
        Ok(Self(sign * micro))
    }
}

/// `$0.012345`: always six decimals, so that columns line up and nothing is rounded away.
impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        let text = format!("{sign}${}.{:06}", magnitude / MICRO as u64, magnitude % MICRO as u64);
        f.pad(&text)
    }
}

/// Saturates at the ends of 64 bits (nine billion dollars short of nothing real) instead of wrapping round.
impl Sum for MicroUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        Self(amounts.fold(0_i64, |total, amount| total.saturating_add(amount.0)))
    }
}

impl<'a> Sum<&'a MicroUsd> for MicroUsd {
    fn sum<I: Iterator<Item = &'a MicroUsd>>(amounts: I) -> Self {
        amounts.copied().sum()
    }
}

/// Tokens of one call, as the provider counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, the cached ones among them.
    pub prompt_tokens: u64,
    /// Those of `prompt_tokens` that came from the provider's cache.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Tokens of the completion, the reasoning ones among them.
    pub completion_tokens: u64,
    /// Those of `completion_tokens` that were reasoning.
    #[serde(default)]
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Both usages together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            cached_tokens: self.cached_tokens.saturating_add(other.cached_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
        }
    }
}

/// What a judge charges. A judge without a price is `Option::None`, never a price of 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Micro-dollars per million prompt tokens.
    pub input: i64,
    /// Micro-dollars per million completion tokens.
    pub output: i64,
    /// Micro-dollars per million prompt tokens that came from the provider's cache.
    pub cached_input: i64,
}

impl Price {
    /// From dollars per million tokens; cached input costs what input costs unless said otherwise.
    ///
    /// # Errors
    /// If a price is negative, not finite or beyond 64 bits.
    pub fn from_dollars(input: f64, output: f64, cached_input: Option<f64>) -> Result<Self, MoneyError> {
        let micro = |dollars: f64| match MicroUsd::from_dollars(dollars)? {
            MicroUsd(micro) if micro < 0 => Err(MoneyError::OutOfRange(dollars.to_string())),
            MicroUsd(micro) => Ok(micro),
        };
        Ok(Self {
            input: micro(input)?,
            output: micro(output)?,
            cached_input: micro(cached_input.unwrap_or(input))?,
        })
    }

    /// What a call costs, rounded up to a whole micro-dollar; saturates at the end of 64 bits.
    ///
    /// cost = ⌈((prompt − cached)·input + cached·cached_input + completion·output) / 10⁶⌉
    ///
    /// Reasoning tokens are completion tokens already and are not counted again.
    pub fn cost(&self, usage: &Usage) -> MicroUsd {
        let cached = usage.cached_tokens.min(usage.prompt_tokens);
        let of = |tokens: u64, price: i64| i128::from(tokens) * i128::from(price);
        let total = of(usage.prompt_tokens - cached, self.input)
            + of(cached, self.cached_input)
            + of(usage.completion_tokens, self.output);
        let micro = (total + i128::from(MICRO) - 1).div_euclid(i128::from(MICRO));
        MicroUsd(i64::try_from(micro).unwrap_or(i64::MAX))
    }

    /// The most that a call can cost: nothing cached, and every completion token used.
    pub fn worst_case(&self, prompt_tokens: u64, max_tokens: u64) -> MicroUsd {
        let dear = Self { cached_input: self.input, ..*self };
        dear.cost(&Usage { prompt_tokens, completion_tokens: max_tokens, ..Usage::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_become_exact_micro_dollars() {
        assert_eq!(MicroUsd::from_dollars(0.15), Ok(MicroUsd(150_000)));
        assert_eq!(MicroUsd::from_dollars(0.1 + 0.2), Ok(MicroUsd(300_000)));
        assert_eq!("2.5".parse(), Ok(MicroUsd(2_500_000)));
        assert_eq!("$0.000001".parse(), Ok(MicroUsd(1)));
        assert_eq!("-3".parse(), Ok(MicroUsd(-3_000_000)));
        assert_eq!(".5".parse(), Ok(MicroUsd(500_000)));
        assert_eq!("1.10000000".parse(), Ok(MicroUsd(1_100_000)));
        assert!(matches!("0.0000001".parse::<MicroUsd>(), Err(MoneyError::TooFine(_))));
        for bad in ["", ".", "-", "1e3", "1,5", "--1", "NaN", "£1"] {
            assert!(matches!(bad.parse::<MicroUsd>(), Err(MoneyError::NotDecimal(_))), "{bad}");
        }
        assert!(matches!("99999999999999".parse::<MicroUsd>(), Err(MoneyError::OutOfRange(_))));
        assert!(MicroUsd::from_dollars(f64::NAN).is_err());
        assert!(MicroUsd::from_dollars(1e300).is_err());
    }

    #[test]
    fn display_keeps_every_micro_dollar() {
        assert_eq!(MicroUsd(12_345).to_string(), "$0.012345");
        assert_eq!(MicroUsd(-1).to_string(), "-$0.000001");
        assert_eq!(MicroUsd(1_230_000_000).to_string(), "$1230.000000");
        assert_eq!(MicroUsd(i64::MIN).to_string(), "-$9223372036854.775808");
        assert_eq!(format!("{:>12}", MicroUsd(5)), "   $0.000005");
    }

    #[test]
    fn arithmetic_does_not_wrap() {
        assert_eq!(MicroUsd(i64::MAX).checked_add(MicroUsd(1)), None);
        assert_eq!([MicroUsd(1), MicroUsd(2)].iter().sum::<MicroUsd>(), MicroUsd(3));
        assert_eq!([MicroUsd(i64::MAX), MicroUsd(2)].into_iter().sum::<MicroUsd>(), MicroUsd(i64::MAX));
    }

    #[test]
    fn cost_counts_cached_tokens_once_and_rounds_up() {
        // 0.15, 0.60 and 0.075 dollars per million: 900·0.15 + 100·0.075 + 50·0.60 = 172.5 micro-dollars.
        let price = Price::from_dollars(0.15, 0.60, Some(0.075)).unwrap();
        let usage =
            Usage { prompt_tokens: 1000, cached_tokens: 100, completion_tokens: 50, reasoning_tokens: 40 };
        assert_eq!(price.cost(&usage), MicroUsd(173));
        assert_eq!(price.cost(&Usage::default()), MicroUsd::ZERO);
        // The smallest call of the cheapest model still costs something.
        assert_eq!(price.cost(&Usage { prompt_tokens: 1, ..Usage::default() }), MicroUsd(1));
    }

    #[test]
    fn cached_input_defaults_to_the_input_price_and_worst_case_bounds_every_call() {
        let price = Price::from_dollars(3.0, 15.0, None).unwrap();
        assert_eq!(price.cached_input, price.input);
        let cached = Price::from_dollars(3.0, 15.0, Some(0.3)).unwrap();
        let usage =
            Usage { prompt_tokens: 100, cached_tokens: 90, completion_tokens: 7, reasoning_tokens: 0 };
        assert!(cached.cost(&usage) < cached.worst_case(100, 8));
        assert!(Price::from_dollars(-1.0, 1.0, None).is_err());
        assert_eq!(
            price.cost(&Usage { prompt_tokens: u64::MAX, ..Usage::default() }),
            MicroUsd(i64::MAX),
            "a provider that lies about its usage does not overflow the bill"
        );
    }
}
