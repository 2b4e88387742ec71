//! Pairs to preferences, through every kind of judge. `label` judges the baseline's pairs, `evaluate` judges tuned policies
//! against the baseline; both come here.
//!
//! Verdicts are stored as they are made, so a judge that was interrupted goes on where it stopped; what was bought is never
//! bought again. See `rlaif_store::store` for the ledger and `rlaif_judge` for what a verdict is.

pub(crate) mod asking;
pub(crate) mod batch_sending;
pub(crate) mod batches;
pub(crate) mod forms;
mod ledger;
mod local;
mod lone;
pub(crate) mod openai;
mod ratings;
pub(crate) mod reuse;
pub(crate) mod sending;
pub(crate) mod templates;

use crate::context::Context;
use crate::probe;
use crate::progress::say;
use crate::robustness::Tripwires;
use crate::routing::Gate;
use anyhow::{Context as _, Result};
use rlaif_core::config::{Aggregation, JudgeConfig, JudgeKind, LabelConfig, Protocol, TooLong};
use rlaif_core::people::PairKey;
use rlaif_core::records::{
    Choice, Message, NoVerdict, Order, Pair, Preference, Prompt, Response, Split, Verdict,
};
use rlaif_judge::cascade::{goes_on, sureness};
use rlaif_judge::defence::rules::{self, RULE};
use rlaif_judge::{
    FitItem, FittedPanel, FittedVoter, JudgeVerdict, VoterReport, aggregate, voter_reports, voters,
};
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
    pub prompts: Cow<'a, HashMap<String, Prompt>>,
    /// Responses by id.
    pub responses: Cow<'a, HashMap<String, Response>>,
    /// Who judges.
    pub judges: &'a [JudgeConfig],
    /// How verdicts are asked for and added up.
    pub label: &'a LabelConfig,
    /// What rules say of pairs, by id: no judge is asked about these. See [`Assignment::rule`].
    pub ruled: HashMap<String, Verdict>,
    /// Known-bad responses that go among the pairs of judges that are paid.
    pub tripwires: Option<&'a Tripwires<'a>>,
    /// Whether each pair is asked about also where its request is the same to the byte as that of another: whether a judge repeats itself.
    pub each_anew: bool,
    /// What sends pairs to people: judges are not asked about some, and what they say of others does not stand alone.
    pub gate: Option<&'a Gate>,
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

/// What judging a set of pairs came to.
pub struct Judged {
    /// One preference a pair, in the order of the pairs.
    pub preferences: Vec<Preference>,
    /// What each judge said through each template, by place.
    pub voters: Vec<VoterReport>,
    /// What was learnt of each judge and template, where `label.aggregation` is fitted.
    pub fitted: Vec<FittedVoter>,
    /// How many pairs each judge of a cascade was asked about, by its name; judges that are asked about every pair are not named.
    pub asked: BTreeMap<String, u64>,
}

impl<'a> Assignment<'a> {
    /// Nothing to judge yet.
    pub fn empty(
        stage: &'static str,
        set: &'a str,
        judges: &'a [JudgeConfig],
        label: &'a LabelConfig,
    ) -> Self {
        Self {
            stage,
            set,
            pairs: Vec::new(),
            prompts: Cow::default(),
            responses: Cow::default(),
            judges,
            label,
            ruled: HashMap::new(),
            tripwires: None,
            each_anew: false,
            gate: None,
        }
    }
}

