//! `[route]` and `[[route.rules]]`.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Who labels a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Destination {
    /// Judges.
    Judges,
    /// Judges, until people have said something.
    Both,
    /// People: without them it is not trained on.
    People,
}

impl Destination {
    /// The word in configs and numbers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Judges => "judges",
            Self::Both => "both",
            Self::People => "people",
        }
    }
}

/// `[route]`: which pairs people label, which judges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// Rules; the first that matches a pair says who labels it. Default none: judges label every pair.
    pub rules: Vec<RouteRule>,
    /// Tags of domains in which judges are not trusted: nothing is trained on for such a prompt but what people say, whatever rules
    /// say. Judges are asked about it only where a rule sends it to `both`. Default none.
    pub expert_tags: Vec<String>,
    /// Share of all pairs that people are shown too, drawn at random, whatever rules say. Default 0.
    pub random_share: f64,
    /// Where people's agreement with the judges on randomly drawn pairs is shown to lie below this, `random_share` doubles; and with
    /// `bootstrap`, no label of judges alone is trained on. Default none.
    pub min_agreement: Option<f64>,
    /// Most that `random_share` rises to. Default 0.5.
    pub max_share: f64,
    /// JSONL files of preferences of people from elsewhere, as `rlaif import` writes them: `reward` and `dpo` learn from them first, each
    /// weighing `review.weight`. Relative to the config file. Default none.
    pub human_data: Vec<PathBuf>,
    /// Pairs of `human_data`, drawn at random, that judges are asked about before their own labels are used. Default 0.
    pub bootstrap: usize,
}

impl Default for RouteConfig {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            expert_tags: Vec::new(),
            random_share: 0.0,
            min_agreement: None,
            max_share: 0.5,
            human_data: Vec::new(),
            bootstrap: 0,
        }
    }
}

impl RouteConfig {
    /// Whether any pair may go to people.
    pub fn routes(&self) -> bool {
        !self.rules.is_empty() || !self.expert_tags.is_empty() || self.random_share > 0.0
    }

    /// Whether judges are measured on what people said elsewhere.
    pub fn measures(&self) -> bool {
        self.bootstrap > 0 && !self.human_data.is_empty()
    }
}

/// `[[route.rules]]`: a pair matches where everything holds that is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRule {
    /// `judges`, `both` or `people`.
    pub to: Destination,
    /// Name in numbers. Default `rule 1`, `rule 2`, …
    #[serde(default)]
    pub name: Option<String>,
    /// The prompt has one of these tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The prompt has one of these words, or of several words in a row, as whole words and whatever their case.
    #[serde(default)]
    pub words: Vec<String>,
    /// A random share of pairs, by run seed, rule and pair.
    #[serde(default)]
    pub random_share: Option<f64>,
    /// Name of a judge of `label.judges` with `protocol` = "rating": it rates one of the responses below `unsafe_below`.
    #[serde(default)]
    pub unsafe_by: Option<String>,
    /// From 1 to 10. Default 5.
    #[serde(default)]
    pub unsafe_below: Option<f64>,
    /// Judges, templates or orders contradict each other. Default false.
    #[serde(default)]
    pub disagree: bool,
    /// The spread of p over judges, templates and orders is above this.
    #[serde(default)]
    pub spread_above: Option<f64>,
    /// |p − ½| is below this.
    #[serde(default)]
    pub margin_below: Option<f64>,
}

impl RouteRule {
    /// A rule that holds for every pair, which no config may have: it must be narrowed.
    pub fn to(to: Destination) -> Self {
        Self {
            to,
            name: None,
            tags: Vec::new(),
            words: Vec::new(),
            random_share: None,
            unsafe_by: None,
            unsafe_below: None,
            disagree: false,
            spread_above: None,
            margin_below: None,
        }
    }

    /// Its name, given or by its place among the rules, from 0.
    pub fn label(&self, place: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("rule {}", place + 1))
    }

    /// Whether it hangs on what judges say.
    pub fn hears_judges(&self) -> bool {
        self.unsafe_by.is_some()
            || self.disagree
            || self.spread_above.is_some()
            || self.margin_below.is_some()
    }

    /// The rating below which a response is unsafe.
    pub fn unsafe_below(&self) -> f64 {
        self.unsafe_below.unwrap_or(5.0)
    }
}
