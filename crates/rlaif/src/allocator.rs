//! Memory for tensors: mimalloc, told to keep what it has, and to say what to do where there is no more.
//!
//! A training step allocates and frees the same few gigabytes every second. Given back to the system, each page faults in
//! again on its next use; kept, a step of a 135M Llama is 1.6 times as fast (180 against 110 tokens/s, Zen 4, 2 cores).

use crate::error::FAILED;
use mimalloc::MiMalloc;
use rlaif_core::config::Stage;
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicUsize, Ordering};

#[global_allocator]
static GLOBAL: Allocator = Allocator;

/// `mi_option_purge_delay` in `mimalloc.h`, versions 2 and 3.
const PURGE_DELAY: c_int = 15;

/// The stage at work, by its place in [`Stage::ALL`]; past its end for none.
static AT_WORK: AtomicUsize = AtomicUsize::new(usize::MAX);

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// Never gives freed memory back to the system, unless `MIMALLOC_PURGE_DELAY` says otherwise.
pub fn keep_memory() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: the function is part of the mimalloc that this binary links as its allocator; it stores an option.
        unsafe { mi_option_set(PURGE_DELAY, -1) };
    }
}

/// Notes which stage is to blame when memory ends.
pub fn at_work(stage: Stage) {
    let place = Stage::ALL.iter().position(|known| *known == stage);
    AT_WORK.store(place.unwrap_or(usize::MAX), Ordering::Relaxed);
}

struct Allocator;

// SAFETY: every call goes to mimalloc as it came; what it refuses ends the process.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        given(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        given(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        given(unsafe { MiMalloc.realloc(place, layout, size) }, size)
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(place, layout) };
    }
}

fn given(place: *mut u8, bytes: usize) -> *mut u8 {
    if place.is_null() && bytes > 0 {
        out_of_memory(bytes);
    }
    place
}

/// Says which setting to lower. Nothing here allocates.
#[cold]
fn out_of_memory(bytes: usize) -> ! {
    eprintln!("error: out of memory: the system does not give {bytes} bytes more");
    match Stage::ALL.get(AT_WORK.load(Ordering::Relaxed)) {
        Some(stage @ (Stage::Sft | Stage::Reward | Stage::Ppo | Stage::Dpo)) => eprintln!(
            "hint: Lower `{0}.micro_batch_size`, set `{0}.optim.gradient_checkpointing = true`, or train adapters with `[{0}.lora]`; \
             what is finished is kept, and the same command goes on from the last checkpoint",
            stage.name()
        ),
        Some(Stage::Revise | Stage::Generate | Stage::Evaluate) => {
            eprintln!(
                "hint: Lower `generate.batch_size`; what is finished is kept, run the same command again"
            );
        }
        Some(Stage::Label) => {
            eprintln!(
                "hint: Take a smaller local judge, or lower a judge's `max_concurrency`; what is finished is kept"
            );
        }
        _ => eprintln!("hint: Give the process more memory; what is finished is kept"),
    }
    std::process::exit(i32::from(FAILED));
}
