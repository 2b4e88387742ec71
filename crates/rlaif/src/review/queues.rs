//! Which pairs are worth people's time, and in which order.

use crate::people::EVALUATION;
use crate::routing::Routes;
use crate::stages::evaluate::players;
use anyhow::Result;
use rlaif_core::people::PairKey;
use rlaif_core::records::{Choice, Preference};
use rlaif_core::records::{NoVerdict, Order, Pair, Verdict};
use rlaif_core::routing::AUDIT_DRAW;
use rlaif_core::{Config, seed};
use rlaif_store::Store;
use rlaif_store::store::{ReviewPair, TRAIN_PAIRS};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The name of the queue that is drawn at random.
pub const AUDIT: &str = "audit";

/// The name of the queue of what `[route]` sends to people.
pub const ROUTED: &str = "routed";

/// The name of the queue of known-bad responses.
pub const TRIPWIRES: &str = "tripwires";

/// A pair that people can be shown.
#[derive(Debug, Clone)]
pub struct Item {
    /// The pair.
    pub pair: Pair,
    /// Its name among people.
    pub key: PairKey,
}

/// Pairs in the order in which they are shown.
#[derive(Debug, Clone)]
pub struct Queue {
    /// In addresses and in the ledger: `audit`, `tag:medical`.
    pub name: String,
    /// For people.
    pub title: String,
    /// What is in it, in a sentence.
    pub about: String,
    /// Places among the items.
    pub items: Vec<usize>,
    /// Why each of them is in it, in words that tell nothing of what judges said; empty where the queue itself says it.
    pub reasons: HashMap<usize, String>,
}

/// All pairs of a run that people can be shown, and the queues that are made of them.
#[derive(Debug, Default)]
pub struct Queues {
    /// The run's training pairs, then those with known-bad responses, then those of the evaluation.
    pub items: Vec<Item>,
    /// Those that hold something.
    pub queues: Vec<Queue>,
}

/// What judges said of a pair, as far as queues hang on it.
#[derive(Debug, Clone, Default)]
struct Said {
    p: Option<f64>,
    spread: f64,
    for_a: bool,
    for_b: bool,
    flagged: bool,
}

impl Said {
    fn hear(&mut self, order: Order, verdict: &Verdict) {
        match (&verdict.choice, order) {
            (Ok(Choice::First), Order::Ab) | (Ok(Choice::Second), Order::Ba) => self.for_a = true,
            (Ok(Choice::Second), Order::Ab) | (Ok(Choice::First), Order::Ba) => self.for_b = true,
            (Ok(Choice::Tie), _) => {}
            (Err(NoVerdict::Refused | NoVerdict::Filtered | NoVerdict::Steered), _) => self.flagged = true,
            (Err(_), _) => {}
        }
    }

    fn disagrees(&self) -> bool {
        self.for_a && self.for_b
    }

    fn margin(&self) -> Option<f64> {
        self.p.map(|p| (p - 0.5).abs())
    }
}

