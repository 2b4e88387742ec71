//! Ensembles of whole reward models, Coste et al. 2023 (<https://arxiv.org/abs/2310.02743>): trainings of one recipe that differ in their
//! seed, whose mean is the reward and whose disagreement tells how far it can be trusted.
//!
//! ```text
//! DIR/members/1 … DIR/members/k−1    all but the last, each a reward model in the Hugging Face layout
//! DIR                                the last one, saved last: a folder with weights is a whole ensemble, and of one model just that model
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use rlaif_core::config::RewardConfig;
use rlaif_core::seed;
use rlaif_model::{Decoder, ScalarHead};

use crate::data::{HoldoutPair, PreferenceExample, split_by_prompt, truncated_negatives};
use crate::error::{Result, TrainError};
use crate::reward_trainer::{DataOrder, items_of, margins};
use crate::score::{Scored, Scorer};

/// What the randomness of a reward model follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeds {
    /// Which pairs are held out: the same of every member, or the ensemble would have none.
    pub holdout: u64,
    /// The order of the data, the adapters, their dropout, cut negatives, and which pairs a head learns from.
    pub training: u64,
}

impl Seeds {
    /// Of member `number` of `members`, from 1. The last is the model that a run without an ensemble trains.
    pub fn of_member(run_seed: u64, number: usize, members: usize) -> Self {
        let training = match number == members {
            true => run_seed,
            false => seed::derive(run_seed, "reward/member", number as u64),
        };
        Self { holdout: run_seed, training }
    }
}

impl From<u64> for Seeds {
    fn from(run_seed: u64) -> Self {
        Self { holdout: run_seed, training: run_seed }
    }
}

/// Refuses an ensemble of which two members would be the same model.
///
/// A head starts at zero and a model at the policy, so without adapters, several heads or cut negatives members differ only in which
/// pairs meet in a step.
///
/// # Errors
/// If no step of two members differs.
pub fn check_members(data: &[PreferenceExample], config: &RewardConfig, run_seed: u64) -> Result<()> {
    if config.members < 2 || config.lora.is_some() || config.heads > 1 {
        return Ok(());
    }
    let (train, _) = split_by_prompt(data, config.holdout_fraction, run_seed);
    let seeds: Vec<u64> = (1..=config.members)
        .map(|number| Seeds::of_member(run_seed, number, config.members).training)
        .collect();
    let cuts: Vec<Vec<PreferenceExample>> =
        seeds.iter().map(|&seed| truncated_negatives(&train, config.truncated_negatives, seed)).collect();
    let orders: Vec<DataOrder<'_>> = seeds
        .iter()
        .zip(&cuts)
        .map(|(&seed, cut)| DataOrder::new(train.iter().copied().chain(cut), config, seed))
        .collect();
    let pairs_of = |member: usize, step| orders[member].step(step).into_iter().collect::<BTreeSet<_>>();
    let same = |a: usize, b: usize| {
        cuts[a] == cuts[b] && (0..orders[a].total).all(|step| pairs_of(a, step) == pairs_of(b, step))
    };
    for second in 1..config.members {
        if let Some(first) = (0..second).find(|&first| same(first, second)) {
            return Err(TrainError::SameMembers {
                first: first + 1,
                second: second + 1,
                pairs: train.len(),
                batch_size: config.batch_size,
            });
        }
    }
    Ok(())
}

/// Where member `number` of `members` is, from 1.
pub fn member_folder(dir: &Path, number: usize, members: usize) -> PathBuf {
    match number == members {
        true => dir.to_path_buf(),
        false => dir.join("members").join(number.to_string()),
    }
}

/// The folders of all members of a reward model, the last of which is `dir`; `dir` alone if it is a single model.
///
/// # Errors
/// If a member before the last is missing, or the folder cannot be listed.
pub fn member_folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let all = dir.join("members");
    let count = match std::fs::read_dir(&all) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(TrainError::io("list", &all)(error)),
        Ok(entries) => entries.count(),
    };
    let folders: Vec<PathBuf> = (1..=count + 1).map(|number| member_folder(dir, number, count + 1)).collect();
    match folders.iter().find(|folder| !folder.is_dir()) {
        None => Ok(folders),
        Some(missing) => {
            let source = std::io::Error::new(
                std::io::ErrorKind::NotFound,
                format!("`{}` has {count} entries and not this one", all.display()),
            );
            Err(TrainError::io("open", missing)(source))
        }
    }
}

/// Loads every member with `load`, [`load_reward_model`](crate::load_reward_model) or
/// [`load_reward_heads`](crate::load_reward_heads).
///
/// # Errors
/// If a member is missing or cannot be read.
pub fn load_members(
    dir: &Path,
    device: &Device,
    load: impl Fn(&Path, &Device) -> Result<(Decoder, ScalarHead)>,
) -> Result<Vec<(Decoder, ScalarHead)>> {
    member_folders(dir)?.iter().map(|folder| load(folder, device)).collect()
}

/// What an ensemble says about held-out pairs, and what each of its members does.
///
/// # Errors
/// If a pair cannot go through a model.
pub fn evaluate_members(
    scorer: &Scorer,
    pairs: &[&PreferenceExample],
) -> Result<(Vec<HoldoutPair>, Vec<Vec<HoldoutPair>>)> {
    let by_member = scorer.by_member(&items_of(pairs))?;
    let members = by_member.first().map_or(0, Vec::len);
    let alone = |member: usize| {
        let rewards: Vec<f64> = by_member.iter().map(|says| says[member]).collect();
        margins(pairs, &rewards)
    };
    Ok((held_out(pairs, &by_member), (0..members).map(alone).collect()))
}

/// Held-out pairs from what the members, or heads, say of [`items_of`] them.
pub(crate) fn held_out(pairs: &[&PreferenceExample], by_member: &[Vec<f64>]) -> Vec<HoldoutPair> {
    let rewards: Vec<f64> = by_member.iter().map(|says| Scored::of(says).reward).collect();
    let mut held_out = margins(pairs, &rewards);
    for (pair, says) in held_out.iter_mut().zip(by_member.chunks(2)) {
        let margins: Vec<f64> = says[0].iter().zip(&says[1]).map(|(c, r)| c - r).collect();
        pair.uncertainty = Scored::of(&margins).uncertainty;
    }
    held_out
}
