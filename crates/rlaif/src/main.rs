//! `rlaif`: align language models from AI feedback, in one binary.
//!
//! | module | is |
//! |---|---|
//! | [`cli`], [`commands`] | the command line, one file a command |
//! | [`pipeline`] | which stages run, are skipped or computed again, and why |
//! | [`stages`] | one file a stage |
//! | [`context`] | what stages share: config, run folder, store, baseline |
//! | [`demonstrations`], [`revisions`] | the rows of `[sft]`; what `revise` leaves |
//! | [`preference_data`], [`data_files`] | the rows of `[reward]` and `[dpo]`; how bad rows are refused |
//! | [`run_folder`], [`manifest`] | paths and lock; fingerprints, wall time, cost |
//! | [`judging`], [`local_judge`] | pairs to preferences through every kind of judge |
//! | [`agreement`] | how far judges agree with people: for `review` and `audit` |
//! | [`people`] | labels of people, which come before the judges' |
//! | [`review`] | `rlaif review`: the page on which people judge |
//! | [`drift`] | what rounds of `rlaif iterate` made of the policy |
//! | [`tensorboard`] | metrics as event files |
//! | [`report`] | `report.html` |

mod agreement;
mod allocator;
mod audit;
mod card;
mod cli;
mod commands;
mod context;
mod data_files;
mod demonstrations;
mod drift;
mod error;
mod estimate;
mod human_data;
mod interrupt;
mod judging;
mod local_judge;
mod manifest;
mod people;
mod pipeline;
mod preference_data;
mod probe;
mod progress;
mod report;
mod resistance;
mod review;
mod revisions;
mod rewards;
mod robustness;
mod routing;
mod run_folder;
mod sampling;
mod stages;
mod tensorboard;
mod training;
mod watching;

use clap::Parser;
use cli::{Cli, Command};
use std::io::IsTerminal;
use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::keep_memory();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            error.print().ok();
            // clap's own code for a wrong command line is 2, which here means a bug.
            return ExitCode::from(if error.use_stderr() { error::FAILED } else { error::DONE });
        }
    };
    start_logging(cli.verbose);
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("error: a bug in rlaif: {panic}");
        eprintln!("hint: Everything finished so far is kept; please report the line above");
    }));
    match std::panic::catch_unwind(|| run(cli)) {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(error)) => error::report(&error),
        Err(_) => ExitCode::from(error::BUG),
    }
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    use rlaif_core::config::Stage;
    match cli.command {
        Command::Run(args) => commands::run::run(&args),
        Command::Iterate(args) => commands::iterate::run(&args),
        Command::Revise(args) => commands::stage::run(&args, Stage::Revise),
        Command::Sft(args) => commands::stage::run(&args, Stage::Sft),
        Command::Generate(args) => commands::stage::run(&args, Stage::Generate),
        Command::Label(args) => commands::stage::run(&args, Stage::Label),
        Command::Reward(args) => commands::stage::run(&args, Stage::Reward),
        Command::Ppo(args) => commands::stage::run(&args, Stage::Ppo),
        Command::Dpo(args) => commands::stage::run(&args, Stage::Dpo),
        Command::Evaluate(args) => commands::stage::run(&args, Stage::Evaluate),
        Command::Report(args) => commands::report::run(&args),
        Command::Review(args) => commands::review::run(&args),
        Command::Plan(args) => commands::plan::run(&args),
        Command::Audit(args) => commands::audit::run(&args),
        Command::Batch { command } => commands::batch::run(&command),
        Command::Config { command: cli::ConfigCommand::Show(args) } => commands::config::show(&args),
        Command::Parse => commands::parse::run(),
        Command::Logprobs(args) => commands::logprobs::run(&args),
        Command::Score(args) => commands::score::run(&args),
        Command::Import(args) => commands::import::run(&args),
        Command::Export(args) => commands::export::run(&args),
    }
}

fn start_logging(verbose: bool) {
    use tracing_subscriber::EnvFilter;
    let default =
        if verbose { "rlaif=debug,rlaif_judge=debug,rlaif_train=debug,rlaif_store=info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .init();
}
