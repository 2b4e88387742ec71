//! Who is shown which pair. The desk knows what stands in the ledger, and who has what on the screen: a pair that is there is shown
//! to nobody else until it is judged or its lease is over, unless more people are wanted for each pair.

use super::queues::{Item, Queue, Queues};
use rlaif_core::people::HumanChoice;
use rlaif_store::store::HumanVerdict;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A pace is the median of so many pairs.
const PACE_OVER: usize = 20;

/// A pair that was on the screen for longer was left there: no pace.
const LONGEST_MS: i64 = 10 * 60 * 1000;

/// What is handed out, and to whom.
#[derive(Debug)]
pub struct Desk {
    queues: Queues,
    /// Places of items by the hash of their key.
    places: HashMap<String, Vec<usize>>,
    /// What stands, by key and reviewer.
    said: HashMap<String, BTreeMap<String, HumanChoice>>,
    leases: HashMap<String, Vec<Lease>>,
    pace: HashMap<String, VecDeque<i64>>,
    ratings: usize,
    lease_ms: i64,
}

#[derive(Debug, Clone)]
struct Lease {
    reviewer: String,
    queue: String,
    shown_ms: i64,
    until_ms: i64,
}

/// A pair for the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// Its place among the items.
    pub place: usize,
    /// When it came on the screen; ms since 1970.
    pub shown_ms: i64,
}

/// How far a queue is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Its pairs.
    pub total: usize,
    /// Those that enough people judged.
    pub done: usize,
    /// Those that this reviewer answered.
    pub yours: usize,
    /// Those that this reviewer may still be shown.
    pub left: usize,
    /// Median seconds that this reviewer takes for a pair.
    pub seconds: Option<f64>,
}

impl Desk {
    /// A desk with these queues, on which the verdicts lie that people have given.
    pub fn new(queues: Queues, verdicts: &[HumanVerdict], ratings: usize, lease_ms: i64) -> Self {
        let places = queues.places().into_iter().map(|(key, places)| (key.to_string(), places)).collect();
        let (said, leases, pace) = Default::default();
        let mut desk = Self { queues, places, said, leases, pace, ratings, lease_ms };
        for verdict in verdicts.iter().filter(|verdict| verdict.undone_ms.is_none()) {
            desk.put(&verdict.pair_key, &verdict.reviewer, verdict.choice);
            desk.note_pace(&verdict.reviewer, verdict.judged_ms - verdict.shown_ms);
        }
        desk
    }

    /// The queues.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// An item of a queue by the hash of its key, if it is there.
    pub fn find(&self, queue: &str, key: &str) -> Option<&Item> {
        let queue = self.queues.queue(queue)?;
        let place = self.places.get(key)?.iter().find(|place| queue.items.contains(place))?;
        self.queues.items.get(*place)
    }

    /// The pair that a reviewer is to see: the one they have, `wanted` where they may have it, or the next of the queue.
    pub fn next(&mut self, queue: &str, reviewer: &str, wanted: Option<&str>, now_ms: i64) -> Option<Handed> {
        self.leases.retain(|_, leases| {
            leases.retain(|lease| lease.until_ms > now_ms);
            !leases.is_empty()
        });
        let items = &self.queues.queue(queue)?.items;
        let key = |place: usize| self.queues.items[place].key.hash.as_str();
        let free = |place: &usize| self.may_see(key(*place), reviewer);
        let wanted = items.iter().copied().find(|place| wanted == Some(key(*place))).filter(free);
        let has = items.iter().copied().find(|place| free(place) && self.has(key(*place), queue, reviewer));
        let place = wanted.or(has).or_else(|| items.iter().copied().find(free))?;
        let key = key(place).to_string();
        let shown_ms = self.shown(&key, reviewer).unwrap_or(now_ms);
        self.release(queue, reviewer);
        let lease = Lease {
            reviewer: reviewer.into(),
            queue: queue.into(),
            shown_ms,
            until_ms: now_ms + self.lease_ms,
        };
        self.leases.entry(key).or_default().push(lease);
        Some(Handed { place, shown_ms })
    }

    /// When a pair that a reviewer has came on their screen.
    pub fn shown(&self, key: &str, reviewer: &str) -> Option<i64> {
        let leases = self.leases.get(key)?;
        leases.iter().find(|lease| lease.reviewer == reviewer).map(|lease| lease.shown_ms)
    }

    /// Notes a verdict that is in the ledger.
    pub fn say(&mut self, key: &str, reviewer: &str, choice: HumanChoice, took_ms: i64) {
        self.put(key, reviewer, choice);
        self.note_pace(reviewer, took_ms);
        if let Some(leases) = self.leases.get_mut(key) {
            leases.retain(|lease| lease.reviewer != reviewer);
        }
    }

    /// Notes that a verdict was taken back, and gives the reviewer the pair again where it is in a queue.
    pub fn unsay(&mut self, key: &str, queue: &str, reviewer: &str, now_ms: i64) {
        if let Some(said) = self.said.get_mut(key) {
            said.remove(reviewer);
        }
        self.next(queue, reviewer, Some(key), now_ms);
    }

    /// How far a queue is, seen by a reviewer.
    pub fn progress(&self, queue: &Queue, reviewer: &str) -> Progress {
        let key = |place: &usize| self.queues.items[*place].key.hash.as_str();
        let count = |is: &dyn Fn(&str) -> bool| queue.items.iter().filter(|place| is(key(place))).count();
        let said = |key: &str| self.said.get(key).is_some_and(|said| said.contains_key(reviewer));
        let mut times: Vec<i64> =
            self.pace.get(reviewer).map(|times| times.iter().copied().collect()).unwrap_or_default();
        times.sort_unstable();
        Progress {
            total: queue.items.len(),
            done: count(&|key| self.votes(key) >= self.ratings),
            yours: count(&said),
            left: count(&|key| !said(key) && self.votes(key) < self.ratings),
            seconds: times.get(times.len() / 2).map(|median| *median as f64 / 1000.0),
        }
    }

