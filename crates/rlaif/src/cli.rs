//! The command line.

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use rlaif_core::config::Stage;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Align language models from AI feedback: sample, judge, train, evaluate, report.
#[derive(Debug, Parser)]
#[command(name = "rlaif", version, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    /// Show what the program is doing in detail; `RUST_LOG` says more finely what.
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole pipeline; finished stages are skipped, an interrupted one goes on where it was
    Run(RunArgs),
    /// Run it again and again, each round from what the last one tuned, and report how far the policy drifts
    Iterate(IterateArgs),
    /// Let the baseline answer, criticise and revise its own answers
    Revise(ConfigArgs),
    /// Fine-tune the baseline on demonstrations; what comes of it is the baseline of every other stage
    Sft(ConfigArgs),
    /// Sample responses from the baseline
    Generate(ConfigArgs),
    /// Let the judges compare responses and make preferences of their verdicts
    Label(ConfigArgs),
    /// Train the reward model on the preferences
    Reward(ConfigArgs),
    /// Tune the policy against the reward model
    Ppo(ConfigArgs),
    /// Tune the policy on the preferences
    Dpo(ConfigArgs),
    /// Compare the tuned policies with the baseline on held-out prompts
    Evaluate(ConfigArgs),
    /// Write report.html again
    Report(ReportArgs),
    /// Serve a web page on which people judge the run's pairs; what they say comes before the judges
    Review(ReviewArgs),
    /// Say what each stage would do and why; computes and sends nothing
    Plan(PlanArgs),
    /// Measure how far the judges, and what they made, can be trusted, and hold it against `audit.bounds`
    Audit(AuditArgs),
    /// Batches: files of requests for whoever submits them by hand, such as `vllm run-batch`, and what is out
    Batch {
        /// What to do with them.
        #[command(subcommand)]
        command: BatchCommand,
    },
    /// Look at a config
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Judge transcripts (JSONL on stdin: id, text, style) to verdicts (JSONL on stdout)
    Parse,
    /// Log-probabilities of tokens: JSONL {"ids": […]} on stdin to {"logprobs": […]}, one for each token but the first
    Logprobs(ModelArgs),
    /// Scores of a reward model: JSONL {"prompt", "response"} on stdin to {"reward"}
    Score(ModelArgs),
    /// Read preferences that others published (hh-rlhf, UltraFeedback, Argilla, TRL) and write them as `reward.data` has them
    Import(ImportArgs),
    /// Write preferences or responses of a run as JSONL, or a trained model for transformers, PEFT or llama.cpp
    Export(ExportArgs),
}

/// A config and what overrides it.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// The config file.
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// Override a value of the config; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// As a shell reads them.
    pub fn as_typed(&self) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
        let quoted = |word: &str| match !word.is_empty() && word.chars().all(plain) {
            true => word.to_string(),
            false => format!("'{}'", word.replace('\'', r"'\''")),
        };
        let sets = self.set.iter().map(|set| format!(" --set {}", quoted(set)));
        std::iter::once(quoted(&self.config.to_string_lossy())).chain(sets).collect()
    }
}

/// `rlaif run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Start with this stage; what it reads must be there
    #[arg(long, value_name = "STAGE")]
    pub from: Option<StageName>,
    /// Stop after this stage
    #[arg(long, value_name = "STAGE")]
    pub until: Option<StageName>,
    /// Print the outcome as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// `rlaif iterate`.
#[derive(Debug, Clone, Args)]
pub struct IterateArgs {
    /// The config of the first round; the overrides hold in every round
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How many rounds, the run of the config included
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000).map(|n| n as usize))]
    pub rounds: usize,
    /// Which tuned policy the next round starts from; default ppo where the run has it
    #[arg(long, value_name = "STAGE")]
    pub tuned: Option<Tuned>,
    /// Print the drift as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// A policy from which a next round can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tuned {
    /// What was tuned against the reward model.
    Ppo,
    /// What was tuned on the preferences.
    Dpo,
}

impl From<Tuned> for Stage {
    fn from(tuned: Tuned) -> Self {
        match tuned {
            Tuned::Ppo => Self::Ppo,
            Tuned::Dpo => Self::Dpo,
        }
    }
}

