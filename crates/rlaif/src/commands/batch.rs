//! `rlaif batch export|import|list|release CONFIG`: requests as files, and what is out.

use crate::cli::{BatchCommand, BatchExportArgs, BatchImportArgs, BatchListArgs, BatchReleaseArgs};
use crate::context::{Context, load_config};
use crate::error::{DONE, FAILED, UserError};
use crate::judging::batches::{self, Batches, ImportError, Imported, NotDrawn};
use crate::judging::openai::price;
use crate::judging::{batch_sending, sending, templates};
use crate::pipeline::{self, Action};
use crate::progress::{duration_text, say};
use crate::run_folder::RunFolder;
use crate::stages;
use anyhow::{Context as _, Result};
use rlaif_core::Config;
use rlaif_core::config::{JudgeConfig, JudgeKind, Stage};
use rlaif_store::Store;
use rlaif_store::store::Batch;
use serde_json::json;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::time::SystemTime;

/// Bad lines and strangers that are named; of more, their number is told.
const MOST_NAMED: usize = 20;

/// Runs one of them.
pub fn run(command: &BatchCommand) -> Result<u8> {
    match command {
        BatchCommand::Export(args) => export(args),
        BatchCommand::Import(args) => import(args),
        BatchCommand::List(args) => list(args),
        BatchCommand::Release(args) => release(args),
    }
}

/// Plans what the label stage asks a judge, writes it to a file and sets it aside. The file is whole when it has its name, and its
/// requests are set aside before that.
fn export(args: &BatchExportArgs) -> Result<u8> {
    let path = &args.file;
    // Something else than a file, such as a pipe, must not be replaced either.
    if path.metadata().is_ok_and(|file| !file.is_file() || file.len() > 0) {
        return Err(UserError::new(format!("`{}` is there already", path.display()))
            .hint("It may hold requests that are out; give another name")
            .into());
    }
    let mut context = Context::open(&args.config)?;
    context.say_rejected();
    let config = context.config.clone();
    let place = config.label.judges.iter().position(|judge| judge.name == args.judge);
    let Some(place) = place else { return Err(no_judge(&config, &args.judge)) };
    let judge = &config.label.judges[place];
    if judge.kind != JudgeKind::Openai {
        return Err(UserError::new(format!(
            "judge `{}` is of kind `{}`, and a batch file is in OpenAI's format",
            judge.name,
            judge.kind.name()
        ))
        .hint("Only judges of kind `openai`, such as those behind vLLM, are asked by file")
        .into());
    }
    let mut has = config.stages();
    if !has.contains(&Stage::Label) {
        has.push(Stage::Label);
    }
    let steps = pipeline::plan(&context, &has, Some(Stage::Label), Some(Stage::Label))?;
    pipeline::announce(&steps);
    let prompts = context.prompts.train.clone();
    for warning in
        templates::check(&context, std::slice::from_ref(judge), &prompts, config.label.probe.is_some())?
    {
        say(&format!("warning: {warning}"));
    }
    context.begin()?;
    for step in &steps {
        if step.action == Action::Skip {
            return Err(UserError::new("the labels of this run are done, and nothing is left to ask")
                .hint("Another config, such as one more judge, makes it ask again")
                .into());
        }
        pipeline::begin(&mut context, step)?;
    }
    let sets = stages::label::plan_only(&mut context, place)?;
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let terms = batch_sending::terms(&context, Stage::Label.name(), judge, &sets, price(&config, judge))?;
    let store = &context.store;
    let mut batches = context.wait(Batches::new(store, terms, |_| ()))?;

    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let writing = || format!("writing `{}`", path.display());
    let mut file = BufWriter::new(File::create(&temporary).with_context(writing)?);
    let at_most = args.max_requests.unwrap_or(usize::MAX);
    let written = context.wait(batches.write_file(at_most, &mut file));
    let written = written.map_err(|stop| match stop {
        NotDrawn::Stop(stop) => sending::stopped(stop, judge),
        NotDrawn::File(error) => anyhow::Error::from(error).context(writing()),
    });
    let written = written.and_then(|written| {
        file.flush().and_then(|()| file.get_ref().sync_all()).with_context(writing).map(|()| written)
    });
    if !matches!(written, Ok(1..)) {
        std::fs::remove_file(&temporary).ok();
    }
    let written = written?;
    if written == 0 {
        return Err(nothing_open(&context, judge, &sets)?);
    }
    let name = context.wait(batches.set_aside()).inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
    if let Err(error) = std::fs::rename(&temporary, path) {
        context.wait(store.forget_batch(&name))?;
        std::fs::remove_file(&temporary).ok();
        return Err(error).with_context(writing);
    }
    let tally = if written == 1 { "1 request".into() } else { format!("{written} requests") };
    say(&format!(
        "batch: {tally} of `{}` are in `{}`, and nobody else asks them (`{name}`)",
        judge.name,
        path.display()
    ));
    say(&format!(
        "next: submit it, then `rlaif batch import {} RESULTS` and `rlaif label {0}`",
        args.config.config.display()
    ));
    Ok(DONE)
}

