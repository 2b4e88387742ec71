//! The templates of a judge: built in, in the user's folder, or a file; refused at the start where they cannot be used.

use crate::context::Context;
use crate::error::UserError;
use anyhow::{Context as _, Result};
use rlaif_core::config::{JudgeConfig, JudgeKind, Protocol};
use rlaif_core::records::Prompt;
use rlaif_judge::template::{AnswerKind, TemplateProtocol, built_in_names};
use rlaif_judge::{Asker, Settings, Template};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What an endpoint calls the sampling temperature of a model that takes none.
const NO_LOGPROBS: &str = "Judges without `sampling_temperature` are reasoning models, which give no log-probabilities; use a template that \
                           answers in words, such as `explain`";

/// The templates of a judge, each with what this run fills in.
///
/// # Errors
/// With file, line and what to do, if one of them cannot be used.
pub fn askers(context: &Context, judge: &JudgeConfig) -> Result<Vec<Asker>> {
    let mut askers: Vec<Asker> = Vec::new();
    let mut names = BTreeSet::new();
    for name in judge.templates() {
        let refused = |message: String, hint: &str| {
            Err(UserError::new(format!("judge `{}`: {message}", judge.name)).hint(hint).into())
        };
        let template = open(context, name)?;
        let wanted = match judge.protocol {
            Protocol::Rating => TemplateProtocol::Rating,
            Protocol::Pairwise | Protocol::Contrastive => TemplateProtocol::Pairwise,
        };
        if template.front().protocol != wanted {
            let (is, wants) = match wanted {
                TemplateProtocol::Pairwise => ("rates one response", "pairwise"),
                TemplateProtocol::Rating => ("compares two responses", "rating"),
            };
            let message = format!("the template `{name}` {is}, and the judge's `protocol` is \"{wants}\"");
            return refused(
                message,
                "Give the judge another template, or make it a judge of the other protocol",
            );
        }
        if !names.insert(template.name().to_owned()) {
            let message = format!("two of its templates are called `{}`", template.name());
            return refused(message, "Give one of them another `name` in its front matter");
        }
        let last = &template.front().steps[template.front().steps.len() - 1];
        let reasons = judge.kind.is_remote() && judge.sampling_temperature.is_none();
        if (reasons || judge.kind == JudgeKind::Anthropic) && last.answer == AnswerKind::Token {
            return refused(format!("the template `{name}` reads log-probabilities"), NO_LOGPROBS);
        }
        let settings = Settings::of(&context.config.label, judge, context.config.run.seed);
        askers.push(Asker::new(template, settings).map_err(told)?);
    }
    Ok(askers)
}

/// Hashes of the templates of judges, by what they are: another text makes other labels.
///
/// # Errors
/// If one of them cannot be used.
pub fn fingerprints(context: &Context, judges: &[JudgeConfig]) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for judge in judges {
        for name in judge.templates() {
            found.push((format!("template `{name}`"), open(context, name)?.fingerprint()));
        }
    }
    Ok(found)
}

/// Refuses, before anything is computed, templates that cannot be used with these judges and prompts.
///
/// # Errors
/// If one cannot; the rows that lack what it shows are named.
pub fn check(
    context: &Context,
    judges: &[JudgeConfig],
    prompts: &[Prompt],
    with_probe: bool,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for judge in judges {
        for asker in askers(context, judge)? {
            warnings
                .extend(asker.warnings().iter().map(|warning| format!("judge `{}`: {warning}", judge.name)));
            if !asker.needs_reference() {
                continue;
            }
            let name = asker.name();
            let lack: Vec<&str> = prompts
                .iter()
                .filter(|prompt| prompt.reference.as_ref().is_none_or(|text| text.trim().is_empty()))
                .map(|prompt| prompt.id.as_str())
                .collect();
            let message = if !lack.is_empty() {
                let named = lack.iter().take(5).map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
                let more = if lack.len() > 5 { ", …" } else { "" };
                format!("{} of {} prompts have no `reference` ({named}{more})", lack.len(), prompts.len())
            } else if with_probe {
                "the pairs of `label.probe` have no `reference`".to_string()
            } else {
                continue;
            };
            return Err(UserError::new(format!(
                "judge `{}`: the template `{name}` shows the prompt's reference answer, and {message}",
                judge.name
            ))
            .hint("Add `reference` to these rows, or use another template")
            .into());
        }
    }
    Ok(warnings)
}

/// A template by the name that the config gives it.
fn open(context: &Context, name: &str) -> Result<Template> {
    if let Some(template) = Template::built_in(name) {
        return Ok(template);
    }
    let directory = context.config.label.templates_dir.as_ref();
    let path: PathBuf = match (name.ends_with(".j2"), directory) {
        (true, _) => context.resolve(name.as_ref()),
        (false, Some(directory)) => context.resolve(directory).join(format!("{name}.j2")),
        (false, None) => {
            let known = built_in_names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return Err(UserError::new(format!("there is no template `{name}`"))
                .hint(format!(
                    "The built-in ones are {known}; for your own give a path that ends in `.j2`, or `label.templates_dir`"
                ))
                .into());
        }
    };
    let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow::Error::from(
            UserError::new(format!("there is no template `{}`", path.display()))
                .hint("Paths in `templates` and `label.templates_dir` are relative to the config file"),
        ),
        _ => anyhow::Error::from(error).context(format!("reading the template `{}`", path.display())),
    })?;
    let template = Template::parse(&path.display().to_string(), &text).map_err(told)?;
    match Template::built_in(template.name()) {
        None => Ok(template),
        Some(_) => Err(UserError::new(format!(
            "template `{}` calls itself `{}`, as a built-in one is called",
            path.display(),
            template.name()
        ))
        .hint("Give it another `name` in its front matter")
        .into()),
    }
}

fn told(error: rlaif_judge::template::TemplateError) -> anyhow::Error {
    let hint = error.hint.clone();
    UserError::new(error.to_string()).hint(hint).into()
}

/// The askers of a judge that has some.
///
/// # Errors
/// As [`askers`]; and for a judge that is not asked.
pub fn of_asked(context: &Context, judge: &JudgeConfig) -> Result<Vec<Asker>> {
    let askers = askers(context, judge)?;
    (!askers.is_empty()).then_some(askers).context("only judges that are asked come here")
}
