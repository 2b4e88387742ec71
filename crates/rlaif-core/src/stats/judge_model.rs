//! How strongly each judge follows quality, and how strongly the place: a logistic Bradley-Terry model of verdicts.
//!
//! logit P(judge j chooses the first place | pair i in order o) = o·s_j·θ_i + b_j,   o = +1 (a first) or −1 (b first)
//!
//! θ_i is how much better response a of pair i is (Bradley & Terry 1952: the difference of two strengths), s_j the judge's
//! *strength* (0: it does not look at quality), b_j its *position bias* (above 0: it likes the first place). As in item response
//! theory (the two-parameter model, Birnbaum 1968) θ_i is integrated out under N(0, 1), on fixed nodes: estimating
//! thousands of θ_i beside a few s_j would make every judge look better than it is (Neyman & Scott 1948). The marginal
//! likelihood with a ridge prior is maximised by EM (Bock & Aitkin 1981), whose M step is Newton's method for one judge at a
//! time.
//!
//! A gold label says which sign θ_i has. Without gold, strength is consistency, with itself and with the others: judges that
//! share a mistake look strong together. The position bias needs no gold.
//!
//! P(a beats b) is P(θ_i > 0 | all verdicts on the pair). Naming the responses the other way round gives its complement, to the last
//! bit.

use super::interval::{Interval, Z};
use super::linear::{add_outer, inverse};
use super::special::{log_sigmoid, sigmoid};
use std::collections::BTreeMap;

/// One verdict, as places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ballot {
    /// The pair, from 0.
    pub item: usize,
    /// The judge, from 0.
    pub judge: usize,
    /// How much it is for the first place, in [0, 1]: 1, 0, or ½ for a tie.
    pub first: f64,
    /// How much it counts.
    pub weight: f64,
    /// Whether b stood first.
    pub mirrored: bool,
}

/// The ridge: normal priors of the parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ridge {
    /// Prior mean of s_j; above 0, since a judge is expected to know something.
    pub strength_mean: f64,
    /// Prior standard deviation of s_j.
    pub strength_sd: f64,
    /// Prior standard deviation of b_j around 0.
    pub bias_sd: f64,
}

impl Default for Ridge {
    /// s ~ N(1, 2²), b ~ N(0, 2²): a judge of strength 1 is right on 75 % of pairs, of strength 5 on 93 %.
    fn default() -> Self {
        Self { strength_mean: 1.0, strength_sd: 2.0, bias_sd: 2.0 }
    }
}

/// What was learnt of one judge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judge {
    /// s_j.
    pub strength: Interval,
    /// b_j: log-odds of choosing the first place of two equally good responses.
    pub bias: Interval,
    /// Whether it cast a vote at all; the rest is the prior otherwise.
    pub voted: bool,
}

/// The fitted model.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// Each judge.
    pub judges: Vec<Judge>,
    /// P(θ_i > 0 | verdicts) − ½ of each pair: negating it swaps the responses without rounding.
    pub margins: Vec<f64>,
    /// log P(verdicts and gold), without the prior.
    pub log_likelihood: f64,
    /// Rounds of EM.
    pub iterations: usize,
    /// Whether the parameters stopped moving.
    pub converged: bool,
}

/// Nodes at ±(k + ½)·STEP, on which θ lives: none at 0, and as many on one side as on the other.
const SIDE: usize = 20;
/// Distance of nodes; 20 of them reach 4.9 standard deviations. The rule's error is that of the trapezium rule on a smooth function
/// that dies out: far below any standard error here.
const STEP: f64 = 0.25;
const NODES: usize = 2 * SIDE;

/// EM stops when no parameter moves by more.
const TOLERANCE: f64 = 1e-8;
const MAX_ITERATIONS: usize = 2000;

/// All verdicts of one judge on one pair: weight for the first and for the second place, as shown and mirrored.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    item: usize,
    judge: usize,
    first: [f64; 2],
    second: [f64; 2],
}

