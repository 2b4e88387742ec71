//! Sampling goes on while judges answer (`ppo.asynchronous`).

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::common::{constant, llama, sampling};
use rlaif_core::config::{Algorithm, PpoConfig};
use rlaif_train::packing::Item;
use rlaif_train::{PromptIds, RewardFn, Silent, TrainError, Tuning, train_ppo};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const STEPS: u64 = 4;

/// Steps whose rollout was sampled ahead.
static SAMPLED: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static MORE: Condvar = Condvar::new();

/// Hears the trainer say so.
struct Listener;

#[derive(Default)]
struct Said {
    step: u64,
    sampled: bool,
}

impl Visit for Said {
    fn record_u64(&mut self, _: &Field, value: u64) {
        self.step = value;
    }

    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        self.sampled = format!("{value:?}") == "sampled ahead";
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "rlaif_train::ahead"
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        if said.sampled {
            SAMPLED.lock().unwrap().push(said.step);
            MORE.notify_all();
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Does not answer about a rollout until the next one is sampled: a trainer that samples only when it has its answer waits for ever.
struct SlowJudge(u64);

impl RewardFn for SlowJudge {
    fn score(&mut self, items: &[Item<'_>]) -> Result<Vec<Option<f64>>, TrainError> {
        self.0 += 1;
        let next = self.0 + 1;
        if next <= STEPS {
            let missing = |sampled: &mut Vec<u64>| !sampled.contains(&next);
            let minute = Duration::from_secs(60);
            let (sampled, late) = MORE.wait_timeout_while(SAMPLED.lock().unwrap(), minute, missing).unwrap();
            drop(sampled);
            assert!(!late.timed_out(), "rollout {next} was not sampled while {} was scored", self.0);
        }
        Ok(items.iter().map(|(_, response)| Some(response.len() as f64)).collect())
    }
}

#[test]
fn the_next_rollout_is_sampled_while_a_judge_answers() {
    tracing::subscriber::set_global_default(Listener).unwrap();
    let prompts = [PromptIds { id: "p".into(), ids: vec![60, 30, 20] }];
    let config = PpoConfig {
        algorithm: Algorithm::Rloo,
        asynchronous: true,
        steps: STEPS as usize,
        prompts_per_step: 1,
        samples_per_prompt: 4,
        optim: constant(1e-3),
        ..PpoConfig::default()
    };
    let tuning = Tuning {
        critic: None,
        policy: llama(),
        prompts: &prompts,
        sampling: &sampling(4),
        reward: &mut SlowJudge(0),
        watch: None,
    };
    let dir = tempfile::tempdir().unwrap();
    assert!(train_ppo(tuning, &config, 3, dir.path(), &mut Silent).unwrap().finished().is_some());
    assert_eq!(*SAMPLED.lock().unwrap(), [2, 3, 4]);
}
