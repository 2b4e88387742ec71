//! The threads that share loops, kept awake where one short loop follows another.
//!
//! A step of decoding is hundreds of loops of some microseconds each. A thread that finds nothing to do for as long goes to sleep, and
//! waking it up takes longer than its part of the next loop.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Pauses of the processor between two looks for work: half a microsecond.
const PAUSES: usize = 32;
/// Looks in vain after which another process may have the processor.
const LOOKS: usize = 64;

thread_local! {
    /// Whether the work of some [`on_workers`] runs on this thread, perhaps below what it does now. Waiting for another's work to be over
    /// would then be waiting for each other.
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on one of the threads, while the others wait for their parts of its loops without falling asleep.
pub(crate) fn on_workers<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| {
        let over = Over { flag: Arc::default(), before: AT_WORK.replace(true) };
        let flag = over.flag.clone();
        rayon::spawn_broadcast(move |_| share_loops_until(&flag));
        work()
    })
}

/// Takes parts of others' loops as they come.
fn share_loops_until(over: &AtomicBool) {
    let mut looks = 0;
    while !AT_WORK.get() && !over.load(Ordering::Acquire) {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            looks = 0;
            continue;
        }
        looks += 1;
        match looks % LOOKS {
            0 => std::thread::yield_now(),
            _ => (0..PAUSES).for_each(|_| std::hint::spin_loop()),
        }
    }
}

/// Says so when it is dropped, also by a panic.
struct Over {
    flag: Arc<AtomicBool>,
    before: bool,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.flag.store(true, Ordering::Release);
        AT_WORK.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn loops_are_shared_from_within_and_from_several_threads_at_once() {
        let sum =
            || on_workers(|| (0..200).map(|_| (0..50usize).into_par_iter().sum::<usize>()).sum::<usize>());
        assert_eq!(sum(), 200 * 1225);
        let nested = on_workers(|| (0..4).into_par_iter().map(|_| sum()).sum::<usize>());
        assert_eq!(nested, 4 * 200 * 1225);
        let together: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(sum)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(together, 3 * 200 * 1225);
    }

    #[test]
    fn after_a_panic_the_threads_are_free_again() {
        let panicked = std::panic::catch_unwind(|| on_workers(|| panic!("of the work")));
        assert!(panicked.is_err());
        let reached = AtomicUsize::new(0);
        rayon::broadcast(|_| reached.fetch_add(1, Ordering::Relaxed)); // waits for every thread
        assert_eq!(reached.into_inner(), rayon::current_num_threads());
    }
}
