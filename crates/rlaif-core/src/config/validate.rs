//! What a config must hold beyond its types: ranges, and keys that must agree. All problems at once, in the words of the file.

mod evaluate;
mod route;
mod watch;

use super::{
    Algorithm, BatchBy, Config, DpoConfig, DpoLossKind, EnsembleReward, JudgeConfig, JudgeKind, KlController,
    KlPlace, LoraConfig, OptimConfig, PairChoice, PpoConfig, Protocol, RatioLevel, RewardKind, RewardSource,
    RouteRule, Stage, StructuredOutput,
};
use crate::audit;
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::path::PathBuf;

/// One thing that is wrong with a config.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The dotted key it is about, such as `ppo.kl_coef`; empty for the file as a whole.
    pub key: String,
    /// One sentence: "`ppo.kl_coef` must be at least 0, got -0.1".
    pub message: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Heads of a reward model: more tell nothing new, since they read the same trunk.
const MOST_HEADS: usize = 64;

/// Members of an ensemble: each is a whole training, and all are in memory while they score.
const MOST_MEMBERS: usize = 16;

/// Devices that a build may have.
const DEVICES: [&str; 7] = ["auto", "cpu", "wgpu", "vulkan", "metal", "rocm", "cuda"];

/// Projections that can carry an adapter, in Llama's words and in those of OPT, GPT-2 and GPT-NeoX; which of them a model has is
/// known when it is opened.
const LORA_TARGETS: [&str; 17] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "out_proj",
    "fc1",
    "fc2",
    "c_attn",
    "c_proj",
    "c_fc",
    "query_key_value",
    "dense",
    "dense_h_to_4h",
    "dense_4h_to_h",
];