/// `rlaif report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// The config file; with `--compare` also a run folder, and the first of the runs
    #[arg(value_name = "CONFIG", required_unless_present = "compare")]
    pub config: Option<PathBuf>,
    /// Override a value of the config; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Also write every training curve to this folder, each as an SVG file of its own
    #[arg(long, value_name = "FOLDER", conflicts_with = "compare")]
    pub curves: Option<PathBuf>,
    /// Lay these runs beside the first one, each by its config file or its folder, instead of writing `report.html`
    #[arg(long, value_name = "RUN", num_args = 1..)]
    pub compare: Vec<PathBuf>,
    /// Where the comparison goes; default `compare.html` in the first run's folder
    #[arg(short, long, value_name = "FILE", requires = "compare")]
    pub output: Option<PathBuf>,
    /// Print the comparison as JSON on stdout
    #[arg(long, requires = "compare")]
    pub json: bool,
}

/// `rlaif plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the plan as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// `rlaif review`.
#[derive(Debug, Clone, Args)]
pub struct ReviewArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Where to listen; the default is any free port, for browsers on this machine only
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Another name under which browsers reach it, such as the end of an SSH tunnel; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    pub allow_host: Vec<String>,
}

/// What `rlaif audit --bias` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BiasOf {
    /// The judges of labels and of the evaluation
    Judges,
    /// The reward model
    Reward,
    /// The baseline, and what tuning changed of it
    Policies,
}

/// `rlaif audit`.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Look through what is trained on for duplicates, contradictions, imbalance, leaks and personal data; asks nobody anything
    #[arg(long)]
    pub preferences: bool,
    /// What the ledger says of the judges: agreement with people, biases, refusals; asks nobody. The default, with `--preferences`, where nothing is named
    #[arg(long)]
    pub judges: bool,
    /// Ask every judge about `audit.repeat_pairs` pairs again, `audit.repeat_times` times, and tell how often it says the same
    #[arg(long)]
    pub repeat: bool,
    /// Show every judge known-bad responses against honest ones, in both orders
    #[arg(long)]
    pub robustness: bool,
    /// Put one group in another's place and measure what moves: the reward model, the policies, and the judges, who are asked, which
    /// costs; see `docs/audit-bias.md`
    #[arg(long)]
    pub bias: bool,
    /// Of `--bias` only this; may be repeated
    #[arg(long, value_name = "WHAT", value_enum, requires = "bias")]
    pub bias_of: Vec<BiasOf>,
    /// Fail also where there is too little data to show that a bound is kept
    #[arg(long)]
    pub strict: bool,
    /// Of `--robustness` only this family; may be repeated
    #[arg(long, value_name = "FAMILY")]
    pub family: Vec<String>,
    /// Responses of each family, at most 300; default `audit.per_family`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..).map(|n| n as usize))]
    pub per_family: Option<usize>,
    /// Print what was measured as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// `rlaif config`.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Print every value with its origin: flag, environment, file or default
    Show(ConfigArgs),
}

/// `rlaif batch`.
#[derive(Debug, Clone, Subcommand)]
pub enum BatchCommand {
    /// Write what a judge is still to be asked for labels as a batch file in OpenAI's format, and set it aside until results come
    Export(BatchExportArgs),
    /// Store the results of a batch file; `rlaif label` then goes on
    Import(BatchImportArgs),
    /// Show the batches that are out, with providers and in files
    List(BatchListArgs),
    /// Take back what went out as a file and did not come back: it is asked again
    Release(BatchReleaseArgs),
}

/// `rlaif batch export`.
#[derive(Debug, Clone, Args)]
pub struct BatchExportArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The file to write; it must not be there yet
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Which judge of `[[label.judges]]`
    #[arg(long, value_name = "NAME")]
    pub judge: String,
    /// Write at most so many requests, such as the 50000 that OpenAI takes in a file
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..).map(|n| n as usize))]
    pub max_requests: Option<usize>,
}

/// `rlaif batch import`.
#[derive(Debug, Clone, Args)]
pub struct BatchImportArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The results
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// `rlaif batch list`.
#[derive(Debug, Clone, Args)]
pub struct BatchListArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the batches as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// `rlaif batch release`.
#[derive(Debug, Clone, Args)]
pub struct BatchReleaseArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A batch, as `rlaif batch list` names it; all files if not given
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// The file was submitted nowhere, so that nothing was billed for it
    #[arg(long)]
    pub not_submitted: bool,
}

