//! Forms to which an endpoint can hold its answers. It is asked once for each that a judge's templates could use, with a small call
//! that is paid like all others, and the ledger remembers what was found.

use super::asking::request_key;
use super::lone::send_alone;
use super::{Assignment, sending};
use crate::context::Context;
use crate::error::UserError;
use crate::progress::say;
use anyhow::Result;
use rlaif_core::config::JudgeConfig;
use rlaif_core::money::Price;
use rlaif_judge::capability::{Capabilities, Form, REFUSALS, forms_of, obeys, probe_request};
use rlaif_judge::template::AnswerKind;
use rlaif_judge::{Asker, ChatModel, ChatRequest, Completion, Provider};
use rlaif_store::store::{Capability, Lone, LoneReading, NewRequest};

/// The client of a judge, which asks for its answers in the form that its endpoint holds them to.
///
/// # Errors
/// If the endpoint must be asked first and gives no answer.
pub fn client(
    context: &Context,
    work: &Assignment,
    judge: &JudgeConfig,
    client: Provider,
    askers: &[Asker],
    price: Option<Price>,
) -> Result<Provider> {
    let form = settle(context, judge, askers, |form| probe(context, work, judge, &client, price, form))?;
    Ok(client.with_capabilities(Capabilities { form }))
}

/// As [`client`], without a call: a form that the ledger knows nothing of is not used, and never will be in this run, since what was
/// asked for without it would be bought once more with it.
///
/// # Errors
/// If the ledger cannot be read or written.
pub fn client_without_asking(
    context: &Context,
    judge: &JudgeConfig,
    client: Provider,
    askers: &[Asker],
) -> Result<Provider> {
    let form = settle(context, judge, askers, |form| {
        let complaint = Some("nobody asked the endpoint before its requests went into a file".to_owned());
        let found = Capability { form: form.as_str().into(), obeyed: false, complaint };
        context.wait(context.store.put_capability(&endpoint(judge), &judge.model, &found, None))?;
        Ok(found)
    })?;
    Ok(client.with_capabilities(Capabilities { form }))
}

/// The forms that would be of use to a judge and that the ledger knows nothing of: each is a call to come.
///
/// # Errors
/// If the ledger cannot be read.
pub fn to_find(context: &Context, judge: &JudgeConfig, askers: &[Asker]) -> Result<Vec<Form>> {
    if Form::named(judge.structured_output).is_some() {
        return Ok(Vec::new());
    }
    let known = known(context, judge)?;
    let useful = useful(judge, askers).into_iter();
    // What comes after the first that is obeyed is not asked for.
    let before = useful.take_while(|&form| !found(&known, form).is_some_and(|found| found.obeyed));
    Ok(before.filter(|&form| found(&known, form).is_none()).collect())
}

/// Forms that a template of the judge could use, best first: a choice where it wants one token, the others where it wants an object.
fn useful(judge: &JudgeConfig, askers: &[Asker]) -> Vec<Form> {
    let wants = |kind| askers.iter().any(|asker| asker.steps().iter().any(|step| step.answer == kind));
    let (token, json) = (wants(AnswerKind::Token), wants(AnswerKind::Json));
    let is_useful = |form: &&Form| match form {
        Form::Text => false,
        Form::Choice => token,
        Form::JsonSchema | Form::Tool => json,
    };
    forms_of(judge.kind).iter().filter(is_useful).copied().collect()
}

/// Whom the ledger's notes are about: the same address in another dialect is another endpoint.
fn endpoint(judge: &JudgeConfig) -> String {
    format!("{} {}", judge.kind.name(), judge.base_url())
}

/// What the ledger knows of a judge's endpoint.
fn known(context: &Context, judge: &JudgeConfig) -> Result<Vec<Capability>> {
    Ok(context.wait(context.store.capabilities(&endpoint(judge), &judge.model))?)
}

fn found(known: &[Capability], form: Form) -> Option<&Capability> {
    known.iter().find(|one| one.form == form.as_str())
}

