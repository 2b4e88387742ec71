//! Pairs to preferences, through every kind of judge. `label` judges the baseline's pairs, `evaluate` judges tuned policies
//! against the baseline; both come here.
//!
//! Verdicts are stored as they are made, so a judge that was interrupted goes on where it stopped; what was bought is never
//! bought again. See `rlaif_store::store` for the ledger and `rlaif_judge` for what a verdict is.

pub(crate) mod asking;
mod local;
pub(crate) mod openai;
mod ratings;
pub(crate) mod templates;

use crate::context::Context;
use crate::robustness::Tripwires;
use anyhow::{Context as _, Result};
use rlaif_core::config::{JudgeConfig, JudgeKind, LabelConfig, Protocol, TooLong};
use rlaif_core::records::{Choice, Message, Order, Pair, Preference, Prompt, Response, Verdict};
use rlaif_core::stats::position::{PositionReport, position_report};
use rlaif_judge::defence::rules::{self, RULE};
use rlaif_judge::{JudgeVerdict, aggregate};
use rlaif_store::store::VerdictRow;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// Version of what makes verdicts of replies and log-probabilities: another one reads stored replies again, for free.
pub const PARSER: &str = concat!("rlaif-", env!("CARGO_PKG_VERSION"));

/// What is to be judged.
pub struct Assignment<'a> {
    /// The stage, for messages and bars.
    pub stage: &'static str,
    /// The set of pairs in the store.
    pub set: &'a str,
    /// The pairs of the set.
    pub pairs: Vec<Pair>,
    /// Prompts by id.
    pub prompts: HashMap<String, Prompt>,
    /// Responses by id.
    pub responses: HashMap<String, Response>,
    /// Who judges.
    pub judges: &'a [JudgeConfig],
    /// How verdicts are asked for and added up.
    pub label: &'a LabelConfig,
    /// What rules say of pairs, by id: no judge is asked about these. See [`Assignment::rule`].
    pub ruled: HashMap<String, Verdict>,
    /// Known-bad responses that go among the pairs of judges that are paid.
    pub tripwires: Option<&'a Tripwires<'a>>,
}

/// What one judge says of the pairs, as if it were alone.
pub struct Opinion {
    /// Its name.
    pub judge: String,
    /// One preference a pair, in the order of the pairs.
    pub preferences: Vec<Preference>,
    /// Its choices by pair, with the order in which it saw them.
    pub choices: HashMap<String, Vec<(Order, Choice)>>,
    /// Whether it sees two responses at once, so that an order can matter.
    pub has_order: bool,
}

impl Opinion {
    /// How its choices depend on the order; `None` for judges without one.
    pub fn position(&self) -> Option<PositionReport> {
        let seen =
            |choices: &[(Order, Choice)], order| choices.iter().find(|(o, _)| *o == order).map(|(_, c)| *c);
        let mut both: Vec<(&String, (Choice, Choice))> = self
            .choices
            .iter()
            .filter_map(|(pair, choices)| {
                Some((pair, seen(choices, Order::Ab).zip(seen(choices, Order::Ba))?))
            })
            .collect();
        both.sort_by_key(|(pair, _)| *pair); // the bootstrap draws by place
        let both: Vec<(Choice, Choice)> = both.into_iter().map(|(_, choices)| choices).collect();
        self.has_order.then(|| position_report(&both)).flatten()
    }
}

impl Assignment<'_> {
    fn prompt(&self, pair: &Pair) -> Result<&Prompt> {
        self.prompts.get(&pair.prompt_id).with_context(|| format!("pair `{}` has no prompt", pair.id))
    }

    fn response(&self, id: &str) -> Result<&Response> {
        self.responses
            .get(id)
            .with_context(|| format!("a pair names the response `{id}`, which is not there"))
    }

    /// Lets rules decide what needs no judge, and sets aside what is too long for one. A probe or an audit does not: it is there
    /// to see what the judge itself says.
    ///
    /// # Errors
    /// If a pair names what is not there.
    pub fn rule(&mut self) -> Result<()> {
        let mut ruled = HashMap::new();
        for pair in &self.pairs {
            let (a, b) = (&self.response(&pair.a)?.text, &self.response(&pair.b)?.text);
            let prompt = self.prompt(pair)?.prompt.display();
            let by_rule = self.label.rules.then(|| rules::rule(&prompt, a, b)).flatten();
            let by_length = || match self.label.too_long {
                TooLong::SetAside => rules::too_long(a, b, self.label.max_response_chars).map(Verdict::none),
                TooLong::CutBoth => None,
            };
            if let Some(verdict) = by_rule.or_else(by_length) {
                ruled.insert(pair.id.clone(), verdict);
            }
        }
        self.ruled = ruled;
        Ok(())
    }

    /// The pairs that judges are asked about.
    fn asked(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(|pair| !self.ruled.contains_key(&pair.id))
    }

    /// What a paid judge is asked about, in this order: the pairs, with the tripwires in their places among them. Each comes with
    /// the work that knows its texts.
    fn traffic(&self) -> Vec<(&Assignment<'_>, &Pair)> {
        let mut traffic = Vec::new();
        for (index, pair) in self.asked().enumerate() {
            if let Some(tripwires) = self.tripwires {
                traffic.extend(tripwires.before(index).iter().map(|wire| (tripwires.work(), wire)));
            }
            traffic.push((self, pair));
        }
        traffic
    }

    /// How many of the pairs a pairwise judge sees cut at `label.max_response_chars`.
    pub fn cut(&self) -> usize {
        let long = |id: &String| {
            self.responses.get(id).is_some_and(|r| r.text.chars().count() > self.label.max_response_chars)
        };
        match self.label.too_long {
            TooLong::SetAside => 0,
            TooLong::CutBoth => self.asked().filter(|pair| long(&pair.a) || long(&pair.b)).count(),
        }
    }

    /// The two texts of a pair in the order in which they are shown, both cut at the same length if the config says so.
    fn shown(&self, pair: &Pair, order: Order) -> Result<(Cow<'_, str>, Cow<'_, str>)> {
        let text = |id| -> Result<Cow<'_, str>> {
            let text = &self.response(id)?.text;
            Ok(match self.label.too_long {
                TooLong::CutBoth => rules::cut(text, self.label.max_response_chars),
                TooLong::SetAside => Cow::Borrowed(text.as_str()),
            })
        };
        let (a, b) = (text(&pair.a)?, text(&pair.b)?);
        Ok(match order {
            Order::Ab => (a, b),
            Order::Ba => (b, a),
        })
    }

    /// The conversation that a judge sees: the user's, without what the policy is told by `prompts.system`.
    fn conversation(&self, prompt: &Prompt) -> Vec<Message> {
        prompt.prompt.messages()
    }
}

