//! What the stages of a run share.

use crate::cli::ConfigArgs;
use crate::error::UserError;
use crate::interrupt;
use crate::manifest::{self, Manifest};
use crate::progress::say;
use crate::run_folder::{RunFolder, write_whole};
use crate::stages::prompts::{self, Prompts};
use anyhow::{Context as _, Result};
use burn::tensor::Device;
use rlaif_core::Config;
use rlaif_core::config::{JudgeConfig, JudgeKind, MatmulPrecision, Resolved, Stage};
use rlaif_core::records::{Message, Prompt};
use rlaif_model::{Decoder, ModelFiles, Tokenizer};
use rlaif_store::Store;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Config, run folder, store, policy and prompts.
pub struct Context {
    /// The config.
    pub config: Config,
    /// Its file, as the user wrote it.
    pub config_path: PathBuf,
    /// The config file and what overrides it, as they are written behind a command.
    pub arguments: String,
    /// The command that goes on with what was interrupted.
    pub resume_command: String,
    /// Locked for this process.
    pub folder: RunFolder,
    /// What ran before.
    pub manifest: Manifest,
    /// The ledger.
    pub store: Store,
    /// Where tensors live.
    pub device: Device,
    /// The files of `policy.model`: shape, tokenizer, weights.
    pub policy_files: ModelFiles,
    /// BLAKE3 of these files.
    pub policy_fingerprint: String,
    /// The files of `policy.origin`.
    pub origin_files: Option<ModelFiles>,
    /// BLAKE3 of these files.
    pub origin_fingerprint: Option<String>,
    /// The prompts, split.
    pub prompts: Prompts,
    resolved: String,
    runtime: tokio::runtime::Runtime,
    policy: Option<Decoder>,
    origin: Option<Decoder>,
}

/// Reads a config with its overrides and checks it whole.
///
/// # Errors
/// If the file is missing or anything in it is wrong; all problems are told at once.
pub fn load_config(args: &ConfigArgs) -> Result<Resolved> {
    let path = &args.config;
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow::Error::from(
            UserError::new(format!("there is no config file `{}`", path.display()))
                .hint("Start from `examples/quickstart/rlaif.toml`"),
        ),
        _ => anyhow::Error::from(error).context(format!("reading `{}`", path.display())),
    })?;
    let mut overrides = Vec::new();
    for set in &args.set {
        let Some((key, value)) = set.split_once('=') else {
            return Err(UserError::new(format!("`--set {set}` has no `=`"))
                .hint("Write `--set run.seed=1`")
                .into());
        };
        overrides.push((key.trim().to_string(), value.trim().to_string()));
    }
    Config::load(&text, &overrides, |name| std::env::var(name).ok())
        .with_context(|| format!("`{}` cannot be used", path.display()))
}

impl Context {
    /// Opens everything that a run needs and nothing that it can do without: weights are read when a stage asks for them.
    ///
    /// # Errors
    /// If the config, the model, the prompts or the run folder cannot be used.
    pub fn open(args: &ConfigArgs) -> Result<Self> {
        let resolved = load_config(args)?;
        let config = resolved.config.clone();
        start_threads(config.run.threads)?;
        set_matmul_precision(config.run.float32_matmul_precision);
        let device = rlaif_model::open_device(&config.run.device)?;
        let policy_files = ModelFiles::open(&config.policy.model)
            .with_context(|| format!("opening the model `{}` of `policy.model`", config.policy.model))?;
        let policy_fingerprint = policy_files.fingerprint()?;
        let origin_files = open_origin(&config, &policy_files)?;
        let origin_fingerprint = origin_files.as_ref().map(ModelFiles::fingerprint).transpose()?;
        let base = base_of(&args.config);

        let folder = RunFolder::open(&config)?;
        let manifest = Manifest::load(&folder)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2) // requests wait; the cores are for tensors
            .enable_all()
            .build()
            .context("starting the async runtime")?;
        let store = runtime.block_on(Store::open_with(&folder.database(), config.run.durability))?;
        let prompts = prompts::read(&config, &base, &folder, &policy_files)?;