fn no_judge(config: &Config, name: &str) -> anyhow::Error {
    let known: Vec<String> = config.label.judges.iter().map(|judge| format!("`{}`", judge.name)).collect();
    UserError::new(format!("there is no judge `{name}` in `[[label.judges]]`"))
        .hint(format!("There is {}", known.join(", ")))
        .into()
}

fn nothing_open(context: &Context, judge: &JudgeConfig, sets: &[&str]) -> Result<anyhow::Error> {
    let out = context.wait(context.store.in_files(&judge.name, sets))?;
    let error = UserError::new(format!("judge `{}` has nothing left to be asked now", judge.name));
    let hint = match out {
        0 => "Run `rlaif label CONFIG`, which makes preferences of what is here".to_owned(),
        out => format!(
            "{out} requests are out in a file; store their results with `rlaif batch import CONFIG FILE`, or take them back with `rlaif batch release CONFIG`"
        ),
    };
    Ok(error.hint(hint).into())
}

/// A ledger outside a stage.
struct Ledger {
    config: Config,
    runtime: tokio::runtime::Runtime,
    store: Store,
    /// Locked, unless the ledger is only read.
    _folder: RunFolder,
}

impl Ledger {
    fn open(args: &crate::cli::ConfigArgs, to_write: bool) -> Result<Self> {
        let config = load_config(args)?.config;
        let mut folder = RunFolder::open_to_read(&config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = if to_write {
            folder = RunFolder::open(&config)?;
            runtime.block_on(Store::open_with(folder.database(), config.run.durability))?
        } else {
            runtime.block_on(Store::open_read_only(folder.database()))?
        };
        Ok(Self { config, runtime, store, _folder: folder })
    }

    fn judge(&self, name: &str) -> Option<&JudgeConfig> {
        let mut judges = self.config.label.judges.iter().chain(self.config.evaluation_judges());
        judges.find(|judge| judge.name == name)
    }
}

fn import(args: &BatchImportArgs) -> Result<u8> {
    let ledger = Ledger::open(&args.config, true)?;
    let reading = || format!("reading `{}`", args.file.display());
    let file = BufReader::new(File::open(&args.file).with_context(reading)?);
    let price_of = |name: &str| ledger.judge(name).and_then(|judge| price(&ledger.config, judge));
    let imported = ledger.runtime.block_on(batches::import(&ledger.store, price_of, file));
    let imported = imported.map_err(|error| match error {
        ImportError::File(error) => anyhow::Error::from(error).context(reading()),
        ImportError::Store(error) => error.into(),
    })?;
    ledger.runtime.block_on(ledger.store.close())?;
    let code = tell(&imported, &args.file);
    match imported.waiting {
        0 => say(&format!("next: `rlaif label {}`", args.config.config.display())),
        waiting => say(&format!(
            "next: {waiting} requests are still out in files; import their results, or ask them again after `rlaif batch release {}`",
            args.config.config.display()
        )),
    }
    Ok(code)
}

/// Says what a file held, and the exit code.
fn tell(imported: &Imported, path: &Path) -> u8 {
    let harvest = &imported.harvest;
    let mut words = format!("batch: {} replies out of `{}`", harvest.replies, path.display());
    for (count, what) in [
        (harvest.known, "that were here already"),
        (harvest.not_done, "not done, which are asked again"),
        (harvest.refused, "refused and given up"),
    ] {
        if count > 0 {
            words += &format!(", {count} {what}");
        }
    }
    say(&words);
    let more = |count: usize| {
        if count > MOST_NAMED { format!(" and {} more", count - MOST_NAMED) } else { String::new() }
    };
    let (bad, strangers) = (&imported.bad_lines, &harvest.strangers);
    if !bad.is_empty() {
        let lines: Vec<String> = bad.iter().take(MOST_NAMED).map(u64::to_string).collect();
        let are = if bad.len() == 1 { "line is no result" } else { "lines are no results" };
        say(&format!("error: {} {are} of a batch: line {}{}", bad.len(), lines.join(", "), more(bad.len())));
    }
    if !strangers.is_empty() {
        let names: Vec<String> = strangers.iter().take(MOST_NAMED).map(|id| format!("`{id}`")).collect();
        let are = if strangers.len() == 1 { "result is of a request" } else { "results are of requests" };
        say(&format!(
            "error: {} {are} that this run has not handed out: {}{}",
            strangers.len(),
            names.join(", "),
            more(strangers.len())
        ));
    }
    if bad.len() + strangers.len() > 0 { FAILED } else { DONE }
}

fn list(args: &BatchListArgs) -> Result<u8> {
    let ledger = Ledger::open(&args.config, false)?;
    let open = ledger.runtime.block_on(ledger.store.open_batches(None))?;
    if args.json {
        let rows: Vec<_> = open
            .iter()
            .map(|batch| {
                json!({
                    "name": batch.name, "judge": batch.judge, "stage": batch.stage, "where": place(batch), "id": batch.id,
                    "requests": batch.requests, "waiting": batch.waiting, "seconds": age(batch).as_secs(),
                })
            })
            .collect();
        super::print(&format!("{}\n", serde_json::Value::Array(rows)))?;
        return Ok(DONE);
    }
    if open.is_empty() {
        say("no batch is out");
    }
    for batch in &open {
        super::print(&format!(
            "{} of `{}`: {} of {} requests wait for a result, {} for {}\n",
            batch.name,
            batch.judge,
            batch.waiting,
            batch.requests,
            place(batch),
            duration_text(age(batch))
        ))?;
    }
    Ok(DONE)
}

fn place(batch: &Batch) -> String {
    match (&batch.account, &batch.id) {
        (None, _) => "out in a file".into(),
        (Some(_), Some(id)) => format!("at the provider as `{id}`"),
        (Some(_), None) => "on the way to the provider".into(),
    }
}

fn age(batch: &Batch) -> std::time::Duration {
    SystemTime::now().duration_since(batch.intended).unwrap_or_default()
}

fn release(args: &BatchReleaseArgs) -> Result<u8> {
    let ledger = Ledger::open(&args.config, true)?;
    let open = ledger.runtime.block_on(ledger.store.open_batches(None))?;
    let chosen: Vec<&Batch> = open
        .iter()
        .filter(|batch| match &args.name {
            Some(name) => batch.name == *name || batch.id.as_ref() == Some(name),
            None => batch.account.is_none(),
        })
        .collect();
    if chosen.is_empty() {
        let what =
            args.name.as_ref().map_or("no file is out".into(), |name| format!("no batch `{name}` is out"));
        return Err(UserError::new(what).hint("`rlaif batch list CONFIG` shows what is").into());
    }
    for batch in chosen {
        if args.not_submitted && batch.account.is_some() {
            return Err(UserError::new(format!(
                "`{}` is at the provider, so that it was submitted",
                batch.name
            ))
            .hint("Leave `--not-submitted` out: its requests then count as possibly billed")
            .into());
        }
        ledger.runtime.block_on(batches::release(&ledger.store, &batch.name, !args.not_submitted))?;
        let billed = if args.not_submitted { "" } else { ", and count as possibly billed until then" };
        say(&format!("batch: {} requests of `{}` are asked again{billed}", batch.waiting, batch.name));
    }
    ledger.runtime.block_on(ledger.store.close())?;
    Ok(DONE)
}
