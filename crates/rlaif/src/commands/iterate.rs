//! `rlaif iterate CONFIG --rounds N`: RLAIF again and again, each round from the policy that the one before tuned.
//!
//! Round 1 is the run of the config. Round r is a run of its own in `NAME-round-r`, with these values in place of the config's:
//!
//! * `policy.model` is what round r − 1 tuned, and `policy.origin` what round 1 started from: judges that are `policy` stay that model,
//!   and the evaluation compares with it too.
//! * `run.seed` is derived from (the config's seed, `iterate`, r), and `prompts.split_seed` is the config's seed: rounds sample anew and
//!   hold out the same prompts. A round that drew its own split would train on what an earlier one was evaluated on, and the policy
//!   would remember it.
//! * `run.stages` leaves out `revise` and `sft`, whose result the policy already is, and the tuner from which no round goes on.

use crate::cli::{ConfigArgs, IterateArgs, Tuned};
use crate::context::{Context, load_config};
use crate::drift::Drift;
use crate::error::{DONE, FAILED, UserError};
use crate::pipeline;
use crate::progress::say;
use crate::run_folder::{RunFolder, write_whole};
use anyhow::{Context as _, Result};
use rlaif_core::Config;
use rlaif_core::config::Stage;
use rlaif_core::seed;

/// Runs what is not done of the rounds; after each the drift is told and written anew.
pub fn run(args: &IterateArgs) -> Result<u8> {
    let config = load_config(&args.config)?.config;
    let tuned = tuned(args, &config)?;
    let mut drift = Drift::new(tuned.name());
    let mut failures = 0;
    let mut first: Option<First> = None;
    let mut round_args = args.config.clone();
    for round in 1..=args.rounds {
        let mut context = Context::open(&round_args)?;
        context.resume_command = resume_command(args, &config, tuned);
        if round == 1 {
            context.say_rejected();
            failures += context.prompts.rejected;
        }
        say(&format!("round {round} of {}: `{}`", args.rounds, context.folder.root().display()));
        failures += run_round(&mut context)?;

        drift.add(&context, round)?;
        let tuned_model = context.folder.model(tuned.name()).display().to_string();
        let first = first.get_or_insert_with(|| First::of(context));
        let text = serde_json::to_string_pretty(&drift).context("writing the drift")? + "\n";
        write_whole(&first.folder.drift(), text.as_bytes())?;
        say(&format!("\n{}", drift.table()));
        round_args = next_round(&args.config, &config, tuned, round + 1, &tuned_model, &first.origin);
    }
    if args.json {
        super::print(&format!("{}\n", serde_json::to_string_pretty(&drift)?))?;
    }
    if let Some(first) = &first {
        say(&format!("drift   {}", first.folder.drift().display()));
    }
    Ok(if failures > 0 { FAILED } else { DONE })
}

/// What later rounds keep of the first one: its folder, locked, and the policy it started from.
struct First {
    folder: RunFolder,
    origin: String,
}

impl First {
    fn of(context: Context) -> Self {
        let origin = context.config.policy.origin.clone().unwrap_or_else(|| context.policy_name());
        Self { folder: context.folder, origin }
    }
}

fn run_round(context: &mut Context) -> Result<usize> {
    let steps = pipeline::plan(context, &context.config.stages(), None, None)?;
    pipeline::announce(&steps);
    context.begin()?;
    pipeline::run(context, &steps)
}

/// The tuner from which rounds go on.
fn tuned(args: &IterateArgs, config: &Config) -> Result<Stage> {
    let stages = config.stages();
    let has = |stage: &Stage| stages.contains(stage);
    let chosen = match args.tuned {
        Some(tuned) => Some(Stage::from(tuned)),
        None => [Tuned::Ppo, Tuned::Dpo].map(Stage::from).into_iter().find(has),
    };
    let needed = [chosen.unwrap_or(Stage::Ppo), Stage::Evaluate];
    match needed.iter().find(|stage| !has(stage)) {
        None => Ok(needed[0]),
        Some(missing) => {
            let error = UserError::new(format!(
                "rounds need the stage `{}`, which this run does not have",
                missing.name()
            ));
            Err(error.hint("Add it to `run.stages`; `--tuned dpo` goes on from what `dpo` made").into())
        }
    }
}