impl Config {
    /// Every problem of this config; none for one that can be run.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Checks::default();
        self.check_run(&mut check);
        self.check_revise(&mut check);
        self.check_sft(&mut check);
        self.check_generate(&mut check);
        self.check_label(&mut check);
        self.check_prices(&mut check);
        self.check_preference_trainers(&mut check);
        check_ppo(&mut check, &self.ppo);
        self.check_ensemble(&mut check);
        self.check_rewards(&mut check);
        self.check_watches(&mut check);
        self.check_review(&mut check);
        self.check_route(&mut check);
        self.check_evaluate(&mut check);
        self.check_lengths(&mut check);
        check.problems
    }

    fn runs(&self, stage: Stage) -> bool {
        self.run.stages.contains(&stage)
    }

    fn check_run(&self, check: &mut Checks) {
        let run = &self.run;
        if run.name.is_empty() || run.name.starts_with('.') || run.name.contains(['/', '\\', '\0']) {
            check.add("run.name", format!("must be the name of a folder, got {:?}", run.name));
        }
        if run.dir.as_os_str().is_empty() {
            check.add("run.dir", "must not be empty".into());
        }
        if run.stages.is_empty() {
            check.add("run.stages", "must name at least one stage".into());
        }
        for two in run.stages.windows(2) {
            let (before, after) = (two[0].name(), two[1].name());
            if two[0] == two[1] {
                check.add("run.stages", format!("names `{before}` twice"));
            } else if two[0] > two[1] {
                check.add(
                    "run.stages",
                    format!("must keep the pipeline's order: `{after}` runs before `{before}`"),
                );
            }
        }
        if !DEVICES.contains(&run.device.as_str()) {
            check.add("run.device", format!("must be one of {}, got {:?}", list(&DEVICES), run.device));
        }
        for stage in Stage::JUDGING {
            if let Some(max_usd) = run.max_usd_per_stage.of(stage) {
                check.at_least(&format!("run.max_usd_per_stage.{}", stage.name()), max_usd, 0.0);
            }
        }
        check.at_least("run.drain_seconds", run.drain_seconds, 0.0);
        if self.policy.model.trim().is_empty() {
            check.add("policy.model", "must not be empty".into());
        }
        check.at_least("policy.max_length", self.policy.max_length, 2);
        if self.policy.origin.as_ref().is_some_and(|origin| origin.trim().is_empty()) {
            check.add("policy.origin", "must not be empty".into());
        }
        if self.prompts.train.as_os_str().is_empty() {
            check.add("prompts.train", "must not be empty".into());
        }
        check.share("prompts.eval_fraction", self.prompts.eval_fraction, Ends::ZeroOnly);
        if self.runs(Stage::Evaluate) && self.prompts.eval.is_none() && self.prompts.eval_fraction == 0.0 {
            check.add(
                "prompts.eval_fraction",
                "must be above 0 where `prompts.eval` is not given, got 0".into(),
            );
        }
        if self.prompts.split_seed.is_some() && self.prompts.eval.is_some() {
            check.add("prompts.split_seed", "splits nothing where `prompts.eval` is given".into());
        }
        if let Some(limit) = self.prompts.limit {
            check.at_least("prompts.limit", limit, 1);
        }
    }

    fn check_revise(&self, check: &mut Checks) {
        let revise = &self.revise;
        if revise.rounds == 0 && self.runs(Stage::Revise) && self.run.stages != Stage::ALL {
            check.add("revise.rounds", "must be at least 1 where `run.stages` has `revise`, got 0".into());
        }
        check.at_least("revise.temperature", revise.temperature, 0.0);
        if let Some(max_new_tokens) = revise.max_new_tokens {
            check.at_least("revise.max_new_tokens", max_new_tokens, 1);
        }
        check.at_least("revise.batch_size", revise.batch_size, 1);
        for (index, principle) in revise.principles.iter().enumerate() {
            for (name, text) in [
                ("name", &principle.name),
                ("critique", &principle.critique),
                ("revision", &principle.revision),
            ] {
                if text.trim().is_empty() {
                    check.add(&format!("revise.principles[{index}].{name}"), "must not be empty".into());
                }
            }
        }
    }

    fn check_sft(&self, check: &mut Checks) {
        let sft = &self.sft;
        let runs = self.runs(Stage::Sft) && self.run.stages != Stage::ALL;
        if runs && !self.stages().contains(&Stage::Sft) {
            check.add(
                "sft.data",
                "must name at least one file where `run.stages` has `sft` and not `revise`".into(),
            );
        }
        if sft.data.iter().any(|path| path.as_os_str().is_empty()) {
            check.add("sft.data", "must not name an empty path".into());
        }
        check.at_least("sft.epochs", sft.epochs, 1);
        check.batches("sft", sft.batch_size, sft.micro_batch_size);
        check.at_least("sft.max_length", sft.max_length, 2);
        if let Some(alpha) = sft.neftune_noise_alpha {
            check.above("sft.neftune_noise_alpha", alpha, 0.0);
        }
        check.share("sft.holdout_fraction", sft.holdout_fraction, Ends::ZeroOnly);
        check.at_least("sft.save_steps", sft.save_steps, 1);
        check_optim(check, "sft.optim", &sft.optim);
        check_lora(check, "sft.lora", sft.lora.as_ref());
    }

    fn check_generate(&self, check: &mut Checks) {
        let generate = &self.generate;
        check.at_least("generate.n", generate.n, 1);
        check.at_least("generate.temperature", generate.temperature, 0.0);
        check.share("generate.top_p", generate.top_p, Ends::OneOnly);
        check.share("generate.min_distance", generate.min_distance, Ends::Both);
        check.at_least("generate.max_new_tokens", generate.max_new_tokens, 1);
        check.at_least("generate.batch_size", generate.batch_size, 1);
        for (index, system) in generate.systems.iter().enumerate() {
            if system.trim().is_empty() {
                check.add(&format!("generate.systems[{index}]"), "must not be empty".into());
            }
        }
        if generate.systems.len() > generate.n && generate.n > 0 {
            let (n, got) = (generate.n, generate.systems.len());
            check.add(
                "generate.systems",
                format!(
                    "must be at most `generate.n` = {n}: each response is sampled under one of them, got {got}"
                ),
            );
        }
        if !self.runs(Stage::Label) {
            return;
        }
        if generate.n == 1 {
            check.add(
                "generate.n",
                "must be at least 2 where `label` runs: a pair needs two responses, got 1".into(),
            );
        } else if generate.temperature == 0.0 {
            let message = "must be above 0 where `label` runs: greedy responses are all the same, got 0";
            check.add("generate.temperature", message.into());
        }
    }

    fn check_label(&self, check: &mut Checks) {
        let label = &self.label;
        check.at_least("label.pairs_per_prompt", label.pairs_per_prompt, 1);
        let n = self.generate.n;
        let most = n.saturating_mul(n.saturating_sub(1)) / 2;
        if n >= 2 && label.pairs_per_prompt > most && self.runs(Stage::Label) {
            let got = label.pairs_per_prompt;
            let message =
                format!("must be at most {most}, the pairs of `generate.n` = {n} responses, got {got}");
            check.add("label.pairs_per_prompt", message);
        }
        check.share("label.position_check_rate", label.position_check_rate, Ends::Both);
        check.at_least("label.tie_margin", label.tie_margin, 0.0);
        if label.tie_margin >= 0.5 {
            check.add("label.tie_margin", format!("must be below 0.5, got {}", label.tie_margin));
        }
        check.at_least("label.max_response_chars", label.max_response_chars, 1);
        check.share("label.tripwire_rate", label.tripwire_rate, Ends::Both);
        check.share("label.tripwire_max_win_rate", label.tripwire_max_win_rate, Ends::Both);
        check.at_least("audit.per_family", self.audit.per_family, 1);
        check.share("audit.max_bad_win_rate", self.audit.max_bad_win_rate, Ends::Both);
        check.at_least("audit.repeat_pairs", self.audit.repeat_pairs, 1);
        check.at_least("audit.repeat_times", self.audit.repeat_times, 2);
        self.check_bounds(check);
        self.check_bias(check);
        check.at_least("label.vote_smoothing", label.vote_smoothing, 0.0);
        self.check_panel(check);
        if let Some(max_usd) = label.max_usd {
            check.at_least("label.max_usd", max_usd, 0.0);
        }
        if label.judges.is_empty() && self.runs(Stage::Label) {
            check.add("label.judges", "must name at least one judge where `label` runs".into());
        }
        check_judges(check, self, "label.judges", &label.judges);
        self.check_asking(check);
        if label.max_usd.is_some() {
            for (index, judge) in label.judges.iter().enumerate() {
                if judge.kind.is_remote() && self.price_of(judge).is_none() && judge.allow_unknown_price {
                    let key = format!("label.judges[{index}].allow_unknown_price");
                    check.add(
                        &key,
                        "cannot be true with `label.max_usd`: an unknown price keeps no budget".into(),
                    );
                }
            }
        }
    }

    /// What is filled into the templates of judges.
    fn check_asking(&self, check: &mut Checks) {
        let label = &self.label;
        let judges = || label.judges.iter().chain(self.evaluate.judges.iter().flatten());
        let asks = |template: &str| judges().any(|judge| judge.templates().contains(&template));
        let asked = judges().any(|judge| judge.protocol != Protocol::Contrastive);
        if asked && label.criteria.iter().all(|criterion| criterion.name.trim().is_empty()) {
            check.add("label.criteria", "must name at least one criterion for a judge that is asked".into());
        }
        let mut names = BTreeSet::new();
        for (index, criterion) in label.criteria.iter().enumerate() {
            let name = criterion.name.trim();
            if !name.is_empty() && !names.insert(name.to_lowercase()) {
                check.add(&format!("label.criteria[{index}]"), format!("names {name:?} again"));
            }
        }
        if asks("constitution") && label.principles.iter().all(|principle| principle.trim().is_empty()) {
            let message = "must hold at least one text for the template `constitution`";
            check.add("label.principles", message.into());
        }
        if let Some(n) = label.few_shot_n
            && n > label.few_shot.len()
        {
            let message = format!(
                "must be at most {}, the examples of `label.few_shot`, got {n}",
                label.few_shot.len()
            );
            check.add("label.few_shot_n", message);
        }
    }

    fn check_prices(&self, check: &mut Checks) {
        for (model, price) in &self.prices {
            let key = |name: &str| format!("prices.{model}.{name}");
            for (name, dollars) in [
                ("input", Some(price.input)),
                ("output", Some(price.output)),
                ("cached_input", price.cached_input),
                ("cache_write", price.cache_write),
                ("cache_write_1h", price.cache_write_1h),
            ] {
                if let Some(dollars) = dollars {
                    check.at_least(&key(name), dollars, 0.0);
                }
            }
        }
    }

    fn check_bounds(&self, check: &mut Checks) {
        for (name, bound) in &self.audit.bounds {
            let key = format!("audit.bounds.{name}");
            if audit::measure(name).is_none() {
                let known: Vec<&str> = audit::MEASURES.iter().map(|(name, ..)| *name).collect();
                check.add(&key, format!("is no measure of an audit; there are {}", known.join(", ")));
            }
            if name.starts_with("bias_") {
                check.add(&key, "is what `audit.bias_margin` says".into());
            }
            if name == "bad_win_rate" {
                check.add(&key, "is what `audit.max_bad_win_rate` says".into());
            }
            match (bound.min, bound.max) {
                (None, None) => check.add(&key, "must have `min` or `max`".into()),
                (Some(min), Some(max)) if min > max => {
                    check.add(&key, format!("allows nothing: min {min} is above max {max}"));
                }
                (min, max) if min.into_iter().chain(max).any(|end| !end.is_finite()) => {
                    check.add(&key, "must be finite".into());
                }
                _ => {}
            }
        }
    }

    fn check_bias(&self, check: &mut Checks) {
        let audit = &self.audit;
        let margin = &audit.bias_margin;
        check.above("audit.bias_margin.judge", margin.judge, 0.0);
        if margin.judge >= 0.5 {
            check.add("audit.bias_margin.judge", format!("must be below 0.5, got {}", margin.judge));
        }
        check.above("audit.bias_margin.reward", margin.reward, 0.0);
        check.above("audit.bias_margin.policy", margin.policy, 0.0);
        check.above("audit.bias_margin.sampled", margin.sampled, 0.0);
        check.at_least("audit.bias_per_contrast", audit.bias_per_contrast, 2);
        check.at_least("audit.bias_max_new_tokens", audit.bias_max_new_tokens, 1);
    }

    /// What panels, cascades and the choice of pairs need.
    fn check_panel(&self, check: &mut Checks) {
        let label = &self.label;
        if label.max_pairs == Some(0) {
            check.add("label.max_pairs", "must be at least 1, got 0".into());
        }
        if label.pair_choice == PairChoice::LeastSure && label.max_pairs.is_none() {
            let message =
                "must be given with `label.pair_choice` = \"least_sure\": without a limit every pair goes on";
            check.add("label.max_pairs", message.into());
        }
        if label.aggregation.is_fitted() && label.calibration.is_none() && label.judges.len() < 3 {
            // How often two agree does not tell which of them is right more often.
            let message = "needs labelled pairs in `label.calibration`, or at least three judges that can be measured by each other";
            check.add("label.aggregation", message.into());
        }
        if let Some(first) = label.judges.first().filter(|judge| judge.only_if_unsure_below.is_some()) {
            let message =
                format!("cannot be given for the first judge, {:?}: nobody comes before it", first.name);
            check.add("label.judges[0].only_if_unsure_below", message);
        }
    }

    fn check_preference_trainers(&self, check: &mut Checks) {
        let reward = &self.reward;
        check.at_least("reward.epochs", reward.epochs, 1);
        check_files(check, "reward.data", &reward.data);
        check_files(check, "dpo.data", &self.dpo.data);
        for (stage, revisions) in [(Stage::Reward, reward.revisions), (Stage::Dpo, self.dpo.revisions)] {
            if revisions && self.runs(stage) && !self.stages().contains(&Stage::Revise) {
                let message = "can be true only where the run has a stage `revise`: set `revise.rounds`";
                check.add(&format!("{}.revisions", stage.name()), message.into());
            }
        }
        match reward.batch_by {
            BatchBy::Pairs => check.batches("reward", reward.batch_size, reward.micro_batch_size),
            // A prompt has any number of pairs.
            BatchBy::Prompts => {
                check.at_least("reward.batch_size", reward.batch_size, 1);
                check.at_least("reward.micro_batch_size", reward.micro_batch_size, 1);
            }
        }
        if !(0.0..0.5).contains(&reward.label_smoothing) {
            let got = reward.label_smoothing;
            check.add("reward.label_smoothing", format!("must be at least 0 and below 0.5, got {got}"));
        }
        if !(1..=MOST_HEADS).contains(&reward.heads) {
            check.add("reward.heads", format!("must be 1 to {MOST_HEADS}, got {}", reward.heads));
        }
        if !(1..=MOST_MEMBERS).contains(&reward.members) {
            check.add("reward.members", format!("must be 1 to {MOST_MEMBERS}, got {}", reward.members));
        }
        check.share("reward.truncated_negatives", reward.truncated_negatives, Ends::Both);
        check.at_least("reward.center_rewards_coefficient", reward.center_rewards_coefficient, 0.0);
        check.share("reward.holdout_fraction", reward.holdout_fraction, Ends::ZeroOnly);
        check.at_least("reward.save_steps", reward.save_steps, 1);
        check_optim(check, "reward.optim", &reward.optim);
        check_lora(check, "reward.lora", reward.lora.as_ref());
        check_dpo(check, &self.dpo);
    }

    fn check_ensemble(&self, check: &mut Checks) {
        let (reward, ppo) = (&self.reward, &self.ppo);
        if ppo.ensemble != EnsembleReward::Mean && reward.members == 1 && reward.heads == 1 {
            let message = "must be \"mean\" unless `reward.members` or `reward.heads` is above 1: one model has nobody to disagree with";
            check.add("ppo.ensemble", message.into());
        }
        check.at_least("ppo.uncertainty_weight", ppo.uncertainty_weight, 0.0);
        let given = ppo.uncertainty_weight != PpoConfig::default().uncertainty_weight;
        if given && ppo.ensemble != EnsembleReward::UncertaintyWeighted {
            let message = "is read only with `ppo.ensemble` = \"uncertainty_weighted\"";
            check.add("ppo.uncertainty_weight", message.into());
        }
    }

    fn check_review(&self, check: &mut Checks) {
        let review = &self.review;
        check.at_least("review.ratings_per_pair", review.ratings_per_pair, 1);
        check.at_least("review.lease_seconds", review.lease_seconds, 1.0);
        check.above("review.weight", review.weight, 0.0);
        check.at_least("review.smoothing", review.smoothing, 0.0);
        check.share("review.low_margin", review.low_margin, Ends::Both);
    }

    /// Every stage that samples must leave room for a prompt.
    fn check_lengths(&self, check: &mut Checks) {
        let lengths = [
            ("generate.max_new_tokens", Some(self.generate.max_new_tokens)),
            ("revise.max_new_tokens", self.revise.max_new_tokens),
            ("ppo.max_new_tokens", self.ppo.max_new_tokens),
            ("evaluate.max_new_tokens", self.evaluate.max_new_tokens),
            ("sft.watch.max_new_tokens", self.sft.watch.as_ref().and_then(|watch| watch.max_new_tokens)),
            ("dpo.watch.max_new_tokens", self.dpo.watch.as_ref().and_then(|watch| watch.max_new_tokens)),
        ];
        let most = self.policy.max_length;
        for (key, length) in lengths {
            if let Some(length) = length.filter(|length| *length >= most) {
                let message = format!(
                    "must be below `policy.max_length` = {most} to leave room for a prompt, got {length}"
                );
                check.add(key, message);
            }
        }
    }
}