/// The form that the config names, or the first useful one that is obeyed; `find_out` is asked about those that the ledger does not know.
fn settle(
    context: &Context,
    judge: &JudgeConfig,
    askers: &[Asker],
    find_out: impl Fn(Form) -> Result<Capability>,
) -> Result<Form> {
    if let Some(form) = Form::named(judge.structured_output) {
        return Ok(form);
    }
    let known = known(context, judge)?;
    let (mut complaints, mut is_new) = (Vec::new(), false);
    for form in useful(judge, askers) {
        let found = match found(&known, form) {
            Some(found) => found.clone(),
            None => {
                is_new = true;
                find_out(form)?
            }
        };
        if found.obeyed {
            if is_new {
                say(&format!("judge `{}`: its endpoint holds answers to a form (`{form}`)", judge.name));
            }
            return Ok(form);
        }
        complaints.push(format!("`{form}`: {}", found.complaint.unwrap_or_default()));
    }
    if is_new {
        let why = complaints.join("; ");
        say(&format!("judge `{}`: answers are read as free text ({why})", judge.name));
    }
    Ok(Form::Text)
}

/// Asks for one form and remembers what came of it.
fn probe(
    context: &Context,
    work: &Assignment,
    judge: &JudgeConfig,
    client: &Provider,
    price: Option<Price>,
    form: Form,
) -> Result<Capability> {
    let endpoint = endpoint(judge);
    let asked = client.clone().with_capabilities(Capabilities { form });
    let request = probe_request(&ChatRequest::of_judge(judge, Vec::new()));
    let body = asked.body(&request);
    let lone = NewRequest {
        judge: &judge.name,
        request_key: &request_key(judge.base_url(), 0, &body),
        body: &body,
        prompt_tokens_at_most: request.prompt_tokens_at_most(),
        max_tokens: request.max_tokens as u64,
    };
    let found = |obeyed, complaint| Capability { form: form.as_str().into(), obeyed, complaint };
    let store = &context.store;
    let resend = judge.max_resends > 0;
    let answered = match context.wait(store.plan_lone(lone, resend))? {
        Lone::Open(request) => {
            let (budget, _) = sending::budget(context, work)?;
            let (stop, stopped) = tokio::sync::watch::channel(false);
            let options = sending::options(context, judge, price, &budget, stopped);
            let call = send_alone(store, work.stage, &judge.name, &asked, options, request);
            let ended = sending::until_interrupted(context, &stop, call);
            sending::explain(ended, work, judge)?;
            context.wait(store.lone(lone.request_key))?
        }
        known => known,
    };
    match answered {
        Lone::Replied(reply_id, raw) => {
            let obeyed = obeys(form, &raw);
            let found = found(obeyed, (!obeyed).then(|| "the endpoint ignores it".to_owned()));
            let completion = Completion::read(&raw).ok();
            let usage = completion.as_ref().and_then(|completion| completion.usage);
            let reading = LoneReading {
                reply_id,
                usage,
                cost: price.zip(usage).and_then(|(price, usage)| price.cost(&usage)),
                model: completion.as_ref().and_then(|completion| completion.model.as_deref()),
            };
            context.wait(store.put_capability(&endpoint, &judge.model, &found, Some(reading)))?;
            Ok(found)
        }
        Lone::Failed { class, message } if REFUSALS.iter().any(|kind| kind.as_str() == class) => {
            let found = found(false, Some(message));
            context.wait(store.put_capability(&endpoint, &judge.model, &found, None))?;
            Ok(found)
        }
        Lone::Failed { message, .. } => Err(unanswered(judge, &message)),
        Lone::Open(_) => Err(unanswered(judge, "the call did not end")),
    }
}

fn unanswered(judge: &JudgeConfig, message: &str) -> anyhow::Error {
    UserError::new(format!(
        "judge `{}`: a small call to find out what its endpoint holds answers to got no answer: {message}",
        judge.name
    ))
    .hint("Run the same command again, or set the judge's `structured_output`, which then is not asked for")
    .into()
}
