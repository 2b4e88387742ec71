//! Orders in which a pair is shown, and what one judge says of it through one template: over both orders, over all votes.

use rand::RngExt;
use rlaif_core::records::{Choice, NoVerdict, Order, Verdict};
use std::collections::BTreeMap;

/// The orders in which a pair is shown to a judge: both for a share of `position_check_rate`, else one at random.
/// The same (seed, pair) always gives the same orders, whatever the other pairs are.
pub fn orders(run_seed: u64, pair_id: &str, position_check_rate: f64) -> Vec<Order> {
    let mut rng = rlaif_core::seed::stream(run_seed, &format!("order/{pair_id}"), 0);
    let first = if rng.random::<bool>() { Order::Ab } else { Order::Ba };
    // random() is in [0, 1): a rate of 1 always checks, a rate of 0 never.
    if rng.random::<f64>() < position_check_rate { vec![Order::Ab, Order::Ba] } else { vec![first] }
}

/// One verdict, with who gave it, how they were asked, and which order they saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgeVerdict<'a> {
    /// Name of the judge.
    pub judge: &'a str,
    /// Name of the template; judges that are asked without one say what they do instead, such as `contrastive`.
    pub template: &'a str,
    /// Weight of the judge in the mean of p.
    pub weight: f64,
    /// Which response stood first. Judges without an order say `Ab`.
    pub order: Order,
    /// Whether they saw two responses at once, so that the order can matter.
    pub has_order: bool,
    /// What they said.
    pub verdict: &'a Verdict,
}

/// What one judge says of a pair through one template.
#[derive(Debug, Clone)]
pub struct Voter<'a> {
    /// Name of the judge.
    pub judge: &'a str,
    /// Name of the template.
    pub template: &'a str,
    /// Weight of the judge.
    pub weight: f64,
    /// Whether the order can matter.
    pub has_order: bool,
    /// What both orders come to.
    pub state: State,
    /// What was said in each order, all votes together.
    pub presentations: Vec<Presentation>,
    /// All verdicts that went in.
    pub verdicts: Vec<&'a JudgeVerdict<'a>>,
}

/// What the orders of a voter come to. Margins are p(a beats b) − ½: negating one swaps the responses without rounding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    /// A vote.
    Stands(f64),
    /// It chose the same *place* in both orders, or called a tie in one of them only.
    Flipped(f64),
    /// Nothing could be read in an order that was asked.
    NoVerdict,
    /// A request failed for good.
    Failed,
}

/// All votes of one judge through one template in one order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Presentation {
    /// Which response stood first.
    pub order: Order,
    /// p(a beats b) − ½; `None` where no vote could be read.
    pub margin: Option<f64>,
    /// Votes for the first place, for the second, and for neither.
    pub votes: [u64; 3],
    /// Whether a probability came with a vote.
    pub soft: bool,
}

impl Presentation {
    /// The place that most of the votes, or the probability, are for.
    pub fn choice(&self) -> Option<Choice> {
        let margin = self.margin?;
        let for_first = if self.order == Order::Ab { margin } else { -margin };
        Some(match for_first {
            m if m > 0.0 => Choice::First,
            m if m < 0.0 => Choice::Second,
            _ => Choice::Tie,
        })
    }
}

impl Voter<'_> {
    /// Whether it has a vote.
    pub fn stands(&self, keep_inconsistent: bool) -> bool {
        matches!(self.state, State::Stands(_)) || keep_inconsistent && self.flipped()
    }

    /// Whether it contradicts itself.
    pub fn flipped(&self) -> bool {
        matches!(self.state, State::Flipped(_))
    }

    /// p(a beats b) − ½, averaged over both orders; 0 where there is none.
    pub fn margin(&self) -> f64 {
        match self.state {
            State::Stands(margin) | State::Flipped(margin) => margin,
            State::NoVerdict | State::Failed => 0.0,
        }
    }

    /// The choice in order a-b and in order b-a, as places, where both could be read.
    pub fn choices(&self) -> Option<(Choice, Choice)> {
        let of = |order| self.presentations.iter().find(|p| p.order == order)?.choice();
        of(Order::Ab).zip(of(Order::Ba))
    }
}