    /// Whether a pair is still to be judged, not by this reviewer before, and by few enough others now.
    fn may_see(&self, key: &str, reviewer: &str) -> bool {
        if self.said.get(key).is_some_and(|said| said.contains_key(reviewer)) {
            return false;
        }
        let on_screens = self
            .leases
            .get(key)
            .map_or(0, |leases| leases.iter().filter(|lease| lease.reviewer != reviewer).count());
        self.votes(key) + on_screens < self.ratings
    }

    fn has(&self, key: &str, queue: &str, reviewer: &str) -> bool {
        let is = |lease: &Lease| lease.reviewer == reviewer && lease.queue == queue;
        self.leases.get(key).is_some_and(|leases| leases.iter().any(is))
    }

    /// Those who judged a pair; who skipped it did not.
    fn votes(&self, key: &str) -> usize {
        let said = self.said.get(key);
        said.map_or(0, |said| said.values().filter(|choice| **choice != HumanChoice::Skip).count())
    }

    fn put(&mut self, key: &str, reviewer: &str, choice: HumanChoice) {
        self.said.entry(key.into()).or_default().insert(reviewer.into(), choice);
    }

    /// A reviewer has one pair of a queue at a time.
    fn release(&mut self, queue: &str, reviewer: &str) {
        for leases in self.leases.values_mut() {
            leases.retain(|lease| !(lease.reviewer == reviewer && lease.queue == queue));
        }
    }

    fn note_pace(&mut self, reviewer: &str, took_ms: i64) {
        if (0..LONGEST_MS).contains(&took_ms) {
            let times = self.pace.entry(reviewer.into()).or_default();
            times.push_back(took_ms);
            if times.len() > PACE_OVER {
                times.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::people::PairKey;
    use rlaif_core::records::Pair;

    fn desk(ratings: usize) -> Desk {
        let item = |i: usize| Item {
            pair: Pair { id: format!("p/{i}"), prompt_id: "p".into(), a: "a".into(), b: "b".into() },
            key: PairKey { hash: format!("k{i}"), a_first: true },
        };
        let queue = |name: &str, items: Vec<usize>| Queue {
            name: name.into(),
            title: String::new(),
            about: String::new(),
            items,
            reasons: HashMap::new(),
        };
        let queues = vec![queue("audit", vec![2, 0, 1]), queue("all", vec![0, 1, 2])];
        Desk::new(Queues { items: (0..3).map(item).collect(), queues }, &[], ratings, 1000)
    }

    fn place(desk: &mut Desk, who: &str, now: i64) -> Option<usize> {
        desk.next("audit", who, None, now).map(|handed| handed.place)
    }

    #[test]
    fn two_people_never_have_the_same_pair_until_its_lease_is_over() {
        let mut desk = desk(1);
        assert_eq!(place(&mut desk, "ada", 0), Some(2));
        assert_eq!(place(&mut desk, "ada", 1), Some(2), "who loads the page again has the same pair");
        assert_eq!(place(&mut desk, "bob", 1), Some(0));
        assert_eq!(desk.next("all", "cas", None, 1).map(|handed| handed.place), Some(1));
        assert_eq!(place(&mut desk, "dan", 2), None, "all are on screens");
        assert_eq!(place(&mut desk, "dan", 1001), Some(2), "ada's time is over");
        desk.say("k2", "dan", HumanChoice::Tie, 10);
        assert_eq!(place(&mut desk, "eve", 1002), Some(0));
    }

    #[test]
    fn several_ratings_are_given_by_several_people_and_a_skip_is_none() {
        let mut desk = desk(2);
        assert_eq!(place(&mut desk, "ada", 0), Some(2));
        assert_eq!(place(&mut desk, "bob", 0), Some(2));
        assert_eq!(place(&mut desk, "cas", 0), Some(0));
        desk.say("k2", "ada", HumanChoice::First, 2000);
        desk.say("k2", "bob", HumanChoice::Skip, 4000);
        assert_eq!(place(&mut desk, "ada", 1), Some(0), "nobody rates twice");
        assert_eq!(desk.next("all", "cas", Some("k2"), 1).unwrap().place, 2, "one rating is missing");
        let queue = desk.queues().queue("audit").unwrap().clone();
        let progress = desk.progress(&queue, "bob");
        assert_eq!((progress.total, progress.done, progress.yours, progress.left), (3, 0, 1, 2));
        assert_eq!(progress.seconds, Some(4.0));
        desk.say("k2", "cas", HumanChoice::First, 1);
        assert_eq!(desk.progress(&queue, "bob").done, 1);
    }

    #[test]
    fn who_takes_a_verdict_back_has_the_pair_again() {
        let mut desk = desk(1);
        assert_eq!(place(&mut desk, "ada", 0), Some(2));
        desk.say("k2", "ada", HumanChoice::First, 1);
        assert_eq!(place(&mut desk, "ada", 1), Some(0));
        desk.unsay("k2", "audit", "ada", 2);
        assert_eq!(place(&mut desk, "bob", 3), Some(0), "the pair that ada laid down");
        assert_eq!(place(&mut desk, "ada", 4), Some(2));
        assert!(desk.find("audit", "k9").is_none() && desk.find("none", "k1").is_none());
    }
}
