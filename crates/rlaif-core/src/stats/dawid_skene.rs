//! Judges' error rates and the truth behind their votes, when nobody (or only somebody, for some items) knows the truth.
//!
//! Dawid & Skene 1979, "Maximum likelihood estimation of observer error-rates using the EM algorithm",
//! <https://doi.org/10.2307/2346806>. An item has a true class t; given it, the votes of judges are independent:
//!
//! P(t) = π_t,  P(judge j says c | t) = C_j[t, c]
//!
//! EM finds π and C that make the votes most probable, and with them P(t | votes) of every item.
//!
//! What differs from the paper:
//! * There may be more classes of vote than truths (a tie, a weak vote): C_j is truths × classes.
//! * Each row of C_j has a Dirichlet prior, as pseudo-counts; 0 everywhere is the paper's maximum likelihood.
//! * Items whose truth is known (gold) keep it; they are what tells right judges from ones that merely agree.
//! * A vote may be *mirrored*: the pair was shown the other way round, so that what is true first is shown second. C_j then
//!   speaks of places, and how it treats the first place is the judge's position bias.
//! * [`Scheme::symmetric`] gives both truths of a pair the same π. Naming its responses the other way round then turns every
//!   posterior into its complement, to the last bit.

use super::interval::{Interval, Z};
use super::linear::{add_outer, inverse, quadratic};
use std::collections::BTreeMap;

/// One vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vote {
    /// What it is about, from 0.
    pub item: usize,
    /// Who voted, from 0.
    pub judge: usize,
    /// The class it is for, from 0.
    pub class: usize,
    /// How much it counts; repeated votes of one judge on one presentation share one vote's weight. Default of callers 1.
    pub weight: f64,
    /// Whether truths 0 and 1 had swapped places when the vote was given.
    pub mirrored: bool,
}

/// What truths and classes there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheme {
    /// Number of true classes.
    pub truths: usize,
    /// The truth that each class of vote claims; `None` for one that claims nothing, such as a tie where ties are no truth.
    pub claims: Vec<Option<usize>>,
    /// Pseudo-counts of the Dirichlet prior, truths × classes, each ≥ 0.
    pub prior: Vec<Vec<f64>>,
    /// Whether truths 0 and 1 are equally likely, and may be swapped.
    pub symmetric: bool,
}

/// Pseudo-counts of the default prior where a class claims the truth: with the 1 elsewhere, a judge is expected to be
/// right more often than not, which is all that tells the truth from its opposite without gold.
const RIGHT: f64 = 2.0;

impl Scheme {
    /// Two responses; a vote is for the first place (0), the second (1), or a tie (2). Prior 2 : 1 : 1 for the right place.
    pub fn pairs() -> Self {
        Self::symmetric(2, vec![Some(0), Some(1), None])
    }

    /// As [`Self::pairs`], with "neither is better" as a third truth.
    pub fn pairs_with_ties() -> Self {
        Self::symmetric(3, vec![Some(0), Some(1), Some(2)])
    }

    /// As many classes as truths, free shares, no prior: the paper's model.
    pub fn classes(n: usize) -> Self {
        Self { truths: n, claims: (0..n).map(Some).collect(), prior: vec![vec![0.0; n]; n], symmetric: false }
    }

    /// Truths of which 0 and 1 may be swapped, and these classes, with the default prior.
    pub fn symmetric(truths: usize, claims: Vec<Option<usize>>) -> Self {
        let prior = (0..truths)
            .map(|t| claims.iter().map(|claim| if *claim == Some(t) { RIGHT } else { 1.0 }).collect())
            .collect();
        Self { truths, claims, prior, symmetric: true }
    }

    /// The truth as it was shown.
    fn shown(&self, truth: usize, mirrored: bool) -> usize {
        if mirrored && truth < 2 { 1 - truth } else { truth }
    }
}

/// The fitted model.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// P(truth | votes) of each item; π for one without votes.
    pub posterior: Vec<Vec<f64>>,
    /// π.
    pub prevalence: Vec<f64>,
    /// C_j of each judge, truths (as shown) × classes.
    pub confusion: Vec<Vec<Vec<f64>>>,
    /// Each judge's share of votes that claim the truth, Σ_t π_t·Σ_{c claims t} C_j[t, c], with its 95 % interval; votes that claim
    /// nothing count as not right. `None` for a judge without votes.
    pub accuracy: Vec<Option<Interval>>,
    /// log P(votes and gold), without the prior.
    pub log_likelihood: f64,
    /// Rounds of EM.
    pub iterations: usize,
    /// Whether the posteriors stopped moving.
    pub converged: bool,
    scheme: Scheme,
}