/// Names of files, each once.
fn check_files(check: &mut Checks, key: &str, files: &[PathBuf]) {
    for (index, file) in files.iter().enumerate() {
        let key = format!("{key}[{index}]");
        if file.as_os_str().is_empty() {
            check.add(&key, "must not be empty".into());
        } else if files[..index].contains(file) {
            check.add(&key, format!("names `{}` again: its pairs would count twice", file.display()));
        }
    }
}

fn check_dpo(check: &mut Checks, dpo: &DpoConfig) {
    check_dpo_loss(check, dpo);
    check.at_least("dpo.epochs", dpo.epochs, 1);
    check.batches("dpo", dpo.batch_size, dpo.micro_batch_size);
    check.share("dpo.holdout_fraction", dpo.holdout_fraction, Ends::ZeroOnly);
    check.at_least("dpo.save_steps", dpo.save_steps, 1);
    check_optim(check, "dpo.optim", &dpo.optim);
    check_lora(check, "dpo.lora", dpo.lora.as_ref());
}

/// The numbers of a loss, and keys that are given for another one.
fn check_dpo_loss(check: &mut Checks, dpo: &DpoConfig) {
    let (loss, default) = (dpo.loss, DpoConfig::default());
    for (name, given) in [
        ("label_smoothing", dpo.label_smoothing.is_some()),
        ("simpo_gamma", dpo.simpo_gamma != default.simpo_gamma),
        ("desirable_weight", dpo.desirable_weight != default.desirable_weight),
        ("undesirable_weight", dpo.undesirable_weight != default.undesirable_weight),
        ("discopop_tau", dpo.discopop_tau != default.discopop_tau),
    ] {
        if given && !loss.reads(name) {
            let readers: Vec<_> = DpoLossKind::ALL.into_iter().filter(|other| other.reads(name)).collect();
            let readers = list(&readers.into_iter().map(DpoLossKind::name).collect::<Vec<_>>());
            let message = format!("is not read by `dpo.loss` = {:?}; it is for {readers}", loss.name());
            check.add(&format!("dpo.{name}"), message);
        }
    }
    check.above("dpo.beta", dpo.beta(), 0.0);
    if loss.reads("label_smoothing") {
        let smoothing = dpo.label_smoothing();
        if !(0.0..0.5).contains(&smoothing) {
            check.add("dpo.label_smoothing", format!("must be at least 0 and below 0.5, got {smoothing}"));
        } else if smoothing == 0.0 && loss == DpoLossKind::ExoPair {
            let message = "must be above 0 with `dpo.loss` = \"exo_pair\", which takes its logarithm, got 0";
            check.add("dpo.label_smoothing", message.into());
        }
    }
    check.at_least("dpo.simpo_gamma", dpo.simpo_gamma, 0.0);
    check.above("dpo.desirable_weight", dpo.desirable_weight, 0.0);
    check.above("dpo.undesirable_weight", dpo.undesirable_weight, 0.0);
    check.above("dpo.discopop_tau", dpo.discopop_tau, 0.0);
    if loss.sorts_batch() {
        let name = loss.name();
        if dpo.soft_labels {
            let message = format!(
                "must be false with `dpo.loss` = {name:?}, which sorts the rewards of a batch by label"
            );
            check.add("dpo.soft_labels", message);
        }
        if dpo.batch_size == 1 {
            let message =
                format!("must be at least 2 with `dpo.loss` = {name:?}, which sorts a batch, got 1");
            check.add("dpo.batch_size", message);
        }
    }
}

