//! `rlaif.toml` as its users meet it: precedence, origins, and every error message word for word.

use insta::assert_snapshot;
use proptest::prelude::*;
use rlaif_core::config::{Config, JudgeKind, Origin, Problem, Protocol, Resolved, Stage};

fn load(text: &str) -> Result<Resolved, rlaif_core::config::ConfigError> {
    Config::load(text, &[], |_| None)
}

fn error(text: &str) -> String {
    load(text).expect_err("the config is wrong").to_string()
}

fn set(overrides: &[(&str, &str)]) -> Result<Resolved, rlaif_core::config::ConfigError> {
    let overrides: Vec<_> = overrides.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Config::load("", &overrides, |_| None)
}

#[test]
fn nothing_given_is_the_default_and_can_be_run() {
    let resolved = load("").unwrap();
    assert_eq!(resolved.config, Config::default());
    assert!(resolved.origins.values().all(|origin| *origin == Origin::Default));
    assert_eq!(Config::default().validate(), Vec::<Problem>::new());
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let text = "[run]\nseed = 1\nname = 'a'\n[ppo]\nkl_coef = 0.1\nsteps = 3";
    let flags = [("run.seed".to_string(), "3".to_string())];
    let resolved = Config::load(text, &flags, |name| match name {
        "RLAIF_RUN_SEED" => Some("2".into()),
        "RLAIF_PPO_KL_COEF" => Some("0.2".into()),
        "RLAIF_DPO_OPTIM_LEARNING_RATE" => Some("1e-4".into()),
        _ => None,
    })
    .unwrap();
    let config = &resolved.config;
    assert_eq!((config.run.seed, config.run.name.as_str()), (3, "a"));
    assert_eq!((config.ppo.kl_coef, config.ppo.steps), (Some(0.2), 3));
    assert_eq!(config.dpo.optim.learning_rate, 1e-4);
    assert_eq!(resolved.origins["run.seed"], Origin::Flag);
    assert_eq!(resolved.origins["ppo.kl_coef"], Origin::Env("RLAIF_PPO_KL_COEF".into()));
    assert_eq!(resolved.origins["ppo.steps"], Origin::File);
    assert_eq!(resolved.origins["ppo.epochs"], Origin::Default);
}

/// A partial `[ppo.optim]` must not fall back to the optimizer's general learning rate instead of PPO's.
#[test]
fn a_partial_table_keeps_the_defaults_of_its_own_section() {
    let resolved = load("[ppo.optim]\nweight_decay = 0.1\n[dpo.optim]\nwarmup_ratio = 0.0").unwrap();
    let default = Config::default();
    assert_eq!(resolved.config.ppo.optim.learning_rate, default.ppo.optim.learning_rate);
    assert_eq!(resolved.config.dpo.optim.learning_rate, default.dpo.optim.learning_rate);
    assert_eq!(resolved.config.ppo.optim.weight_decay, 0.1);
}

