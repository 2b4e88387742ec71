//! From scores to what each token was worth.
//!
//! | algorithm | baseline | KL penalty | whitened |
//! |---|---|---|---|
//! | `ppo`, `a2c` | critic, GAE(λ) | token | yes |
//! | `reinforce` | critic, λ = 1 | token; the score counts 1 − β | no |
//! | `rloo` | the prompt's other scores | sequence | no |
//! | `grpo` | mean of the prompt's scores, by their deviation | loss | no |
//! | `reinforce_plus_plus` | none | token | yes |
//! | `reinforce_baseline` | mean of the prompt's scores | token | yes |

use std::ops::Range;

use rlaif_core::config::{Algorithm, KlPlace, PpoConfig, ScaleRewards};

use crate::math::group::{centred, discounted_returns, leave_one_out, standard_deviation};
use crate::math::{Mean, Variance, gae, kl_estimate, whiten};
use crate::rollout::Experience;

/// Fills in advantages, and with a critic rewards and returns, from scores, log-probs and values.
pub fn assign_advantages(experiences: &mut [Experience], kl_coef: f64, config: &PpoConfig) {
    if config.algorithm.has_critic() {
        assign_rewards(experiences, kl_coef, config);
        estimate_advantages(experiences, config);
    } else if config.algorithm != Algorithm::OnlineDpo {
        compare_responses(experiences, kl_coef, config);
    }
}

/// Token rewards: −kl_coef · k_t at each token where the penalty is there, and the score at the last value.
pub fn assign_rewards(experiences: &mut [Experience], kl_coef: f64, config: &PpoConfig) {
    let (kl_coef, share) = match (config.kl_place(), config.algorithm) {
        (KlPlace::Token, Algorithm::Reinforce) => (kl_coef, 1.0 - kl_coef), // Lee et al. 2023, section 3.2
        (KlPlace::Token, _) => (kl_coef, 1.0),
        _ => (0.0, 1.0),
    };
    for experience in experiences {
        let mut rewards = penalties(experience, kl_coef, config);
        rewards.resize(experience.values.len(), 0.0);
        *rewards.last_mut().expect("a response has at least one token") += share * experience.score;
        experience.rewards = rewards;
    }
}

/// Returns and advantages from rewards and values.
pub fn estimate_advantages(experiences: &mut [Experience], config: &PpoConfig) {
    if config.whiten_rewards {
        let mut rewards: Vec<Vec<f64>> =
            experiences.iter_mut().map(|e| std::mem::take(&mut e.rewards)).collect();
        whiten(&mut rewards, Variance::Bessel, Mean::Keep);
        experiences.iter_mut().zip(rewards).for_each(|(e, rewards)| e.rewards = rewards);
    }
    let lambda = if config.algorithm == Algorithm::Reinforce { 1.0 } else { config.lambda };
    let mut advantages = Vec::with_capacity(experiences.len());
    for experience in experiences.iter_mut() {
        let (mut advantage, returns) = gae(&experience.rewards, &experience.values, config.gamma, lambda);
        advantage.truncate(experience.response_ids.len()); // the policy did nothing at the value after the last token
        experience.returns = returns;
        advantages.push(advantage);
    }
    if config.whiten_advantages() {
        whiten(&mut advantages, Variance::Bessel, Mean::Remove);
    }
    experiences.iter_mut().zip(advantages).for_each(|(e, advantages)| e.advantages = advantages);
}

/// Advantages without a critic: scores against the other responses of the prompt, or as they are.
fn compare_responses(experiences: &mut [Experience], kl_coef: f64, config: &PpoConfig) {
    let place = config.kl_place();
    let scores: Vec<f64> = experiences
        .iter()
        .map(|experience| match place {
            KlPlace::Sequence => {
                experience.score + penalties(experience, kl_coef, config).iter().sum::<f64>()
            }
            KlPlace::Token | KlPlace::Loss => experience.score,
        })
        .collect();
    let mut worth = Vec::with_capacity(scores.len());
    for group in groups(experiences) {
        let group = &scores[group];
        match config.algorithm {
            Algorithm::Rloo => worth.extend(leave_one_out(group)),
            Algorithm::ReinforceBaseline => worth.extend(centred(group)),
            Algorithm::Grpo => {
                let divisor = match config.scale_rewards {
                    ScaleRewards::Group => standard_deviation(group) + config.advantage_epsilon,
                    ScaleRewards::Batch => standard_deviation(&scores) + config.advantage_epsilon,
                    ScaleRewards::None => 1.0,
                };
                worth.extend(centred(group).into_iter().map(|above| above / divisor));
            }
            _ => worth.extend_from_slice(group),
        }
    }
    if place != KlPlace::Token && config.whiten_advantages() {
        // Over responses, as TRL's `normalize_advantages`.
        let divisor = standard_deviation(&worth) + config.advantage_epsilon;
        worth = centred(&worth).into_iter().map(|above| above / divisor).collect();
    }
    let mut advantages: Vec<Vec<f64>> = experiences
        .iter()
        .zip(&worth)
        .map(|(experience, worth)| match place {
            KlPlace::Token => {
                let mut rewards = penalties(experience, kl_coef, config);
                *rewards.last_mut().expect("a response has at least one token") += worth;
                discounted_returns(&rewards, config.gamma)
            }
            KlPlace::Sequence | KlPlace::Loss => vec![*worth; experience.response_ids.len()],
        })
        .collect();
    if place == KlPlace::Token && config.whiten_advantages() {
        whiten(&mut advantages, Variance::Bessel, Mean::Remove);
    }
    experiences.iter_mut().zip(advantages).for_each(|(e, advantages)| e.advantages = advantages);
}