fn check_ppo(check: &mut Checks, ppo: &PpoConfig) {
    check.at_least("ppo.steps", ppo.steps, 1);
    check.at_least("ppo.prompts_per_step", ppo.prompts_per_step, 1);
    check.at_least("ppo.samples_per_prompt", ppo.samples_per_prompt, 1);
    check.at_least("ppo.epochs", ppo.epochs(), 1);
    check.at_least("ppo.mini_batches", ppo.mini_batches, 1);
    check.at_least("ppo.micro_batch_size", ppo.micro_batch_size, 1);
    let rollout = ppo.prompts_per_step.saturating_mul(ppo.samples_per_prompt);
    if let Some(rest) = rollout.checked_rem(ppo.mini_batches) {
        let mini_batch = rollout / ppo.mini_batches;
        if rest != 0 {
            let message = format!(
                "must divide the {rollout} responses of `ppo.prompts_per_step` × `ppo.samples_per_prompt`, got {}",
                ppo.mini_batches
            );
            check.add("ppo.mini_batches", message);
        } else if ppo.micro_batch_size > mini_batch && mini_batch > 0 {
            let got = ppo.micro_batch_size;
            let message = format!("must be at most {mini_batch}, the responses of a mini-batch, got {got}");
            check.add("ppo.micro_batch_size", message);
        }
    }
    check_algorithm(check, ppo);
    check.at_least("ppo.kl_coef", ppo.kl_coef(), 0.0);
    if ppo.kl_controller == KlController::Adaptive && ppo.kl_coef() == 0.0 {
        check.add(
            "ppo.kl_coef",
            "must be above 0 with `ppo.kl_controller` = \"adaptive\", which scales it, got 0".into(),
        );
    }
    check.above("ppo.kl_target", ppo.kl_target, 0.0);
    check.above("ppo.kl_horizon", ppo.kl_horizon, 0.0);
    check.share("ppo.gamma", ppo.gamma, Ends::Both);
    check.share("ppo.lambda", ppo.lambda, Ends::Both);
    check.above("ppo.cliprange", ppo.cliprange, 0.0);
    if ppo.cliprange >= 1.0 {
        check.add("ppo.cliprange", format!("must be below 1, got {}", ppo.cliprange));
    }
    check.above("ppo.cliprange_value", ppo.cliprange_value, 0.0);
    check.above("ppo.vf_coef", ppo.vf_coef, 0.0);
    check.above("ppo.advantage_epsilon", ppo.advantage_epsilon, 0.0);
    for (key, value) in [
        ("ppo.kl_budget", ppo.kl_budget),
        ("ppo.cliprange_high", ppo.cliprange_high),
        ("ppo.target_approxkl", ppo.target_approxkl),
        ("ppo.score_clip", ppo.score_clip),
    ] {
        if let Some(value) = value {
            check.above(key, value, 0.0);
        }
    }
    if let Some(dual_clip) = ppo.dual_clip {
        check.above("ppo.dual_clip", dual_clip, 1.0);
    }
    if let Some(penalty) = ppo.missing_eos_penalty {
        check.at_least("ppo.missing_eos_penalty", penalty, 0.0);
    }
    check.above("ppo.temperature", ppo.temperature, 0.0);
    if let Some(max_new_tokens) = ppo.max_new_tokens {
        check.at_least("ppo.max_new_tokens", max_new_tokens, 1);
    }
    check.at_least("ppo.save_steps", ppo.save_steps, 1);
    check_optim(check, "ppo.optim", &ppo.optim);
    check_optim(check, "ppo.critic_optim", &ppo.critic_optim);
    check_lora(check, "ppo.lora", ppo.lora.as_ref());
    if let Some(watch) = &ppo.watch {
        check.at_least("ppo.watch.window", watch.window, 1);
        check.share("ppo.watch.max_drop", watch.max_drop, Ends::Both);
    }
}