impl Assignment<'_> {
    /// The same work on some of the pairs.
    fn on(&self, pairs: Vec<Pair>) -> Assignment<'_> {
        Assignment {
            stage: self.stage,
            set: self.set,
            pairs,
            prompts: Cow::Borrowed(&*self.prompts),
            responses: Cow::Borrowed(&*self.responses),
            judges: self.judges,
            label: self.label,
            ruled: self.ruled.clone(),
            tripwires: self.tripwires,
            each_anew: self.each_anew,
            gate: self.gate,
        }
    }

    /// Puts probes into the ledger: their prompts, set aside for this reason, so that no stage takes them up, responses and pairs.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn put_probes(&self, context: &Context, why: &str) -> Result<()> {
        let store = &context.store;
        let mut prompts: Vec<(Prompt, Split)> =
            self.prompts.values().map(|prompt| (prompt.clone(), Split::Train)).collect();
        prompts.sort_by(|(one, _), (other, _)| one.id.cmp(&other.id));
        context.wait(store.put_prompts(&prompts))?;
        for (prompt, _) in &prompts {
            context.wait(store.set_aside_prompt(&prompt.id, why))?;
        }
        let mut responses: Vec<Response> = self.responses.values().cloned().collect();
        responses.sort_by(|one, other| one.id.cmp(&other.id));
        context.wait(store.put_responses(self.set, &responses))?;
        Ok(context.wait(store.put_pairs(self.set, &self.pairs))?)
    }

    /// The prompt of a pair.
    ///
    /// # Errors
    /// If it is not there.
    pub fn prompt(&self, pair: &Pair) -> Result<&Prompt> {
        self.prompts.get(&pair.prompt_id).with_context(|| format!("pair `{}` has no prompt", pair.id))
    }

    /// The name of a pair among people.
    ///
    /// # Errors
    /// If it names what is not there.
    pub fn key(&self, pair: &Pair) -> Result<PairKey> {
        let (a, b) = (self.response(&pair.a)?, self.response(&pair.b)?);
        Ok(PairKey::of(&self.prompt(pair)?.prompt, &a.text, &b.text))
    }

    fn response(&self, id: &str) -> Result<&Response> {
        self.responses
            .get(id)
            .with_context(|| format!("a pair names the response `{id}`, which is not there"))
    }

    /// Leaves to people what goes to them anyway, lets rules decide what needs no judge, and sets aside what is too long for one. A probe or an audit does not: it is there
    /// to see what the judge itself says.
    ///
    /// # Errors
    /// If a pair names what is not there.
    pub fn rule(&mut self) -> Result<()> {
        let mut ruled = HashMap::new();
        for pair in &self.pairs {
            let spared = match self.gate {
                Some(gate) => gate.spares(self.prompt(pair)?, &self.key(pair)?),
                None => None,
            };
            if let Some(reason) = spared {
                ruled.insert(pair.id.clone(), Verdict::none(NoVerdict::SetAside(reason)));
                continue;
            }
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

/// Asks the judges, in their order, and adds their verdicts up. A judge with `only_if_unsure_below` gets only the pairs that the ones
/// before it have left open.
///
/// # Errors
/// If a judge cannot go on; what it has said so far is kept.
pub fn judge(context: &mut Context, work: &Assignment) -> Result<Judged> {
    put_ruled(context, work)?;
    let mut asked = BTreeMap::new();
    for (place, judge) in work.judges.iter().enumerate() {
        match pairs_of_cascade(context, work, place)? {
            Some(open) => {
                asked.insert(judge.name.clone(), open.len() as u64);
                ask_one(context, &work.on(open), judge)?;
            }
            None => ask_one(context, work, judge)?,
        }
    }
    let panel = fit(context, work)?;
    let verdicts = context.wait(context.store.verdicts(work.set))?;
    let of_pairs = by_pair(work, &verdicts, work.judges);
    let mut preferences = add_up(work, &of_pairs, panel.as_ref());
    if let Some(gate) = work.gate {
        gate.hold(work, &verdicts, &mut preferences)?;
    }
    context.wait(context.store.put_preferences(&preferences))?;
    let by_judges = work.pairs.iter().zip(&of_pairs).filter(|(pair, _)| !work.ruled.contains_key(&pair.id));
    let voters: Vec<_> = by_judges.map(|(_, said)| voters(said, work.label.vote_smoothing)).collect();
    Ok(Judged {
        preferences,
        voters: voter_reports(&voters),
        fitted: panel.map(|panel| panel.voters()).unwrap_or_default(),
        asked,
    })
}

/// Asks every judge about every pair. Nothing becomes a preference.
///
/// # Errors
/// If a judge cannot go on; what it has said so far is kept.
pub fn ask(context: &mut Context, work: &Assignment) -> Result<()> {
    put_ruled(context, work)?;
    work.judges.iter().try_for_each(|judge| ask_one(context, work, judge))
}

/// Plans what one of the judges is to be asked, without asking it. Where it is a later one of a cascade, those before it are asked first:
/// what they leave open is what it is asked.
///
/// # Errors
/// If it cannot be planned, or a judge before it cannot go on.
pub fn plan_only(context: &mut Context, work: &Assignment, place: usize) -> Result<()> {
    put_ruled(context, work)?;
    let judge = &work.judges[place];
    if judge.only_if_unsure_below.is_none() || place == 0 {
        return openai::plan_only(context, work, judge);
    }
    for (before, judge) in work.judges[..place].iter().enumerate() {
        match pairs_of_cascade(context, work, before)? {
            Some(open) => ask_one(context, &work.on(open), judge)?,
            None => ask_one(context, work, judge)?,
        }
    }
    let open = pairs_of_cascade(context, work, place)?.unwrap_or_default();
    openai::plan_only(context, &work.on(open), judge)
}

/// The pairs that a judge of a cascade is asked about; `None` for one that is asked about all of them.
fn pairs_of_cascade(context: &Context, work: &Assignment, place: usize) -> Result<Option<Vec<Pair>>> {
    let judge = &work.judges[place];
    let Some(below) = judge.only_if_unsure_below.filter(|_| place > 0) else { return Ok(None) };
    let open = left_open(context, work, &work.judges[..place], below)?;
    let (some, all) = (open.len(), work.asked().count());
    say(&format!("{}: {some} of {all} pairs go on to `{}`", work.stage, judge.name));
    Ok(Some(open))
}

/// Stores what rules have decided.
fn put_ruled(context: &Context, work: &Assignment) -> Result<()> {
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
    Ok(context.wait(context.store.put_verdicts(PARSER, &by_rule))?)
}

/// Asks one judge about every pair.
fn ask_one(context: &mut Context, work: &Assignment, judge: &JudgeConfig) -> Result<()> {
    match (judge.kind, judge.protocol) {
        (JudgeKind::Local, Protocol::Contrastive) => local::contrastive(context, work, judge),
        (JudgeKind::Local, Protocol::Pairwise) => local::pairwise(context, work, judge),
        (JudgeKind::Local, Protocol::Rating) => local::rating(context, work, judge),
        _ => openai::judge(context, work, judge),
    }
}

/// Asks the first judge alone; how sure it is of each pair, in their order: |p − ½|, 0 where it has no vote.
///
/// # Errors
/// If it cannot go on; what it has said so far is kept.
pub fn sureness_of_first(context: &mut Context, work: &Assignment) -> Result<Vec<f64>> {
    let Some(first) = work.judges.first() else { return Ok(vec![0.0; work.pairs.len()]) };
    ask_one(context, work, first)?;
    let verdicts = context.wait(context.store.verdicts(work.set))?;
    let of_pairs = by_pair(work, &verdicts, std::slice::from_ref(first));
    let sure = |(pair, said): (&Pair, &Vec<JudgeVerdict>)| match work.ruled.contains_key(&pair.id) {
        true => 0.5, // no judge has anything to add
        false => sureness(pair, said, work.label),
    };
    Ok(work.pairs.iter().zip(&of_pairs).map(sure).collect())
}

/// The pairs that these judges leave to the next.
fn left_open(context: &Context, work: &Assignment, before: &[JudgeConfig], below: f64) -> Result<Vec<Pair>> {
    let verdicts = context.wait(context.store.verdicts(work.set))?;
    let of_pairs = by_pair(work, &verdicts, before);
    let open =
        work.pairs.iter().zip(&of_pairs).filter(|(pair, said)| {
            !work.ruled.contains_key(&pair.id) && goes_on(pair, said, work.label, below)
        });
    Ok(open.map(|(pair, _)| pair.clone()).collect())
}

/// The panel that `label.aggregation` asks for, fitted to `label.calibration`, or without it to the pairs themselves.
fn fit(context: &mut Context, work: &Assignment) -> Result<Option<FittedPanel>> {
    if !work.label.aggregation.is_fitted() {
        return Ok(None);
    }
    let panel = match work.label.calibration.clone() {
        None => fit_to(context, work, None)?,
        Some(path) => {
            let label = calibration_label(work.label);
            let judges = probe::without_cascade(work.judges);
            let labelled = probe::labelled(context, &path, probe::CALIBRATION, &judges, &label)?;
            judge(context, &labelled)?;
            let labelled = Assignment { label: work.label, ..labelled };
            fit_to(context, &labelled, Some(true))? // the better response is a
        }
    };
    match &panel {
        None => say(&format!("{}: no verdict to fit the judges to; their mean is used", work.stage)),
        Some(panel) if !panel.converged() => {
            say(&format!("warning: {}: the fit of the judges did not come to rest", work.stage));
        }
        Some(_) => {}
    }
    Ok(panel)
}

/// How calibration pairs are asked: every judge says what it thinks of every one, and nothing is fitted while they do.
pub fn calibration_label(label: &LabelConfig) -> LabelConfig {
    LabelConfig { aggregation: Aggregation::Mean, position_check_rate: 1.0, ..label.clone() }
}

fn fit_to(context: &Context, work: &Assignment, a_better: Option<bool>) -> Result<Option<FittedPanel>> {
    let verdicts = context.wait(context.store.verdicts(work.set))?;
    let of_pairs = by_pair(work, &verdicts, work.judges);
    let items: Vec<FitItem> = work
        .pairs
        .iter()
        .zip(&of_pairs)
        .filter(|(pair, _)| !work.ruled.contains_key(&pair.id))
        .map(|(_, verdicts)| FitItem { verdicts, a_better })
        .collect();
    Ok(FittedPanel::fit(&items, work.label))
}

/// The verdicts of some judges on each pair, in the order of the pairs; a pair that a rule decided is the rule's, whatever a judge
/// said of it when the config had no such rule.
fn by_pair<'v>(
    work: &'v Assignment,
    verdicts: &'v [VerdictRow],
    judges: &[JudgeConfig],
) -> Vec<Vec<JudgeVerdict<'v>>> {
    let mut said = said(verdicts, judges);
    for (pair, verdict) in &work.ruled {
        let (judge, template, weight, order, has_order) = (RULE, RULE, 1.0, Order::Ab, false);
        said.insert(pair, vec![JudgeVerdict { judge, template, weight, order, has_order, verdict }]);
    }
    work.pairs.iter().map(|pair| said.remove(pair.id.as_str()).unwrap_or_default()).collect()
}