/// The config of a later round: the first one's, with what differs as overrides.
fn next_round(
    args: &ConfigArgs,
    config: &Config,
    tuned: Stage,
    round: usize,
    model: &str,
    origin: &str,
) -> ConfigArgs {
    let left_out = |stage: &Stage| {
        matches!(stage, Stage::Revise | Stage::Sft)
            || (matches!(stage, Stage::Ppo | Stage::Dpo) && *stage != tuned)
    };
    let stages: Vec<&str> =
        config.stages().into_iter().filter(|stage| !left_out(stage)).map(Stage::name).collect();
    let mut set = vec![
        format!("run.name={}-round-{round}", config.run.name),
        format!("run.seed={}", round_seed(config.run.seed, round)),
        format!("run.stages={}", stages.join(",")),
        format!("policy.model={model}"),
        format!("policy.origin={origin}"),
    ];
    if config.prompts.eval.is_none() {
        set.push(format!("prompts.split_seed={}", config.prompts.split_seed.unwrap_or(config.run.seed)));
    }
    ConfigArgs { config: args.config.clone(), set: [args.set.clone(), set].concat() }
}

/// A round's seed; of 63 bits, which is what TOML holds.
fn round_seed(run_seed: u64, round: usize) -> u64 {
    seed::derive(run_seed, "iterate", round as u64) >> 1
}

fn resume_command(args: &IterateArgs, config: &Config, tuned: Stage) -> String {
    let both = [Stage::Ppo, Stage::Dpo].iter().all(|stage| config.stages().contains(stage));
    let named = if both { format!(" --tuned {}", tuned.name()) } else { String::new() };
    format!("rlaif iterate {} --rounds {}{named}", args.config.as_typed(), args.rounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::config::Config;

    fn second_round(text: &str, set: &[&str], tuned: Stage) -> Config {
        let set: Vec<String> = set.iter().map(|set| (*set).to_string()).collect();
        let args = ConfigArgs { config: "rlaif.toml".into(), set };
        let resolve = |args: &ConfigArgs| {
            let pairs: Vec<(String, String)> = args
                .set
                .iter()
                .map(|set| set.split_once('=').unwrap())
                .map(|(key, value)| (key.into(), value.into()))
                .collect();
            Config::load(text, &pairs, |_| None).unwrap().config
        };
        let first = resolve(&args);
        resolve(&next_round(&args, &first, tuned, 2, "runs/a/models/dpo", "base"))
    }

    #[test]
    fn a_later_round_differs_in_policy_seed_name_and_stages_alone() {
        let text = "[run]\nname = 'a'\nseed = 5\n[sft]\ndata = ['rows.jsonl']\n[revise]\nrounds = 1\n[dpo]\nepochs = 3";
        let mut second = second_round(text, &["dpo.batch_size=8"], Stage::Dpo);
        assert_eq!(second.run.name, "a-round-2");
        assert!(second.run.seed != 5 && i64::try_from(second.run.seed).is_ok());
        assert_eq!(second.prompts.split_seed, Some(5));
        assert_eq!(
            (second.policy.model.as_str(), second.policy.origin.as_deref()),
            ("runs/a/models/dpo", Some("base"))
        );
        use Stage::{Dpo, Evaluate, Generate, Label, Report, Reward};
        assert_eq!(second.stages(), [Generate, Label, Reward, Dpo, Evaluate, Report]);

        let sets = [("dpo.batch_size".to_string(), "8".to_string())];
        let first = Config::load(text, &sets, |_| None).unwrap().config;
        second.run = first.run.clone();
        second.policy = first.policy.clone();
        second.prompts = first.prompts.clone();
        assert_eq!(second, first);
    }

    #[test]
    fn a_split_of_its_own_is_kept_and_a_file_of_held_out_prompts_needs_none() {
        let second = second_round("[prompts]\nsplit_seed = 9", &[], Stage::Ppo);
        assert_eq!(second.prompts.split_seed, Some(9));
        let second = second_round("[prompts]\neval = 'eval.jsonl'", &[], Stage::Ppo);
        assert_eq!(second.prompts.split_seed, None);
    }
}
