//! What judges charge: the user's `[prices]` first, then a small table that ships with this program and has a date on every row.

use crate::config::{Config, JudgeConfig, JudgeKind};
use crate::money::{MoneyError, Price};
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// The table that ships.
const TABLE: &str = include_str!("../prices.toml");

/// `[prices."model"]`: what a model charges, in dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceConfig {
    /// Prompt tokens.
    pub input: f64,
    /// Completion tokens.
    pub output: f64,
    /// Prompt tokens from the provider's cache. Default: what input costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<f64>,
    /// Prompt tokens written to the cache for 5 minutes. Default: what input costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
    /// Prompt tokens written to the cache for an hour. Default: what `cache_write` costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<f64>,
    /// Percent of these prices in a batch. Default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_percent: Option<u16>,
    /// Percent of these prices in the flex tier. Default: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flex_percent: Option<u16>,
    /// Percent of these prices in the priority tier. Default: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_percent: Option<u16>,
}

impl PriceConfig {
    /// In micro-dollars.
    ///
    /// # Errors
    /// If a price is negative, not finite or beyond 64 bits.
    pub fn price(&self) -> Result<Price, MoneyError> {
        let write = self.cache_write.unwrap_or(self.input);
        let price = Price::from_dollars(self.input, self.output, self.cached_input)?;
        let price = price.with_cache_writes(write, self.cache_write_1h.unwrap_or(write))?;
        Ok(Price {
            batch_percent: self.batch_percent.or(price.batch_percent),
            flex_percent: self.flex_percent,
            priority_percent: self.priority_percent,
            ..price
        })
    }
}

/// Where a price comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PriceSource {
    /// The judge's own section.
    Judge,
    /// `[prices]` of the config.
    Config,
    /// The table that ships, with the month in which the price was read.
    Table {
        /// Version of the table.
        version: String,
        /// When this row was read.
        from: String,
    },
}

#[derive(Deserialize)]
struct Table {
    version: String,
    price: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    provider: JudgeKind,
    model: String,
    from: String,
    input: f64,
    output: f64,
    cached_input: Option<f64>,
    cache_write: Option<f64>,
    cache_write_1h: Option<f64>,
}

static SHIPPED: LazyLock<Table> =
    LazyLock::new(|| toml::from_str(TABLE).expect("a test reads the table that ships"));

impl Config {
    /// What a judge charges and who says so; `None` where nobody does. The table that ships is for the providers' own
    /// endpoints: the same name elsewhere may have another price.
    pub fn price_of(&self, judge: &JudgeConfig) -> Option<(Price, PriceSource)> {
        if let (Some(input), Some(output)) = (judge.usd_per_million_input, judge.usd_per_million_output) {
            let price = Price::from_dollars(input, output, judge.usd_per_million_cached_input).ok()?;
            return Some((price, PriceSource::Judge));
        }
        if let Some(price) = self.prices.get(&judge.model) {
            return Some((price.price().ok()?, PriceSource::Config));
        }
        let own_host = JudgeConfig { base_url: None, ..judge.clone() };
        if judge.kind == JudgeKind::Azure || judge.base_url() != own_host.base_url() {
            return None;
        }
        let rows = SHIPPED.price.iter().filter(|row| row.provider == judge.kind);
        let row = rows.filter(|row| fits(&row.model, &judge.model)).max_by_key(|row| row.model.len())?;
        let price = PriceConfig {
            input: row.input,
            output: row.output,
            cached_input: row.cached_input,
            cache_write: row.cache_write,
            cache_write_1h: row.cache_write_1h,
            ..PriceConfig::default()
        };
        let source = PriceSource::Table { version: SHIPPED.version.clone(), from: row.from.clone() };
        Some((price.price().ok()?, source))
    }
}