        interrupt::install()?;
        Ok(Self {
            config,
            config_path: args.config.clone(),
            arguments: args.as_typed(),
            resume_command: format!("rlaif run {}", args.as_typed()),
            resolved: resolved.to_toml(),
            folder,
            manifest,
            store,
            device,
            policy_files,
            policy_fingerprint,
            origin_files,
            origin_fingerprint,
            prompts,
            runtime,
            policy: None,
            origin: None,
        })
    }

    /// Notes in the run folder what is about to run, and with what.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn begin(&mut self) -> Result<()> {
        write_whole(&self.folder.config(), self.resolved.as_bytes())?;
        let manifest = &mut self.manifest;
        manifest.git_commit = manifest::git_commit();
        manifest.device = self.config.run.device.clone();
        manifest.cores = std::thread::available_parallelism().map_or(1, usize::from);
        manifest.platform = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
        manifest.seed = self.config.run.seed;
        manifest.policy = self.config.policy.model.clone();
        manifest.policy_fingerprint = self.policy_fingerprint.clone();
        manifest.command = std::env::args().collect::<Vec<_>>().join(" ");
        manifest.prompts = self.prompts.counts();
        manifest.save(&self.folder)
    }

    /// Waits for what the store or a judge does.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// A path of the config file, which is relative to that file.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        base_of(&self.config_path).join(path)
    }

    /// The baseline's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.policy_files.tokenizer
    }

    /// The baseline, loaded the first time it is asked for: what `sft` made of `policy.model` where the run has that stage, else
    /// `policy.model`. Clones share the weights.
    ///
    /// # Errors
    /// If its weights cannot be read or do not fit.
    pub fn policy(&mut self) -> Result<Decoder> {
        let policy = self.take_policy()?;
        self.policy = Some(policy.clone());
        Ok(policy)
    }

    /// [`policy`](Self::policy) for a stage that trains it: nobody else holds it then, so that the weights with which training began do not
    /// lie in memory beside those that are learnt. Asked for again, it is loaded anew.
    ///
    /// # Errors
    /// As there.
    pub fn take_policy(&mut self) -> Result<Decoder> {
        match self.policy.take() {
            Some(policy) => Ok(policy),
            None if self.config.stages().contains(&Stage::Sft) => self.tuned_policy("sft"),
            None => self.base_policy(),
        }
    }

    /// The model of `policy.origin`, loaded the first time it is asked for; `None` where there is none.
    ///
    /// # Errors
    /// If its weights cannot be read or do not fit.
    pub fn origin(&mut self) -> Result<Option<Decoder>> {
        if let (None, Some(files)) = (&self.origin, &self.origin_files) {
            let loaded = Decoder::load(&files.config, files.weights.as_ref(), &self.device)
                .context("loading the model of `policy.origin`")?;
            self.origin = Some(loaded);
        }
        Ok(self.origin.clone())
    }

    /// The model of judges that are `policy`: the origin, else the baseline.
    ///
    /// # Errors
    /// If its weights cannot be read or do not fit.
    pub fn judging_policy(&mut self) -> Result<Decoder> {
        match self.origin()? {
            Some(origin) => Ok(origin),
            None => self.policy(),
        }
    }

    /// How [`policy`](Self::policy) is named: as in `policy.model`, or the folder of what `sft` made.
    pub fn policy_name(&self) -> String {
        match self.config.stages().contains(&Stage::Sft) {
            true => self.folder.model("sft").display().to_string(),
            false => self.config.policy.model.clone(),
        }
    }

    /// The model of `policy.model`, read anew each time.
    ///
    /// # Errors
    /// If its weights cannot be read or do not fit.
    pub fn base_policy(&self) -> Result<Decoder> {
        let files = &self.policy_files;
        Decoder::load(&files.config, files.weights.as_ref(), &self.device)
            .with_context(|| format!("loading the model `{}`", self.config.policy.model))
    }

    /// A policy that a stage left in the run folder.
    ///
    /// # Errors
    /// If it is not there, or cannot be read.
    pub fn tuned_policy(&self, stage: &str) -> Result<Decoder> {
        let path = self.folder.model(stage);
        let files = ModelFiles::open(&path.to_string_lossy())
            .with_context(|| format!("opening the tuned policy `{}`", path.display()))?;
        Decoder::load(&files.config, files.weights.as_ref(), &self.device)
            .with_context(|| format!("loading the tuned policy `{}`", path.display()))
    }

    /// The conversation of a prompt as the policy sees it.
    pub fn conversation(&self, prompt: &Prompt) -> Vec<Message> {
        prompts::conversation(&self.config, prompt)
    }

    /// Token ids of a prompt, up to where the response begins.
    ///
    /// # Errors
    /// If the chat template refuses the conversation.
    pub fn prompt_ids(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        Ok(self.tokenizer().encode_chat(&self.conversation(prompt), true)?)
    }

    /// BLAKE3 of the probe file; `none` without one.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn probe_fingerprint(&self) -> Result<String> {
        self.labelled_fingerprint("probe", self.config.label.probe.as_deref())
    }

    /// The hash of `label.calibration`; `none` where there is none, or nothing that reads it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn calibration_fingerprint(&self) -> Result<String> {
        let label = &self.config.label;
        let read = label.calibration.as_deref().filter(|_| label.aggregation.is_fitted());
        self.labelled_fingerprint("calibration", read)
    }

    fn labelled_fingerprint(&self, key: &str, path: Option<&Path>) -> Result<String> {
        match path {
            None => Ok("none".into()),
            Some(path) => {
                let path = self.resolve(path);
                let bytes = std::fs::read(&path).with_context(|| {
                    format!("reading the labelled pairs `{}` of `label.{key}`", path.display())
                })?;
                Ok(blake3::hash(&bytes).to_hex()[..32].to_string())
            }
        }
    }

    /// Fingerprints of the models that local judges use.
    ///
    /// # Errors
    /// If a judge's model cannot be opened.
    pub fn local_judge_fingerprints(&self, judges: &[JudgeConfig]) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for judge in judges.iter().filter(|judge| judge.kind == JudgeKind::Local) {
            let fingerprint = match judge.model.as_str() {
                "policy" => self.origin_fingerprint.as_ref().unwrap_or(&self.policy_fingerprint).clone(),
                spec => ModelFiles::open(spec)
                    .and_then(|files| files.fingerprint())
                    .with_context(|| format!("opening the model `{spec}` of judge `{}`", judge.name))?,
            };
            found.push((judge.name.clone(), fingerprint));
        }
        Ok(found)
    }

    /// Says what was set aside of the prompt files.
    pub fn say_rejected(&self) {
        for line in &self.prompts.complaints {
            say(line);
        }
    }
}

