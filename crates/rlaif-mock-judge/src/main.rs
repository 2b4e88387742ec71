//! `rlaif-mock-judge`: the mock judge as a program.

use clap::Parser;
use rlaif_mock_judge::{MockJudge, Mode, Options};
use std::process::ExitCode;

/// A judge that costs nothing and knows the truth, to rehearse a run before real money is spent.
///
/// Start it, give its URL to a judge as `base_url`, and run `rlaif label`. It finds the two responses in each prompt and knows how
/// good they are: from a marker such as `[q=0.73]` in the text, else from a hash of the text. It names the better one with the
/// accuracy you set, prefers a position or the longer text as much as you say, fails in all the ways in which providers fail, and
/// keeps a ledger of what really happened.
///
/// A judge that is right 80 times in 100, with every fifth call failing:
///
///     rlaif-mock-judge --listen 127.0.0.1:8200 --accuracy 0.8 --chaos 0.2 --ledger calls.jsonl
///
/// Then, in the config of the run:
///
///     [[label.judges]]
///     kind = "openai"
///     protocol = "pairwise"
///     model = "mock-judge"
///     base_url = "http://127.0.0.1:8200/v1"
///
/// Totals at any time: GET /ledger/summary. Ctrl-C ends it and prints them.
#[derive(Debug, Parser)]
#[command(name = "rlaif-mock-judge", version, max_term_width = 110, verbatim_doc_comment)]
struct Cli {
    #[command(flatten)]
    options: Options,
    /// Print every mode in which a call can fail, with its group, and end
    #[arg(long)]
    list_modes: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.list_modes {
        for mode in Mode::ALL.iter().filter(|mode| mode.can_be_drawn()) {
            let group = format!("{:?}", mode.group()).to_lowercase();
            println!("{:<22} {group:<10} {}", mode.as_str(), mode.describe().trim());
        }
        return ExitCode::SUCCESS;
    }
    match run(cli.options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(inner) = cause {
                eprintln!("  caused by: {inner}");
                cause = inner.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // A ledger in a file need not be kept in memory too.
        let forget_calls = options.forget_calls || options.ledger.is_some();
        let judge = MockJudge::start(Options { forget_calls, ..options }).await?;
        // Scripts read this line to learn the port.
        println!("{}", judge.base_url());
        eprintln!("mock judge at {}; Ctrl-C ends it", judge.url());
        tokio::signal::ctrl_c().await?;
        println!("{}", serde_json::to_string_pretty(&judge.ledger().summary())?);
        Ok(())
    })
}