impl Config {
    /// What is maximised, and who watches.
    fn check_rewards(&self, check: &mut Checks) {
        let ppo = &self.ppo;
        check_sources(check, "ppo.rewards", &ppo.rewards);
        for (section, judges) in [
            ("ppo.judges", ppo.judges.as_deref()),
            ("ppo.watch.judges", ppo.watch.as_ref().and_then(|watch| watch.judges.as_deref())),
        ] {
            check_judges(check, self, section, judges.unwrap_or_default());
        }
        if ppo.judges.is_some() && !ppo.maximises(RewardKind::Judges) {
            let message = "are given, but no part of `ppo.rewards` has `kind` = \"judges\"";
            check.add("ppo.judges", message.into());
        }
        if !self.runs(Stage::Ppo) {
            return;
        }
        for (key, judges) in
            [("ppo.judges", self.tuning_judges()), ("ppo.watch.judges", self.watching_judges())]
        {
            if !judges.is_empty() && ppo.samples_per_prompt < 2 {
                let message = "must be at least 2 where judges see what the policy says, which is shown to them in pairs, got 1";
                check.add("ppo.samples_per_prompt", message.into());
            }
            let wanted = match key {
                "ppo.judges" => ppo.maximises(RewardKind::Judges),
                _ => ppo.watch.is_some(),
            };
            if wanted && judges.is_empty() {
                check.add(key, "must name at least one judge".into());
            }
        }
        // By name: that is what scores are kept under.
        let pleased =
            |judge: &&JudgeConfig| self.tuning_judges().iter().any(|other| other.name == judge.name);
        if let Some(judge) = self.watching_judges().iter().find(pleased) {
            let message = format!(
                "must be others than those that are pleased: a watch that training maximises sees nothing, got {:?} in both",
                judge.name
            );
            check.add("ppo.watch.judges", message);
        }
    }
}

/// The parts of a weighted sum.
fn check_sources(check: &mut Checks, section: &str, sources: &[RewardSource]) {
    for (index, source) in sources.iter().enumerate() {
        let key = |name: &str| format!("{section}[{index}].{name}");
        let kind = source.kind;
        if source.weight == 0.0 || !source.weight.is_finite() {
            check.add(&key("weight"), format!("must be a number other than 0, got {}", source.weight));
        }
        let given = [
            ("pattern", source.pattern.is_some(), matches!(kind, RewardKind::Regex | RewardKind::Reference)),
            ("schema", source.schema.is_some(), kind == RewardKind::JsonSchema),
            ("min_tokens", source.min_tokens.is_some(), kind == RewardKind::Length),
            ("max_tokens", source.max_tokens.is_some(), kind == RewardKind::Length),
        ];
        for (name, ..) in given.into_iter().filter(|(_, given, read)| *given && !read) {
            check.add(&key(name), "is not read by this `kind` of reward".into());
        }
        match kind {
            RewardKind::Regex if source.pattern.is_none() => {
                check.add(&key("pattern"), "must be given for `kind` = \"regex\"".into());
            }
            RewardKind::JsonSchema if source.schema.is_none() => {
                check.add(&key("schema"), "must be given for `kind` = \"json_schema\"".into());
            }
            RewardKind::Length => match (source.min_tokens, source.max_tokens) {
                (None, None) => check
                    .add(&key("max_tokens"), "or `min_tokens` must be given for `kind` = \"length\"".into()),
                (Some(min), Some(max)) if min > max => {
                    check.add(&key("min_tokens"), format!("must be at most `max_tokens`, {max}, got {min}"));
                }
                _ => {}
            },
            _ => {}
        }
    }
}