/// The verdicts on one pair by judge and template, in the order of their names. Judges of weight 0 are left out.
///
/// 1. Votes of one judge and template in one order come to one p(first). Where log-probabilities (or a stated confidence) came with a
///    vote, it is their mean. Else v votes of k for the first place (a tie is half a vote) come to (v + c)/(k + 2c), c =
///    `vote_smoothing`; ½ is Jeffreys' prior. A judge that was asked for one vote only is taken at its word: 1, 0 or ½.
/// 2. p(a beats b) is the mean over both orders: ½[p(first | a first) + 1 − p(first | b first)] (Lee et al. 2023, section 2.1).
/// 3. Asked in both orders and read in one only, a judge has no vote: the rest is position bias.
/// 4. It contradicts itself if it chooses the same place in both orders, or, with a single vote and no probability in each, calls a
///    tie in one only.
pub fn voters<'a>(verdicts: &'a [JudgeVerdict<'a>], vote_smoothing: f64) -> Vec<Voter<'a>> {
    let mut groups: BTreeMap<(&str, &str), Vec<&JudgeVerdict<'_>>> = BTreeMap::new();
    for verdict in verdicts.iter().filter(|v| v.weight > 0.0) {
        groups.entry((verdict.judge, verdict.template)).or_default().push(verdict);
    }
    groups.into_values().map(|verdicts| voter(verdicts, vote_smoothing)).collect()
}

fn voter<'a>(verdicts: Vec<&'a JudgeVerdict<'a>>, vote_smoothing: f64) -> Voter<'a> {
    let presentations: Vec<Presentation> = [Order::Ab, Order::Ba]
        .into_iter()
        .filter_map(|order| {
            let votes: Vec<_> = verdicts.iter().filter(|v| v.order == order).copied().collect();
            (!votes.is_empty()).then(|| presentation(order, &votes, vote_smoothing))
        })
        .collect();
    let failed = verdicts.iter().any(|v| matches!(v.verdict.choice, Err(NoVerdict::Failed(_))));
    let single = verdicts.len() == presentations.len();
    let hard = single && verdicts.iter().any(|v| v.verdict.p_first.is_none());
    let margins: Vec<Option<f64>> = presentations.iter().map(|p| p.margin).collect();
    let state = match margins[..] {
        [Some(ab), Some(ba)] => {
            let half_a_tie = hard && (ab == 0.0) != (ba == 0.0);
            let mean = sum(vec![ab, ba]) / 2.0;
            // Signs rather than a product, which may underflow to 0.
            let same_place = ab > 0.0 && ba < 0.0 || ab < 0.0 && ba > 0.0;
            if same_place || half_a_tie { State::Flipped(mean) } else { State::Stands(mean) }
        }
        [Some(margin)] => State::Stands(margin),
        _ if failed => State::Failed,
        _ => State::NoVerdict,
    };
    let JudgeVerdict { judge, template, weight, has_order, .. } = *verdicts[0];
    Voter { judge, template, weight, has_order, state, presentations, verdicts }
}

fn presentation(order: Order, votes: &[&JudgeVerdict<'_>], vote_smoothing: f64) -> Presentation {
    let count = |choice| votes.iter().filter(|v| v.verdict.choice == Ok(choice)).count() as u64;
    let [first, second, tie] = [Choice::First, Choice::Second, Choice::Tie].map(count);
    let margins: Vec<f64> = votes.iter().filter_map(|v| margin(v)).collect();
    let soft = votes.iter().any(|v| v.verdict.choice.is_ok() && v.verdict.p_first.is_some());
    let margin = if margins.is_empty() {
        None
    } else if soft || votes.len() == 1 {
        Some(sum(margins.clone()) / margins.len() as f64)
    } else {
        let of_first = 0.5 * (first as f64 - second as f64) / (margins.len() as f64 + 2.0 * vote_smoothing);
        Some(if order == Order::Ab { of_first } else { -of_first })
    };
    Presentation { order, margin, votes: [first, second, tie], soft }
}

/// p(a beats b) − ½ of one verdict.
fn margin(verdict: &JudgeVerdict<'_>) -> Option<f64> {
    verdict.verdict.choice.as_ref().ok()?;
    let margin = verdict.verdict.p_first_or_choice()? - 0.5;
    Some(if verdict.order == Order::Ab { margin } else { -margin })
}

/// A sum that does not depend on the order of its terms and changes only its sign when all of them do.
pub(crate) fn sum(terms: Vec<f64>) -> f64 {
    let side = |sign: f64| {
        let mut side: Vec<f64> = terms.iter().map(|t| t * sign).filter(|&t| t > 0.0).collect();
        side.sort_by(f64::total_cmp);
        side.iter().sum::<f64>()
    };
    side(1.0) - side(-1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Choice::{First, Second, Tie};
    use Order::{Ab, Ba};

    #[test]
    fn orders_are_both_for_the_share_that_is_checked_and_balanced_elsewhere() {
        let ids: Vec<String> = (0..4000).map(|i| format!("p{i}/0-1")).collect();
        assert!(ids.iter().all(|id| orders(1, id, 1.0) == [Ab, Ba]));
        let never: Vec<Vec<Order>> = ids.iter().map(|id| orders(1, id, 0.0)).collect();
        assert!(never.iter().all(|o| o.len() == 1));
        let a_first = never.iter().filter(|o| o[0] == Ab).count();
        assert!((1800..2200).contains(&a_first), "{a_first} of 4000");
        let both = ids.iter().filter(|id| orders(1, id, 0.25).len() == 2).count();
        assert!((850..1150).contains(&both), "{both} of 4000");
        assert!(ids.iter().all(|id| orders(1, id, 0.25) == orders(1, id, 0.25)));
    }

    fn votes(list: &[(Order, Result<Choice, NoVerdict>)]) -> Vec<(Order, Verdict)> {
        list.iter()
            .map(|(order, choice)| {
                let verdict = match choice {
                    Ok(choice) => Verdict::choice(*choice),
                    Err(why) => Verdict::none(why.clone()),
                };
                (*order, verdict)
            })
            .collect()
    }

    fn state(list: &[(Order, Verdict)]) -> State {
        let verdicts: Vec<JudgeVerdict<'_>> = list
            .iter()
            .map(|(order, verdict)| JudgeVerdict {
                judge: "j",
                template: "t",
                weight: 1.0,
                order: *order,
                has_order: true,
                verdict,
            })
            .collect();
        voters(&verdicts, 0.5)[0].state
    }

    #[test]
    fn votes_of_one_presentation_come_to_jeffreys_mean() {
        let of = |list: &[(Order, Result<Choice, NoVerdict>)]| state(&votes(list));
        // 3 of 3: (3 + ½)/4; 1 and a half of 2: 2/3; one vote is taken at its word.
        assert_eq!(of(&[(Ab, Ok(First)), (Ab, Ok(First)), (Ab, Ok(First))]), State::Stands(0.375));
        assert_eq!(of(&[(Ab, Ok(First)), (Ab, Ok(Tie))]), State::Stands(0.5 / 3.0));
        assert_eq!(of(&[(Ab, Ok(First))]), State::Stands(0.5));
        // Asked twice, read once: (1 + ½)/2.
        let unread = Err(NoVerdict::Unparsable);
        assert_eq!(of(&[(Ab, Ok(First)), (Ab, unread.clone())]), State::Stands(0.25));
        // Votes split evenly in one order are doubt, not contradiction; over both orders p is the mean.
        let split = [(Ab, Ok(First)), (Ab, Ok(Second)), (Ba, Ok(Second)), (Ba, Ok(Second))];
        assert_eq!(of(&split), State::Stands(1.0 / 6.0));
        assert_eq!(
            of(&[(Ab, Ok(First)), (Ab, Ok(First)), (Ba, unread.clone()), (Ba, unread)]),
            State::NoVerdict
        );
    }

    #[test]
    fn probabilities_of_votes_are_averaged_as_they_are() {
        let soft = |p| Verdict { p_first: Some(p), ..Verdict::choice(if p > 0.5 { First } else { Second }) };
        let State::Stands(margin) = state(&[(Ab, soft(0.9)), (Ab, soft(0.6)), (Ba, soft(0.2))]) else {
            panic!("it contradicts nothing")
        };
        assert!((margin - (0.25 + 0.3) / 2.0).abs() < 1e-12, "{margin}");
    }

    #[test]
    fn templates_of_one_judge_are_voters_of_their_own() {
        let first = Verdict::choice(First);
        let of = |template, order| JudgeVerdict {
            judge: "j",
            template,
            weight: 1.0,
            order,
            has_order: true,
            verdict: &first,
        };
        let verdicts = [of("plain", Ab), of("plain", Ba), of("rubric", Ab)];
        let voters = voters(&verdicts, 0.5);
        assert_eq!(voters.iter().map(|v| v.template).collect::<Vec<_>>(), ["plain", "rubric"]);
        assert!(voters[0].flipped() && voters[1].stands(false));
        assert_eq!(voters[0].choices(), Some((First, First)));
        assert_eq!(voters[1].choices(), None);
    }
}
