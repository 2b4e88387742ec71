//! Routing at work: the rules of [`rlaif_core::routing`] on the pairs of a run.
//!
//! [`Gate`] stands at the stage `label`: it spares judges the pairs that go to people anyway, and sets labels of judges aside that may not
//! stand alone. [`Routes`] is what is told afterwards: which pairs went where by which rule, which of them wait for people, and how far
//! people agree with the judges on a random sample. It is read anew from the ledger each time, since people go on labelling.

use crate::context::Context;
use crate::judging::Assignment;
use crate::progress::say;
use crate::report::data::{Estimate, RoutingNumbers};
use anyhow::Result;
use rlaif_core::config::{Destination, RouteConfig, Stage};
use rlaif_core::people::{HumanChoice, PairKey, Votes};
use rlaif_core::records::{Fate, Pair, Preference, Prompt, Split};
use rlaif_core::routing::{AUDIT_DRAW, Heard, Look, Route, Router, Why, look, looks, share};
use rlaif_core::{Config, seed};
use rlaif_store::Store;
use rlaif_store::store::{TRAIN_PAIRS, VerdictRow};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What stands between pairs and the labels of judges.
#[derive(Debug)]
pub struct Gate {
    route: RouteConfig,
    run_seed: u64,
    /// Judges whose verdicts count.
    voting: HashSet<String>,
    /// No label of judges alone stands: they were measured on what people said elsewhere, and found below the bound.
    closed: bool,
}

impl Gate {
    /// The gate of a run; `None` where every label of judges stands.
    pub fn new(config: &Config, closed: bool) -> Option<Self> {
        let voting = config.label.judges.iter().filter(|judge| judge.weight > 0.0);
        let gate = Self {
            route: config.route.clone(),
            run_seed: config.run.seed,
            voting: voting.map(|judge| judge.name.clone()).collect(),
            closed,
        };
        (gate.route.routes() || closed).then_some(gate)
    }

    /// Why no judge is to be asked about a pair, in words; `None` where one is.
    pub fn spares(&self, prompt: &Prompt, key: &PairKey) -> Option<String> {
        let router = self.router();
        let route = router.spares_judges(prompt, key)?;
        Some(format!("it waits for people: {}", router.reason(&route.why, prompt)))
    }

    /// A draw from [0, 1) of a pair that judges are spared: its place among those that a judge is more or less sure of.
    pub fn place_among_judged(&self, key: &PairKey) -> f64 {
        seed::derive(self.run_seed, "route/sureness", key.number()) as f64 / 2f64.powi(64)
    }

    /// Sets labels of judges aside that may not stand alone; p stays.
    ///
    /// # Errors
    /// If a pair names what is not there.
    pub fn hold(
        &self,
        work: &Assignment,
        verdicts: &[VerdictRow],
        preferences: &mut [Preference],
    ) -> Result<()> {
        let router = self.router();
        let mut heard = heard_by_pair(verdicts, &self.voting);
        for (pair, preference) in work.pairs.iter().zip(preferences) {
            let mut heard = heard.remove(pair.id.as_str()).unwrap_or_default();
            (heard.p, heard.spread) = (preference.p, preference.spread);
            let needs_people = || -> Result<bool> {
                Ok(router.route(work.prompt(pair)?, &work.key(pair)?, &heard).needs_people)
            };
            let closed = self.closed && !work.ruled.contains_key(&pair.id);
            if preference.fate == Fate::Kept && (closed || needs_people()?) {
                preference.fate = Fate::SetAside;
            }
        }
        Ok(())
    }

    fn router(&self) -> Router<'_> {
        // What is drawn at random is trained on by judges' labels, so that the share moves nothing here.
        Router::new(&self.route, self.run_seed, self.route.random_share)
    }
}

fn heard_by_pair<'v>(verdicts: &'v [VerdictRow], voting: &HashSet<String>) -> HashMap<&'v str, Heard> {
    let mut by_pair: HashMap<&str, Heard> = HashMap::new();
    for VerdictRow { pair_id, judge, order, verdict, .. } in verdicts {
        let heard = by_pair.entry(pair_id).or_default();
        heard.hear(judge, voting.contains(judge), *order, verdict);
    }
    by_pair
}

/// A pair and where it went.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The pair.
    pub pair: Pair,
    /// Where it goes, and by what.
    pub route: Route,
    /// That in numbers.
    pub name: String,
    /// That in words for people, blind to what judges said.
    pub reason: String,
    /// Its place in the audit's random order.
    pub drawn: u64,
    /// Whether people have labelled it.
    pub labelled: bool,
}