/// All votes of one judge for one class on one item, in either place.
#[derive(Debug, Clone, Copy)]
struct Cell {
    item: usize,
    judge: usize,
    class: usize,
    /// As shown, mirrored.
    weight: [f64; 2],
}

/// EM stops when no posterior moves by more.
const TOLERANCE: f64 = 1e-10;

/// Rounds after which EM is given up; it slows down where the judges hardly know anything.
const MAX_ITERATIONS: usize = 5000;

/// Fits the model to the votes on `items` items by `judges` judges. `gold[i]` is item i's truth where it is known; an
/// item after the end of `gold` has none. Votes with weight 0 are left out.
///
/// # Panics
/// If a vote, a gold truth or the prior does not fit the scheme and the counts.
pub fn fit(scheme: &Scheme, items: usize, judges: usize, votes: &[Vote], gold: &[Option<usize>]) -> Fit {
    check(scheme, items, judges, votes, gold);
    let cells = cells(votes);
    let known = |item: usize| gold.get(item).copied().flatten();
    let mut fit = Fit {
        posterior: start(scheme, items, &cells),
        prevalence: Vec::new(),
        confusion: Vec::new(),
        accuracy: vec![None; judges],
        log_likelihood: 0.0,
        iterations: 0,
        converged: false,
        scheme: scheme.clone(),
    };
    for item in 0..items {
        fit.clamp(item, known(item));
    }
    while fit.iterations < MAX_ITERATIONS && !fit.converged {
        fit.maximise(items, judges, &cells);
        let before = std::mem::take(&mut fit.posterior);
        (fit.posterior, fit.log_likelihood) = fit.expect(items, &cells, &known);
        let moved =
            |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        fit.converged = before.iter().zip(&fit.posterior).map(moved).fold(0.0, f64::max) < TOLERANCE;
        fit.iterations += 1;
    }
    fit.accuracy = fit.accuracies(judges, items, &cells);
    fit
}

impl Fit {
    /// P(truth | votes) of other items by the same judges; π for an item without votes.
    ///
    /// # Panics
    /// If a vote's item, judge or class is out of range.
    pub fn posterior_of(&self, items: usize, votes: &[Vote]) -> Vec<Vec<f64>> {
        check(&self.scheme, items, self.confusion.len(), votes, &[]);
        self.expect(items, &cells(votes), &|_| None).0
    }

    fn clamp(&mut self, item: usize, known: Option<usize>) {
        if let Some(truth) = known {
            self.posterior[item] = one_hot(self.scheme.truths, truth);
        }
    }

    /// M step: π and C from expected counts and the prior.
    fn maximise(&mut self, items: usize, judges: usize, cells: &[Cell]) {
        let scheme = &self.scheme;
        let n = scheme.truths;
        let mut share = vec![0.0; n];
        for posterior in &self.posterior {
            for (truth, share) in share.iter_mut().enumerate() {
                // Halved an item at a time: swapping the responses of some items changes no bit of the sum.
                *share += match scheme.symmetric && truth < 2 {
                    true => 0.5 * (posterior[0] + posterior[1]),
                    false => posterior[truth],
                };
            }
        }
        self.prevalence = match items {
            0 => vec![1.0 / n as f64; n],
            _ => share.iter().map(|share| share / items as f64).collect(),
        };
        let mut counts = vec![scheme.prior.clone(); judges];
        for cell in cells {
            let posterior = &self.posterior[cell.item];
            for (shown, row) in counts[cell.judge].iter_mut().enumerate() {
                // One sum of two terms a cell: swapping the places changes no bit.
                row[cell.class] +=
                    cell.weight[0] * posterior[shown] + cell.weight[1] * posterior[scheme.shown(shown, true)];
            }
        }
        for row in counts.iter_mut().flatten() {
            let total: f64 = row.iter().sum();
            let classes = row.len() as f64;
            row.iter_mut().for_each(|c| *c = if total > 0.0 { *c / total } else { 1.0 / classes });
        }
        self.confusion = counts;
    }

