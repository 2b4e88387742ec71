//! `rlaif audit CONFIG --repeat`: whether a judge says the same when it is asked the same again.
//!
//! Pairs drawn at random are put into the ledger several times, as a set of their own, so that it is resumed and never paid for twice. Each copy is
//! asked as the pair would be in another run: the random codes around the responses are others, and so is what a template draws at random. Where a
//! template shows nothing of these, the requests are the same to the byte, and are sent all the same.

use crate::agreement::RESAMPLES;
use crate::context::Context;
use crate::judging::{self, Assignment};
use crate::progress::say;
use crate::robustness::audit::judges;
use crate::robustness::{label_of, set_name};
use anyhow::{Context as _, Result};
use rlaif_core::audit::Measurement;
use rlaif_core::records::{Choice, FinishReason, NoVerdict, Order, Pair, Response};
use rlaif_core::seed;
use rlaif_core::stats::repeatability::repeatability;
use rlaif_judge::defence::rules::RULE;
use rlaif_store::store::{ReviewPair, TRAIN_PAIRS, VerdictRow};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The sets of repeated pairs begin so.
const REPEAT: &str = "audit/repeat";

/// What this part measures.
pub const MEASURED: [&str; 2] = ["repeat_same", "repeat_kappa"];

/// Asks every judge about the same pairs several times, and measures how often it says the same.
///
/// # Errors
/// If a judge cannot go on; what it has said so far is kept.
pub fn measure(context: &mut Context) -> Result<Vec<Measurement>> {
    let judges = judges(context);
    let label = label_of(&context.config.label);
    let times = context.config.audit.repeat_times;
    let pairs = sample(context)?;
    say(&format!(
        "audit: {} pairs, {times} times, in both orders, for {}",
        pairs.len(),
        judges.iter().map(|judge| format!("`{}`", judge.name)).collect::<Vec<_>>().join(", ")
    ));
    let set = set_name(context, REPEAT, &judges, &label)?;
    let texts: HashMap<String, String> = context
        .wait(context.store.paired_responses(TRAIN_PAIRS))?
        .into_iter()
        .map(|response| (response.id, response.text))
        .collect();
    let mut work = Assignment { each_anew: true, ..Assignment::empty("audit", &set, &judges, &label) };
    work.prompts = Cow::Owned(context.prompts.train.iter().map(|p| (p.id.clone(), p.clone())).collect());
    let mut of_copy = HashMap::new();
    for time in 0..times {
        let mut copies = Vec::new();
        for ReviewPair { pair, key, .. } in &pairs {
            let copy = |id: &str| -> Result<Response> {
                let text =
                    texts.get(id).with_context(|| format!("pair `{}` has no response `{id}`", pair.id))?;
                let hash = blake3::hash(text.as_bytes());
                let [a, b, c, d, ..] = *hash.as_bytes();
                Ok(Response {
                    id: format!("{set}/{time}/{}/{}", pair.prompt_id, &hash.to_hex()[..16]),
                    prompt_id: pair.prompt_id.clone(),
                    index: u32::from_le_bytes([a, b, c, d]) as usize,
                    text: text.clone(),
                    token_ids: Vec::new(), // judges read texts
                    logprobs: Vec::new(),
                    finish_reason: FinishReason::Stop,
                })
            };
            let (a, b) = (copy(&pair.a)?, copy(&pair.b)?);
            let id = format!("{set}/{time}/{}", key.hash);
            of_copy.insert(id.clone(), pair.clone());
            work.pairs.push(Pair { id, prompt_id: pair.prompt_id.clone(), a: a.id.clone(), b: b.id.clone() });
            copies.extend([a, b]);
        }
        context.wait(context.store.put_responses(&format!("{set}/{time}"), &copies))?;
        work.responses.to_mut().extend(copies.into_iter().map(|copy| (copy.id.clone(), copy)));
    }
    context.wait(context.store.put_pairs(&set, &work.pairs))?;
    judging::ask(context, &work)?;
    let verdicts = context.wait(context.store.verdicts(&set))?;
    Ok(judges
        .iter()
        .flat_map(|judge| of_judge(&judge.name, &verdicts, &of_copy, context.config.run.seed))
        .collect())
}

/// Pairs that judges were asked about, drawn by the run's seed.
fn sample(context: &Context) -> Result<Vec<ReviewPair>> {
    let ruled: BTreeSet<String> = context
        .wait(context.store.verdicts(TRAIN_PAIRS))?
        .into_iter()
        .filter(|row| row.judge == RULE)
        .map(|row| row.pair_id)
        .collect();
    let mut pairs = context.wait(context.store.review_pairs(TRAIN_PAIRS))?;
    pairs.retain(|pair| !ruled.contains(&pair.pair.id));
    let drawn = |pair: &ReviewPair| {
        let number = u64::from_str_radix(&pair.key.hash[..16], 16).unwrap_or(0);
        (seed::derive(context.config.run.seed, "audit/repeat", number), pair.pair.id.clone())
    };
    pairs.sort_by_cached_key(drawn);
    let mut seen = BTreeSet::new();
    pairs.retain(|pair| seen.insert(pair.key.hash.clone()));
    pairs.truncate(context.config.audit.repeat_pairs);
    Ok(pairs)
}

/// A pair in one order, through one template, of one vote.
type Presentation<'a> = (&'a str, &'a str, Order, u32);

/// A judge through all its templates.
fn of_judge(
    judge: &str,
    verdicts: &[VerdictRow],
    of_copy: &HashMap<String, Pair>,
    run_seed: u64,
) -> Vec<Measurement> {
    let mut said: BTreeMap<&str, BTreeMap<Presentation<'_>, Vec<Choice>>> = BTreeMap::new();
    let mut missing = 0;
    for row in verdicts.iter().filter(|row| row.judge == judge) {
        let Some(pair) = of_copy.get(&row.pair_id) else { continue };
        match &row.verdict.choice {
            Ok(choice) => said
                .entry(&pair.prompt_id)
                .or_default()
                .entry((pair.id.as_str(), row.template.as_str(), row.order, row.vote))
                .or_default()
                .push(*choice),
            Err(NoVerdict::SetAside(_)) => {}
            Err(_) => missing += 1,
        }
    }
    let prompts: Vec<Vec<Vec<Choice>>> =
        said.into_values().map(|presentations| presentations.into_values().collect()).collect();
    let subject = format!("judge `{judge}`");
    let Some(found) = repeatability(&prompts, RESAMPLES, run_seed) else {
        let why = "it takes pairs of two prompts with two verdicts each";
        return MEASURED.map(|name| Measurement::missing(&subject, name, why)).to_vec();
    };
    let n = found.presentations as u64;
    let note =
        format!("{} of {n} presentations the same every time, {missing} verdicts missing", found.always_same);
    vec![
        Measurement::of(&subject, MEASURED[0], found.same, n).note(note),
        Measurement::maybe(&subject, MEASURED[1], found.kappa, n, "all verdicts are alike"),
    ]
}
