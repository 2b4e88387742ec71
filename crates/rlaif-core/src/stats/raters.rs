//! Whether many raters say the same, where not everybody rated everything.
//!
//! Who gave a rating does not matter here, only how many gave it: an item is a [`Tally`]. Raters are people, judges, or both.
//!
//! Kappa and AC1 share the agreement that is seen and differ in what they call chance. Where nearly all ratings are alike, kappa is near 0
//! however well raters agree (the paradox of Feinstein & Cicchetti 1990), and AC1 near 1: tell both.

use super::interval::{self, Interval};

/// How many raters put an item into each category, in the order of the categories.
pub type Tally = Vec<u32>;

/// Tallies of items; `items[i][r]` is what rater r said of item i, `None` where it said nothing. `None` where a rating is none of the
/// categories.
pub fn tallies<T: PartialEq>(items: &[Vec<Option<T>>], categories: &[T]) -> Option<Vec<Tally>> {
    let tally = |ratings: &Vec<Option<T>>| {
        let mut tally = vec![0; categories.len()];
        for rating in ratings.iter().flatten() {
            tally[categories.iter().position(|category| category == rating)?] += 1;
        }
        Some(tally)
    };
    items.iter().map(tally).collect()
}

/// P(two raters of one item say the same), over items that at least two rated: mean_i Σ_k n_ik(n_ik − 1) / (n_i(n_i − 1)).
///
/// `None` where no item has two ratings.
pub fn observed_agreement(items: &[impl AsRef<[u32]>]) -> Option<f64> {
    let (mut sum, mut rated_twice) = (0.0, 0.0);
    for tally in items.iter().map(AsRef::as_ref) {
        let n: f64 = tally.iter().map(|k| f64::from(*k)).sum();
        if n >= 2.0 {
            let same: f64 = tally.iter().map(|k| f64::from(*k) * (f64::from(*k) - 1.0)).sum();
            sum += same / (n * (n - 1.0));
            rated_twice += 1.0;
        }
    }
    (rated_twice > 0.0).then(|| sum / rated_twice)
}

/// Fleiss' kappa, Fleiss 1971, with Gwet's treatment of missing ratings (2014, *Handbook of inter-rater reliability*, section 2.5):
///
/// κ = (p_o − p_e) / (1 − p_e),  p_e = Σ_k π_k²,  π_k = mean_i n_ik/n_i
///
/// p_o is [`observed_agreement`]; π averages over items with any rating. `None` where no item has two ratings and where all ratings
/// are alike (chance agreement is 1).
pub fn fleiss_kappa(items: &[impl AsRef<[u32]>]) -> Option<f64> {
    let shares = shares(items)?;
    beyond_chance(observed_agreement(items)?, shares.iter().map(|share| share * share).sum())
}

/// Gwet's AC1, Gwet 2008, <https://doi.org/10.1348/000711006X126600>:
///
/// AC1 = (p_o − p_e) / (1 − p_e),  p_e = Σ_k π_k(1 − π_k) / (q − 1), q the number of categories, used or not
///
/// `None` where no item has two ratings, or for fewer than two categories. Where all ratings are alike it is 1.
pub fn gwet_ac1(items: &[impl AsRef<[u32]>]) -> Option<f64> {
    let shares = shares(items)?;
    if shares.len() < 2 {
        return None;
    }
    let chance = shares.iter().map(|share| share * (1.0 - share)).sum::<f64>() / (shares.len() as f64 - 1.0);
    beyond_chance(observed_agreement(items)?, chance)
}

/// A statistic of tallies with its bootstrap interval; `prompts[i]` are the tallies of the pairs of prompt i.
pub fn over_prompts(
    prompts: &[Vec<Tally>],
    resamples: usize,
    run_seed: u64,
    statistic: impl Fn(&[&Tally]) -> Option<f64>,
) -> Option<Interval> {
    interval::bootstrap_items(prompts, resamples, run_seed, statistic)
}

/// π_k: mean share of each category over the items with any rating.
fn shares(items: &[impl AsRef<[u32]>]) -> Option<Vec<f64>> {
    let mut shares = vec![0.0; items.first()?.as_ref().len()];
    let mut rated = 0.0;
    for tally in items.iter().map(AsRef::as_ref) {
        let n: f64 = tally.iter().map(|k| f64::from(*k)).sum();
        if n > 0.0 {
            rated += 1.0;
            shares.iter_mut().zip(tally).for_each(|(share, k)| *share += f64::from(*k) / n);
        }
    }
    (rated > 0.0).then(|| shares.iter().map(|share| share / rated).collect())
}

fn beyond_chance(observed: f64, chance: f64) -> Option<f64> {
    (chance < 1.0).then(|| (observed - chance) / (1.0 - chance))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::stats::golden_audit::*;

    pub(in crate::stats) fn golden(table: &[[i8; 5]]) -> Vec<Tally> {
        let items: Vec<Vec<Option<i8>>> =
            table.iter().map(|row| row.iter().map(|r| (*r >= 0).then_some(*r)).collect()).collect();
        tallies(&items, &[0, 1, 2]).unwrap()
    }

    fn close(got: Option<f64>, want: f64) {
        assert!((got.unwrap() - want).abs() < 1e-9, "{got:?} {want}");
    }

    #[test]
    fn complete_ratings_match_statsmodels_and_irrcac() {
        let items = golden(&COMPLETE);
        close(fleiss_kappa(&items), FLEISS_COMPLETE);
        close(gwet_ac1(&items), AC1_COMPLETE);
    }

    #[test]
    fn missing_ratings_match_irrcac() {
        let items = golden(&MISSING);
        close(observed_agreement(&items), AGREEMENT_MISSING);
        close(fleiss_kappa(&items), FLEISS_MISSING);
        close(gwet_ac1(&items), AC1_MISSING);
    }

    #[test]
    fn agreement_that_is_all_one_category_is_no_kappa_and_full_ac1() {
        let alike = vec![vec![3, 0], vec![3, 0]];
        assert_eq!(fleiss_kappa(&alike), None);
        assert_eq!(gwet_ac1(&alike), Some(1.0));
        let full = vec![vec![3, 0], vec![0, 2]];
        assert_eq!((fleiss_kappa(&full), gwet_ac1(&full)), (Some(1.0), Some(1.0)));
    }

    #[test]
    fn nobody_to_agree_with() {
        let single = vec![vec![1, 0], vec![0, 1], vec![0, 0]];
        assert_eq!((fleiss_kappa(&single), gwet_ac1(&single)), (None, None));
        assert_eq!(fleiss_kappa(&Vec::<Tally>::new()), None);
        assert_eq!(tallies(&[vec![Some('x')]], &['a', 'b']), None, "a category that nobody declared");
    }

    #[test]
    fn an_item_that_nobody_rated_changes_nothing() {
        let mut items = golden(&MISSING);
        let before = (fleiss_kappa(&items), gwet_ac1(&items));
        items.push(vec![0, 0, 0]);
        assert_eq!(before, (fleiss_kappa(&items), gwet_ac1(&items)));
    }

    #[test]
    fn the_interval_is_seeded_and_holds_the_estimate() {
        let prompts: Vec<Vec<Tally>> = golden(&COMPLETE).chunks(2).map(<[_]>::to_vec).collect();
        let got = over_prompts(&prompts, 500, 1, |items| fleiss_kappa(items)).unwrap();
        close(Some(got.estimate), FLEISS_COMPLETE);
        assert!(got.low < got.estimate && got.estimate < got.high, "{got}");
        assert_eq!(Some(got), over_prompts(&prompts, 500, 1, |items| fleiss_kappa(items)));
    }
}