    /// E step: the posteriors and the log-likelihood.
    fn expect(
        &self,
        items: usize,
        cells: &[Cell],
        known: &dyn Fn(usize) -> Option<usize>,
    ) -> (Vec<Vec<f64>>, f64) {
        let scheme = &self.scheme;
        let start: Vec<f64> = self.prevalence.iter().map(|share| share.ln()).collect();
        let mut logs = vec![start; items];
        for cell in cells {
            let confusion = &self.confusion[cell.judge];
            for (truth, log) in logs[cell.item].iter_mut().enumerate() {
                let term = |mirrored: bool| {
                    let weight = cell.weight[usize::from(mirrored)];
                    // 0·ln 0 = 0: no vote, no evidence.
                    if weight == 0.0 {
                        return 0.0;
                    }
                    weight * confusion[scheme.shown(truth, mirrored)][cell.class].ln()
                };
                *log += term(false) + term(true);
            }
        }
        let mut total = 0.0;
        let posteriors = logs
            .into_iter()
            .enumerate()
            .map(|(item, logs)| {
                if let Some(truth) = known(item) {
                    total += logs[truth];
                    return one_hot(scheme.truths, truth);
                }
                let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = logs.iter().map(|log| (log - top).exp()).collect();
                // 0 and 1 first, so that their sum does not depend on which is which.
                let sum: f64 = weights.iter().sum();
                total += top + sum.ln();
                weights.into_iter().map(|weight| weight / sum).collect()
            })
            .collect();
        (posteriors, total)
    }

    /// Each judge's accuracy, with an interval on the logit scale from the observed information: Σ_i s_i·s_iᵀ over the scores of the
    /// items (Berndt, Hall, Hall & Hausman 1974), each the posterior mean of the complete data's score (Fisher's identity;
    /// Louis 1982), plus the prior's. All parameters are inverted together: what judges have in common is uncertain too.
    fn accuracies(&self, judges: usize, items: usize, cells: &[Cell]) -> Vec<Option<Interval>> {
        let scheme = &self.scheme;
        let classes = scheme.claims.len();
        // Softmax parameters with the last class as reference: judge-major, truth, class; then π's.
        let free = classes - 1;
        let at = |judge: usize, truth: usize, class: usize| (judge * scheme.truths + truth) * free + class;
        let shares_at = judges * scheme.truths * free;
        // Symmetric: how common truths beyond the pair's two are; else every share but the last.
        let shares: Vec<usize> = match scheme.symmetric {
            true => (2..scheme.truths).collect(),
            false => (0..scheme.truths - 1).collect(),
        };
        let size = shares_at + shares.len();
        let mut information = vec![vec![0.0; size]; size];
        for (judge, confusion) in self.confusion.iter().enumerate() {
            for (truth, row) in confusion.iter().enumerate() {
                let total: f64 = scheme.prior[truth].iter().sum();
                for a in 0..free {
                    for b in 0..free {
                        let same = if a == b { row[a] } else { 0.0 };
                        information[at(judge, truth, a)][at(judge, truth, b)] +=
                            total * (same - row[a] * row[b]);
                    }
                }
            }
        }
        let mut scores: Vec<BTreeMap<usize, f64>> = vec![BTreeMap::new(); items];
        for cell in cells {
            let posterior = &self.posterior[cell.item];
            for (shown, row) in self.confusion[cell.judge].iter().enumerate() {
                let weight =
                    cell.weight[0] * posterior[shown] + cell.weight[1] * posterior[scheme.shown(shown, true)];
                for (class, probability) in row.iter().enumerate().take(free) {
                    let said = if class == cell.class { 1.0 } else { 0.0 };
                    *scores[cell.item].entry(at(cell.judge, shown, class)).or_default() +=
                        weight * (said - probability);
                }
            }
        }
        for (posterior, mut score) in self.posterior.iter().zip(scores) {
            for (place, &truth) in shares.iter().enumerate() {
                score.insert(shares_at + place, posterior[truth] - self.prevalence[truth]);
            }
            add_outer(&mut information, &score.into_iter().collect::<Vec<_>>());
        }
        // A parameter on the edge (a share or an error rate of exactly 0) has no information of its own; a grain keeps the
        // matrix invertible and changes the others by nothing that shows.
        for (place, row) in information.iter_mut().enumerate() {
            row[place] += 1e-9;
        }
        let covariance = inverse(&information);
        let mut voted = vec![false; judges];
        cells.iter().for_each(|cell| voted[cell.judge] = true);
        (0..judges)
            .map(|judge| {
                if !voted[judge] {
                    return None;
                }
                let mut gradient = vec![0.0; size];
                let mut accuracy = 0.0;
                for (truth, row) in self.confusion[judge].iter().enumerate() {
                    let claims = |class: usize| scheme.claims[class] == Some(truth);
                    let right: f64 = (0..classes).filter(|c| claims(*c)).map(|c| row[c]).sum();
                    accuracy += self.prevalence[truth] * right;
                    for class in 0..free {
                        let own = if claims(class) { 1.0 } else { 0.0 };
                        gradient[at(judge, truth, class)] =
                            self.prevalence[truth] * row[class] * (own - right);
                    }
                }
                let error = covariance.as_ref().map_or(f64::INFINITY, |c| quadratic(c, &gradient).sqrt());
                Some(logit_interval(accuracy, error))
            })
            .collect()
    }
}