/// Asks every judge about every pair and adds their verdicts up.
///
/// # Errors
/// If a judge cannot go on; what it has said so far is kept.
pub fn judge(context: &mut Context, work: &Assignment) -> Result<Vec<Preference>> {
    ask(context, work)?;
    let verdicts = context.wait(context.store.verdicts(work.set))?;
    let preferences = add_up(work, &verdicts, work.judges);
    context.wait(context.store.put_preferences(&preferences))?;
    Ok(preferences)
}

/// Asks every judge about every pair. Nothing becomes a preference.
///
/// # Errors
/// If a judge cannot go on; what it has said so far is kept.
pub fn ask(context: &mut Context, work: &Assignment) -> Result<()> {
    let by_rule: Vec<VerdictRow> = work
        .pairs
        .iter()
        .filter_map(|pair| {
            Some(VerdictRow {
                pair_id: pair.id.clone(),
                judge: RULE.into(),
                template: RULE.into(),
                order: Order::Ab, // a rule sees both at once
                vote: 0,
                verdict: work.ruled.get(&pair.id)?.clone(),
            })
        })
        .collect();
    context.wait(context.store.put_verdicts(PARSER, &by_rule))?;
    for judge in work.judges {
        match (judge.kind, judge.protocol) {
            (JudgeKind::Local, Protocol::Contrastive) => local::contrastive(context, work, judge)?,
            (JudgeKind::Local, Protocol::Pairwise) => local::pairwise(context, work, judge)?,
            (JudgeKind::Local, Protocol::Rating) => local::rating(context, work, judge)?,
            _ => openai::judge(context, work, judge)?,
        }
    }
    Ok(())
}

/// The verdicts of some judges on every pair, added up; a pair that a rule decided is the rule's, whatever a judge said of it when
/// the config had no such rule.
fn add_up(work: &Assignment, verdicts: &[VerdictRow], judges: &[JudgeConfig]) -> Vec<Preference> {
    let weight: HashMap<&str, f64> = judges.iter().map(|judge| (judge.name.as_str(), judge.weight)).collect();
    let mut by_pair: HashMap<&str, Vec<JudgeVerdict>> = HashMap::new();
    for (pair, verdict) in &work.ruled {
        let verdict = JudgeVerdict { judge: RULE, weight: 1.0, order: Order::Ab, verdict };
        by_pair.insert(pair, vec![verdict]);
    }
    for row in verdicts.iter().filter(|row| !work.ruled.contains_key(&row.pair_id)) {
        let Some(&weight) = weight.get(row.judge.as_str()) else { continue };
        let verdict = JudgeVerdict { judge: &row.judge, weight, order: row.order, verdict: &row.verdict };
        by_pair.entry(&row.pair_id).or_default().push(verdict);
    }
    let none = Vec::new();
    work.pairs
        .iter()
        .map(|pair| aggregate(pair, by_pair.get(pair.id.as_str()).unwrap_or(&none), work.label))
        .collect()
}

/// What each judge says alone.
///
/// # Errors
/// If the store cannot be read.
pub fn opinions(context: &Context, work: &Assignment) -> Result<Vec<Opinion>> {
    let verdicts = context.wait(context.store.verdicts(work.set))?;
    let opinions = work.judges.iter().map(|judge| {
        let mut choices: HashMap<String, Vec<(Order, Choice)>> = HashMap::new();
        for row in verdicts.iter().filter(|row| row.judge == judge.name && row.vote == 0) {
            if let Ok(choice) = row.verdict.choice {
                choices.entry(row.pair_id.clone()).or_default().push((row.order, choice));
            }
        }
        Opinion {
            judge: judge.name.clone(),
            preferences: add_up(work, &verdicts, std::slice::from_ref(judge)),
            choices,
            has_order: judge.protocol == Protocol::Pairwise,
        }
    });
    Ok(opinions.collect())
}

/// How many pairs met each fate, by its name.
pub fn count_fates(preferences: &[Preference]) -> BTreeMap<String, u64> {
    let mut fates = BTreeMap::new();
    for preference in preferences {
        let name = serde_json::to_value(preference.fate).ok().and_then(|v| v.as_str().map(String::from));
        *fates.entry(name.unwrap_or_default()).or_insert(0) += 1;
    }
    fates
}