fn set_matmul_precision(wanted: MatmulPrecision) {
    if rlaif_model::set_float32_matmul_precision(wanted) != wanted {
        say(
            "this processor does not multiply bfloat16 numbers: `run.float32_matmul_precision` stays `highest`",
        );
    }
}

/// Starts the worker threads of `run.threads`; the first run that a process opens decides.
fn start_threads(threads: usize) -> Result<()> {
    static STARTED: OnceLock<()> = OnceLock::new();
    if threads > 0 && STARTED.get().is_none() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build_global().context("starting the worker threads")?;
        STARTED.set(()).ok();
    }
    Ok(())
}

fn open_origin(config: &Config, policy: &ModelFiles) -> Result<Option<ModelFiles>> {
    let Some(origin) = &config.policy.origin else { return Ok(None) };
    let files = ModelFiles::open(origin)
        .with_context(|| format!("opening the model `{origin}` of `policy.origin`"))?;
    let (theirs, ours) = (files.tokenizer.vocab_size(), policy.tokenizer.vocab_size());
    if theirs != ours {
        return Err(UserError::new(format!(
            "`policy.origin` has {theirs} tokens and `policy.model` {ours}; they cannot be compared token by token"
        ))
        .hint("Name the model from which `policy.model` was tuned")
        .into());
    }
    Ok(Some(files))
}

/// The folder of a config file, to which its paths are relative.
fn base_of(config: &Path) -> PathBuf {
    config.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}