/// An interval for a share from its standard error, on the logit scale, so that it stays in [0, 1].
fn logit_interval(share: f64, error: f64) -> Interval {
    let spread = share * (1.0 - share);
    if spread <= 0.0 || !error.is_finite() {
        return Interval { estimate: share, low: 0.0, high: 1.0 };
    }
    let logit = (share / (1.0 - share)).ln();
    let end = |sign: f64| 1.0 / (1.0 + (-(logit + sign * Z * error / spread)).exp());
    Interval { estimate: share, low: end(-1.0), high: end(1.0) }
}

fn one_hot(n: usize, at: usize) -> Vec<f64> {
    (0..n).map(|truth| if truth == at { 1.0 } else { 0.0 }).collect()
}

/// Votes by item, judge and class.
fn cells(votes: &[Vote]) -> Vec<Cell> {
    let mut by_place: BTreeMap<(usize, usize, usize), [f64; 2]> = BTreeMap::new();
    for vote in votes.iter().filter(|vote| vote.weight > 0.0) {
        let weight = by_place.entry((vote.item, vote.judge, vote.class)).or_default();
        weight[usize::from(vote.mirrored)] += vote.weight;
    }
    by_place.into_iter().map(|((item, judge, class), weight)| Cell { item, judge, class, weight }).collect()
}

/// The paper's starting point, its eq. 3.1: an item's posterior is the share of votes that claim each truth.
fn start(scheme: &Scheme, items: usize, cells: &[Cell]) -> Vec<Vec<f64>> {
    let mut counts = vec![vec![0.0; scheme.truths]; items];
    for cell in cells {
        let Some(claimed) = scheme.claims[cell.class] else { continue };
        let counts = &mut counts[cell.item];
        let mirrored = scheme.shown(claimed, true);
        if mirrored == claimed {
            // One sum of two terms: swapping the places changes no bit.
            counts[claimed] += cell.weight[0] + cell.weight[1];
        } else {
            counts[claimed] += cell.weight[0];
            counts[mirrored] += cell.weight[1];
        }
    }
    for row in &mut counts {
        let total: f64 = row.iter().sum();
        let n = row.len() as f64;
        row.iter_mut().for_each(|c| *c = if total > 0.0 { *c / total } else { 1.0 / n });
    }
    counts
}

fn check(scheme: &Scheme, items: usize, judges: usize, votes: &[Vote], gold: &[Option<usize>]) {
    let classes = scheme.claims.len();
    assert!(scheme.truths >= 2 && classes >= 2, "there is nothing to choose from");
    assert!(scheme.prior.len() == scheme.truths && scheme.prior.iter().all(|row| row.len() == classes));
    assert!(scheme.prior.iter().flatten().all(|count| *count >= 0.0), "pseudo-counts are not negative");
    assert!(
        votes.iter().all(|v| v.item < items && v.judge < judges && v.class < classes && v.weight.is_finite()),
        "a vote names an item, a judge or a class that is not there"
    );
    assert!(gold.len() <= items && gold.iter().flatten().all(|truth| *truth < scheme.truths));
}

#[cfg(test)]
#[path = "dawid_skene_tests.rs"]
mod tests;
