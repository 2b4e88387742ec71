//! Who labels a pair: people, judges, or both, by the rules of `[route]`.
//!
//! 1. The first rule that matches a pair says where it goes; a pair that none matches goes to judges.
//! 2. A prompt with one of `route.expert_tags` never gets a label of judges alone: what rules leave to judges goes to people, and what
//!    they send to both is judged, but not trained on before people have said something.
//! 3. What is then left to judges goes to both for a share of all pairs that is drawn at random. The draw is that of the review queue
//!    `audit`: a larger share holds a smaller one, and both are the beginning of the audit's order.
//!
//! Some rules hang on what judges say. Before any is asked, a pair [is spared them](Router::spares_judges) where it goes to people whatever
//! they would say.

use crate::config::{Destination, RouteConfig, RouteRule};
use crate::people::PairKey;
use crate::records::{Choice, Order, Prompt, PromptText, Verdict};
use crate::seed;
use crate::stats::Interval;
use crate::stats::interval::cluster_share;
use std::collections::BTreeMap;
use unicode_segmentation::UnicodeSegmentation;

/// Purpose of the draws of the random share and of the review queue `audit`.
pub const AUDIT_DRAW: &str = "review/audit";

/// Pairs of the first look at people's agreement with judges. Of fewer an interval excludes little: 7 of 10 are 40 to 89 % (Wilson), 14 of
/// 20 are 48 to 85 %.
pub const FIRST_LOOK: usize = 20;

/// Bootstrap draws of an agreement's interval.
const RESAMPLES: usize = 1000;

/// What judges said of a pair, as far as rules hang on it. Nothing where none was asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heard {
    /// P(a beats b) over all judges.
    pub p: Option<f64>,
    /// Its spread over judges, templates and orders.
    pub spread: Option<f64>,
    /// Some judge, template or order prefers a.
    pub for_a: bool,
    /// Some prefers b.
    pub for_b: bool,
    /// The lower of the ratings of the two responses, from 1 to 10, by judge.
    pub lowest_rating: BTreeMap<String, f64>,
}

impl Heard {
    /// Adds one verdict; of a judge that does not vote only its ratings count.
    pub fn hear(&mut self, judge: &str, votes: bool, order: Order, verdict: &Verdict) {
        if let Some((first, second)) = verdict.scores.get("rating") {
            let lowest = self.lowest_rating.entry(judge.to_owned()).or_insert(f64::INFINITY);
            *lowest = lowest.min(*first).min(*second);
        }
        match (&verdict.choice, order) {
            _ if !votes => {}
            (Ok(Choice::First), Order::Ab) | (Ok(Choice::Second), Order::Ba) => self.for_a = true,
            (Ok(Choice::Second), Order::Ab) | (Ok(Choice::First), Order::Ba) => self.for_b = true,
            (Ok(Choice::Tie) | Err(_), _) => {}
        }
    }
}

/// Why a pair goes where it goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// By the rule in this place, from 0.
    Rule(usize),
    /// By this tag of `route.expert_tags`.
    Expert(String),
    /// It was drawn.
    Random,
    /// No rule is for it.
    Default,
}

/// Where a pair goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Who labels it.
    pub to: Destination,
    /// By what.
    pub why: Why,
    /// Whether it is not trained on before people have said something.
    pub needs_people: bool,
}

/// The rules, ready to be asked.
#[derive(Debug)]
pub struct Router<'c> {
    config: &'c RouteConfig,
    run_seed: u64,
    share: f64,
    /// The words of each phrase of each rule.
    phrases: Vec<Vec<Vec<String>>>,
}

impl<'c> Router<'c> {
    /// The rules of a config, with the random share as it is by now.
    pub fn new(config: &'c RouteConfig, run_seed: u64, share: f64) -> Self {
        let of_rule = |rule: &RouteRule| rule.words.iter().map(|phrase| words_of(phrase)).collect();
        let phrases = config.rules.iter().map(of_rule).collect();
        Self { config, run_seed, share, phrases }
    }

