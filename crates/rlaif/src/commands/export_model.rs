//! `rlaif export --stage STAGE --format F -o PATH`: a trained model for transformers, PEFT or llama.cpp.
//!
//! What is written appears whole under a name that was free, or not at all: nothing is ever overwritten.

use crate::card::{self, model_card};
use crate::cli::{ConfigArgs, ExportArgs, ModelDtype, ModelFormat};
use crate::error::{DONE, UserError};
use crate::progress::say;
use crate::run_folder::{RunFolder, write_whole};
use crate::training::adapter_of;
use anyhow::{Context, Result};
use clap::ValueEnum;
use rlaif_core::config::Stage;
use rlaif_model::{
    GgmlType, ModelFiles, SaveDtype, adapter_base, export_adapter, export_safetensors, is_adapter, save_gguf,
};
use std::path::{Path, PathBuf};

/// Weights above this are cut into shards, as transformers 4 does by default: copies and downloads of one file stay handy.
const MAX_SHARD_BYTES: usize = 5_000_000_000;

/// A folder's card, as the Hub has it.
const README: &str = "README.md";

/// Writes a model of `run`, or the one that `--model` names.
pub fn run(args: &ExportArgs, run: Option<&RunFolder>) -> Result<u8> {
    let output = args.output.as_deref().ok_or_else(|| {
        UserError::new("a model is not written to stdout")
            .hint("Say where to: `-o FOLDER`, or `-o FILE.gguf`")
    })?;
    let dtype = dtype(args)?;
    let spec = match (run, &args.model) {
        (Some(run), _) => model_of(args, run)?.display().to_string(),
        (None, Some(model)) => model.clone(),
        (None, None) => return Err(UserError::new("name a config or a `--model`").into()),
    };
    if output.symlink_metadata().is_ok() {
        return Err(UserError::new(format!("`{}` is there already", output.display()))
            .hint("Give a new name, or remove it first: nothing is overwritten")
            .into());
    }
    let writing = || format!("writing `{}`", output.display());
    let card = run.map(|run| card_of(args, run)).transpose()?;
    let with_card = |folder: &Path| -> Result<()> {
        let place = folder.join(README);
        if let Some(card) = card.as_ref().filter(|_| !place.exists()) {
            std::fs::write(place, card)?;
        }
        Ok(())
    };
    match args.format {
        ModelFormat::Peft => {
            let (adapter, base) = adapter(args, &spec)?;
            whole_folder(output, |folder| {
                export_adapter(&adapter, folder, &base, save_dtype(dtype)?)?;
                with_card(folder)
            })
            .with_context(writing)?;
        }
        ModelFormat::Safetensors => {
            let files = open(&spec)?;
            whole_folder(output, |folder| {
                export_safetensors(&files, folder, save_dtype(dtype)?, MAX_SHARD_BYTES)?;
                with_card(folder)
            })
            .with_context(writing)?;
        }
        ModelFormat::Gguf => {
            let kind = match dtype {
                ModelDtype::F32 => GgmlType::F32,
                ModelDtype::F16 => GgmlType::F16,
                ModelDtype::Bf16 => GgmlType::BF16,
                ModelDtype::Q8_0 => GgmlType::Q8_0,
            };
            let name = output.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
            save_gguf(&open(&spec)?, output, kind, &name).with_context(writing)?;
            let place = card::beside(output);
            if let Some(card) = card.as_ref().filter(|_| place.symlink_metadata().is_err()) {
                write_whole(&place, card.as_bytes())?;
            }
        }
    }
    say(&format!("`{}` is written", output.display()));
    Ok(DONE)
}

/// What the model is and how it was made, for who meets it elsewhere.
fn card_of(args: &ExportArgs, run: &RunFolder) -> Result<String> {
    let stage = stage_of(args)?;
    let config = ConfigArgs { config: args.config.clone().unwrap_or_default(), set: args.set.clone() };
    let form = args.format.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default();
    let output = args.output.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
    let typed = config.as_typed();
    let command = format!("rlaif export {typed} --stage {} --format {form} -o {output}", stage.name());
    let name = run.root().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    model_card(run, &name, stage, &form, &typed, &command)
}

