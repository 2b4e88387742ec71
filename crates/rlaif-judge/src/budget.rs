//! Money set aside before a call is sent: the limit holds at any concurrency.

use rlaif_core::money::MicroUsd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The purses that a call is paid from: that of the run, that of its stage. `spent + reserved` never exceeds the limit of any of them,
/// and no call is sent without a reservation.
#[derive(Debug)]
pub struct Budget {
    limits: Vec<Limit>,
    purse: Mutex<Purse>,
}

/// A limit and what counts against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The key of the config that sets it, for messages.
    pub key: &'static str,
    /// The most.
    pub max: MicroUsd,
    /// What the ledger counted before this purse was opened, calls that were possibly billed at their worst case among it.
    pub spent: MicroUsd,
}

#[derive(Debug, Clone, Copy)]
struct Purse {
    spent: i64,
    reserved: i64,
}

/// Money set aside for one call; give it back through [`Budget::settle`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an unsettled reservation stays reserved"]
pub struct Reservation(MicroUsd);

impl Reservation {
    /// How much was set aside.
    pub fn amount(&self) -> MicroUsd {
        self.0
    }
}

impl Budget {
    /// A purse within all of these limits; with none it only keeps the bill.
    pub fn within(limits: Vec<Limit>) -> Self {
        Self { limits, purse: Mutex::new(Purse { spent: 0, reserved: 0 }) }
    }

    /// The limit that leaves the least, and how much that is after what is spent and reserved.
    pub fn tightest(&self) -> Option<(Limit, MicroUsd)> {
        let purse = *self.purse();
        let left = |limit: &Limit| {
            limit
                .max
                .0
                .saturating_sub(limit.spent.0)
                .saturating_sub(purse.spent.saturating_add(purse.reserved))
        };
        let tightest = self.limits.iter().min_by_key(|limit| left(limit))?;
        Some((*tightest, MicroUsd(left(tightest))))
    }

    /// What settled calls have cost since the purse was opened.
    pub fn spent(&self) -> MicroUsd {
        MicroUsd(self.purse().spent)
    }

    /// What is set aside for calls in flight.
    pub fn reserved(&self) -> MicroUsd {
        MicroUsd(self.purse().reserved)
    }

    /// Sets the most that a call can cost aside, or `None` if a limit does not allow it now.
    pub fn reserve(&self, worst_case: MicroUsd) -> Option<Reservation> {
        let mut purse = self.purse();
        let after = purse.spent.checked_add(purse.reserved)?.checked_add(worst_case.0)?;
        for limit in &self.limits {
            if limit.spent.0.checked_add(after)? > limit.max.0 {
                return None;
            }
        }
        purse.reserved += worst_case.0;
        Some(Reservation(worst_case))
    }

    /// Replaces what was set aside by what the call has cost. A call that may have been billed costs its worst case.
    pub fn settle(&self, reservation: Reservation, cost: MicroUsd) {
        let mut purse = self.purse();
        purse.reserved -= reservation.0.0;
        purse.spent = purse.spent.saturating_add(cost.0);
    }

    fn purse(&self) -> MutexGuard<'_, Purse> {
        // Nothing that holds the lock can panic half way through a change.
        self.purse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limit(max: i64, spent: i64) -> Limit {
        Limit { key: "label.max_usd", max: MicroUsd(max), spent: MicroUsd(spent) }
    }

    #[test]
    fn worst_cases_are_reserved_and_true_costs_settled() {
        let budget = Budget::within(vec![limit(100, 10)]);
        let first = budget.reserve(MicroUsd(60)).unwrap();
        assert_eq!(budget.reserve(MicroUsd(31)), None, "10 + 60 + 31 is above 100");
        let second = budget.reserve(MicroUsd(30)).unwrap();
        budget.settle(first, MicroUsd(5));
        budget.settle(second, MicroUsd(30));
        assert_eq!((budget.spent(), budget.reserved()), (MicroUsd(35), MicroUsd::ZERO));
        assert_eq!(budget.tightest(), Some((limit(100, 10), MicroUsd(55))));
    }

    #[test]
    fn without_a_limit_only_the_bill_is_kept() {
        let budget = Budget::within(vec![]);
        let reservation = budget.reserve(MicroUsd(i64::MAX)).unwrap();
        assert_eq!(budget.reserve(MicroUsd(1)), None, "beyond 64 bits there is no bill to keep");
        budget.settle(reservation, MicroUsd(3));
        assert_eq!(budget.spent(), MicroUsd(3));
    }

    #[test]
    fn sixteen_threads_never_exceed_the_limit() {
        let budget = Budget::within(vec![limit(10_000, 0), limit(i64::MAX, 7)]);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for call in 0..1000_i64 {
                        if let Some(reservation) = budget.reserve(MicroUsd(50)) {
                            let (spent, reserved) = (budget.spent(), budget.reserved());
                            // Two locks apart the sum may lag behind, but each part alone is bounded by the limit.
                            assert!(spent.0 <= 10_000 && reserved.0 <= 10_000);
                            budget.settle(reservation, MicroUsd(call % 51));
                        }
                    }
                });
            }
        });
        assert!(budget.spent().0 <= 10_000 && budget.spent().0 > 9_900, "{:?}", budget.spent());
        assert_eq!(budget.reserved(), MicroUsd::ZERO);
    }

    proptest! {
        /// A thousand calls in flight, settled in any order at any cost up to their worst case: no limit is exceeded by a millionth.
        #[test]
        fn a_thousand_in_flight_exceed_no_limit(
            max in 0..2_000_000_i64, spent in 0..1_000_000_i64, stage_max in 0..2_000_000_i64,
            calls in proptest::collection::vec((0..5_000_i64, 0.0..=1.0_f64, any::<u16>()), 1..3000),
        ) {
            let budget = Budget::within(vec![limit(max, spent), limit(stage_max, 0)]);
            let mut in_flight: Vec<(Reservation, i64)> = Vec::new();
            let mut refused = 0;
            for (worst, share, pick) in calls {
                if in_flight.len() == 1000 {
                    let (reservation, cost) = in_flight.swap_remove(usize::from(pick) % 1000);
                    budget.settle(reservation, MicroUsd(cost));
                }
                match budget.reserve(MicroUsd(worst)) {
                    Some(reservation) => in_flight.push((reservation, (worst as f64 * share) as i64)),
                    None => refused += 1,
                }
                let worst_now = budget.spent().0 + budget.reserved().0;
                prop_assert!(worst_now == 0 || (spent + worst_now <= max && worst_now <= stage_max));
            }
            for (reservation, cost) in in_flight {
                budget.settle(reservation, MicroUsd(cost));
            }
            prop_assert_eq!(budget.reserved(), MicroUsd::ZERO);
            prop_assert!(refused > 0 || budget.spent().0 <= stage_max);
        }
    }
}
