//! What is there of a set of pairs: the pairs, what people said of them, and what judges did.

use crate::agreement::{People, TOGETHER, choice_of, p_alone, together};
use crate::context::Context;
use crate::judging;
use crate::review::queues::Queues;
use anyhow::{Context as _, Result};
use rlaif_core::config::{JudgeConfig, LabelConfig, LengthBy, Protocol};
use rlaif_core::markdown::Markdown;
use rlaif_core::people::{HumanChoice, Votes};
use rlaif_core::records::{Choice, NoVerdict, Order, Pair};
use rlaif_core::stats::length::Judged;
use rlaif_judge::{JudgeVerdict, voters};
use rlaif_store::store::{PairedResponse, VerdictRow};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What an audit needs to know of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Whose it is.
    pub policy: String,
    /// By `audit.length_by`.
    pub length: u64,
    /// Markdown features.
    pub markdown: u64,
}

/// A pair, and what people say of it.
#[derive(Debug, Clone)]
pub struct Item {
    /// The pair.
    pub pair: Pair,
    /// Response a.
    pub a: Response,
    /// Response b.
    pub b: Response,
    /// People's votes, if there are any.
    pub votes: Option<Votes>,
    /// Whether it is in the random sample that people judged.
    pub audited: bool,
}

impl Item {
    /// What most people say.
    pub fn majority(&self) -> Option<HumanChoice> {
        self.votes.as_ref()?.majority()
    }

    /// P(a beats b), say people.
    pub fn people(&self) -> Option<f64> {
        self.votes.as_ref()?.p(0.0)
    }

    /// p of the response of more length, seen from p of a; `None` where both are equally long.
    pub fn of_longer(&self, p: f64) -> Option<f64> {
        of_more(self.a.length, self.b.length, p)
    }

    /// The same of the one with more markdown.
    pub fn of_marked(&self, p: f64) -> Option<f64> {
        of_more(self.a.markdown, self.b.markdown, p)
    }

    /// As the statistics of length take it.
    pub fn judged(&self, p: f64) -> Judged {
        Judged { chars_a: self.a.length, chars_b: self.b.length, p }
    }
}

fn of_more(a: u64, b: u64, p: f64) -> Option<f64> {
    match a.cmp(&b) {
        std::cmp::Ordering::Greater => Some(p),
        std::cmp::Ordering::Less => Some(1.0 - p),
        std::cmp::Ordering::Equal => None,
    }
}

/// Whoever has an opinion on the pairs: a judge, one of its templates, or all judges together.
pub struct Voice {
    /// As it is called in the audit.
    pub subject: String,
    /// The judge, unless it is all of them.
    pub judge: Option<JudgeConfig>,
    /// P(a beats b) of each item.
    pub p: Vec<Option<f64>>,
    /// The places that it chose in order a-b and in order b-a, of each item that it has seen in both.
    pub places: Vec<Option<(Choice, Choice)>>,
    /// Of every verdict that was asked for on each item, why there is none, if there is none. Empty of all judges together.
    pub asked: Vec<Vec<Option<NoVerdict>>>,
}

/// A set of pairs.
pub struct Material {
    /// Its name in the ledger.
    pub set: String,
    /// Its pairs.
    pub items: Vec<Item>,
    /// `run.seed`.
    pub run_seed: u64,
    /// `label.tie_margin`.
    pub tie_margin: f64,
}