/// For `online_dpo`: the best and the worst response of each prompt, as places in `experiences`; none where all are worth the same.
pub fn best_and_worst(experiences: &[Experience]) -> Vec<(usize, usize)> {
    groups(experiences)
        .into_iter()
        .filter_map(|group| {
            let by_score = |a: &usize, b: &usize| experiences[*a].score.total_cmp(&experiences[*b].score);
            let (best, worst) = (group.clone().rev().max_by(by_score)?, group.min_by(by_score)?); // the first of equals
            (experiences[best].score > experiences[worst].score).then_some((best, worst))
        })
        .collect()
}

/// The responses of each prompt, as ranges over `experiences`.
pub(crate) fn groups(experiences: &[Experience]) -> Vec<Range<usize>> {
    let mut start = 0;
    experiences
        .chunk_by(|a, b| a.group == b.group)
        .map(|group| {
            start += group.len();
            start - group.len()..start
        })
        .collect()
}

/// −kl_coef · k_t of each token, `[T]`.
pub(crate) fn penalties(experience: &Experience, kl_coef: f64, config: &PpoConfig) -> Vec<f64> {
    let tokens = experience.old_logprobs.iter().zip(&experience.ref_logprobs);
    tokens.map(|(old, re)| -kl_coef * kl_estimate(config.kl_estimator(), *old, *re)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::tests::assert_close;
    use rlaif_core::config::ScorePlacement;

    fn experience(has_last_value: bool) -> Experience {
        let mut values = vec![0.5, 0.6, 0.9, 1.4];
        values.extend(has_last_value.then_some(0.3));
        Experience {
            prompt_ids: vec![1],
            response_ids: vec![2, 3, 4, 5],
            has_last_value,
            old_logprobs: vec![-1.0, -0.5, -2.0, -0.1],
            ref_logprobs: vec![-1.2, -0.4, -1.5, -0.1],
            values,
            score: 2.0,
            ..Experience::default()
        }
    }

    /// Two prompts: the parity table's scores, and one response alone.
    fn rollout() -> Vec<Experience> {
        [(1.0, 0), (0.0, 0), (0.5, 0), (2.0, 0), (7.0, 1)]
            .map(|(score, group)| Experience { score, group, ..experience(false) })
            .to_vec()
    }

    fn advantages(config: &PpoConfig) -> Vec<Vec<f64>> {
        let mut rollout = rollout();
        assign_advantages(&mut rollout, config.kl_coef(), config);
        rollout.into_iter().map(|e| e.advantages).collect()
    }

    fn of(algorithm: Algorithm) -> PpoConfig {
        PpoConfig { algorithm, ..PpoConfig::default() }
    }

    #[test]
    fn parity_vector_of_rewards_and_whitened_advantages() {
        let mut rollout = [experience(false)];
        assign_advantages(&mut rollout, 0.05, &PpoConfig::default());
        assert_close(&rollout[0].rewards, &[-0.01, 0.005, 0.025, 2.0]);
        assert_close(&rollout[0].returns, &[1.8679875, 1.94525, 1.995, 2.0]);
        assert_close(&rollout[0].advantages, &[0.7452613633, 0.6815397083, -0.0197838399, -1.4070172317]);
        assert_close(&[rollout[0].kl()], &[0.2 - 0.1 - 0.5]);
    }

    #[test]
    fn trl_places_the_score_after_the_last_token() {
        let mut rollout = [experience(true)];
        assign_advantages(&mut rollout, 0.05, &PpoConfig::default());
        assert_close(&rollout[0].rewards, &[-0.01, 0.005, 0.025, 0.0, 2.0]);
        assert_eq!((rollout[0].advantages.len(), rollout[0].returns.len()), (4, 5));
        assert_close(&rollout[0].returns[4..], &[2.0]);
        let config = PpoConfig { score_placement: ScorePlacement::AfterLast, ..PpoConfig::default() };
        assert!(Experience::new(vec![1], vec![2; 3], true, &config, 4).has_last_value);
        assert!(!Experience::new(vec![1], vec![2; 4], true, &config, 4).has_last_value);
    }

    #[test]
    fn reinforce_takes_the_whole_return_above_the_value() {
        let mut rollout = [experience(false)];
        assign_advantages(&mut rollout, 0.05, &of(Algorithm::Reinforce));
        // (1 − β) · 2.0 and what KL is still to come: 0.01 − 0.005 − 0.025 of it before the last token.
        let left = [-0.01 + 0.005 + 0.025, 0.005 + 0.025, 0.025, 0.0];
        let returns = left.map(|penalty| 0.95 * 2.0 + penalty);
        assert_close(&rollout[0].returns, &returns);
        let above: Vec<f64> = returns.iter().zip(&rollout[0].values).map(|(g, v)| g - v).collect();
        assert_close(&rollout[0].advantages, &above);
    }

    #[test]
    fn parity_vectors_of_scores_within_a_prompt() {
        let first = |config: &PpoConfig| advantages(config).iter().map(|a| a[0]).collect::<Vec<_>>();
        let grpo = |scale_rewards| PpoConfig { scale_rewards, ..of(Algorithm::Grpo) };
        let no_leash = PpoConfig { kl_coef: Some(0.0), ..of(Algorithm::Rloo) };
        assert_close(&first(&no_leash), &[0.1666666667, -1.1666666667, -0.5, 1.5, 0.0]);
        // The same for every response here: KL −0.4, which the other responses have as well.
        assert_close(&first(&of(Algorithm::Rloo)), &[0.1666666667, -1.1666666667, -0.5, 1.5, 0.0]);
        assert_close(
            &first(&grpo(ScaleRewards::Group)),
            &[0.1463678701, -1.0245750906, -0.4391036103, 1.3173108308, 0.0],
        );
        let verl = PpoConfig { advantage_epsilon: 1e-6, ..grpo(ScaleRewards::Group) };
        assert_close(&first(&verl), &[0.1463848395, -1.0246938766, -0.4391545185, 1.3174635556, 0.0]);
        assert_close(&first(&grpo(ScaleRewards::None)), &[0.125, -0.875, -0.375, 1.125, 0.0]);
        let deviation = standard_deviation(&[1.0, 0.0, 0.5, 2.0, 7.0]) + 1e-4;
        assert_close(&first(&grpo(ScaleRewards::Batch))[..1], &[0.125 / deviation]);
    }

    #[test]
    fn the_penalty_counts_once_wherever_it_is() {
        let mut rollout = rollout();
        rollout[0].ref_logprobs = vec![-2.0, -0.5, -2.0, -0.1]; // KL 1 at its first token
        let mut at = |config: PpoConfig| {
            assign_advantages(&mut rollout, 0.1, &config);
            rollout[0].advantages.clone()
        };
        let rloo = of(Algorithm::Rloo);
        let mean_of_others = (2.5 + 3.0 * 0.1 * 0.4) / 3.0; // each has KL −0.4
        assert_close(&at(rloo.clone()), &[1.0 - 0.1 - mean_of_others; 4]);
        let openrlhf = PpoConfig { kl_place: Some(KlPlace::Token), ..rloo };
        assert_close(&at(openrlhf), &[0.1666666667 - 0.1, 0.1666666667, 0.1666666667, 0.1666666667]);
        assert_close(&at(of(Algorithm::Grpo))[..1], &[0.1463678701]);
    }

    #[test]
    fn returns_without_a_critic_are_whitened_over_the_rollout() {
        for algorithm in [Algorithm::ReinforcePlusPlus, Algorithm::ReinforceBaseline] {
            let whitened = advantages(&of(algorithm)).concat();
            let plain = advantages(&PpoConfig { whiten_advantages: Some(false), ..of(algorithm) });
            let score = if algorithm == Algorithm::ReinforceBaseline { 0.125 } else { 1.0 };
            assert_close(&plain[0], &[score + 0.02, score + 0.03, score + 0.025, score]);
            let (mean, deviation) =
                (plain.concat().iter().sum::<f64>() / 20.0, standard_deviation(&plain.concat()));
            let by_hand: Vec<f64> = plain.concat().iter().map(|a| (a - mean) / deviation).collect();
            whitened.iter().zip(&by_hand).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{a} {b}"));
        }
    }

    #[test]
    fn the_best_meets_the_worst_and_equals_meet_nobody() {
        let mut rollout = rollout();
        assert_eq!(best_and_worst(&rollout), [(3, 1)]);
        rollout[..4].iter_mut().for_each(|e| e.score = 1.0);
        assert_eq!(best_and_worst(&rollout), []);
    }
}
