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

/// At what speed and price a call was served; the provider's word in the reply counts, not the one that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceTier {
    /// The list price.
    #[default]
    Standard,
    /// Within a day, at half the list price with both OpenAI and Anthropic.
    Batch,
    /// Slower and cheaper.
    Flex,
    /// Faster and dearer, or paid for in advance.
    Priority,
    /// A word that this program does not know: its price is unknown.
    Other,
}

impl ServiceTier {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Priority => "priority",
            Self::Other => "other",
        }
    }
}

/// Tokens of one call, as the provider counted them. The counts mean the same whoever the provider is: a part is
/// counted in its whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt: those read from the cache and those written to it are among them.
    pub prompt_tokens: u64,
    /// Those of `prompt_tokens` that came from the provider's cache.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Those of `prompt_tokens` that were written to the cache for as long as it keeps them by default (5 minutes).
    #[serde(default)]
    pub cache_write_tokens: u64,
    /// Those of `prompt_tokens` that were written to the cache for an hour.
    #[serde(default)]
    pub cache_write_1h_tokens: u64,
    /// Tokens of the completion, the reasoning ones among them.
    pub completion_tokens: u64,
    /// Those of `completion_tokens` that were reasoning.
    #[serde(default)]
    pub reasoning_tokens: u64,
    /// How the call was served. Of a sum it means nothing.
    #[serde(default)]
    pub tier: ServiceTier,
}

impl Usage {
    /// Both usages together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            cached_tokens: self.cached_tokens.saturating_add(other.cached_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_add(other.cache_write_tokens),
            cache_write_1h_tokens: self.cache_write_1h_tokens.saturating_add(other.cache_write_1h_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
            tier: if self.tier == other.tier { self.tier } else { ServiceTier::Standard },
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
    /// Micro-dollars per million prompt tokens that were written to the cache for 5 minutes.
    pub cache_write: i64,
    /// Micro-dollars per million prompt tokens that were written to the cache for an hour.
    pub cache_write_1h: i64,
    /// Percent of these prices in a batch.
    pub batch_percent: Option<u16>,
    /// Percent of these prices in the flex tier.
    pub flex_percent: Option<u16>,
    /// Percent of these prices in the priority tier.
    pub priority_percent: Option<u16>,
}

/// What a batch costs with every provider whose prices are in the table, in percent of the list price.
pub const BATCH_PERCENT: u16 = 50;

impl Price {
    /// From dollars per million tokens. Cached input and what is written to a cache cost what input costs, and a batch half
    /// of it; other tiers have no price.
    ///
    /// # Errors
    /// If a price is negative, not finite or beyond 64 bits.
    pub fn from_dollars(input: f64, output: f64, cached_input: Option<f64>) -> Result<Self, MoneyError> {
        Ok(Self {
            input: per_million(input)?,
            output: per_million(output)?,
            cached_input: per_million(cached_input.unwrap_or(input))?,
            cache_write: per_million(input)?,
            cache_write_1h: per_million(input)?,
            batch_percent: Some(BATCH_PERCENT),
            flex_percent: None,
            priority_percent: None,
        })
    }

    /// With prices for what is written to a cache, in dollars per million tokens.
    ///
    /// # Errors
    /// If a price is negative, not finite or beyond 64 bits.
    pub fn with_cache_writes(self, five_minutes: f64, one_hour: f64) -> Result<Self, MoneyError> {
        Ok(Self { cache_write: per_million(five_minutes)?, cache_write_1h: per_million(one_hour)?, ..self })
    }

    /// What a call costs, rounded up to a whole micro-dollar; saturates at the end of 64 bits. `None` if the call was served
    /// in a tier without a known price.
    ///
    /// cost = ⌈tier · ((prompt − cached − written)·input + cached·cached_input + written·cache_write + completion·output) / 10⁶⌉
    ///
    /// Reasoning tokens are completion tokens already and are not counted again.
    pub fn cost(&self, usage: &Usage) -> Option<MicroUsd> {
        let percent = match usage.tier {
            ServiceTier::Standard => 100,
            ServiceTier::Batch => self.batch_percent?,
            ServiceTier::Flex => self.flex_percent?,
            ServiceTier::Priority => self.priority_percent?,
            ServiceTier::Other => return None,
        };
        Some(self.at(usage, percent))
    }

    /// The most that a call can cost that is served at the list price: every prompt token in its dearest kind, and every
    /// completion token used.
    pub fn worst_case(&self, prompt_tokens: u64, max_tokens: u64) -> MicroUsd {
        let dearest = self.input.max(self.cached_input).max(self.cache_write).max(self.cache_write_1h);
        let percent = self.priority_percent.unwrap_or(100).max(100);
        let usage = Usage { prompt_tokens, completion_tokens: max_tokens, ..Usage::default() };
        Self { input: dearest, ..*self }.at(&usage, percent)
    }