/// Fits the model. `gold[i]` says whether a is the better response of pair i, where somebody knows; pairs after its end are unknown.
///
/// # Panics
/// If a verdict names a pair or judge that is not there, or its numbers are not in range.
pub fn fit(items: usize, judges: usize, ballots: &[Ballot], gold: &[Option<bool>], ridge: Ridge) -> Fit {
    assert!(gold.len() <= items, "gold for pairs that are not there");
    let cells = cells(items, judges, ballots);
    let known = |item: usize| gold.get(item).copied().flatten();
    let mut parameters = vec![(ridge.strength_mean, 0.0); judges];
    let (mut iterations, mut converged) = (0, false);
    while iterations < MAX_ITERATIONS && !converged {
        let (posteriors, _) = expect(&parameters, items, &cells, &known);
        let counts = expected_counts(judges, &cells, &posteriors);
        let mut moved: f64 = 0.0;
        for (parameters, counts) in parameters.iter_mut().zip(&counts) {
            let new = newton(*parameters, counts, ridge);
            moved = moved.max((new.0 - parameters.0).abs()).max((new.1 - parameters.1).abs());
            *parameters = new;
        }
        iterations += 1;
        converged = moved < TOLERANCE;
    }
    let (posteriors, log_likelihood) = expect(&parameters, items, &cells, &known);
    let errors = standard_errors(&parameters, items, &cells, &posteriors, ridge);
    let mut voted = vec![false; judges];
    cells.iter().for_each(|cell| voted[cell.judge] = true);
    let interval = |value: f64, error: f64| Interval {
        estimate: value,
        low: value - Z * error,
        high: value + Z * error,
    };
    Fit {
        judges: parameters
            .iter()
            .zip(errors)
            .zip(voted)
            .map(|((&(s, b), (s_error, b_error)), voted)| Judge {
                strength: interval(s, s_error),
                bias: interval(b, b_error),
                voted,
            })
            .collect(),
        margins: posteriors.iter().map(margin).collect(),
        log_likelihood,
        iterations,
        converged,
    }
}

impl Fit {
    /// P(θ_i > 0 | verdicts) − ½ of other pairs by the same judges; 0 for a pair without verdicts.
    ///
    /// # Panics
    /// As [`fit`].
    pub fn margins_of(&self, items: usize, ballots: &[Ballot]) -> Vec<f64> {
        let parameters: Vec<(f64, f64)> =
            self.judges.iter().map(|judge| (judge.strength.estimate, judge.bias.estimate)).collect();
        let cells = cells(items, parameters.len(), ballots);
        expect(&parameters, items, &cells, &|_| None).0.iter().map(margin).collect()
    }
}

impl Judge {
    /// The share of pairs on which it would choose the better response, averaged over both orders and over pairs as they come:
    /// E[½σ(s|θ| + b) + ½σ(s|θ| − b)] under θ ~ N(0, 1).
    pub fn accuracy(&self) -> f64 {
        let (s, b) = (self.strength.estimate, self.bias.estimate);
        let (mut sum, mut total) = (0.0, 0.0);
        for node in SIDE..NODES {
            let weight = density(theta(node));
            sum += weight * 0.5 * (sigmoid(s * theta(node) + b) + sigmoid(s * theta(node) - b));
            total += weight;
        }
        sum / total
    }
}

fn theta(node: usize) -> f64 {
    match node.checked_sub(SIDE) {
        Some(above) => (above as f64 + 0.5) * STEP,
        None => -((SIDE - 1 - node) as f64 + 0.5) * STEP,
    }
}

/// The standard normal density, up to a factor.
fn density(theta: f64) -> f64 {
    (-0.5 * theta * theta).exp()
}

/// Half the difference of what lies above and below 0, which swapping the responses only negates.
fn margin(posterior: &[f64; NODES]) -> f64 {
    let above: f64 = (0..SIDE).map(|k| posterior[SIDE + k]).sum();
    let below: f64 = (0..SIDE).map(|k| posterior[SIDE - 1 - k]).sum();
    0.5 * (above - below) / (above + below)
}