/// The verdicts of some judges by pair, as they are added up.
pub fn said<'v>(
    verdicts: &'v [VerdictRow],
    judges: &[JudgeConfig],
) -> HashMap<&'v str, Vec<JudgeVerdict<'v>>> {
    let judges: HashMap<&str, &JudgeConfig> =
        judges.iter().map(|judge| (judge.name.as_str(), judge)).collect();
    let mut said: HashMap<&str, Vec<JudgeVerdict>> = HashMap::new();
    for row in verdicts {
        let Some(judge) = judges.get(row.judge.as_str()) else { continue };
        said.entry(&row.pair_id).or_default().push(JudgeVerdict {
            judge: &row.judge,
            template: &row.template,
            weight: judge.weight,
            order: row.order,
            has_order: has_order(judge),
            verdict: &row.verdict,
        });
    }
    said
}

/// Whether a judge sees two responses at once.
fn has_order(judge: &JudgeConfig) -> bool {
    judge.protocol == Protocol::Pairwise
}

/// The verdicts on every pair, added up.
fn add_up(work: &Assignment, of_pairs: &[Vec<JudgeVerdict>], panel: Option<&FittedPanel>) -> Vec<Preference> {
    let add_up = |(pair, said): (&Pair, &Vec<JudgeVerdict>)| {
        // No panel has met the rules.
        let panel = panel.filter(|_| !work.ruled.contains_key(&pair.id));
        aggregate(pair, said, work.label, panel)
    };
    work.pairs.iter().zip(of_pairs).map(add_up).collect()
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
            preferences: add_up(work, &by_pair(work, &verdicts, std::slice::from_ref(judge)), None),
            choices,
            has_order: has_order(judge),
        }
    });
    Ok(opinions.collect())
}

/// What a judge that looks at one response at a time has scored, by response: contrastive scores, or the mean rating of its templates.
///
/// # Errors
/// If a template cannot be used, or the store cannot be read.
pub fn scores(context: &Context, judge: &JudgeConfig) -> Result<BTreeMap<String, f64>> {
    if judge.protocol == Protocol::Contrastive {
        return Ok(context.wait(context.store.scores(&judge.name))?);
    }
    let mut by_response: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for asker in templates::of_asked(context, judge)? {
        for (response, score) in
            context.wait(context.store.scores(&ratings::score_name(judge, asker.name())))?
        {
            by_response.entry(response).or_default().push(score);
        }
    }
    let mean = |scores: Vec<f64>| scores.iter().sum::<f64>() / scores.len() as f64;
    Ok(by_response.into_iter().map(|(response, scores)| (response, mean(scores))).collect())
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