fn open(spec: &str) -> Result<ModelFiles> {
    ModelFiles::open(spec).with_context(|| format!("opening the model `{spec}`"))
}

/// What a model is chosen with.
const HINT: &str = "Give `--stage sft`, `--stage reward`, `--stage ppo` or `--stage dpo`";

fn stage_of(args: &ExportArgs) -> Result<Stage> {
    match args.stage {
        Some(stage) => Ok(stage.into()),
        None => Err(UserError::new("which model of the run?").hint(HINT).into()),
    }
}

/// The folder of a stage's model.
fn model_of(args: &ExportArgs, run: &RunFolder) -> Result<PathBuf> {
    let stage = stage_of(args)?;
    let name = stage.name();
    if matches!(stage, Stage::Revise | Stage::Generate | Stage::Label | Stage::Evaluate | Stage::Report) {
        return Err(UserError::new(format!("the stage `{name}` makes no model")).hint(HINT).into());
    }
    let folder = run.model(name);
    if !folder.join("model.safetensors").is_file() {
        let what =
            format!("the run in `{}` has no finished model of the stage `{name}`", run.root().display());
        let hint = format!("Run `rlaif run CONFIG --until {name}` first");
        return Err(UserError::new(what).hint(hint).into());
    }
    Ok(folder)
}

fn dtype(args: &ExportArgs) -> Result<ModelDtype> {
    match (args.format, args.dtype) {
        (ModelFormat::Gguf, dtype) => Ok(dtype.unwrap_or(ModelDtype::F16)),
        (_, Some(ModelDtype::Q8_0)) => Err(UserError::new("`--dtype q8_0` is for a GGUF")
            .hint("Add `--format gguf`, or choose f32, f16 or bf16")
            .into()),
        (_, dtype) => Ok(dtype.unwrap_or(ModelDtype::F32)),
    }
}

fn save_dtype(dtype: ModelDtype) -> Result<SaveDtype> {
    match dtype {
        ModelDtype::F32 => Ok(SaveDtype::F32),
        ModelDtype::F16 => Ok(SaveDtype::F16),
        ModelDtype::Bf16 => Ok(SaveDtype::Bf16),
        ModelDtype::Q8_0 => Err(UserError::new("`--dtype q8_0` is for a GGUF").into()),
    }
}

/// The kept adapter of a model, and the name by which PEFT finds the model that it belongs to.
fn adapter(args: &ExportArgs, model: &str) -> Result<(PathBuf, String)> {
    let folder = adapter_of(Path::new(model));
    if !is_adapter(&folder) {
        return Err(UserError::new(format!(
            "`{model}` has no adapter: it was trained in full, without `lora`, or is no model of a run"
        ))
        .hint("Export it whole: `--format safetensors`")
        .into());
    }
    if let Some(base) = &args.base_model {
        return Ok((folder, base.clone()));
    }
    let base = adapter_base(&folder)?;
    if let Some(repository) = base.strip_prefix("hf:") {
        return Ok((folder, repository.to_string()));
    }
    match Path::new(&base).canonicalize() {
        Ok(path) if path.is_dir() => Ok((folder, path.display().to_string())),
        _ => Err(UserError::new(format!("PEFT cannot open `{base}`, the model that the adapter belongs to"))
            .hint(format!(
                "Name the same model as transformers has it, `--base-model OWNER/NAME`, or write it out first: \
                 `rlaif export --model {base} -o FOLDER` and then `--base-model FOLDER`"
            ))
            .into()),
    }
}

/// Fills a folder under another name beside its place, and moves it there when it is whole.
fn whole_folder(place: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = place.file_name().context("the path ends in no name")?.to_string_lossy();
    let unfinished = place.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    std::fs::create_dir(&unfinished)?;
    let moved = fill(&unfinished).and_then(|()| Ok(std::fs::rename(&unfinished, place)?));
    if moved.is_err() {
        std::fs::remove_dir_all(&unfinished).ok(); // the first error is the one to report
    }
    moved
}