/// Keys that an algorithm cannot follow.
fn check_algorithm(check: &mut Checks, ppo: &PpoConfig) {
    let algorithm = ppo.algorithm;
    let with = format!("with `ppo.algorithm` = {:?}", algorithm.name());
    if algorithm.compares() && ppo.samples_per_prompt < 2 {
        let message = format!(
            "must be at least 2 {with}, which compares the responses of a prompt, got {}",
            ppo.samples_per_prompt
        );
        check.add("ppo.samples_per_prompt", message);
    }
    if !algorithm.has_ratio() && ppo.epochs() > 1 {
        let message =
            format!("must be 1 {with}, whose gradient is right for fresh samples only, got {}", ppo.epochs());
        check.add("ppo.epochs", message);
    }
    if algorithm.has_critic() && ppo.kl_place() == KlPlace::Sequence {
        check.add("ppo.kl_place", format!("must be `token` or `loss` {with}, got \"sequence\""));
    }
    if ppo.ratio() != RatioLevel::Token {
        if ppo.kl_place() == KlPlace::Token {
            check.add(
                "ppo.ratio",
                format!(
                    "must be `token` where `ppo.kl_place` is, since tokens then differ in advantage {with}"
                ),
            );
        }
        if ppo.reduction.is_some() {
            check.add("ppo.reduction", "is for ratios of tokens; set `ppo.ratio` = \"token\"".into());
        }
    }
    if algorithm == Algorithm::OnlineDpo {
        let set = [
            ("ppo.kl_place", ppo.kl_place.is_some()),
            ("ppo.kl_estimator", ppo.kl_estimator.is_some()),
            ("ppo.ratio", ppo.ratio.is_some()),
            ("ppo.reduction", ppo.reduction.is_some()),
            ("ppo.whiten_advantages", ppo.whiten_advantages.is_some()),
        ];
        for (key, _) in set.into_iter().filter(|(_, set)| *set) {
            check.add(key, format!("is not read {with}"));
        }
    }
}

fn check_optim(check: &mut Checks, section: &str, optim: &OptimConfig) {
    let key = |name: &str| format!("{section}.{name}");
    check.above(&key("learning_rate"), optim.learning_rate, 0.0);
    check.share(&key("adam_beta1"), optim.adam_beta1, Ends::ZeroOnly);
    check.share(&key("adam_beta2"), optim.adam_beta2, Ends::ZeroOnly);
    check.above(&key("adam_epsilon"), optim.adam_epsilon, 0.0);
    check.at_least(&key("weight_decay"), optim.weight_decay, 0.0);
    check.at_least(&key("max_grad_norm"), optim.max_grad_norm, 0.0);
    check.share(&key("warmup_ratio"), optim.warmup_ratio, Ends::Both);
    check.share(&key("min_lr_ratio"), optim.min_lr_ratio, Ends::Both);
}

fn check_lora(check: &mut Checks, section: &str, lora: Option<&LoraConfig>) {
    let Some(lora) = lora else { return };
    let key = |name: &str| format!("{section}.{name}");
    check.at_least(&key("rank"), lora.rank, 1);
    check.above(&key("alpha"), lora.alpha, 0.0);
    check.share(&key("dropout"), lora.dropout, Ends::ZeroOnly);
    if lora.targets.is_empty() {
        check.add(&key("targets"), "must name at least one projection".into());
    }
    let mut seen = BTreeSet::new();
    for target in &lora.targets {
        if !LORA_TARGETS.contains(&target.as_str()) {
            check.add(&key("targets"), format!("must be among {}, got {target:?}", list(&LORA_TARGETS)));
        } else if !seen.insert(target) {
            check.add(&key("targets"), format!("names {target:?} twice"));
        }
    }
}

fn check_judges(check: &mut Checks, config: &Config, section: &str, judges: &[JudgeConfig]) {
    let mut names = BTreeSet::new();
    for (index, judge) in judges.iter().enumerate() {
        let key = |name: &str| format!("{section}[{index}].{name}");
        if judge.name.trim().is_empty() {
            check.add(&key("name"), "must not be empty".into());
        } else if judge.name == "human" {
            check.add(&key("name"), "cannot be \"human\": that name is for people's verdicts".into());
        } else if judge.name == "rule" {
            check.add(&key("name"), "cannot be \"rule\": that name is for verdicts without a judge".into());
        } else if !names.insert(&judge.name) {
            check.add(
                &key("name"),
                format!("must differ from that of other judges, got {:?} again", judge.name),
            );
        }
        if judge.model.trim().is_empty() {
            check.add(&key("model"), "must not be empty".into());
        }
        if judge.own_policies.iter().any(|name| name.trim().is_empty()) {
            check.add(
                &key("own_policies"),
                "must name policies, such as \"baseline\"; got an empty name".into(),
            );
        }
        // A judge that only rates how safe responses are need not vote.
        let named = |rule: &RouteRule| rule.unsafe_by.as_ref() == Some(&judge.name);
        match config.route.rules.iter().any(named) {
            true => check.at_least(&key("weight"), judge.weight, 0.0),
            false => check.above(&key("weight"), judge.weight, 0.0),
        }
        if let Some(below) = judge.only_if_unsure_below {
            check.above(&key("only_if_unsure_below"), below, 0.0);
            if below > 0.5 {
                check.add(&key("only_if_unsure_below"), format!("must be at most 0.5, got {below}"));
            }
        }
        check.above(&key("temperature"), judge.temperature, 0.0);
        check.at_least(&key("max_concurrency"), judge.max_concurrency, 1);
        check.above(&key("timeout_seconds"), judge.timeout_seconds, 0.0);
        check.at_least(&key("max_tokens"), judge.max_tokens, 1);
        for (name, limit) in [
            ("requests_per_minute", judge.requests_per_minute),
            ("tokens_per_minute", judge.tokens_per_minute),
        ] {
            if let Some(limit) = limit {
                check.at_least(&key(name), limit as usize, 1);
            }
        }
        if let Some(temperature) = judge.sampling_temperature {
            check.at_least(&key("sampling_temperature"), temperature, 0.0);
        }
        check_templates(check, &key, judge);
        check_judge_kind(check, config, &key, judge);
    }
}