fn cells(items: usize, judges: usize, ballots: &[Ballot]) -> Vec<Cell> {
    let mut cells: BTreeMap<(usize, usize), Cell> = BTreeMap::new();
    for ballot in ballots.iter().filter(|ballot| ballot.weight > 0.0) {
        let Ballot { item, judge, first, weight, mirrored } = *ballot;
        assert!(item < items && judge < judges, "a verdict names a pair or a judge that is not there");
        assert!((0.0..=1.0).contains(&first) && weight.is_finite(), "a verdict is out of range");
        let cell = cells.entry((item, judge)).or_insert(Cell { item, judge, ..Cell::default() });
        cell.first[usize::from(mirrored)] += weight * first;
        cell.second[usize::from(mirrored)] += weight * (1.0 - first);
    }
    cells.into_values().collect()
}

/// E step: P(θ_i = node | verdicts, gold), and the log-likelihood.
fn expect(
    parameters: &[(f64, f64)],
    items: usize,
    cells: &[Cell],
    known: &dyn Fn(usize) -> Option<bool>,
) -> (Vec<[f64; NODES]>, f64) {
    let tables: Vec<[[f64; NODES]; 2]> = parameters
        .iter()
        .map(|&(s, b)| {
            let table = |sign: f64| std::array::from_fn(|node| log_sigmoid(sign * (s * theta(node) + b)));
            [table(1.0), table(-1.0)]
        })
        .collect();
    let prior: [f64; NODES] = std::array::from_fn(|node| -0.5 * theta(node) * theta(node));
    let normaliser = 2.0 * (SIDE..NODES).map(|node| density(theta(node))).sum::<f64>();
    let mut logs = vec![prior; items];
    for cell in cells {
        let [first, second] = &tables[cell.judge];
        let log = &mut logs[cell.item];
        for node in 0..NODES {
            let mirror = NODES - 1 - node;
            // Two terms, one a place: swapping the responses swaps them and the nodes, and changes no bit.
            let straight = cell.first[0] * first[node] + cell.second[0] * second[node];
            let mirrored = cell.first[1] * first[mirror] + cell.second[1] * second[mirror];
            log[node] += straight + mirrored;
        }
    }
    let mut total = 0.0;
    let posteriors = logs
        .into_iter()
        .enumerate()
        .map(|(item, logs)| {
            let possible = |node: usize| known(item).is_none_or(|a_better| a_better == (node >= SIDE));
            let top = (0..NODES).filter(|n| possible(*n)).map(|n| logs[n]).fold(f64::NEG_INFINITY, f64::max);
            let weights: [f64; NODES] = std::array::from_fn(|node| match possible(node) {
                true => (logs[node] - top).exp(),
                false => 0.0,
            });
            // Pairs of mirrored nodes, outwards: the sum is the same whichever response is called a.
            let sum: f64 = (0..SIDE).map(|k| weights[SIDE + k] + weights[SIDE - 1 - k]).sum();
            total += top + sum.ln() - f64::ln(normaliser);
            weights.map(|weight| weight / sum)
        })
        .collect();
    (posteriors, total)
}

/// Expected weight of verdicts for the first and the second place, by the θ that the judge saw.
type Counts = [[f64; NODES]; 2];

fn expected_counts(judges: usize, cells: &[Cell], posteriors: &[[f64; NODES]]) -> Vec<Counts> {
    let mut counts = vec![[[0.0; NODES]; 2]; judges];
    for cell in cells {
        let posterior = &posteriors[cell.item];
        let [first, second] = &mut counts[cell.judge];
        for node in 0..NODES {
            let (straight, mirrored) = (posterior[node], posterior[NODES - 1 - node]);
            first[node] += cell.first[0] * straight + cell.first[1] * mirrored;
            second[node] += cell.second[0] * straight + cell.second[1] * mirrored;
        }
    }
    counts
}

