//! Money set aside before a call is sent: the limit holds at any concurrency.

use rlaif_core::money::MicroUsd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The purse of a run. `spent + reserved` never exceeds `max`, and no call is sent without a reservation.
#[derive(Debug)]
pub struct Budget {
    max: Option<MicroUsd>,
    purse: Mutex<Purse>,
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
    /// A purse with a limit, or without one; `spent` is what the ledger says that the run has cost already.
    pub fn new(max: Option<MicroUsd>, spent: MicroUsd) -> Self {
        Self { max, purse: Mutex::new(Purse { spent: spent.0, reserved: 0 }) }
    }

    /// The limit.
    pub fn max(&self) -> Option<MicroUsd> {
        self.max
    }

    /// What settled calls have cost.
    pub fn spent(&self) -> MicroUsd {
        MicroUsd(self.purse().spent)
    }

    /// What is set aside for calls in flight.
    pub fn reserved(&self) -> MicroUsd {
        MicroUsd(self.purse().reserved)
    }

    /// Sets the most that a call can cost aside, or `None` if the limit does not allow it now.
    pub fn reserve(&self, worst_case: MicroUsd) -> Option<Reservation> {
        let mut purse = self.purse();
        let after = purse.spent.checked_add(purse.reserved)?.checked_add(worst_case.0)?;
        if self.max.is_some_and(|max| after > max.0) {
            return None;
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

    #[test]
    fn worst_cases_are_reserved_and_true_costs_settled() {
        let budget = Budget::new(Some(MicroUsd(100)), MicroUsd(10));
        let first = budget.reserve(MicroUsd(60)).unwrap();
        assert_eq!(budget.reserve(MicroUsd(31)), None, "10 + 60 + 31 is above 100");
        let second = budget.reserve(MicroUsd(30)).unwrap();
        budget.settle(first, MicroUsd(5));
        budget.settle(second, MicroUsd(30));
        assert_eq!((budget.spent(), budget.reserved()), (MicroUsd(45), MicroUsd::ZERO));
    }

    #[test]
    fn without_a_limit_only_the_bill_is_kept() {
        let budget = Budget::new(None, MicroUsd::ZERO);
        let reservation = budget.reserve(MicroUsd(i64::MAX)).unwrap();
        assert_eq!(budget.reserve(MicroUsd(1)), None, "beyond 64 bits there is no bill to keep");
        budget.settle(reservation, MicroUsd(3));
        assert_eq!(budget.spent(), MicroUsd(3));
    }

    #[test]
    fn sixteen_threads_never_exceed_the_limit() {
        let budget = Budget::new(Some(MicroUsd(10_000)), MicroUsd::ZERO);
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
}