/// Which templates, and how often.
fn check_templates(check: &mut Checks, key: &dyn Fn(&str) -> String, judge: &JudgeConfig) {
    let mut names = BTreeSet::new();
    for (index, name) in judge.templates.iter().enumerate() {
        let key = key(&format!("templates[{index}]"));
        if name.trim().is_empty() {
            check.add(&key, "must not be empty".into());
        } else if !names.insert(name) {
            check.add(&key, format!("names {name:?} again; ask it more often with `votes`"));
        }
    }
    if judge.protocol == Protocol::Contrastive && !judge.templates.is_empty() {
        check.add(&key("templates"), "is for judges that are asked; a contrastive one is not".into());
    }
    check.at_least(&key("votes"), judge.votes, 1);
    if judge.votes > 1 && judge.kind.is_remote() && judge.sampling_temperature.is_none_or(|t| t == 0.0) {
        let message =
            "must be 1 unless `sampling_temperature` is above 0: the same question gets the same answer";
        check.add(&key("votes"), format!("{message}, got {}", judge.votes));
    }
}

/// What each kind and protocol needs, and what it does not use.
fn check_judge_kind(check: &mut Checks, config: &Config, key: &dyn Fn(&str) -> String, judge: &JudgeConfig) {
    let default = JudgeConfig::default();
    let contrastive = judge.kind == JudgeKind::Local && judge.protocol == Protocol::Contrastive;
    let principle = [("principle", &judge.principle), ("opposite", &judge.opposite)];
    if judge.kind.is_remote() && judge.protocol == Protocol::Contrastive {
        let kind = judge.kind.name();
        let message = format!(
            "cannot be \"contrastive\" for an `{kind}` judge: the endpoint gives no log-probs of a given text"
        );
        check.add(&key("protocol"), message);
    } else if contrastive {
        for (name, text) in principle {
            if text.as_ref().is_none_or(|text| text.trim().is_empty()) {
                check.add(&key(name), "must be given for a contrastive judge".into());
            }
        }
        if judge.principle.is_some() && judge.principle == judge.opposite {
            check.add(&key("opposite"), "must differ from `principle`".into());
        }
    }
    if !contrastive {
        for (name, given) in
            [("principle", judge.principle.is_some()), ("opposite", judge.opposite.is_some())]
        {
            if given {
                check.add(&key(name), "is for contrastive judges only; this one does not use it".into());
            }
        }
        if judge.protocol == Protocol::Pairwise && judge.temperature != default.temperature {
            let message = "is for contrastive and rating judges only; this one does not use it";
            check.add(&key("temperature"), message.into());
        }
    }
    match judge.kind {
        JudgeKind::Local => {
            for (name, given) in [
                ("base_url", judge.base_url.is_some()),
                ("api_key_env", judge.api_key_env.is_some()),
                ("batch", judge.batch),
                ("batch_poll_seconds", judge.batch_poll_seconds != default.batch_poll_seconds),
                ("max_concurrency", judge.max_concurrency != default.max_concurrency),
                ("max_retries", judge.max_retries != default.max_retries),
                ("max_resends", judge.max_resends != default.max_resends),
                ("requests_per_minute", judge.requests_per_minute.is_some()),
                ("tokens_per_minute", judge.tokens_per_minute.is_some()),
                ("strict_model", judge.strict_model),
                ("timeout_seconds", judge.timeout_seconds != default.timeout_seconds),
                ("max_tokens", judge.max_tokens != default.max_tokens && judge.templates.is_empty()),
                ("votes", judge.votes > 1),
                ("verdict_codes", judge.verdict_codes != default.verdict_codes),
                ("sampling_temperature", judge.sampling_temperature != default.sampling_temperature),
                ("api_version", judge.api_version.is_some()),
                ("reasoning_effort", judge.reasoning_effort.is_some()),
                ("logprobs", judge.logprobs),
                ("min_mass", judge.min_mass != default.min_mass),
                ("structured_output", judge.structured_output != default.structured_output),
                ("prompt_cache", judge.prompt_cache != default.prompt_cache),
                ("extra", !judge.extra.is_empty()),
                ("usd_per_million_input", judge.usd_per_million_input.is_some()),
                ("usd_per_million_output", judge.usd_per_million_output.is_some()),
                ("usd_per_million_cached_input", judge.usd_per_million_cached_input.is_some()),
                ("allow_unknown_price", judge.allow_unknown_price),
            ] {
                if given {
                    check.add(&key(name), "is for remote judges only; a local one does not use it".into());
                }
            }
        }
        JudgeKind::Openai | JudgeKind::Anthropic | JudgeKind::Azure => {
            check_remote(check, config, key, judge);
        }
    }
}