impl Routed {
    /// Whether people are shown it.
    pub fn to_people(&self) -> bool {
        self.route.to != Destination::Judges
    }

    /// Whether people are wanted who have not come yet.
    pub fn waits(&self) -> bool {
        self.to_people() && !self.labelled
    }
}

/// Where the pairs of a run went.
#[derive(Debug, Default)]
pub struct Routes {
    /// All pairs, in the order of the store.
    pub pairs: Vec<Routed>,
    /// The random share by now.
    pub share: f64,
    /// Looks at people's agreement with judges.
    pub looks: Vec<Look>,
    /// The agreement on all pairs of the random sample so far.
    pub agreement: Option<Look>,
}

impl Routes {
    /// Reads them; empty where nothing is routed.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn read(store: &Store, config: &Config) -> Result<Self> {
        if !config.route.routes() && !config.route.measures() {
            return Ok(Self::default());
        }
        let prompts: HashMap<String, Prompt> = store
            .prompts(Split::Train)
            .await?
            .into_iter()
            .map(|prompt| (prompt.id.clone(), prompt))
            .collect();
        let preferences: HashMap<String, Preference> = store
            .preferences(TRAIN_PAIRS)
            .await?
            .into_iter()
            .map(|preference| (preference.pair_id.clone(), preference))
            .collect();
        let votes = store.human_votes(TRAIN_PAIRS).await?;
        let answered: HashSet<String> = store
            .human_verdicts()
            .await?
            .into_iter()
            .filter(|verdict| verdict.undone_ms.is_none())
            .map(|verdict| verdict.pair_key)
            .collect();
        let mut pairs = store.review_pairs(TRAIN_PAIRS).await?;
        pairs.retain(|pair| prompts.contains_key(&pair.pair.prompt_id));
        let drawn = |key: &PairKey| seed::derive(config.run.seed, AUDIT_DRAW, key.number());

        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by_key(|place| (drawn(&pairs[*place].key), *place));
        let sample = order.iter().map(|place| &pairs[*place]);
        let agrees: Vec<(&str, bool)> = sample
            .take_while(|pair| answered.contains(&pair.key.hash))
            .filter_map(|pair| {
                let (_, votes) = votes.get(&pair.pair.id)?;
                Some((pair.pair.prompt_id.as_str(), agrees(votes, preferences.get(&pair.pair.id)?)?))
            })
            .collect();
        let bound = config.route.min_agreement;
        let looks = bound.map_or(Vec::new(), |bound| looks(&agrees, bound, config.run.seed));
        let share = share(&config.route, &looks);
        let agreement = look(&agrees, bound.unwrap_or(0.0), config.run.seed);

        let router = Router::new(&config.route, config.run.seed, share);
        let voting = config.label.judges.iter().filter(|judge| judge.weight > 0.0);
        let voting: HashSet<String> = voting.map(|judge| judge.name.clone()).collect();
        let verdicts = store.verdicts(TRAIN_PAIRS).await?;
        let mut heard = heard_by_pair(&verdicts, &voting);
        let routed = pairs.iter().map(|pair| {
            let (id, prompt) = (pair.pair.id.as_str(), &prompts[&pair.pair.prompt_id]);
            let preference = preferences.get(id);
            let mut heard = heard.remove(id).unwrap_or_default();
            (heard.p, heard.spread) =
                preference.map_or((None, None), |preference| (preference.p, preference.spread));
            let mut route = router.route(prompt, &pair.key, &heard);
            let (mut name, mut reason) = (router.name(&route.why), router.reason(&route.why, prompt));
            // Only the closed gate sets aside what judges have labelled and no rule has.
            let set_aside = preference.is_some_and(|it| it.fate == Fate::SetAside && it.p.is_some());
            if set_aside && !route.needs_people {
                route = Route { to: Destination::People, why: Why::Default, needs_people: true };
                (name, reason) = (CLOSED.into(), "judges are not relied on yet".into());
            }
            let (drawn, labelled) = (drawn(&pair.key), votes.contains_key(id));
            Routed { pair: pair.pair.clone(), route, name, reason, drawn, labelled }
        });
        Ok(Self { pairs: routed.collect(), share, looks, agreement })
    }

    /// Those that people are shown: first what was drawn at random, in its order, since only that says how good judges are; then what
    /// is not trained on without people; then the rest.
    pub fn to_people(&self) -> Vec<&Routed> {
        let sampled = |routed: &Routed| (routed.drawn as f64 / 2f64.powi(64)) < self.share;
        let mut to_people: Vec<&Routed> = self.pairs.iter().filter(|routed| routed.to_people()).collect();
        to_people.sort_by_key(|routed| match (sampled(routed), routed.route.needs_people) {
            (true, _) => (0, routed.drawn),
            (false, true) => (1, 0),
            (false, false) => (2, 0),
        });
        to_people
    }

    /// How many pairs went to people by what: "12 by `medical`, 3 by `random share`".
    pub fn by_name(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for routed in self.pairs.iter().filter(|routed| routed.to_people()) {
            *counts.entry(&routed.name).or_default() += 1;
        }
        let counts: Vec<String> = counts.into_iter().map(|(name, n)| format!("{n} by `{name}`")).collect();
        counts.join(", ")
    }

    /// What the stage `label` notes of them.
    fn numbers(&self, closed: Option<Look>) -> RoutingNumbers {
        let mut numbers = RoutingNumbers {
            random_share: self.share,
            agreement: self.agreement.map(estimate),
            imported_agreement: closed.map(estimate),
            ..RoutingNumbers::default()
        };
        for routed in &self.pairs {
            let of = numbers.rules.entry(routed.name.clone()).or_default();
            of.pairs += 1;
            of.labelled += u64::from(routed.labelled);
            of.waiting += u64::from(routed.waits());
            *numbers.routes.entry(routed.route.to.name().into()).or_default() += 1;
            numbers.waiting += u64::from(routed.waits());
            numbers.not_trained_on += u64::from(routed.waits() && routed.route.needs_people);
        }
        numbers
    }
}