impl Material {
    /// Reads a set, and what the judges said of it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn read(context: &Context, set: &str, judges: &[JudgeConfig]) -> Result<(Self, Vec<Voice>)> {
        let (store, config) = (&context.store, &context.config);
        let responses = responses(context, set)?;
        let people = context.wait(People::read(store))?;
        let audited = match people.said.is_empty() {
            true => BTreeSet::new(),
            false => people.audited(&context.wait(Queues::read(store, config))?.audit_order()),
        };
        let response = |id: &str| {
            responses
                .get(id)
                .cloned()
                .with_context(|| format!("a pair names the response `{id}`, which is not there"))
        };
        let mut items = Vec::new();
        for pair in context.wait(store.review_pairs(set))? {
            let votes = people.votes(&pair).filter(|votes| votes.n() > 0);
            let (a, b) = (response(&pair.pair.a)?, response(&pair.pair.b)?);
            let audited = votes.is_some() && audited.contains(&pair.pair.id);
            items.push(Item { pair: pair.pair, a, b, votes, audited });
        }
        let verdicts = context.wait(store.verdicts(set))?;
        let together = context.wait(together(store, set))?;
        let voices = voices(&items, &verdicts, judges, &config.label, &together);
        let (run_seed, tie_margin) = (config.run.seed, config.label.tie_margin);
        Ok((Self { set: set.into(), items, run_seed, tie_margin }, voices))
    }

    /// What is to be said of each item, by prompt; prompts of which nothing is are left out.
    pub fn by_prompt<T>(&self, of: impl Fn(usize, &Item) -> Option<T>) -> Vec<Vec<T>> {
        let mut prompts: BTreeMap<&str, Vec<T>> = BTreeMap::new();
        for (place, item) in self.items.iter().enumerate() {
            if let Some(value) = of(place, item) {
                prompts.entry(&item.pair.prompt_id).or_default().push(value);
            }
        }
        prompts.into_values().collect()
    }

    /// The choice of a voice on an item.
    pub fn choice(&self, voice: &Voice, place: usize) -> Option<HumanChoice> {
        Some(choice_of(voice.p[place]?, self.tie_margin))
    }
}

fn responses(context: &Context, set: &str) -> Result<HashMap<String, Response>> {
    let by = context.config.audit.length_by;
    let of = |PairedResponse { id, policy, text, tokens }: PairedResponse| {
        let length = match by {
            LengthBy::Characters => text.chars().count() as u64,
            LengthBy::Tokens => tokens,
        };
        (id, Response { policy, length, markdown: Markdown::of(&text).total() })
    };
    Ok(context.wait(context.store.paired_responses(set))?.into_iter().map(of).collect())
}

/// Verdicts by pair.
type Said<'v> = HashMap<&'v str, Vec<JudgeVerdict<'v>>>;

/// Each judge, then each of its templates where there are several, at last all together.
fn voices(
    items: &[Item],
    verdicts: &[VerdictRow],
    judges: &[JudgeConfig],
    label: &LabelConfig,
    together: &HashMap<String, f64>,
) -> Vec<Voice> {
    let mut found = Vec::new();
    for judge in judges {
        let said = judging::said(verdicts, std::slice::from_ref(judge));
        let templates: BTreeSet<&str> = said.values().flatten().map(|verdict| verdict.template).collect();
        let subject = format!("judge `{}`", judge.name);
        found.push(voice(subject.clone(), items, &said, judge, label));
        for template in templates.iter().filter(|_| templates.len() > 1) {
            let subject = format!("{subject}, template `{template}`");
            found.push(voice(subject, items, &through(&said, template), judge, label));
        }
    }
    let said = judging::said(verdicts, judges);
    found.push(Voice {
        subject: TOGETHER.into(),
        judge: None,
        p: items.iter().map(|item| together.get(&item.pair.id).copied()).collect(),
        places: items.iter().map(|item| places(said.get(item.pair.id.as_str())?, label)).collect(),
        asked: vec![Vec::new(); items.len()],
    });
    found
}

/// What was said through one template.
fn through<'v>(said: &Said<'v>, template: &str) -> Said<'v> {
    let own =
        |all: &Vec<JudgeVerdict<'v>>| all.iter().filter(|it| it.template == template).copied().collect();
    said.iter().map(|(pair, all)| (*pair, own(all))).collect()
}