#[test]
fn none_empties_an_optional_key_wherever_it_is_given() {
    assert_eq!(load("[ppo]\nmissing_eos_penalty = 'none'").unwrap().config.ppo.missing_eos_penalty, None);
    assert_eq!(set(&[("ppo.missing_eos_penalty", "none")]).unwrap().config.ppo.missing_eos_penalty, None);
    let judges = "[[evaluate.judges]]\nname = 'reasoner'\nkind = 'openai'\nmodel = 'm'\nallow_unknown_price = true\nsampling_temperature = 'none'";
    let resolved = load(judges).unwrap();
    assert_eq!(resolved.config.evaluate.judges.unwrap()[0].sampling_temperature, None);
    assert_eq!(load("[ppo]\nlora = 'none'").unwrap().config.ppo.lora, None);
    assert_snapshot!(error("[ppo]\nlambda = 'none'"), @r#"`ppo.lambda` must be a number, got "none" (line 2)"#);
}

#[test]
fn flags_take_text_without_quotes_lists_by_comma_and_indices() {
    let resolved = set(&[
        ("run.name", "2026"),
        ("run.stages", "generate, label"),
        ("label.judges[0].name", "warm"),
        ("ppo.lora.rank", "4"),
        ("ppo.whiten_rewards", "true"),
        ("ppo.kl_controller", "adaptive"),
    ])
    .unwrap();
    let config = &resolved.config;
    assert_eq!(config.run.name, "2026");
    assert_eq!(config.run.stages, [Stage::Generate, Stage::Label]);
    assert_eq!(config.label.judges[0].name, "warm");
    assert!(config.label.judges[0].principle.is_some(), "the rest of the default judge stays");
    let lora = config.ppo.lora.as_ref().unwrap();
    assert_eq!((lora.rank, lora.targets.len()), (4, 7));
    assert_eq!(resolved.origins["label.judges[0].name"], Origin::Flag);
    assert_eq!(resolved.origins["label.judges[0].principle"], Origin::Default);
    assert_eq!(set(&[("label.judges.0.name", "warm")]).unwrap().config.label.judges[0].name, "warm");
}

#[test]
fn an_openai_judge_is_pairwise_unless_it_says_otherwise() {
    let text = "[[label.judges]]\nname = 'gpt'\nkind = 'openai'\nmodel = 'gpt-x'\nusd_per_million_input = 0.15\nusd_per_million_output = 0.6";
    let judge = load(text).unwrap().config.label.judges.remove(0);
    assert_eq!((judge.kind, judge.protocol), (JudgeKind::Openai, Protocol::Pairwise));
    assert_eq!(judge.base_url(), "https://api.openai.com/v1");
    assert_eq!(judge.api_key_env(), Some("OPENAI_API_KEY"));
    assert_eq!(Config::default().price_of(&judge).unwrap().0.output, 600_000);
    let local = format!("{text}\nbase_url = 'http://127.0.0.1:8000/v1/'");
    let judge = load(&local).unwrap().config.label.judges.remove(0);
    assert_eq!((judge.base_url(), judge.api_key_env()), ("http://127.0.0.1:8000/v1", None));
}

#[test]
fn every_kind_of_remote_judge_has_its_own_defaults_and_fields() {
    let text = "[[label.judges]]\nname = 'c'\nkind = 'anthropic'\nmodel = 'claude-haiku-4-5'\nextra = { thinking = { type = 'enabled', budget_tokens = 1024 } }";
    let judge = load(text).unwrap().config.label.judges.remove(0);
    assert_eq!(judge.base_url(), "https://api.anthropic.com/v1");
    assert_eq!((judge.protocol, judge.api_key_env()), (Protocol::Pairwise, Some("ANTHROPIC_API_KEY")));
    assert_eq!(judge.extra["thinking"]["budget_tokens"], 1024);
    let wrong = "[[label.judges]]\nname = 'a'\nkind = 'azure'\nmodel = 'd'\nprompt_cache = false\nextra = { n = 5 }\n[[label.judges]]\nname = 'b'\nkind = 'anthropic'\nmodel = 'm'\nreasoning_effort = 'low'\nallow_unknown_price = true\nusd_per_million_input = 1";
    assert_snapshot!(error(wrong), @r#"
    7 problems in the config
      `label.judges[0].base_url` must be given for an `azure` judge, such as "https://NAME.openai.azure.com" (line 1)
      `label.judges[0].usd_per_million_input` must be given, or `[prices."d"]`, or `allow_unknown_price` = true: an unknown price is not 0 (line 1)
      `label.judges[0].usd_per_million_output` must be given, or `[prices."d"]`, or `allow_unknown_price` = true: an unknown price is not 0 (line 1)
      `label.judges[0].prompt_cache` is for `anthropic` judges only; others cache by themselves (line 5)
      `label.judges[0].extra` cannot set `n` (line 6)
      `label.judges[1].usd_per_million_output` must be given too where the other price is (line 7)
      `label.judges[1].reasoning_effort` is not known to `anthropic` judges; see `extra` (line 11)
    "#);
}

#[test]
fn batches_are_for_judges_whose_provider_has_them() {
    let judge = |kind: &str, lines: &str| {
        format!("[[label.judges]]\nname = 'j'\nkind = '{kind}'\nmodel = 'm'\n{lines}\n")
    };
    for kind in ["openai", "anthropic"] {
        let text = judge(kind, "allow_unknown_price = true\nbatch = true\nbatch_poll_seconds = 60");
        let judge = load(&text).unwrap().config.label.judges.remove(0);
        assert!(judge.batch && judge.batch_poll_seconds == 60.0);
    }
    let azure = judge(
        "azure",
        "allow_unknown_price = true\nbase_url = 'https://me.openai.azure.com'\nbatch = true\nbatch_poll_seconds = 0",
    );
    assert_snapshot!(error(&azure), @"
    2 problems in the config
      `label.judges[0].batch` cannot be true for an `azure` judge: this program knows the batches of `openai` and `anthropic` judges only (line 7)
      `label.judges[0].batch_poll_seconds` must be above 0, got 0 (line 8)
    ");
    let local = judge("local", "protocol = 'pairwise'\nbatch = true");
    assert_snapshot!(error(&local), @"`label.judges[0].batch` is for remote judges only; a local one does not use it (line 6)");
}

#[test]
fn the_users_own_prices_are_checked_and_written_back() {
    let text = "[prices.'gpt-x.5']\ninput = 1\noutput = 2.5\ncached_input = 0.1\n[[label.judges]]\nname = 'g'\nkind = 'openai'\nmodel = 'gpt-x.5'\n[label.judges.extra]\nuser = 'a \"b\"'\nstop = ['x', 'y']\n'odd key' = { deep = [1, 2] }";
    let resolved = load(text).unwrap();
    assert_eq!(resolved.config.price_of(&resolved.config.label.judges[0]).unwrap().0.output, 2_500_000);
    let written = resolved.to_toml();
    let again = load(&written).unwrap_or_else(|error| panic!("{error}\n{written}"));
    assert_eq!(again.config, resolved.config);
    assert_snapshot!(error("[prices.m]\ninput = -1\noutput = 'x'\ncached = 1\n[prices.n]\ninput = 1"), @r#"
    3 problems in the config
      `prices.m.output` must be a number, got "x" (line 3)
      unknown key `prices.m.cached` on line 4; did you mean `cached_input`?
      `prices.n` on line 5 has no `output`
    "#);
    assert_snapshot!(error("[prices.m]\ninput = -1\noutput = 1"), @"`prices.m.input` must be at least 0, got -1 (line 2)");
}

#[test]
fn the_resolved_config_loads_to_itself_and_tells_origins() {
    let text = r#"
        [run]
        name = "round \"trip\" # 1"
        [prompts]
        system = """
        two
        lines"""
        [ppo]
        missing_eos_penalty = "none"
        gamma = 1
        [ppo.lora]
        rank = 8
        [label]
        max_usd = 2.5
        [[label.few_shot]]
        prompt = "p"
        first = "1"
        second = "2"
        verdict = "first"
        [[label.judges]]
        name = "a"
        principle = "kind"
        opposite = "mean"
        [[label.judges]]
        name = "b"
        kind = "openai"
        model = "m"
        usd_per_million_input = 0.1
        usd_per_million_output = 1
    "#;
    let resolved = load(text).unwrap();
    let written = resolved.to_toml();
    let again = load(&written).unwrap_or_else(|error| panic!("{error}\n{written}"));
    assert_eq!(again.config, resolved.config);
    let run: Vec<&str> = written.lines().take_while(|line| !line.is_empty()).collect();
    assert_snapshot!(run.join("\n"), @r#"
    [run]
    name = 'round "trip" # 1'  # file
    dir = "runs"  # default
    seed = 0  # default
    stages = ["revise", "sft", "generate", "label", "reward", "ppo", "dpo", "evaluate", "report"]  # default
    device = "cpu"  # default
    threads = 0  # default
    float32_matmul_precision = "highest"  # default
    durability = "power"  # default
    drain_seconds = 30.0  # default
    "#);
    let flagged = set(&[("run.seed", "7")]).unwrap().to_toml();
    assert!(flagged.contains("\nseed = 7  # flag\n"), "{flagged}");
}

#[test]
fn there_is_an_sft_stage_where_there_are_rows_for_it() {
    assert!(!Config::default().stages().contains(&Stage::Sft) && Config::default().stages().len() == 7);
    let with = load("[sft]\ndata = ['rows.jsonl']\nneftune_noise_alpha = 5\n[sft.optim]\nwarmup_ratio = 0")
        .unwrap()
        .config;
    assert_eq!(with.stages(), Stage::ALL[1..]);
    assert_eq!((with.sft.optim.learning_rate, with.sft.neftune_noise_alpha), (2e-5, Some(5.0)));
    let elsewhere = load("[sft]\ndata = ['rows.jsonl']\n[run]\nstages = ['evaluate']").unwrap().config;
    assert_eq!(elsewhere.stages(), [Stage::Evaluate]);
    let text = "[run]\nstages = ['sft', 'evaluate']\n[sft]\nepochs = 0\nmicro_batch_size = 9\nmax_length = 1\ntoo_long = 'cut'\nneftune_noise_alpha = 0\nholdout_fraction = 1\nsave_steps = 0";
    assert_snapshot!(error(text), @r#"
    7 problems in the config
      `sft.epochs` must be at least 1, got 0 (line 4)
      `sft.micro_batch_size` must be at most `sft.batch_size` = 8, got 9 (line 5)
      `sft.max_length` must be at least 2, got 1 (line 6)
      `sft.too_long` must be one of `refuse`, `drop`, `truncate`, got "cut" (line 7)
      `sft.neftune_noise_alpha` must be above 0, got 0 (line 8)
      `sft.holdout_fraction` must be at least 0 and below 1, got 1 (line 9)
      `sft.save_steps` must be at least 1, got 0 (line 10)
    "#);
    assert_snapshot!(error("[run]\nstages = ['sft', 'evaluate']"), @"`sft.data` must name at least one file where `run.stages` has `sft` and not `revise`");
    let revising = load("[revise]\nrounds = 2").unwrap().config;
    assert_eq!((revising.stages(), revising.revise.principles().len()), (Stage::ALL.to_vec(), 6));
    let text = "[run]\nstages = ['revise', 'sft']\n[[revise.principles]]\nname = 'a'\ncritique = ' '\nrevision = 'Better?'";
    assert_snapshot!(error(text), @"
    3 problems in the config
      `revise.rounds` must be at least 1 where `run.stages` has `revise`, got 0
      `revise.principles[0].critique` must not be empty (line 5)
      `sft.data` must name at least one file where `run.stages` has `sft` and not `revise`
    ");
    assert_snapshot!(error("[[revise.principles]]\nname = 'a'"), @"
    2 problems in the config
      `revise.principles[0]` on line 1 has no `critique`
      `revise.principles[0]` on line 1 has no `revision`
    ");
}

#[test]
fn unknown_keys_are_all_found_and_the_nearest_known_one_is_named() {
    let text = "[ppo]\nkl_coeff = 0.1\nbeta = 0.1\n[ppoo]\nsteps = 1\n[[label.judges]]\nprincipal = 'x'\n[run]\nzzzzzzz = 1\n[ppo.optim]\nlr = 1";
    assert_snapshot!(error(text), @r#"
    6 problems in the config
      unknown key `ppo.kl_coeff` on line 2; did you mean `kl_coef`?
      unknown key `ppo.beta` on line 3; it is a key of `[dpo]`
      unknown key `ppoo` on line 4; did you mean `ppo`?
      unknown key `label.judges[0].principal` on line 7; did you mean `principle`?
      unknown key `run.zzzzzzz` on line 9; the keys here are `name`, `dir`, `seed`, `stages`, `device`, `threads`, `float32_matmul_precision`, `durability`, `max_usd_per_stage`, `drain_seconds`
      unknown key `ppo.optim.lr` on line 11; the keys here are `optimizer`, `dtype`, `learning_rate`, `adam_beta1`, `adam_beta2`, `adam_epsilon`, `weight_decay`, `max_grad_norm`, `gradient_checkpointing`, `schedule`, `min_lr_ratio`, `warmup_ratio`
    "#);
}

#[test]
fn wrong_types_are_told_in_the_words_of_the_file() {
    let text = "[run]\nseed = -1\nstages = 'ppo'\nname = 3\n[ppo]\nsteps = 'abc'\nepochs = 1.5\nkl_estimator = 'k9'\nwhiten_rewards = 'yes'\nkl_coef = nan\noptim = 3\n[prompts]\nlimit = 1979-05-27\n[dpo]\nepochs = 99999999999999999999";
    assert_snapshot!(error(text), @r#"
    11 problems in the config
      `run.seed` must be at least 0, got -1 (line 2)
      `run.stages` must be a list, got "ppo" (line 3)
      `run.name` must be text in quotes, got 3 (line 4)
      `ppo.steps` must be a whole number, got "abc" (line 6)
      `ppo.epochs` must be a whole number, got 1.5 (line 7)
      `ppo.kl_estimator` must be one of `k1`, `k2`, `k3`, got "k9" (line 8)
      `ppo.whiten_rewards` must be true or false, got "yes" (line 9)
      `ppo.kl_coef` must be a finite number, got nan (line 10)
      `ppo.optim` must be a table, got 3 (line 11)
      `prompts.limit` cannot be a date, got 1979-05-27 (line 13)
      `dpo.epochs` must be below 2^63, got 99999999999999999999 (line 15)
    "#);
}

#[test]
fn impossible_values_are_told_at_once_with_their_lines() {
    let text = "[ppo]\nkl_coef = -0.1\nlambda = 1.5\nmini_batches = 5\n[generate]\nn = 3\n[dpo]\nbeta = 0\nmicro_batch_size = 9\n[ppo.lora]\ntargets = ['q_proj', 'qproj']\n[run]\nstages = ['label', 'generate', 'generate']";
    assert_snapshot!(error(text), @r#"
    9 problems in the config
      `ppo.kl_coef` must be at least 0, got -0.1 (line 2)
      `ppo.lambda` must be between 0 and 1, got 1.5 (line 3)
      `ppo.mini_batches` must divide the 32 responses of `ppo.prompts_per_step` × `ppo.samples_per_prompt`, got 5 (line 4)
      `dpo.beta` must be above 0, got 0 (line 8)
      `dpo.micro_batch_size` must be at most `dpo.batch_size` = 8, got 9 (line 9)
      `ppo.lora.targets` must be among `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`, `out_proj`, `fc1`, `fc2`, `c_attn`, `c_proj`, `c_fc`, `query_key_value`, `dense`, `dense_h_to_4h`, `dense_4h_to_h`, got "qproj" (line 11)
      `run.stages` must keep the pipeline's order: `generate` runs before `label` (line 13)
      `run.stages` names `generate` twice (line 13)
      `label.pairs_per_prompt` must be at most 3, the pairs of `generate.n` = 3 responses, got 4
    "#);
}

#[test]
fn a_loss_of_dpo_is_checked_with_the_keys_that_it_reads() {
    let config = load("[dpo]\nloss = 'simpo'\nsimpo_gamma = 1").unwrap().config;
    assert_eq!((config.dpo.beta(), config.dpo.simpo_gamma), (2.0, 1.0));
    let config = load("[dpo]\nloss = 'exo_pair'\nbeta = 0.2").unwrap().config;
    assert_eq!((config.dpo.beta(), config.dpo.label_smoothing()), (0.2, 1e-3));
    let aot = load("[dpo]\nloss = 'aot'\nsoft_labels = false\nlabel_smoothing = 0.1").unwrap();
    let written = aot.to_toml();
    assert_eq!(load(&written).unwrap_or_else(|error| panic!("{error}\n{written}")).config, aot.config);

    assert_snapshot!(error("[dpo]\nloss = 'hinge'\nlabel_smoothing = 0.1\nsimpo_gamma = 0.7\ndesirable_weight = 2\ndiscopop_tau = 1"), @r#"
    4 problems in the config
      `dpo.label_smoothing` is not read by `dpo.loss` = "hinge"; it is for `cdpo`, `robust`, `exo_pair`, `aot`, `aot_unpaired` (line 3)
      `dpo.simpo_gamma` is not read by `dpo.loss` = "hinge"; it is for `simpo` (line 4)
      `dpo.desirable_weight` is not read by `dpo.loss` = "hinge"; it is for `kto`, `apo_zero_unpaired` (line 5)
      `dpo.discopop_tau` is not read by `dpo.loss` = "hinge"; it is for `discopop` (line 6)
    "#);
    assert_snapshot!(error("[dpo]\nloss = 'aot'\nbatch_size = 1\nmicro_batch_size = 1\nlabel_smoothing = 0.5"), @r#"
    3 problems in the config
      `dpo.soft_labels` must be false with `dpo.loss` = "aot", which sorts the rewards of a batch by label
      `dpo.batch_size` must be at least 2 with `dpo.loss` = "aot", which sorts a batch, got 1 (line 3)
      `dpo.label_smoothing` must be at least 0 and below 0.5, got 0.5 (line 5)
    "#);
    assert_snapshot!(error("[dpo]\nloss = 'exo_pair'\nlabel_smoothing = 0"), @r#"`dpo.label_smoothing` must be above 0 with `dpo.loss` = "exo_pair", which takes its logarithm, got 0 (line 3)"#);
    assert_snapshot!(error("[dpo]\nloss = 'ipo'"), @r#"`dpo.loss` must be one of `sigmoid`, `cdpo`, `robust`, `hinge`, `ipo_mean`, `ipo_sum`, `sigmoid_norm`, `simpo`, `orpo`, `kto`, `exo_pair`, `nca_pair`, `bco_pair`, `sppo_hard`, `aot`, `aot_unpaired`, `apo_zero_unpaired`, `apo_zero`, `apo_down`, `discopop`, got "ipo" (line 2)"#);
}

#[test]
fn what_a_reward_model_learns_from_and_how_is_checked() {
    let text = "[reward]\ndata = ['a.jsonl', 'b.jsonl']\nbatch_by = 'prompts'\nbatch_size = 2\nmicro_batch_size = 8\nheads = 4\nlabel_smoothing = 0.1\ntruncated_negatives = 1";
    let reward = load(text).unwrap();
    assert_eq!(load(&reward.to_toml()).unwrap().config, reward.config);
    let text = "[reward]\ndata = ['a.jsonl', '', 'a.jsonl']\nbatch_size = 2\nmicro_batch_size = 8\nheads = 0\nlabel_smoothing = 0.5\ntruncated_negatives = 1.5\n[dpo]\ndata = ['']";
    assert_snapshot!(error(text), @r#"
    7 problems in the config
      `reward.data[1]` must not be empty (line 2)
      `reward.data[2]` names `a.jsonl` again: its pairs would count twice (line 2)
      `reward.micro_batch_size` must be at most `reward.batch_size` = 2, got 8 (line 4)
      `reward.heads` must be 1 to 64, got 0 (line 5)
      `reward.label_smoothing` must be at least 0 and below 0.5, got 0.5 (line 6)
      `reward.truncated_negatives` must be between 0 and 1, got 1.5 (line 7)
      `dpo.data[0]` must not be empty (line 9)
    "#);
    let text = "[reward]\nmembers = 5\n[ppo]\nensemble = 'uncertainty_weighted'\nuncertainty_weight = 0.5";
    let several = load(text).unwrap();
    assert_eq!(load(&several.to_toml()).unwrap().config, several.config);
    assert_snapshot!(error("[reward]\nmembers = 0\nheads = 2\n[ppo]\nensemble = 'worst_case'\nuncertainty_weight = 0.5"), @r#"
    2 problems in the config
      `reward.members` must be 1 to 16, got 0 (line 2)
      `ppo.uncertainty_weight` is read only with `ppo.ensemble` = "uncertainty_weighted" (line 6)
    "#);
    assert_snapshot!(error("[ppo]\nensemble = 'worst_case'"), @r#"`ppo.ensemble` must be "mean" unless `reward.members` or `reward.heads` is above 1: one model has nobody to disagree with (line 2)"#);
    assert_snapshot!(error("[reward]\nrevisions = true"), @"`reward.revisions` can be true only where the run has a stage `revise`: set `revise.rounds` (line 2)");
    assert!(load("[revise]\nrounds = 1\n[reward]\nrevisions = true\n[dpo]\nrevisions = true").is_ok());
    assert_snapshot!(error("[reward]\nbatch_by = 'tokens'"), @r#"`reward.batch_by` must be `pairs` or `prompts`, got "tokens" (line 2)"#);
}

#[test]
fn system_prompts_of_generation_are_checked() {
    let text = "[generate]\nn = 2\nsystems = ['Be kind.', ' ', 'Be curt.']\n[label]\npairs_per_prompt = 1";
    assert_snapshot!(error(text), @"
    2 problems in the config
      `generate.systems[1]` must not be empty (line 3)
      `generate.systems` must be at most `generate.n` = 2: each response is sampled under one of them, got 3 (line 3)
    ");
}

#[test]
fn judges_are_checked_against_their_kind() {
    let text = "[[label.judges]]\nname = 'a'\nprotocol = 'contrastive'\n[[label.judges]]\nname = 'a'\nkind = 'openai'\nprotocol = 'contrastive'\nprinciple = 'p'\nmodel = 'm'\nbase_url = 'http://judge.example/v1'\napi_key_env = 'sk-12345'\n[[label.judges]]\nname = 'c'\nprotocol = 'pairwise'\nmax_tokens = 9\ntemperature = 0.5";
    let message = error(text);
    assert!(!message.contains("sk-12345"), "what may be a key is never repeated");
    assert_snapshot!(message, @r#"
    11 problems in the config
      `label.judges[0].principle` must be given for a contrastive judge (line 1)
      `label.judges[0].opposite` must be given for a contrastive judge (line 1)
      `label.judges[1].usd_per_million_input` must be given, or `[prices."m"]`, or `allow_unknown_price` = true: an unknown price is not 0 (line 4)
      `label.judges[1].usd_per_million_output` must be given, or `[prices."m"]`, or `allow_unknown_price` = true: an unknown price is not 0 (line 4)
      `label.judges[1].name` must differ from that of other judges, got "a" again (line 5)
      `label.judges[1].protocol` cannot be "contrastive" for an `openai` judge: the endpoint gives no log-probs of a given text (line 7)
      `label.judges[1].principle` is for contrastive judges only; this one does not use it (line 8)
      `label.judges[1].base_url` must be https unless it is this machine, got "http://judge.example/v1" (line 10)
      `label.judges[1].api_key_env` must be the name of an environment variable, not the key (line 11)
      `label.judges[2].max_tokens` is for remote judges only; a local one does not use it (line 15)
      `label.judges[2].temperature` is for contrastive and rating judges only; this one does not use it (line 16)
    "#);
}

#[test]
fn flags_and_variables_are_named_in_errors() {
    let flags = [
        ("ppo.kl_coeff".into(), "1".into()),
        ("ppo.steps".into(), "many".into()),
        ("label.judges[7].name".into(), "x".into()),
        ("..".into(), "x".into()),
        ("run.seed.x".into(), "1".into()),
    ];
    let error =
        Config::load("[run]\nseed = 1", &flags, |name| (name == "RLAIF_DPO_BETA").then(|| "-1".into()))
            .unwrap_err();
    assert_snapshot!(error, @r#"
    6 problems in the config
      `dpo.beta` must be above 0, got -1 (`RLAIF_DPO_BETA`)
      `label.judges[7].name` in `--set`: the list has only 1
      `run.seed.x` in `--set`: its parent is not a table
      unknown key `ppo.kl_coeff` in `--set`; did you mean `kl_coef`?
      `ppo.steps` must be a whole number, got "many" (`--set`)
      `..` in `--set` is no key such as `ppo.kl_coef`
    "#);
}

#[test]
fn a_file_that_is_no_toml_says_where() {
    assert_snapshot!(error("[run]\nseed = = 1\n"), @r#"
    2 problems in the config
      line 2: extra `=`, expected nothing
      line 2: unexpected key or value, expected newline, `#`
    "#);
    assert_snapshot!(error("[run]\nseed = 1\nseed = 2\n"), @r#"line 3: duplicate key"#);
    assert_snapshot!(error("run = 3"), @r#"`run` must be a table, got 3 (line 1)"#);
    assert_snapshot!(error("[[label.few_shot]]\nprompt = 'p'\nfirst = 'f'"), @r#"
    2 problems in the config
      `label.few_shot[0]` on line 1 has no `second`
      `label.few_shot[0]` on line 1 has no `verdict`
    "#);
}

#[test]
fn https_is_needed_except_on_this_machine() {
    let problems = |url: &str| {
        set(&[(
            "label.judges",
            &format!("[{{name='j', kind='openai', model='m', allow_unknown_price=true, base_url='{url}'}}]"),
        )])
    };
    for good in
        ["https://api.example/v1", "http://localhost:8080/v1", "http://[::1]:1/v1", "http://127.0.0.2/v1"]
    {
        assert!(problems(good).is_ok(), "{good}: {}", problems(good).unwrap_err());
    }
    for bad in [
        "http://api.example/v1",
        "ftp://localhost",
        "api.example",
        "https://",
        "https://u:p@api.example/v1",
        "https://api.example/v1?key=1",
        "http://localhost.example/v1",
        "http://127.0.0.1@evil.example/",
    ] {
        assert!(problems(bad).is_err(), "{bad}");
    }
}

#[test]
fn panels_cascades_and_pair_choice_are_checked() {
    let judge = |name: &str, below: &str| {
        format!("[[label.judges]]\nname = '{name}'\nprinciple = 'kind'\nopposite = 'rude'\n{below}\n")
    };
    let problems = |label: &str, judges: &str| match load(&format!("[label]\n{label}\n{judges}")) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    let (one, two) = (judge("a", ""), judge("a", "") + &judge("b", "only_if_unsure_below = 0.2"));
    let three = two.clone() + &judge("c", "");
    for (label, judges) in [
        ("aggregation = 'dawid_skene'", &three),
        ("aggregation = 'bradley_terry'\ncalibration = 'gold.jsonl'", &one),
        ("pair_choice = 'least_sure'\nmax_pairs = 10", &two),
        ("pair_choice = 'most_different'", &one),
    ] {
        assert_eq!(problems(label, judges), "", "{label}");
    }
    let first_in_cascade = judge("a", "only_if_unsure_below = 0.2");
    let never_sure = judge("a", "") + &judge("b", "only_if_unsure_below = 0.6");
    for (label, judges, wanted) in [
        ("aggregation = 'dawid_skene'", &two, "`label.aggregation` needs labelled pairs"),
        ("pair_choice = 'least_sure'", &two, "`label.max_pairs` must be given"),
        ("max_pairs = 0", &one, "`label.max_pairs` must be at least 1"),
        ("", &first_in_cascade, "nobody comes before it"),
        ("", &never_sure, "`label.judges[1].only_if_unsure_below` must be at most 0.5, got 0.6"),
        ("vote_smoothing = -1.0", &one, "`label.vote_smoothing` must be at least 0, got -1"),
    ] {
        let got = problems(label, judges);
        assert!(got.contains(wanted), "{label}: {got:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn load_never_panics_on_text(text in "\\PC{0,200}") {
        let _ = load(&text);
    }

    #[test]
    fn load_never_panics_on_settings(key in "(run|ppo|label|label\\.judges|evaluate|x)?(\\[[0-9]{1,3}\\]|\\.)?[a-z_\\.\\[\\]0-9]{0,12}", value in "\\PC{0,30}") {
        let _ = set(&[(&key, &value)]);
    }

    /// Structured nonsense: known keys with values of every type.
    #[test]
    fn load_never_panics_on_known_keys(
        section in "run|policy|prompts|generate|label|reward|ppo|dpo|evaluate|\\[label\\.judges\\]|ppo\\.lora",
        key in "seed|stages|judges|lora|optim|n|few_shot|steps|name|kl_budget|system|targets",
        value in "-?[0-9]{1,20}|[0-9]\\.[0-9]|nan|-inf|'none'|true|\\[\\]|\\[1\\]|\\['a'\\]|\\[\\{\\}\\]|\\{\\}|\\{rank = 1\\}|1979-05-27",
    ) {
        let _ = load(&format!("[{section}]\n{key} = {value}\n"));
    }
}

#[test]
fn an_origin_and_a_split_of_its_own_are_checked() {
    let given = load("[policy]\norigin = 'runs/a/models/sft'\n[prompts]\nsplit_seed = 3").unwrap().config;
    assert_eq!(
        (given.policy.origin.as_deref(), given.prompts.split_seed),
        (Some("runs/a/models/sft"), Some(3))
    );
    assert_eq!(load("").unwrap().config.prompts.split_seed, None);
    assert_snapshot!(error("[policy]\norigin = ' '\n[prompts]\neval = 'eval.jsonl'\nsplit_seed = 3"), @"
    2 problems in the config
      `policy.origin` must not be empty (line 2)
      `prompts.split_seed` splits nothing where `prompts.eval` is given (line 5)
    ");
}

#[test]
fn routes_are_checked() {
    let judges = "[[label.judges]]\nname = 'tone'\nprinciple = 'Be kind.'\nopposite = 'Be rude.'\n[[label.judges]]\nname = 'guard'\nprotocol = 'rating'\nweight = 0.0\n";
    let good = format!(
        "{judges}[route]\nexpert_tags = ['medical']\nrandom_share = 0.1\nmin_agreement = 0.8\nhuman_data = ['a.jsonl']\nbootstrap = 50\n\
         [[route.rules]]\nname = 'doses'\nto = 'people'\nwords = ['dose']\ntags = ['chat']\n\
         [[route.rules]]\nto = 'both'\nunsafe_by = 'guard'\nunsafe_below = 4\n\
         [[route.rules]]\nto = 'judges'\ndisagree = true\nspread_above = 0.2\nmargin_below = 0.1\nrandom_share = 0.5"
    );
    let route = load(&good).unwrap().config.route;
    assert_eq!(
        route.rules.iter().enumerate().map(|(i, r)| r.label(i)).collect::<Vec<_>>(),
        ["doses", "rule 2", "rule 3"]
    );
    assert_eq!(route.rules[1].unsafe_below(), 4.0);
    assert!(route.routes() && route.measures());
    assert!(!load("[route]\nmax_share = 0.9").unwrap().config.route.routes());

    let wrong = "[route]\nrandom_share = 0.6\nmin_agreement = 1.5\nbootstrap = 5\nexpert_tags = ['']\n\
        [[route.rules]]\nto = 'people'\n\
        [[route.rules]]\nname = 'rule 1'\nto = 'people'\nwords = ['!?']\nspread_above = 0.6\nmargin_below = 2\n\
        [[route.rules]]\nto = 'people'\nunsafe_by = 'tone'\nunsafe_below = 11\ntags = [' ']\nrandom_share = 2\n\
        [[route.rules]]\nto = 'both'\nunsafe_by = 'nobody'\n\
        [[route.rules]]\nto = 'both'\ntags = ['a']\nunsafe_below = 3";
    assert_snapshot!(error(wrong), @r#"
    15 problems in the config
      `route.max_share` must be at least `route.random_share` = 0.6, got 0.5
      `route.min_agreement` must be between 0 and 1, got 1.5 (line 3)
      `route.bootstrap` draws from `route.human_data`, which names no file (line 4)
      `route.expert_tags` must not hold an empty tag (line 5)
      `route.rules[0]` must say which pairs it is for: `tags`, `words`, `random_share`, `unsafe_by`, `disagree`, `spread_above` or `margin_below` (line 6)
      `route.rules[1].name` must differ from those of other rules, got "rule 1" twice (line 9)
      `route.rules[1].words` must hold letters or digits, got "!?" (line 11)
      `route.rules[1].spread_above` must be 0 to 0.5, got 0.6 (line 12)
      `route.rules[1].margin_below` must be 0 to 0.5, got 2 (line 13)
      `route.rules[2].unsafe_by` must name a judge with `protocol` = "rating", got "tone" (line 16)
      `route.rules[2].unsafe_below` must be a rating from 1 to 10, got 11 (line 17)
      `route.rules[2].tags` must not hold an empty tag (line 18)
      `route.rules[2].random_share` must be between 0 and 1, got 2 (line 19)
      `route.rules[3].unsafe_by` must name a judge of `label.judges`, got "nobody" (line 22)
      `route.rules[4].unsafe_below` is read only with `unsafe_by` (line 26)
    "#);
    for (wrong, key) in [
        ("[[route.rules]]\ntags = ['a']", "`route.rules[0]` on line 1 has no `to`"),
        ("[[route.rules]]\nto = 'experts'\ntags = ['a']", "must be one of `judges`, `both`, `people`"),
        ("[route]\nmin_agreement = 0.8", "`route.min_agreement` is measured on randomly drawn pairs"),
        ("[[label.judges]]\nweight = 0.0", "`label.judges[0].weight` must be above 0"),
    ] {
        assert!(error(wrong).contains(key), "{}", error(wrong));
    }
}