/// A pattern with `*` at its end fits its own beginning alone or followed by `-` or `@` and more: `gpt-4o-mini*` is
/// `gpt-4o-mini-2024-07-18` and no `gpt-4o-minimal`.
fn fits(pattern: &str, model: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => {
            model.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '@']))
        }
        None => pattern == model,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::{MicroUsd, ServiceTier, Usage};

    fn judge(kind: JudgeKind, model: &str) -> JudgeConfig {
        JudgeConfig { kind, model: model.into(), ..JudgeConfig::default() }
    }

    #[test]
    fn every_row_of_the_table_is_a_price() {
        assert!(SHIPPED.price.len() >= 8);
        for row in &SHIPPED.price {
            let model = row.model.trim_end_matches('*');
            let (price, source) = Config::default().price_of(&judge(row.provider, model)).unwrap();
            assert!(price.input > 0 && price.output > price.input, "{model}");
            assert!(price.cached_input < price.input && price.cache_write >= price.input, "{model}");
            assert_eq!(
                source,
                PriceSource::Table { version: SHIPPED.version.clone(), from: row.from.clone() }
            );
            let year_and_month = row.from.split_once('-').unwrap();
            assert!(year_and_month.0.parse::<u16>().unwrap() >= 2026 && year_and_month.1.len() == 2);
        }
    }

    #[test]
    fn the_judge_comes_first_then_the_config_then_the_table() {
        let mut config = Config::default();
        let mut haiku = judge(JudgeKind::Anthropic, "claude-haiku-4-5-20251001");
        assert_eq!(config.price_of(&haiku).unwrap().0.output, 5_000_000);
        let own =
            PriceConfig { input: 0.9, output: 4.5, priority_percent: Some(150), ..PriceConfig::default() };
        config.prices.insert("claude-haiku-4-5-20251001".into(), own);
        let (price, source) = config.price_of(&haiku).unwrap();
        assert_eq!(
            (price.output, price.priority_percent, source),
            (4_500_000, Some(150), PriceSource::Config)
        );
        haiku.usd_per_million_input = Some(0.5);
        haiku.usd_per_million_output = Some(2.5);
        assert_eq!(config.price_of(&haiku).unwrap().1, PriceSource::Judge);
    }

    #[test]
    fn a_name_that_only_looks_alike_and_another_host_have_no_price() {
        let config = Config::default();
        let known = |kind, model| config.price_of(&judge(kind, model)).is_some();
        assert!(known(JudgeKind::Openai, "gpt-4o-mini-2024-07-18"));
        assert!(!known(JudgeKind::Openai, "gpt-4o-minimal"));
        assert!(!known(JudgeKind::Openai, "gpt-4.1-turbo"));
        assert!(!known(JudgeKind::Openai, "claude-haiku-4-5"));
        assert!(!known(JudgeKind::Azure, "gpt-4o-mini"), "a deployment may have any name");
        let proxy = JudgeConfig {
            base_url: Some("https://proxy.example/v1".into()),
            ..judge(JudgeKind::Openai, "gpt-4o-mini")
        };
        assert_eq!(config.price_of(&proxy), None);
    }

    #[test]
    fn a_call_of_the_table_costs_what_the_page_says() {
        // Sonnet 4.5: 1000 fresh, 2000 read, 500 written for 5 minutes, 100 for an hour, 200 out
        // = 3000 + 600 + 1875 + 600 + 3000 micro-dollars; half of it in a batch.
        let (price, _) =
            Config::default().price_of(&judge(JudgeKind::Anthropic, "claude-sonnet-4-5")).unwrap();
        let usage = Usage {
            prompt_tokens: 3600,
            cached_tokens: 2000,
            cache_write_tokens: 500,
            cache_write_1h_tokens: 100,
            completion_tokens: 200,
            ..Usage::default()
        };
        assert_eq!(price.cost(&usage), Some(MicroUsd(9075)));
        assert_eq!(price.cost(&Usage { tier: ServiceTier::Batch, ..usage }), Some(MicroUsd(4538)));
    }
}