fn check_remote(check: &mut Checks, config: &Config, key: &dyn Fn(&str) -> String, judge: &JudgeConfig) {
    if judge.model == "policy" {
        check.add(&key("model"), "must be the endpoint's name of a model, got \"policy\"".into());
    }
    if judge.kind == JudgeKind::Azure && judge.base_url.is_none() {
        let message = "must be given for an `azure` judge, such as \"https://NAME.openai.azure.com\"";
        check.add(&key("base_url"), message.into());
    } else if let Err(message) = check_url(judge.base_url()) {
        check.add(&key("base_url"), message);
    }
    check_fields(check, key, judge);
    check.share(&key("min_mass"), judge.min_mass, Ends::Both);
    if let Some(name) = &judge.api_key_env
        && (name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
    {
        // The text is not repeated: it may be the key itself.
        check.add(&key("api_key_env"), "must be the name of an environment variable, not the key".into());
    }
    let known = config.price_of(judge).is_some();
    let prices = [
        ("usd_per_million_input", judge.usd_per_million_input),
        ("usd_per_million_output", judge.usd_per_million_output),
    ];
    let half = judge.usd_per_million_input.is_some() != judge.usd_per_million_output.is_some();
    for (name, price) in prices {
        match price {
            Some(price) => check.at_least(&key(name), price, 0.0),
            None if half => check.add(&key(name), "must be given too where the other price is".into()),
            None if known || judge.allow_unknown_price => {}
            None => {
                let message = format!(
                    "must be given, or `[prices.{:?}]`, or `allow_unknown_price` = true: an unknown price is not 0",
                    judge.model
                );
                check.add(&key(name), message);
            }
        }
    }
    if let Some(price) = judge.usd_per_million_cached_input {
        check.at_least(&key("usd_per_million_cached_input"), price, 0.0);
    }
}

/// Fields of the request that a kind does not have, or that are not the user's to set.
fn check_fields(check: &mut Checks, key: &dyn Fn(&str) -> String, judge: &JudgeConfig) {
    let anthropic = judge.kind == JudgeKind::Anthropic;
    let default = JudgeConfig::default();
    if anthropic && judge.reasoning_effort.is_some() {
        check.add(&key("reasoning_effort"), "is not known to `anthropic` judges; see `extra`".into());
    }
    if anthropic && judge.logprobs {
        check.add(&key("logprobs"), "is not known to `anthropic` judges, which tell no probabilities".into());
    }
    if judge.logprobs && judge.sampling_temperature.is_none() {
        let message =
            "is for judges with a `sampling_temperature`: reasoning models give no log-probabilities";
        check.add(&key("logprobs"), message.into());
    }
    match judge.structured_output {
        StructuredOutput::Choice if judge.kind != JudgeKind::Openai => {
            check.add(&key("structured_output"), "can be \"choice\" for `openai` judges only".into());
        }
        StructuredOutput::Tool if !anthropic => {
            check.add(&key("structured_output"), "can be \"tool\" for `anthropic` judges only".into());
        }
        _ => {}
    }
    if judge.prompt_cache != default.prompt_cache && !anthropic {
        check.add(&key("prompt_cache"), "is for `anthropic` judges only; others cache by themselves".into());
    }
    if judge.batch && judge.kind == JudgeKind::Azure {
        let message = "cannot be true for an `azure` judge: this program knows the batches of `openai` and `anthropic` judges only";
        check.add(&key("batch"), message.into());
    }
    check.above(&key("batch_poll_seconds"), judge.batch_poll_seconds, 0.0);
    if judge.api_version.is_some() && judge.kind != JudgeKind::Azure {
        check.add(&key("api_version"), "is for `azure` judges only".into());
    }
    for name in judge.extra.keys() {
        // What is asked, and how many answers are paid for, follows from the config's other keys.
        if ["model", "messages", "system", "stream", "n", "max_tokens", "max_completion_tokens"]
            .contains(&name.as_str())
        {
            check.add(&key("extra"), format!("cannot set `{name}`"));
        }
    }
}

/// `https://…`, or `http://` to this machine; nothing secret in it.
fn check_url(url: &str) -> Result<(), String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        // Not repeated: whatever was put here by mistake may be the key.
        return Err("must start with https://".into());
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') || rest.contains(['?', '#']) {
        return Err("must have no user, password or query in it: keys come from the environment".into());
    }
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let address = host.parse::<std::net::IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    match scheme {
        _ if host.is_empty() => Err(format!("must name a host, got {url:?}")),
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        "http" => Err(format!("must be https unless it is this machine, got {url:?}")),
        _ => Err(format!("must start with https://, got {url:?}")),
    }
}

/// Which ends of [0, 1] are allowed.
enum Ends {
    Both,
    ZeroOnly,
    OneOnly,
}

/// The problems so far, and the checks that add to them. NaN and infinity fail every check.
#[derive(Default)]
struct Checks {
    problems: Vec<Problem>,
}

impl Checks {
    fn add(&mut self, key: &str, message: String) {
        self.problems.push(Problem { key: key.to_owned(), message: format!("`{key}` {message}") });
    }

    fn at_least<T: Number>(&mut self, key: &str, got: T, least: T) {
        if !(got.finite() && got >= least) {
            self.add(key, format!("must be at least {least}, got {got}"));
        }
    }

    fn above(&mut self, key: &str, got: f64, bound: f64) {
        if !(got.is_finite() && got > bound) {
            self.add(key, format!("must be above {bound}, got {got}"));
        }
    }

    fn share(&mut self, key: &str, got: f64, ends: Ends) {
        let (fits, words) = match ends {
            Ends::Both => ((0.0..=1.0).contains(&got), "between 0 and 1"),
            Ends::ZeroOnly => ((0.0..1.0).contains(&got), "at least 0 and below 1"),
            Ends::OneOnly => (got > 0.0 && got <= 1.0, "above 0 and at most 1"),
        };
        if !fits {
            self.add(key, format!("must be {words}, got {got}"));
        }
    }

    fn batches(&mut self, section: &str, batch_size: usize, micro_batch_size: usize) {
        let key = format!("{section}.micro_batch_size");
        self.at_least(&format!("{section}.batch_size"), batch_size, 1);
        self.at_least(&key, micro_batch_size, 1);
        if micro_batch_size > batch_size && batch_size > 0 {
            let most =
                format!("must be at most `{section}.batch_size` = {batch_size}, got {micro_batch_size}");
            self.add(&key, most);
        }
    }
}

trait Number: PartialOrd + Display + Copy {
    fn finite(self) -> bool;
}

impl Number for f64 {
    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Number for usize {
    fn finite(self) -> bool {
        true
    }
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