impl Queues {
    /// Reads the pairs of a run and what was said of them.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn read(store: &Store, config: &Config) -> Result<Self> {
        let pairs = store.review_pairs(TRAIN_PAIRS).await?;
        let mut said: HashMap<String, Said> = HashMap::new();
        for Preference { pair_id, p, spread, .. } in store.preferences(TRAIN_PAIRS).await? {
            said.insert(pair_id, Said { p, spread: spread.unwrap_or(0.0), ..Said::default() });
        }
        for row in store.verdicts(TRAIN_PAIRS).await? {
            said.entry(row.pair_id).or_default().hear(row.order, &row.verdict);
        }
        let mut known_bad = Vec::new();
        for set in store.pair_sets().await?.iter().filter(|set| set.starts_with(crate::robustness::TRIPWIRES))
        {
            known_bad.extend(store.review_pairs(set).await?);
        }
        let mut evaluated = Vec::new();
        for set in players::sets(config) {
            evaluated.extend(store.review_pairs(&set).await?);
        }
        let routes = Routes::read(store, config).await?;
        Ok(Self::of(pairs, &said, known_bad, evaluated, &routes, config))
    }

    fn of(
        pairs: Vec<ReviewPair>,
        said: &HashMap<String, Said>,
        known_bad: Vec<ReviewPair>,
        evaluated: Vec<ReviewPair>,
        routes: &Routes,
        config: &Config,
    ) -> Self {
        let review = &config.review;
        let nothing = Said::default();
        let of = |place: usize| said.get(&pairs[place].pair.id).unwrap_or(&nothing);
        let drawn = |place: &usize| seed::derive(config.run.seed, AUDIT_DRAW, pairs[*place].key.number());
        let chosen = |is: &dyn Fn(usize) -> bool| (0..pairs.len()).filter(|place| is(*place)).collect();

        let mut audit: Vec<usize> = (0..pairs.len()).collect();
        audit.sort_by_key(|place| (drawn(place), *place));
        audit.truncate(review.audit_pairs);
        let mut disagree: Vec<usize> = chosen(&|place| of(place).disagrees());
        disagree.sort_by(|x, y| of(*y).spread.total_cmp(&of(*x).spread).then(x.cmp(y)));
        let mut low: Vec<usize> =
            chosen(&|place| of(place).margin().is_some_and(|margin| margin < review.low_margin));
        low.sort_by(|x, y| of(*x).margin().partial_cmp(&of(*y).margin()).unwrap_or(x.cmp(y)));
        let flag = |tag: &String| review.flagged_tags.contains(tag);
        let flagged: Vec<usize> = chosen(&|place| of(place).flagged || pairs[place].tags.iter().any(flag));
        let before_evaluated = pairs.len() + known_bad.len();
        let wires: Vec<usize> = (pairs.len()..before_evaluated).collect();
        let evaluation = in_random_order(&evaluated, config.run.seed);

        let queue = |name: &str, title: &str, about: String, items: Vec<usize>| Queue {
            name: name.into(),
            title: title.into(),
            about,
            items,
            reasons: HashMap::new(),
        };
        let mut queues = vec![
            routed(&pairs, routes),
            queue(
                AUDIT,
                "Random audit",
                "drawn at random from all pairs: what judges are measured on".into(),
                audit,
            ),
            queue(
                "disagree",
                "Judges disagree",
                "judges, templates or orders that contradict each other".into(),
                disagree,
            ),
            queue(
                "low-margin",
                "Low margin",
                format!("p within {} of ½, the nearest first", review.low_margin),
                low,
            ),
            queue(
                "flagged",
                "Flagged",
                "prompts with a tag of `review.flagged_tags`, or on which a judge refused".into(),
                flagged,
            ),
            queue(
                TRIPWIRES,
                "Tripwires",
                "a known-bad response against an honest one; these never become labels".into(),
                wires,
            ),
        ];
        queues.push(queue(
            EVALUATION,
            "Evaluation",
            "policies on held-out prompts, in a random order: these correct win rates and never become labels".into(),
            evaluation.into_iter().map(|place| before_evaluated + place).collect(),
        ));
        let tags: BTreeSet<&String> = pairs.iter().flat_map(|pair| &pair.tags).collect();
        for tag in tags {
            let items = chosen(&|place| pairs[place].tags.contains(tag));
            queues.push(queue(&format!("tag:{tag}"), &format!("Tag “{tag}”"), String::new(), items));
        }
        queues.push(queue(
            "all",
            "All pairs",
            "in the order of the prompts".into(),
            (0..pairs.len()).collect(),
        ));
        queues.retain(|queue| !queue.items.is_empty());
        let items = pairs
            .into_iter()
            .chain(known_bad)
            .chain(evaluated)
            .map(|ReviewPair { pair, key, .. }| Item { pair, key });
        Self { items: items.collect(), queues }
    }

    /// A queue by its name.
    pub fn queue(&self, name: &str) -> Option<&Queue> {
        self.queues.iter().find(|queue| queue.name == name)
    }

    /// The pairs of the random audit in the order in which they are shown: the hash of the key, and the id.
    pub fn audit_order(&self) -> Vec<(String, String)> {
        let places = self.queue(AUDIT).map_or(&[][..], |queue| &queue.items);
        places
            .iter()
            .map(|place| &self.items[*place])
            .map(|it| (it.key.hash.clone(), it.pair.id.clone()))
            .collect()
    }

    /// Where each pair is, by the hash of its key.
    pub fn places(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, item) in self.items.iter().enumerate() {
            places.entry(&item.key.hash).or_default().push(place);
        }
        places
    }
}

/// The places of pairs in an order drawn by the seed; two pairs of the same texts are shown once.
fn in_random_order(pairs: &[ReviewPair], run_seed: u64) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let mut places: Vec<usize> =
        (0..pairs.len()).filter(|place| seen.insert(pairs[*place].key.hash.as_str())).collect();
    places.sort_by_key(|place| {
        (seed::derive(run_seed, "review/evaluation", number(&pairs[*place].key)), *place)
    });
    places
}

/// The first 64 bits of a key: the index of its random streams.
fn number(key: &PairKey) -> u64 {
    u64::from_str_radix(&key.hash[..16], 16).unwrap_or(0)
}