/// A model to try.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// A Hugging Face folder, a `.gguf` file, or `hf:owner/name`
    pub model: String,
    /// Where tensors live
    #[arg(long, default_value = "cpu")]
    pub device: String,
}

/// `rlaif import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// Files of one JSON object a line or of one array of them, also gzipped, or Parquet
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// What a row looks like; each row tells by its fields if not given
    #[arg(long)]
    pub shape: Option<ImportShape>,
    /// Who labelled them, for accuracy by source
    #[arg(long, default_value = "human", value_name = "NAME")]
    pub source: String,
    /// Where to; stdout if not given
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

/// Shapes of preferences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportShape {
    /// `prompt`, `chosen`, `rejected`; texts or messages, the prompt also within them
    Trl,
    /// Two transcripts of `Human:` and `Assistant:`
    Hh,
    /// `instruction` and scored `completions`
    Ultrafeedback,
    /// Argilla's records with rankings
    Argilla,
}

/// `rlaif export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// The config file of a run
    #[arg(value_name = "CONFIG", required_unless_present = "model")]
    pub config: Option<PathBuf>,
    /// Override a value of the config; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// What to write; preferences if neither this nor --stage is given
    #[arg(long, conflicts_with = "model")]
    pub what: Option<ExportWhat>,
    /// Where to: a new file, for a model in several files a new folder; lines go to stdout if not given
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Where the card goes that says what was exported; default beside the file, as `NAME.card.md`, and none for stdout
    #[arg(long, value_name = "PATH", conflicts_with_all = ["stage", "model"])]
    pub card: Option<PathBuf>,
    /// Which trained model of the run: reward, ppo or dpo
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<StageName>,
    /// A model outside a run instead: a Hugging Face folder, a `.gguf` file, or `hf:owner/name`
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["config", "stage"])]
    pub model: Option<String>,
    /// For whom a model is written
    #[arg(long, default_value = "safetensors")]
    pub format: ModelFormat,
    /// How its weights are stored; default f16 in a GGUF and f32 elsewhere
    #[arg(long)]
    pub dtype: Option<ModelDtype>,
    /// Where PEFT finds the model that an adapter belongs to; default the run's `policy.model`
    #[arg(long, value_name = "NAME")]
    pub base_model: Option<String>,
}

/// What `rlaif export` can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportWhat {
    /// prompt, chosen, rejected, p, explanation, judges: loads in TRL and `datasets`
    Preferences,
    /// Every response of every policy, with token ids and log-probabilities
    Responses,
    /// Everything that people said, also what they took back
    HumanVerdicts,
    /// A trained model: give --stage and --output
    Model,
}

/// A model's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelFormat {
    /// A folder for transformers and vLLM, adapters merged
    Safetensors,
    /// A folder with the adapter alone, for PEFT
    Peft,
    /// A file for llama.cpp and what is built on it
    Gguf,
}

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelDtype {
    /// 4 bytes a weight
    F32,
    /// 2 bytes
    F16,
    /// 2 bytes, less exact than f16 and never too small for a weight
    Bf16,
    /// 1.06 bytes, in blocks of 32; only in a GGUF
    #[value(name = "q8_0")]
    Q8_0,
}

/// A stage's name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StageName {
    /// Criticise and revise answers.
    Revise,
    /// Fine-tune the baseline.
    Sft,
    /// Sample responses.
    Generate,
    /// Judge pairs.
    Label,
    /// Train the reward model.
    Reward,
    /// Tune against the reward model.
    Ppo,
    /// Tune on the preferences.
    Dpo,
    /// Compare with the baseline.
    Evaluate,
    /// Write the page.
    Report,
}

impl From<StageName> for Stage {
    fn from(name: StageName) -> Self {
        match name {
            StageName::Revise => Self::Revise,
            StageName::Sft => Self::Sft,
            StageName::Generate => Self::Generate,
            StageName::Label => Self::Label,
            StageName::Reward => Self::Reward,
            StageName::Ppo => Self::Ppo,
            StageName::Dpo => Self::Dpo,
            StageName::Evaluate => Self::Evaluate,
            StageName::Report => Self::Report,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_are_written_as_a_shell_reads_them() {
        let set = vec!["run.seed=1".into(), "prompts.system=Don't".into()];
        let args = ConfigArgs { config: "my runs/a.toml".into(), set };
        assert_eq!(args.as_typed(), r"'my runs/a.toml' --set run.seed=1 --set 'prompts.system=Don'\''t'");
    }
}