    /// Where a pair goes that no judge need be asked about; `None` for all others.
    pub fn spares_judges(&self, prompt: &Prompt, key: &PairKey) -> Option<Route> {
        let expert = self.expert(prompt);
        let left_to = |to| raised(to, expert.is_some());
        let words = words_of(&text_of(&prompt.prompt));
        for (place, rule) in self.config.rules.iter().enumerate() {
            match self.matches(place, prompt, &words, key, None) {
                Some(false) => {}
                _ if left_to(rule.to) != Destination::People => return None,
                Some(true) => break,
                None => {}
            }
        }
        let route = self.route(prompt, key, &Heard::default());
        (route.to == Destination::People).then_some(route)
    }

    /// Where a pair goes, by what judges said of it.
    pub fn route(&self, prompt: &Prompt, key: &PairKey, heard: &Heard) -> Route {
        let expert = self.expert(prompt);
        let words = words_of(&text_of(&prompt.prompt));
        let rule = (0..self.config.rules.len())
            .find(|place| self.matches(*place, prompt, &words, key, Some(heard)) == Some(true));
        let to_by_rule = rule.map_or(Destination::Judges, |place| self.config.rules[place].to);
        let to = raised(to_by_rule, expert.is_some());
        let needs_people = expert.is_some() || to == Destination::People;
        let why = match (rule, expert) {
            (Some(place), _) if to_by_rule == Destination::People => Why::Rule(place),
            (_, Some(tag)) => Why::Expert(tag.clone()),
            (Some(place), None) => Why::Rule(place),
            (None, None) => Why::Default,
        };
        if to == Destination::Judges && share_of(self.run_seed, AUDIT_DRAW, key) < self.share {
            return Route { to: Destination::Both, why: Why::Random, needs_people: false };
        }
        Route { to, why, needs_people }
    }

    /// Why a pair is where it is, in a few words that tell nothing of what judges said.
    pub fn reason(&self, why: &Why, prompt: &Prompt) -> String {
        let rule = match why {
            Why::Expert(tag) => return format!("tag “{tag}”"),
            Why::Random => return "drawn at random".into(),
            Why::Default => return String::new(),
            Why::Rule(place) => place,
        };
        let words = words_of(&text_of(&prompt.prompt));
        let RouteRule { tags, words: phrases, random_share, .. } = &self.config.rules[*rule];
        let mut reasons: Vec<String> = Vec::new();
        reasons.extend(tags.iter().find(|tag| prompt.tags.contains(tag)).map(|tag| format!("tag “{tag}”")));
        let said = phrases.iter().zip(&self.phrases[*rule]).find(|(_, phrase)| holds(&words, phrase));
        reasons.extend(said.map(|(phrase, _)| format!("“{}” in the prompt", phrase.trim())));
        reasons.extend(random_share.map(|_| "drawn at random".to_owned()));
        reasons.extend(
            self.config.rules[*rule]
                .hears_judges()
                .then(|| "a rule on what judges said, which is not shown".to_owned()),
        );
        reasons.join(", ")
    }

    /// The name of a reason in numbers.
    pub fn name(&self, why: &Why) -> String {
        match why {
            Why::Rule(place) => self.config.rules[*place].label(*place),
            Why::Expert(tag) => format!("expert tag {tag}"),
            Why::Random => "random share".into(),
            Why::Default => "no rule".into(),
        }
    }

    fn expert(&self, prompt: &Prompt) -> Option<&'c String> {
        self.config.expert_tags.iter().find(|tag| prompt.tags.contains(tag))
    }

    /// Whether a rule matches; `None` where that hangs on judges who have not been heard.
    fn matches(
        &self,
        place: usize,
        prompt: &Prompt,
        words: &[String],
        key: &PairKey,
        heard: Option<&Heard>,
    ) -> Option<bool> {
        let rule = &self.config.rules[place];
        let tagged = rule.tags.is_empty() || rule.tags.iter().any(|tag| prompt.tags.contains(tag));
        let phrases = &self.phrases[place];
        let worded = phrases.is_empty() || phrases.iter().any(|phrase| holds(words, phrase));
        let draw = || share_of(self.run_seed, &format!("route/{}", rule.label(place)), key);
        let drawn = rule.random_share.is_none_or(|share| draw() < share);
        if !(tagged && worded && drawn) {
            return Some(false);
        }
        if !rule.hears_judges() {
            return Some(true);
        }
        Some(said(rule, heard?))
    }
}