    /// The same, of a call in a batch.
    pub fn worst_case_in_batch(&self, prompt_tokens: u64, max_tokens: u64) -> MicroUsd {
        let percent = self.batch_percent.unwrap_or(100);
        let whole = Self { priority_percent: None, ..*self }.worst_case(prompt_tokens, max_tokens);
        let micro = (i128::from(whole.0) * i128::from(percent) + 99) / 100;
        MicroUsd(i64::try_from(micro).unwrap_or(i64::MAX))
    }

    fn at(&self, usage: &Usage, percent: u16) -> MicroUsd {
        let cached = usage.cached_tokens.min(usage.prompt_tokens);
        let written_1h = usage.cache_write_1h_tokens.min(usage.prompt_tokens - cached);
        let written = usage.cache_write_tokens.min(usage.prompt_tokens - cached - written_1h);
        let of = |tokens: u64, price: i64| i128::from(tokens) * i128::from(price);
        let total = of(usage.prompt_tokens - cached - written - written_1h, self.input)
            + of(cached, self.cached_input)
            + of(written, self.cache_write)
            + of(written_1h, self.cache_write_1h)
            + of(usage.completion_tokens, self.output);
        let whole = i128::from(MICRO) * 100;
        let micro = (total * i128::from(percent) + whole - 1).div_euclid(whole);
        MicroUsd(i64::try_from(micro).unwrap_or(i64::MAX))
    }
}

/// Dollars per million tokens as micro-dollars per million tokens.
fn per_million(dollars: f64) -> Result<i64, MoneyError> {
    match MicroUsd::from_dollars(dollars)? {
        MicroUsd(micro) if micro < 0 => Err(MoneyError::OutOfRange(dollars.to_string())),
        MicroUsd(micro) => Ok(micro),
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

    fn tokens(prompt_tokens: u64, cached_tokens: u64, completion_tokens: u64) -> Usage {
        Usage { prompt_tokens, cached_tokens, completion_tokens, ..Usage::default() }
    }

    #[test]
    fn cost_counts_cached_tokens_once_and_rounds_up() {
        // 0.15, 0.60 and 0.075 dollars per million: 900·0.15 + 100·0.075 + 50·0.60 = 172.5 micro-dollars.
        let price = Price::from_dollars(0.15, 0.60, Some(0.075)).unwrap();
        let usage = Usage { reasoning_tokens: 40, ..tokens(1000, 100, 50) };
        assert_eq!(price.cost(&usage), Some(MicroUsd(173)));
        assert_eq!(price.cost(&Usage::default()), Some(MicroUsd::ZERO));
        // The smallest call of the cheapest model still costs something.
        assert_eq!(price.cost(&tokens(1, 0, 0)), Some(MicroUsd(1)));
    }

    #[test]
    fn what_is_written_to_a_cache_and_the_tier_have_prices_of_their_own() {
        // 3, 15, 0.30, 3.75 and 6 dollars per million: 200·3 + 300·0.30 + 400·3.75 + 100·6 + 50·15 = 3540 micro-dollars.
        let price = Price::from_dollars(3.0, 15.0, Some(0.30)).unwrap().with_cache_writes(3.75, 6.0).unwrap();
        let usage = Usage { cache_write_tokens: 400, cache_write_1h_tokens: 100, ..tokens(1000, 300, 50) };
        assert_eq!(price.cost(&usage), Some(MicroUsd(3540)));
        let tier = |tier| price.cost(&Usage { tier, ..usage });
        assert_eq!(tier(ServiceTier::Batch), Some(MicroUsd(1770)));
        assert_eq!(tier(ServiceTier::Priority), None, "an unknown price is not 0");
        assert_eq!(tier(ServiceTier::Other), None);
        let dear = Price { priority_percent: Some(175), ..price };
        assert_eq!(dear.cost(&Usage { tier: ServiceTier::Priority, ..usage }), Some(MicroUsd(6195)));
        // The halved price of a single token is still rounded up.
        let token = Usage { tier: ServiceTier::Batch, ..tokens(1, 0, 0) };
        assert_eq!(price.cost(&token), Some(MicroUsd(2)));
        assert_eq!(price.worst_case(1000, 50), MicroUsd(6750), "all of it written for an hour");
        assert_eq!(price.worst_case_in_batch(1000, 50), MicroUsd(3375));
        let lie =
            Usage { cached_tokens: 9, cache_write_tokens: 9, cache_write_1h_tokens: 9, ..tokens(10, 0, 0) };
        assert_eq!(price.cost(&lie), Some(MicroUsd(9)), "9 cached and 1 written: parts are within the whole");
    }

    #[test]
    fn cached_input_defaults_to_the_input_price_and_worst_case_bounds_every_call() {
        let price = Price::from_dollars(3.0, 15.0, None).unwrap();
        assert_eq!(price.cached_input, price.input);
        let cached = Price::from_dollars(3.0, 15.0, Some(0.3)).unwrap();
        assert!(cached.cost(&tokens(100, 90, 7)).unwrap() < cached.worst_case(100, 8));
        assert!(Price::from_dollars(-1.0, 1.0, None).is_err());
        assert_eq!(
            price.cost(&tokens(u64::MAX, 0, 0)),
            Some(MicroUsd(i64::MAX)),
            "a provider that lies about its usage does not overflow the bill"
        );
    }
}
