//! Judges weighed by what they are worth: each judge and template is a voter of its own, whose error rates or strength are
//! fitted to labelled pairs, or, without any, to what the voters say of each other.
//!
//! Both models take what voters say of a pair as independent once it is known which response is better. A judge that is asked twice
//! repeats its mistakes, so it is one observation that must not count as two:
//!
//! * Votes and orders of a voter come to its one p first (see [`voters`]); only a pair that it saw in a single order is read as a
//!   *place*, in a role of its own, so that its position bias is fitted there.
//! * The templates of one judge share the weight of one.
//!
//! How far p is from ½ is read by two grades, above and up to the voter's own median |p − ½|, under Dawid-Skene: what its strong and
//! its weak verdicts are worth is fitted, whatever its p mean. Ties are votes, and no truth. Bradley-Terry reads only which response
//! the voter is for.
//!
//! Both are symmetric: calling a b and b a negates every margin to the last bit.

use crate::pairwise::{JudgeVerdict, Voter, voters};
use rlaif_core::config::{Aggregation, LabelConfig};
use rlaif_core::records::Order;
use rlaif_core::stats::Interval;
use rlaif_core::stats::dawid_skene::{self, Scheme, Vote};
use rlaif_core::stats::judge_model::{self, Ballot, Ridge};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A pair to fit to.
#[derive(Debug, Clone, Copy)]
pub struct FitItem<'a> {
    /// All verdicts on it.
    pub verdicts: &'a [JudgeVerdict<'a>],
    /// Whether a is the better response, where people have said so.
    pub a_better: Option<bool>,
}

/// A fitted panel, which says how probable it is that a is better.
#[derive(Debug, Clone)]
pub struct FittedPanel {
    names: BTreeMap<Name, usize>,
    model: Model,
}

/// Judge, template, and whether it is their role of single orders.
type Name = (String, String, bool);

#[derive(Debug, Clone)]
enum Model {
    DawidSkene { fit: dawid_skene::Fit, cuts: Vec<f64> },
    BradleyTerry(judge_model::Fit),
}

/// What was learnt of one voter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FittedVoter {
    /// Name of the judge.
    pub judge: String,
    /// Name of the template.
    pub template: String,
    /// Whether this is about pairs that it saw in one order only; else both orders (or, without an order, one verdict) came to one p.
    pub single_order: bool,
    /// P(it is for the better response | it has a vote); ties count as not right.
    pub accuracy: f64,
    /// Its 95 % interval, under Dawid-Skene.
    pub accuracy_interval: Option<Interval>,
    /// P(right | the better response stands first), of single orders under Dawid-Skene.
    pub right_first: Option<f64>,
    /// P(right | the better response stands second), of single orders under Dawid-Skene.
    pub right_second: Option<f64>,
    /// Strength, under Bradley-Terry: 0 knows nothing.
    pub strength: Option<Interval>,
    /// Position bias, of single orders under Bradley-Terry: log-odds of the first place between equals.
    pub position_bias: Option<Interval>,
}

/// Classes of vote under Dawid-Skene: first strongly, first weakly, tie, second weakly, second strongly.
const CLASSES: usize = 5;

/// Pairs below which a voter's median says nothing of what is strong for it; all its votes are then strong.
const MIN_FOR_GRADES: usize = 20;

