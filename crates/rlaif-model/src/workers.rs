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
const PATIENCE: usize = 64;
/// Looks in vain after which a thread may sleep after all: half a millisecond.
const LOOKS: usize = 1024;

thread_local! {
    /// Whether something that others may wait for is unfinished on this thread, below what it does now.
    static UNFINISHED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on one of the threads, while the others wait for their parts of its loops without falling asleep.
pub(crate) fn on_workers<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| {
        let over = Over { flag: Arc::default(), unfinished: UNFINISHED.replace(true) };
        let flag = over.flag.clone();
        rayon::spawn_broadcast(move |_| share_loops_until(&flag));
        work()
    })
}

/// Takes parts of loops as they come.
///
/// The thread may have come here from the middle of a part, which the work waits for that this waits for: such a wait is none at all where it
/// is known, and ends by itself where it is not.
fn share_loops_until(over: &AtomicBool) {
    let mut looks = 0;
    while !UNFINISHED.get() && !over.load(Ordering::Acquire) && looks < LOOKS {
        UNFINISHED.set(true);
        let found = rayon::yield_now();
        UNFINISHED.set(false);
        if found == Some(rayon::Yield::Executed) {
            looks = 0;
            continue;
        }
        looks += 1;
        match looks % PATIENCE {
            0 => std::thread::yield_now(),
            _ => (0..PAUSES).for_each(|_| std::hint::spin_loop()),
        }
    }
}

/// Says so when it is dropped, also by a panic.
struct Over {
    flag: Arc<AtomicBool>,
    unfinished: bool,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.flag.store(true, Ordering::Release);
        UNFINISHED.set(self.unfinished);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;
    use std::sync::atomic::AtomicUsize;

    const WORKS: usize = 20_000;

    /// Short works one after the other, whose loops fall into parts of parts: a thread may take a part in the last moment of the work before.
    fn works() -> usize {
        let once = || (0..40usize).into_par_iter().with_max_len(1).sum::<usize>();
        (0..WORKS).map(|_| on_workers(|| (0..3).map(|_| once()).sum::<usize>())).sum()
    }

    #[test]
    fn loops_are_shared_from_within_and_from_several_threads_at_once() {
        let sum = WORKS * 3 * 780;
        assert_eq!(works(), sum);
        let nested: usize = on_workers(|| (0..4).into_par_iter().map(|_| works()).sum());
        assert_eq!(nested, 4 * sum);
        let together: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(works)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(together, 3 * sum);
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