/// M step for one judge: ridge logistic regression of (s, b) on its expected counts, by Newton's method with halving.
fn newton(start: (f64, f64), counts: &Counts, ridge: Ridge) -> (f64, f64) {
    let (s_precision, b_precision) = (ridge.strength_sd.powi(-2), ridge.bias_sd.powi(-2));
    let objective = |(s, b): (f64, f64)| {
        let mut sum = -0.5 * s_precision * (s - ridge.strength_mean).powi(2) - 0.5 * b_precision * b * b;
        for (node, (first, second)) in counts[0].iter().zip(&counts[1]).enumerate() {
            let x = s * theta(node) + b;
            sum += first * log_sigmoid(x) + second * log_sigmoid(-x);
        }
        sum
    };
    let mut at = start;
    let mut value = objective(at);
    for _ in 0..50 {
        let (s, b) = at;
        let mut gradient = [-s_precision * (s - ridge.strength_mean), -b_precision * b];
        let mut hessian = [s_precision, 0.0, b_precision];
        for (node, (first, second)) in counts[0].iter().zip(&counts[1]).enumerate() {
            let (x, n) = (theta(node), first + second);
            let p = sigmoid(s * x + b);
            let (residual, curvature) = (first - n * p, n * p * (1.0 - p));
            gradient = [gradient[0] + residual * x, gradient[1] + residual];
            hessian = [hessian[0] + curvature * x * x, hessian[1] + curvature * x, hessian[2] + curvature];
        }
        let determinant = hessian[0] * hessian[2] - hessian[1] * hessian[1];
        let step = (
            (hessian[2] * gradient[0] - hessian[1] * gradient[1]) / determinant,
            (hessian[0] * gradient[1] - hessian[1] * gradient[0]) / determinant,
        );
        let mut scale = 1.0;
        loop {
            let next = (s + scale * step.0, b + scale * step.1);
            let reached = objective(next);
            if reached >= value || scale < 1e-6 {
                (at, value) = (next, reached);
                break;
            }
            scale /= 2.0;
        }
        if step.0.abs().max(step.1.abs()) < 1e-10 {
            break;
        }
    }
    at
}

/// Standard errors of (s, b) of each judge from the observed information: scores of items by Fisher's identity, their outer products
/// summed, plus the ridge. Infinite where it cannot be inverted.
fn standard_errors(
    parameters: &[(f64, f64)],
    items: usize,
    cells: &[Cell],
    posteriors: &[[f64; NODES]],
    ridge: Ridge,
) -> Vec<(f64, f64)> {
    let size = 2 * parameters.len();
    let mut information = vec![vec![0.0; size]; size];
    for judge in 0..parameters.len() {
        information[2 * judge][2 * judge] = ridge.strength_sd.powi(-2);
        information[2 * judge + 1][2 * judge + 1] = ridge.bias_sd.powi(-2);
    }
    let mut scores: Vec<Vec<(usize, f64)>> = vec![Vec::new(); items];
    for cell in cells {
        let (s, b) = parameters[cell.judge];
        let (mut of_strength, mut of_bias) = (0.0, 0.0);
        for node in 0..NODES {
            for (mirrored, posterior) in
                [posteriors[cell.item][node], posteriors[cell.item][NODES - 1 - node]].into_iter().enumerate()
            {
                let n = cell.first[mirrored] + cell.second[mirrored];
                let residual = cell.first[mirrored] - n * sigmoid(s * theta(node) + b);
                of_strength += posterior * residual * theta(node);
                of_bias += posterior * residual;
            }
        }
        scores[cell.item].extend([(2 * cell.judge, of_strength), (2 * cell.judge + 1, of_bias)]);
    }
    scores.iter().for_each(|score| add_outer(&mut information, score));
    let covariance = inverse(&information);
    let error = |at: usize| covariance.as_ref().map_or(f64::INFINITY, |c| c[at][at].sqrt());
    (0..parameters.len()).map(|judge| (error(2 * judge), error(2 * judge + 1))).collect()
}

#[cfg(test)]
#[path = "judge_model_tests.rs"]
mod tests;
