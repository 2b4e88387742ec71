//! The learning rate over the steps of a run.

use rlaif_core::config::{OptimConfig, Schedule};

/// Learning rate of optimizer step `step` (from 0) of `total`.
///
/// Warm-up takes ceil(warmup_ratio · total) steps, as in transformers, but rises from `1 / (warmup + 1)` of the peak instead of
/// 0: the first step of a short run is then not lost. After it, linear and cosine fall towards `min_lr_ratio` of the peak at `total`, as
/// transformers' `cosine_with_min_lr`.
pub fn learning_rate(config: &OptimConfig, step: u64, total: u64) -> f64 {
    let warmup = (config.warmup_ratio * total as f64).ceil() as u64;
    if step < warmup {
        return config.learning_rate * (step + 1) as f64 / (warmup + 1) as f64;
    }
    let progress = (step - warmup) as f64 / (total.saturating_sub(warmup)).max(1) as f64;
    let factor = match config.schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - progress,
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
    };
    let floor = if config.schedule == Schedule::Constant { 0.0 } else { config.min_lr_ratio };
    config.learning_rate * (factor.max(0.0) * (1.0 - floor) + floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, warmup_ratio: f64, total: u64) -> Vec<f64> {
        let config = OptimConfig { schedule, warmup_ratio, learning_rate: 1.0, ..OptimConfig::default() };
        (0..total).map(|step| (learning_rate(&config, step, total) * 1000.0).round() / 1000.0).collect()
    }

    #[test]
    fn warm_up_then_down() {
        assert_eq!(rates(Schedule::Linear, 0.0, 4), [1.0, 0.75, 0.5, 0.25]);
        assert_eq!(rates(Schedule::Linear, 0.3, 6), [0.333, 0.667, 1.0, 0.75, 0.5, 0.25]);
        assert_eq!(rates(Schedule::Cosine, 0.0, 4), [1.0, 0.854, 0.5, 0.146]);
        assert_eq!(rates(Schedule::Constant, 0.25, 4), [0.5, 1.0, 1.0, 1.0]);
        assert_eq!(rates(Schedule::Linear, 1.0, 1), [0.5], "a run of one step learns something");
    }
}
