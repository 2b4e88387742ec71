//! `evaluate`: policies against the baseline, and each other, on prompts that no stage trained on.
//!
//! | file | is |
//! |---|---|
//! | [`players`] | who is evaluated, and who meets whom |
//! | `measured` | their responses, with what is measured on each without a judge |
//! | `compared` | judges on two policies' responses, blind |
//! | `row` | a policy's own row, and samples side by side |
//! | `rates` | what a comparison shows: win rates whole and in parts |
//! | `conclusion`, `sample_size` | the same in words; what so many prompts can show |
//! | `people` | the win rate corrected by people's verdicts |
//! | `ranking` | Bradley-Terry over all of them |
//! | `unseen` | which judges training has used |
//! | [`regression`] | prompts that must not get worse |
//! | `brief` | all of that for a terminal |
//!
//! Every policy answers the same prompts with the same seeds. Judges see two responses and not whose they are: which one is
//! called a is drawn at random, and order-sensitive judges see both orders. Intervals resample prompts, since the samples of one
//! prompt are alike. Sentiment and length are measured without any model.
//! Where `policy.origin` is given, tuned policies are compared with it in the same way.

mod brief;
mod compared;
mod conclusion;
mod measured;
mod people;
pub mod players;
mod ranking;
mod rates;
pub mod regression;
mod row;
pub mod sample_size;
mod unseen;

pub use brief::describe;

use crate::context::Context;
use crate::manifest::StageOutcome;
use crate::progress::say;
use crate::report::data::{Evaluation, PolicyRow};
use crate::run_folder::write_whole;
use anyhow::{Context as _, Result};
use compared::{Compared, compare};
use measured::{Measured, measure};
use players::{Player, meetings, over_origin};
use rlaif_core::config::{Aggregation, LabelConfig, Stage};
use rlaif_core::records::{Fate, Split};
use rlaif_store::store::{BASELINE, ORIGIN};
use serde_json::json;

/// Samples, judges and measures.
///
/// # Errors
/// If a model, a judge or the store cannot be used; what is finished is kept.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let reads = |stage: Stage| {
        let record = context.manifest.stage(Stage::Evaluate);
        record.is_some_and(|record| record.recipe["inputs"].get(stage.name()).is_some())
    };
    let (has_reward, tuned): (bool, Vec<&str>) = (
        reads(Stage::Reward),
        [Stage::Ppo, Stage::Dpo].into_iter().filter(|stage| reads(*stage)).map(Stage::name).collect(),
    );
    let sample_size = sample_size::of(context)?;
    say(&format!("evaluate: {}", sample_size.sentence));
    let judges = context.config.evaluation_judges().to_vec();
    let used = unseen::used(context);
    let judges_unseen: Vec<String> =
        judges.iter().zip(&used).filter(|(_, used)| !**used).map(|(judge, _)| judge.name.clone()).collect();
    if judges_unseen.is_empty() && !tuned.is_empty() {
        say(
            "warning: evaluate: training used every judge of this evaluation, so that win rates may be what was learnt of them; \
             name one of another model in `evaluate.judges`",
        );
    }
    let set = regression::read(context)?;
    let players = players::players(context, &tuned, set.as_ref())?;

    let prompts = context.prompts.eval.iter().map(|prompt| (prompt.clone(), Split::Eval));
    context.wait(context.store.put_prompts(&prompts.collect::<Vec<_>>()))?;
    let mut measured = Vec::new();
    for player in &players {
        measured.push(measure(context, player, has_reward, set.as_ref())?);
    }
    // Their mean: a panel fitted to labels would measure the policy by what it was tuned on.
    let label = LabelConfig {
        keep_ties: false,
        keep_inconsistent: false,
        aggregation: Aggregation::Mean,
        ..context.config.label.clone()
    };
    let origin = match context.config.policy.origin {
        Some(_) => Some(measure(context, &Player::of_run(ORIGIN), false, None)?),
        None => None,
    };
    let (mut compared, mut with_origin) = (Vec::new(), Vec::new());
    for meeting in meetings(&players, context.config.evaluate.against) {
        let (other, policy) = (&measured[meeting.other], &measured[meeting.policy]);
        compared.push(compare(context, &meeting.set, other, policy, &judges, &label)?);
        if let Some(origin) = origin.as_ref().filter(|_| meeting.other == 0) {
            let set = over_origin(&policy.policy);
            with_origin.push(compare(context, &set, origin, policy, &judges, &label)?);
        }
    }
    let checked = match &set {
        Some(set) => Some(regression::check(context, set, &measured, &judges, &label)?),
        None => None,
    };
    let (regression, mut failures) =
        checked.map_or((None, 0), |checked| (Some(checked.regression), checked.failures));

    let names: Vec<String> = players.iter().map(|player| player.name.clone()).collect();
    let (resamples, run_seed) = (context.config.evaluate.bootstrap, context.config.run.seed);
    let evaluation = Evaluation {
        prompts: context.prompts.eval.len() as u64,
        samples_per_prompt: context.config.evaluate.samples_per_prompt as u64,
        judges: judges.iter().map(|judge| judge.name.clone()).collect(),
        judges_made_labels: judges.iter().any(|judge| label.judges.contains(judge)),
        judges_unseen,
        policies: rows(context, &measured, &compared, &with_origin),
        sample_size: Some(sample_size),
        comparisons: compared
            .iter()
            .chain(&with_origin)
            .map(|it| rates::comparison(context, it, &judges, &used))
            .collect(),
        ranking: ranking::ranking(&names, &compared, resamples, run_seed),
        regression,
        samples: row::samples(context, &measured, &compared),
    };
    let text = serde_json::to_string_pretty(&evaluation).context("writing the evaluation")?;
    write_whole(&context.folder.evaluation(), text.as_bytes())?;

    brief::lines(&evaluation).iter().for_each(|line| say(&format!("evaluate: {line}")));
    let preferences = compared.iter().chain(&with_origin).flat_map(|it| it.preferences.values());
    failures += preferences.filter(|preference| preference.fate == Fate::Failed).count();
    let (spent, cost) = super::label::cost(context, Stage::Evaluate)?;
    Ok(StageOutcome {
        summary: format!("{}, {spent}", brief::headline(&evaluation)),
        numbers: json!({ "policies": evaluation.policies }),
        failures,
        cost_micro_usd: cost,
    })
}

fn rows(
    context: &Context,
    measured: &[Measured],
    compared: &[Compared],
    with_origin: &[Compared],
) -> Vec<PolicyRow> {
    let row = |policy: &Measured| {
        let over_baseline = compared.iter().find(|it| it.policy == policy.policy && it.other == BASELINE);
        let over_origin = with_origin.iter().find(|it| it.policy == policy.policy);
        row::row(context, &measured[0], policy, over_baseline, over_origin)
    };
    measured.iter().map(row).collect()
}