/// Whether what judges said is what a rule asks for. What they did not say never is.
fn said(rule: &RouteRule, heard: &Heard) -> bool {
    let is_unsafe = rule.unsafe_by.as_ref().is_none_or(|judge| {
        heard.lowest_rating.get(judge).is_some_and(|rating| *rating < rule.unsafe_below())
    });
    let disagree = !rule.disagree || heard.for_a && heard.for_b;
    let spread = rule.spread_above.is_none_or(|above| heard.spread.is_some_and(|spread| spread > above));
    let unsure = rule.margin_below.is_none_or(|below| heard.p.is_some_and(|p| (p - 0.5).abs() < below));
    is_unsafe && disagree && spread && unsure
}

/// Where a pair goes for which a rule says `to`, if its prompt is one for experts.
fn raised(to: Destination, expert: bool) -> Destination {
    match to {
        Destination::Judges if expert => Destination::People,
        other => other,
    }
}

/// A draw from [0, 1) that hangs on the run's seed, a purpose and the pair's texts.
fn share_of(run_seed: u64, purpose: &str, key: &PairKey) -> f64 {
    seed::derive(run_seed, purpose, key.number()) as f64 / 2f64.powi(64)
}

/// What all turns of a prompt say, without their roles.
fn text_of(prompt: &PromptText) -> String {
    let turns: Vec<String> = prompt.messages().into_iter().map(|turn| turn.content).collect();
    turns.join("\n")
}

/// Words in lower case, as Unicode cuts them (UAX 29): what is between them does not count, and scripts without spaces are cut into
/// characters.
pub fn words_of(text: &str) -> Vec<String> {
    text.to_lowercase().unicode_words().map(str::to_owned).collect()
}

/// Whether a phrase stands among words, whole and in a row.
fn holds(words: &[String], phrase: &[String]) -> bool {
    words.windows(phrase.len().max(1)).any(|window| window == phrase)
}

/// People's agreement with judges on the first pairs of the audit's order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Pairs on which both decide.
    pub n: usize,
    /// Share of them on which both choose the same; the interval is over prompts.
    pub agreement: Interval,
    /// Whether the whole interval lies below the bound: the share doubles.
    pub below: bool,
}

/// Looks at people's agreement with judges after 20, 40, 80, … pairs of a random order; `agrees` are those on which both decide, with
/// their prompts, in that order.
///
/// A look is about a beginning of the order that is complete, so that what people say later adds looks and changes none: the share that
/// follows from them never falls as labels come in, and does not hang on who judged when. The upper end is what counts: a rise is for
/// good and costs people's time, so that it takes evidence (a chance of 2.5 % a look where agreement is just at the bound), and the looks
/// are few because each has twice the pairs of the one before it.
pub fn looks(agrees: &[(&str, bool)], bound: f64, run_seed: u64) -> Vec<Look> {
    let sizes = std::iter::successors(Some(FIRST_LOOK), |size| size.checked_mul(2));
    let complete = sizes.take_while(|size| *size <= agrees.len());
    complete.filter_map(|size| look(&agrees[..size], bound, run_seed)).collect()
}

/// One look at all of these; `None` where they are of fewer than two prompts.
pub fn look(agrees: &[(&str, bool)], bound: f64, run_seed: u64) -> Option<Look> {
    let mut by_prompt: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (prompt, agrees) in agrees {
        by_prompt.entry(prompt).or_default().push(f64::from(u8::from(*agrees)));
    }
    let clusters: Vec<Vec<f64>> = by_prompt.into_values().collect();
    let agreement = cluster_share(&clusters, RESAMPLES, run_seed)?;
    Some(Look { n: agrees.len(), agreement, below: agreement.high < bound })
}

/// The random share: `route.random_share`, doubled for each look that was below the bound, and at most `route.max_share`.
pub fn share(config: &RouteConfig, looks: &[Look]) -> f64 {
    let doublings = looks.iter().filter(|look| look.below).count();
    let doubled = |share: f64, _| (2.0 * share).min(config.max_share);
    (0..doublings).fold(config.random_share, doubled)
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