/// The name of the closed gate in numbers.
const CLOSED: &str = "min_agreement on human_data";

/// Whether people and judges choose the same; `None` where one of them does not choose.
fn agrees(votes: &Votes, preference: &Preference) -> Option<bool> {
    let judges = preference.p.filter(|_| matches!(preference.fate, Fate::Kept | Fate::SetAside))?;
    match votes.majority()? {
        HumanChoice::First if judges != 0.5 => Some(judges > 0.5),
        HumanChoice::Second if judges != 0.5 => Some(judges < 0.5),
        _ => None,
    }
}

fn estimate(look: Look) -> Estimate {
    let agreement = look.agreement;
    Estimate::new(agreement.estimate, agreement.low, agreement.high, look.n as u64)
}

/// "people agree with the judges on 62 % of 40 pairs drawn at random (95 % 48 to 74)".
pub fn agreement_words(look: &Look) -> String {
    let agreement = look.agreement.scaled(100.0);
    format!(
        "people agree with the judges on {:.0} % of {} pairs drawn at random (95 % {:.0} to {:.0})",
        agreement.estimate, look.n, agreement.low, agreement.high
    )
}

/// Says where the pairs went and how many wait for people, and returns the numbers; `None` where nothing is routed. `imported` is how
/// far judges agree with what people said elsewhere.
///
/// # Errors
/// If the store cannot be read.
pub fn tell(context: &Context, imported: Option<Look>) -> Result<Option<RoutingNumbers>> {
    let config = &context.config;
    if !config.route.routes() && !config.route.measures() {
        return Ok(None);
    }
    let routes = context.wait(Routes::read(&context.store, config))?;
    let numbers = routes.numbers(imported);
    if let Some(below) = routes.looks.iter().rfind(|look| look.below) {
        say(&format!(
            "label: {}, below `route.min_agreement` = {}: the share that people are shown rises from {} to {}",
            agreement_words(below),
            config.route.min_agreement.unwrap_or_default(),
            config.route.random_share,
            routes.share
        ));
    }
    if routes.pairs.iter().any(Routed::to_people) {
        let held = match numbers.not_trained_on {
            0 => String::new(),
            held => format!(", {held} of which are not trained on before"),
        };
        say(&format!(
            "label: {} pairs wait for people{held}: rlaif review {} ({})",
            numbers.waiting,
            context.arguments,
            routes.by_name()
        ));
    }
    Ok(Some(numbers))
}

/// [`tell`] of a stage `label` that is done, whose numbers in the manifest follow what people have said since.
///
/// # Errors
/// If the store cannot be read or the manifest not be written.
pub fn tell_again(context: &mut Context) -> Result<()> {
    let Some(mut numbers) = tell(context, None)? else { return Ok(()) };
    let Some(record) = context.manifest.stages.get_mut(Stage::Label.name()) else { return Ok(()) };
    let before = record.numbers.get("routing").and_then(|routing| routing.get("imported_agreement"));
    numbers.imported_agreement =
        before.cloned().map(serde_json::from_value).transpose().unwrap_or_default().flatten();
    record.numbers["routing"] = serde_json::to_value(&numbers)?;
    context.manifest.save(&context.folder)
}