impl FittedPanel {
    /// Fits what `label.aggregation` asks for; `None` where it asks for nothing fitted, or nobody said anything that can be read.
    pub fn fit(items: &[FitItem<'_>], config: &LabelConfig) -> Option<Self> {
        if !config.aggregation.is_fitted() {
            return None;
        }
        let of_items: Vec<Vec<Voter<'_>>> =
            items.iter().map(|item| voters(item.verdicts, config.vote_smoothing)).collect();
        let opinions: Vec<Vec<Opinion<'_>>> = of_items
            .iter()
            .map(|of_item| opinions(of_item.iter().filter(|voter| voter.stands(config.keep_inconsistent))))
            .collect();
        let mut names: BTreeMap<Name, usize> =
            opinions.iter().flatten().map(|opinion| (opinion.name(), 0)).collect();
        names.values_mut().enumerate().for_each(|(index, place)| *place = index);
        if names.is_empty() {
            return None;
        }
        let said: Vec<(usize, usize, Opinion<'_>)> = opinions
            .iter()
            .enumerate()
            .flat_map(|(item, of_item)| of_item.iter().map(move |opinion| (item, opinion)))
            .map(|(item, opinion)| (item, names[&opinion.name()], *opinion))
            .collect();
        let model = if config.aggregation == Aggregation::DawidSkene {
            let mut margins: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
            said.iter().for_each(|(_, place, opinion)| margins[*place].push(opinion.margin.abs()));
            let cuts: Vec<f64> = margins.into_iter().map(cut).collect();
            let votes: Vec<Vote> = said
                .iter()
                .flat_map(|(item, place, opinion)| opinion.votes(*item, *place, cuts[*place]))
                .collect();
            let gold: Vec<Option<usize>> =
                items.iter().map(|item| item.a_better.map(|a| usize::from(!a))).collect();
            let fit = dawid_skene::fit(&scheme(), items.len(), names.len(), &votes, &gold);
            Model::DawidSkene { fit, cuts }
        } else {
            let ballots: Vec<Ballot> =
                said.iter().flat_map(|(item, place, opinion)| opinion.ballots(*item, *place)).collect();
            let gold: Vec<Option<bool>> = items.iter().map(|item| item.a_better).collect();
            let fit = judge_model::fit(items.len(), names.len(), &ballots, &gold, Ridge::default());
            Model::BradleyTerry(fit)
        };
        Some(Self { names, model })
    }

    /// P(a is better | what these voters say of the pair) − ½. Voters that the fit has not met are left out.
    pub fn margin(&self, voters: &[&Voter<'_>]) -> f64 {
        let opinions = opinions(voters.iter().copied());
        let known = opinions.iter().filter_map(|opinion| Some((*opinion, *self.names.get(&opinion.name())?)));
        match &self.model {
            Model::DawidSkene { fit, cuts } => {
                let votes: Vec<Vote> = known.flat_map(|(o, place)| o.votes(0, place, cuts[place])).collect();
                let posterior = &fit.posterior_of(1, &votes)[0];
                0.5 * (posterior[0] - posterior[1])
            }
            Model::BradleyTerry(fit) => {
                let ballots: Vec<Ballot> = known.flat_map(|(o, place)| o.ballots(0, place)).collect();
                fit.margins_of(1, &ballots)[0]
            }
        }
    }

    /// What was learnt of each judge and template, in the order of their names; those that nothing could be read of are left out.
    pub fn voters(&self) -> Vec<FittedVoter> {
        let of = |(judge, template, single_order): &Name, place: usize| {
            let mut voter = FittedVoter {
                judge: judge.clone(),
                template: template.clone(),
                single_order: *single_order,
                accuracy: 0.0,
                accuracy_interval: None,
                right_first: None,
                right_second: None,
                strength: None,
                position_bias: None,
            };
            match &self.model {
                Model::DawidSkene { fit, .. } => {
                    let interval = fit.accuracy[place]?;
                    let confusion = &fit.confusion[place];
                    voter.accuracy = interval.estimate;
                    voter.accuracy_interval = Some(interval);
                    voter.right_first = single_order.then(|| confusion[0][0] + confusion[0][1]);
                    voter.right_second = single_order.then(|| confusion[1][3] + confusion[1][4]);
                }
                Model::BradleyTerry(fit) => {
                    let judge = fit.judges[place].voted.then(|| fit.judges[place])?;
                    voter.accuracy = judge.accuracy();
                    voter.strength = Some(judge.strength);
                    voter.position_bias = single_order.then_some(judge.bias);
                }
            }
            Some(voter)
        };
        self.names.iter().filter_map(|(names, place)| of(names, *place)).collect()
    }

    /// Whether the fit came to rest; where not, its numbers are still the most probable met so far.
    pub fn converged(&self) -> bool {
        match &self.model {
            Model::DawidSkene { fit, .. } => fit.converged,
            Model::BradleyTerry(fit) => fit.converged,
        }
    }
}

/// Two truths, five classes, and a prior of 2 : 1 for the right side with half a vote for a tie.
fn scheme() -> Scheme {
    let claims = vec![Some(0), Some(0), None, Some(1), Some(1)];
    let prior = vec![vec![1.0, 1.0, 0.5, 0.5, 0.5], vec![0.5, 0.5, 0.5, 1.0, 1.0]];
    Scheme { prior, ..Scheme::symmetric(2, claims) }
}

/// The lower median, above which a verdict is strong; 0 for few.
fn cut(mut margins: Vec<f64>) -> f64 {
    if margins.len() < MIN_FOR_GRADES {
        return 0.0;
    }
    margins.sort_by(f64::total_cmp);
    margins[(margins.len() - 1) / 2]
}

/// What one voter says of one pair.
#[derive(Debug, Clone, Copy)]
struct Opinion<'a> {
    judge: &'a str,
    template: &'a str,
    /// p(a beats b) − ½.
    margin: f64,
    /// The order, where it saw only one of two.
    single: Option<Order>,
    /// The share of its judge's weight that is its own.
    weight: f64,
}

/// What these voters say of one pair.
fn opinions<'a>(voters: impl Iterator<Item = &'a Voter<'a>> + Clone) -> Vec<Opinion<'a>> {
    let of_judge = |judge: &str| voters.clone().filter(|voter| voter.judge == judge).count() as f64;
    let opinion = |voter: &'a Voter<'a>| Opinion {
        judge: voter.judge,
        template: voter.template,
        margin: voter.margin(),
        single: match voter.presentations[..] {
            [only] if voter.has_order => Some(only.order),
            _ => None,
        },
        weight: 1.0 / of_judge(voter.judge),
    };
    voters.clone().map(opinion).collect()
}

impl Opinion<'_> {
    fn name(&self) -> Name {
        (self.judge.to_owned(), self.template.to_owned(), self.single.is_some())
    }

    /// As votes of Dawid and Skene.
    fn votes(&self, item: usize, judge: usize, cut: f64) -> Vec<Vote> {
        let strong = self.margin.abs() > cut;
        // For a, as if a stood first.
        let class = match (self.margin > 0.0, strong) {
            _ if self.margin == 0.0 => 2,
            (true, true) => 0,
            (true, false) => 1,
            (false, false) => 3,
            (false, true) => 4,
        };
        let mirror = CLASSES - 1 - class;
        let vote = |class, weight, mirrored| Vote { item, judge, class, weight, mirrored };
        match self.single {
            Some(Order::Ab) => vec![vote(class, self.weight, false)],
            Some(Order::Ba) => vec![vote(mirror, self.weight, true)],
            // No order, or both: half its vote in either, so that which response is called a tells nothing.
            None => vec![vote(class, self.weight / 2.0, false), vote(mirror, self.weight / 2.0, true)],
        }
    }

    /// As ballots of the Bradley-Terry model.
    fn ballots(&self, item: usize, judge: usize) -> Vec<Ballot> {
        let for_a = match self.margin {
            m if m > 0.0 => 1.0,
            m if m < 0.0 => 0.0,
            _ => 0.5,
        };
        let ballot = |first, weight, mirrored| Ballot { item, judge, first, weight, mirrored };
        match self.single {
            Some(Order::Ab) => vec![ballot(for_a, self.weight, false)],
            Some(Order::Ba) => vec![ballot(1.0 - for_a, self.weight, true)],
            None => {
                vec![ballot(for_a, self.weight / 2.0, false), ballot(1.0 - for_a, self.weight / 2.0, true)]
            }
        }
    }
}

#[cfg(test)]
#[path = "panel_tests.rs"]
mod tests;