/// The pairs that `[route]` sends to people.
fn routed(pairs: &[ReviewPair], routes: &Routes) -> Queue {
    let places: HashMap<&str, usize> =
        pairs.iter().enumerate().map(|(place, pair)| (pair.pair.id.as_str(), place)).collect();
    let mut queue = Queue {
        name: ROUTED.into(),
        title: "For people".into(),
        about: format!("what `[route]` sends to people, the random sample first: {}", routes.by_name()),
        items: Vec::new(),
        reasons: HashMap::new(),
    };
    for routed in routes.to_people() {
        if let Some(place) = places.get(routed.pair.id.as_str()) {
            queue.items.push(*place);
            queue.reasons.insert(*place, routed.reason.clone());
        }
    }
    queue
}

/// Whether a reviewer sees response a on the left: a coin of theirs for this pair, the same whenever they see it, and the same
/// whichever of the two is called a.
pub fn a_left(run_seed: u64, reviewer: &str, key: &PairKey) -> bool {
    let first_left = seed::derive(run_seed, &format!("review/side/{reviewer}"), key.number()) & 1 == 0;
    first_left == key.a_first
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::records::PromptText;

    fn pairs(n: usize) -> Vec<ReviewPair> {
        let pair = |i: usize| {
            let (id, prompt_id) = (format!("p{i}/0-1"), format!("p{i}"));
            let tags = if i.is_multiple_of(2) { vec!["even".into()] } else { vec!["safety".into()] };
            let key = PairKey::of(&PromptText::Text(prompt_id.clone()), "x", "y");
            ReviewPair {
                pair: Pair { id, a: format!("{prompt_id}/0"), b: format!("{prompt_id}/1"), prompt_id },
                key,
                tags,
            }
        };
        (0..n).map(pair).collect()
    }

    /// Pairs of the evaluation, the last of them with the texts of another.
    fn evaluated(n: usize) -> Vec<ReviewPair> {
        let of = |i: usize, set: &str| ReviewPair {
            pair: Pair {
                id: format!("{set}/e{i}/0"),
                prompt_id: format!("e{i}"),
                a: format!("{set}/e{i}/0"),
                b: format!("baseline/e{i}/0"),
            },
            key: PairKey::of(&PromptText::Text(format!("e{i}")), "x", "y"),
            tags: vec![],
        };
        (0..n).map(|i| of(i, "ppo")).chain([of(0, "dpo")]).collect()
    }

    #[test]
    fn each_queue_holds_its_pairs_in_its_order() {
        let mut config = Config::default();
        config.review.audit_pairs = 3;
        let said = |p, spread, for_a, for_b| Said { p: Some(p), spread, for_a, for_b, flagged: false };
        let of = HashMap::from([
            ("p0/0-1".into(), said(0.9, 0.0, true, false)),
            ("p1/0-1".into(), said(0.55, 0.2, true, true)),
            ("p2/0-1".into(), Said { flagged: true, ..said(0.48, 0.4, true, true) }),
        ]);
        let queues = Queues::of(pairs(6), &of, pairs(1), evaluated(40), &Routes::default(), &config);
        let items = |name: &str| queues.queue(name).unwrap().items.clone();
        assert_eq!(items("disagree"), [2, 1]);
        assert_eq!(items("low-margin"), [2, 1]);
        assert_eq!(items("flagged"), [1, 2, 3, 5]);
        assert_eq!(items("tripwires"), [6]);
        assert_eq!(items("tag:even"), [0, 2, 4]);
        let mut evaluation = items("evaluation");
        assert_ne!(evaluation, (7..47).collect::<Vec<_>>(), "the order is drawn");
        evaluation.sort_unstable();
        assert_eq!(evaluation, (7..47).collect::<Vec<_>>());
        assert_eq!(items("all").len(), 6);
        let audit = items("audit");
        assert_eq!(audit.len(), 3);
        config.run.seed = 8;
        let seeds = (0..20).map(|seed| {
            config.run.seed = seed;
            let queues = Queues::of(pairs(6), &of, vec![], vec![], &Routes::default(), &config);
            queues.queue("audit").unwrap().items.clone()
        });
        assert!(seeds.collect::<BTreeSet<_>>().len() > 10, "the audit is drawn by the run's seed");
        assert!(Queues::of(vec![], &of, vec![], vec![], &Routes::default(), &config).queues.is_empty());
    }

    #[test]
    fn sides_are_a_fair_coin_of_each_reviewer_and_pair() {
        let pairs = pairs(2000);
        let left = |who: &str| pairs.iter().filter(|pair| a_left(7, who, &pair.key)).count();
        assert!((900..1100).contains(&left("ada")), "{}", left("ada"));
        let same = pairs.iter().filter(|p| a_left(7, "ada", &p.key) == a_left(7, "bob", &p.key)).count();
        assert!((900..1100).contains(&same), "{same}");
        let key = &pairs[0].key;
        let swapped = PairKey { a_first: !key.a_first, ..key.clone() };
        assert_ne!(a_left(7, "ada", key), a_left(7, "ada", &swapped), "the text stays on its side");
    }
}