fn voice(
    subject: String,
    items: &[Item],
    said: &Said<'_>,
    judge: &JudgeConfig,
    label: &LabelConfig,
) -> Voice {
    let of = |item: &Item| said.get(item.pair.id.as_str());
    let reasons =
        |all: &Vec<JudgeVerdict<'_>>| all.iter().map(|it| it.verdict.choice.clone().err()).collect();
    Voice {
        subject,
        judge: Some(judge.clone()),
        p: items.iter().map(|item| p_alone(&item.pair, of(item)?, label)).collect(),
        places: items.iter().map(|item| places(of(item)?, label)).collect(),
        asked: items.iter().map(|item| of(item).map_or_else(Vec::new, reasons)).collect(),
    }
}

/// The places chosen in both orders, by the mean over all that were asked in both; `None` where nobody was.
fn places(said: &[JudgeVerdict<'_>], label: &LabelConfig) -> Option<(Choice, Choice)> {
    let voters = voters(said, label.vote_smoothing);
    let of = |order: Order| -> Option<Choice> {
        let mut margins = Vec::new();
        for voter in voters.iter().filter(|voter| voter.has_order && voter.choices().is_some()) {
            let margin = voter.presentations.iter().find(|it| it.order == order)?.margin?;
            margins.push(voter.weight * if order == Order::Ab { margin } else { -margin });
        }
        let for_first: f64 = margins.iter().sum();
        Some(match for_first {
            _ if margins.is_empty() => return None,
            m if m > 0.0 => Choice::First,
            m if m < 0.0 => Choice::Second,
            _ => Choice::Tie,
        })
    };
    of(Order::Ab).zip(of(Order::Ba))
}

/// Whether a judge sees two responses at once.
pub fn has_order(judge: &JudgeConfig) -> bool {
    judge.protocol == Protocol::Pairwise
}

/// Material made by hand, for tests of what is measured on it.
#[cfg(test)]
pub mod made {
    use super::*;

    /// A pair for each (prompt, lengths of a and b); the responses of a prompt are told apart by their lengths.
    pub fn material(pairs: &[(&str, (u64, u64))]) -> Material {
        let response = |length| Response { policy: "baseline".into(), length, markdown: 0 };
        let item = |(prompt, (a, b)): &(&str, (u64, u64))| Item {
            pair: Pair {
                id: format!("{prompt}/{a}-{b}"),
                prompt_id: (*prompt).into(),
                a: format!("{prompt}/{a}"),
                b: format!("{prompt}/{b}"),
            },
            a: response(*a),
            b: response(*b),
            votes: None,
            audited: false,
        };
        Material {
            set: "train".into(),
            items: pairs.iter().map(item).collect(),
            run_seed: 0,
            tie_margin: 0.0,
        }
    }

    /// Somebody with these opinions.
    pub fn voice(subject: &str, judge: Option<JudgeConfig>, p: Vec<Option<f64>>) -> Voice {
        let n = p.len();
        Voice { subject: subject.into(), judge, p, places: vec![None; n], asked: vec![Vec::new(); n] }
    }

    #[test]
    fn both_orders_are_added_up_by_weight_and_one_alone_is_none() {
        use rlaif_core::records::Verdict;
        let (first, second) = (Verdict::choice(Choice::First), Verdict::choice(Choice::Second));
        let said = |judge: &'static str, weight, order, verdict| JudgeVerdict {
            judge,
            template: "t",
            weight,
            order,
            has_order: true,
            verdict,
        };
        let label = LabelConfig::default();
        let reads = [said("x", 1.0, Order::Ab, &first), said("x", 1.0, Order::Ba, &second)];
        assert_eq!(places(&reads, &label), Some((Choice::First, Choice::Second)));
        assert_eq!(places(&reads[..1], &label), None);
        let looks = [said("y", 2.0, Order::Ab, &first), said("y", 2.0, Order::Ba, &first)];
        let both: Vec<_> = reads.into_iter().chain(looks).collect();
        assert_eq!(
            places(&both, &label),
            Some((Choice::First, Choice::First)),
            "the heavier one looks at the place"
        );
    }
}
