//! What judging will cost before anything is sent: the real templates on the real prompts, with the responses that are there, or
//! stand-ins of their greatest length where nothing was sampled yet.

use crate::context::Context;
use crate::judging::openai::price;
use crate::judging::{Assignment, forms, templates};
use crate::routing::Gate;
use crate::stages::evaluate::{players, regression};
use anyhow::Result;
use rlaif_core::MicroUsd;
use rlaif_core::config::{JudgeConfig, JudgeKind, Stage};
use rlaif_core::money::{Price, ServiceTier, Usage};
use rlaif_core::people::PairKey;
use rlaif_core::records::{Pair, Prompt, Response, Split};
use rlaif_judge::capability::probe_request;
use rlaif_judge::template::TemplateProtocol;
use rlaif_judge::{Asker, ChatRequest, View, orders};
use rlaif_store::store::{BASELINE, ORIGIN, RequestState, TRAIN_PAIRS};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// How tokens are counted: no endpoint tells its tokenizer, and English text has four bytes a token.
pub const TOKENS_BY: &str = "bytes / 4";

/// Bytes of a token, see [`TOKENS_BY`].
const BYTES_A_TOKEN: usize = 4;

/// Tokens that a chat template adds to a message.
const TOKENS_A_MESSAGE: u64 = 4;

/// Pairs whose prompts are written out in full; of more, this many are taken at even distances.
const PAIRS_WRITTEN: usize = 500;

/// What an endpoint is taken to need for a call besides writing, in seconds, and how many tokens it writes in one. Only the minutes
/// hang on them.
const SECONDS_A_CALL: f64 = 1.0;
const TOKENS_A_SECOND: f64 = 50.0;

/// What a provider may take for a batch.
const MINUTES_A_BATCH: f64 = 24.0 * 60.0;

/// Tokens of an ordinary answer to a probe of the endpoint.
const PROBE_REPLY: u64 = 8;

/// What one judge is asked through one template.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// The judge.
    pub judge: String,
    /// The template.
    pub template: String,
    /// Requests in all; with the judge's first template also the small calls that find out what its endpoint holds answers to.
    pub calls: u64,
    /// Requests of the judge that have an answer in the ledger already, through whichever template.
    pub answered: u64,
    /// Requests that are not made, since `[route]` sends their pairs to people; not among `calls`.
    #[serde(skip_serializing_if = "is_zero")]
    pub spared: u64,
    /// Prompt tokens of all calls.
    pub prompt_tokens: u64,
    /// Completion tokens of all calls, as replies usually are.
    pub completion_tokens: u64,
    /// What they cost; `None` where the price is unknown, 0 for local judges.
    pub micro_usd: Option<i64>,
    /// What they cost at most, with every reply as long as it may be and no text shorter than its bytes.
    pub micro_usd_at_most: Option<i64>,
    /// Minutes at the judge's `max_concurrency`, or in batches the most that each step may take; `None` for local judges.
    pub minutes: Option<f64>,
    /// Whether it is asked in batches, at their price.
    pub batch: bool,
}

impl Estimate {
    /// Adds the small calls that find out what the endpoint holds answers to; they are single calls also of a judge in batches.
    fn add_probes(&mut self, context: &Context, judge: &JudgeConfig, calls: u64) {
        if calls == 0 {
            return;
        }
        let probe = probe_request(&ChatRequest::of_judge(judge, Vec::new()));
        let most = probe.max_tokens as u64;
        let bytes: usize = probe.messages.iter().map(|message| message.content.len()).sum();
        let usage = Usage {
            prompt_tokens: bytes.div_ceil(BYTES_A_TOKEN) as u64 + TOKENS_A_MESSAGE,
            completion_tokens: PROBE_REPLY.min(most),
            ..Usage::default()
        };
        self.calls += calls;
        self.prompt_tokens += calls * usage.prompt_tokens;
        self.completion_tokens += calls * usage.completion_tokens;
        let price = price(&context.config, judge);
        let add = |sum: Option<i64>, one| Some(plus(sum.map(MicroUsd), calls, one)?.0);
        self.micro_usd = add(self.micro_usd, price.and_then(|price| price.cost(&usage)));
        let worst = price.map(|price| price.worst_case(probe.prompt_tokens_at_most(), most));
        self.micro_usd_at_most = add(self.micro_usd_at_most, worst);
    }
}

/// The sum with so many calls at this price; `None` if one of them is unknown.
fn plus(sum: Option<MicroUsd>, calls: u64, one: Option<MicroUsd>) -> Option<MicroUsd> {
    sum?.checked_add(one?.checked_mul(i64::try_from(calls).ok()?)?)
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Texts to be judged.
struct Material<'a> {
    pairs: Vec<Pair>,
    /// Share of the pairs that are seen in both orders.
    position_check_rate: f64,
    /// Pairs that judges are not asked about.
    spared: Vec<Pair>,
    prompts: HashMap<&'a str, &'a Prompt>,
    responses: HashMap<String, String>,
}

/// What the judges of a stage are asked; empty for stages without judges.
///
/// # Errors
/// If a template cannot be used, or the ledger cannot be read.
pub fn of_stage(context: &Context, stage: Stage) -> Result<Vec<Estimate>> {
    let set = match stage {
        Stage::Evaluate => regression::read(context)?,
        _ => None,
    };
    let (judges, material, set) = match stage {
        Stage::Label => (context.config.label.judges.as_slice(), to_label(context)?, TRAIN_PAIRS),
        Stage::Evaluate => {
            (context.config.evaluation_judges(), to_evaluate(context, set.as_ref())?, "evaluate")
        }
        _ => return Ok(Vec::new()),
    };
    of_judges(context, judges, &material, set)
}

/// What all judges of this work are asked about all of its pairs, as an audit asks them.
///
/// # Errors
/// As [`of_stage`].
pub fn of_work(context: &Context, work: &Assignment) -> Result<Vec<Estimate>> {
    let material = Material {
        pairs: work.pairs.clone(),
        spared: Vec::new(),
        position_check_rate: work.label.position_check_rate,
        prompts: work.prompts.iter().map(|(id, prompt)| (id.as_str(), prompt)).collect(),
        responses: work.responses.iter().map(|(id, response)| (id.clone(), response.text.clone())).collect(),
    };
    of_judges(context, work.judges, &material, work.set)
}

fn of_judges(
    context: &Context,
    judges: &[JudgeConfig],
    material: &Material,
    set: &str,
) -> Result<Vec<Estimate>> {
    let mut answered: BTreeMap<String, u64> = BTreeMap::new();
    for count in context.wait(context.store.request_counts(set))? {
        if matches!(count.state, RequestState::Received | RequestState::Judged) {
            *answered.entry(count.judge).or_default() += count.count;
        }
    }
    let mut estimates = Vec::new();
    for judge in judges {
        let askers = templates::askers(context, judge)?;
        let mut to_find = forms::to_find(context, judge, &askers)?.len() as u64;
        for asker in &askers {
            let mut estimate = estimate(context, judge, asker, material)?;
            estimate.add_probes(context, judge, std::mem::take(&mut to_find));
            estimate.answered = answered.get(&judge.name).copied().unwrap_or(0);
            estimates.push(estimate);
        }
    }
    Ok(estimates)
}

fn to_label(context: &Context) -> Result<Material<'_>> {
    let config = &context.config;
    let sampled = context.wait(context.store.responses(BASELINE, Some(Split::Train)))?;
    let prompts: HashMap<&str, &Prompt> =
        context.prompts.train.iter().map(|prompt| (prompt.id.as_str(), prompt)).collect();
    let n = config.generate.n;
    let pairs_of = |ids: &[String], prompt: &Prompt| -> Vec<Pair> {
        let all = (0..ids.len()).flat_map(|i| (i + 1..ids.len()).map(move |j| (i, j)));
        all.take(config.label.pairs_per_prompt)
            .map(|(i, j)| Pair {
                id: format!("{}/{i}-{j}", prompt.id),
                prompt_id: prompt.id.clone(),
                a: ids[i].clone(),
                b: ids[j].clone(),
            })
            .collect()
    };
    let mut ids: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for Response { id, prompt_id, .. } in &sampled {
        ids.entry(prompt_id).or_default().push(id.clone());
    }
    let mut responses: HashMap<String, String> =
        sampled.iter().map(|response| (response.id.clone(), response.text.clone())).collect();
    let sampled: HashMap<&str, &str> =
        sampled.iter().map(|response| (response.id.as_str(), response.text.as_str())).collect();
    let gate = Gate::new(config, false);
    // Stand-ins are all the same: their names draw for them.
    let text = |id: &'_ str| sampled.get(id).map_or_else(|| id.to_owned(), |text| (*text).to_owned());
    let is_spared = |pair: &Pair| {
        let of = |(gate, prompt): (&Gate, &&Prompt)| {
            gate.spares(prompt, &PairKey::of(&prompt.prompt, &text(&pair.a), &text(&pair.b))).is_some()
        };
        gate.as_ref().zip(prompts.get(pair.prompt_id.as_str())).is_some_and(of)
    };
    let (mut pairs, mut spared) = (Vec::new(), Vec::new());
    for prompt in &context.prompts.train {
        let own = ids.remove(prompt.id.as_str()).unwrap_or_else(|| {
            let stand_ins = (0..n).map(|index| format!("{}/{index}", prompt.id));
            stand_ins
                .inspect(|id| drop(responses.insert(id.clone(), stand_in(config.generate.max_new_tokens))))
                .collect()
        });
        let (people, judges): (Vec<Pair>, Vec<Pair>) =
            pairs_of(&own, prompt).into_iter().partition(&is_spared);
        pairs.extend(judges);
        spared.extend(people);
    }
    let position_check_rate = config.label.position_check_rate;
    Ok(Material { pairs, spared, position_check_rate, prompts, responses })
}

/// Everyone who meets, and what of the regression set judges decide.
fn to_evaluate<'a>(context: &'a Context, set: Option<&'a regression::Set>) -> Result<Material<'a>> {
    let config = &context.config;
    let names = players::names(config);
    let meetings = players::meetings(&names, config.evaluate.against);
    let tokens = config.evaluate.max_new_tokens.unwrap_or(config.generate.max_new_tokens);
    let mut responses = HashMap::new();
    let mut pairs = Vec::new();
    for prompt in &context.prompts.eval {
        for index in 0..config.evaluate.samples_per_prompt {
            let mut response = |policy: &str| {
                let id = format!("{policy}/{}/{index}", prompt.id);
                responses.insert(id.clone(), stand_in(tokens));
                id
            };
            for meeting in &meetings {
                pairs.push(Pair {
                    id: format!("{}/{}/{index}", meeting.set, prompt.id),
                    prompt_id: prompt.id.clone(),
                    a: response(&names[meeting.policy]),
                    b: response(&names[meeting.other]),
                });
                if config.policy.origin.is_some() && meeting.other == 0 {
                    pairs.push(Pair {
                        id: format!("{}/{}/{index}", players::over_origin(&meeting.set), prompt.id),
                        prompt_id: prompt.id.clone(),
                        a: response(&names[meeting.policy]),
                        b: response(ORIGIN),
                    });
                }
            }
        }
    }
    let judged: Vec<&Prompt> = set.into_iter().flat_map(regression::Set::judged).collect();
    for prompt in &judged {
        for policy in &names[1..] {
            let set = regression::name_of(policy);
            let mut response = |policy: &str| {
                let id = format!("{}/{}/0", regression::name_of(policy), prompt.id);
                responses.insert(id.clone(), stand_in(tokens));
                id
            };
            pairs.push(Pair {
                id: format!("{set}/{}/0", prompt.id),
                prompt_id: prompt.id.clone(),
                a: response(policy),
                b: response(BASELINE),
            });
        }
    }
    let prompts = context.prompts.eval.iter().chain(judged);
    let prompts = prompts.map(|prompt| (prompt.id.as_str(), prompt)).collect();
    let position_check_rate = config.label.position_check_rate;
    Ok(Material { pairs, spared: Vec::new(), position_check_rate, prompts, responses })
}

/// A response of so many tokens.
fn stand_in(tokens: usize) -> String {
    "word".repeat(tokens)
}

/// Sums over the pairs that are written out, and over all.
#[derive(Default)]
struct Sums {
    written: u64,
    prompt_tokens: u64,
    prompt_tokens_at_most: u64,
}

fn estimate(context: &Context, judge: &JudgeConfig, asker: &Asker, material: &Material) -> Result<Estimate> {
    let seed = context.config.run.seed;
    let votes = judge.votes.max(1) as u64;
    let price = if judge.kind == JudgeKind::Local {
        Some(Price::from_dollars(0.0, 0.0, None)?)
    } else {
        price(&context.config, judge)
    };
    let all = [&material.pairs[..], &material.spared].concat();
    let every = material.pairs.len().div_ceil(PAIRS_WRITTEN).max(1);
    let mut estimate = Estimate {
        judge: judge.name.clone(),
        template: asker.name().to_owned(),
        calls: 0,
        answered: 0,
        spared: 0,
        prompt_tokens: 0,
        completion_tokens: 0,
        micro_usd: None,
        micro_usd_at_most: None,
        minutes: None,
        batch: judge.batch,
    };
    let (mut usual, mut at_most) = (Some(MicroUsd::ZERO), Some(MicroUsd::ZERO));
    let mut seconds = 0.0;
    for (index, step) in asker.steps().iter().enumerate() {
        let both = material.position_check_rate;
        let calls = votes * requests(asker, index, &material.pairs, both, seed);
        let most = step.max_tokens.unwrap_or(judge.max_tokens);
        let expected = step.expected_tokens.unwrap_or(most / 2).min(most);
        let mut sums = Sums::default();
        for pair in material.pairs.iter().step_by(every) {
            write_out(judge, asker, index, material, pair, &mut sums)?;
        }
        let mean = |sum: u64| (sum as f64 / sums.written.max(1) as f64).ceil() as u64;
        let usage = Usage {
            prompt_tokens: mean(sums.prompt_tokens),
            completion_tokens: expected as u64,
            tier: if judge.batch { ServiceTier::Batch } else { ServiceTier::Standard },
            ..Usage::default()
        };
        estimate.calls += calls;
        estimate.spared += votes * requests(asker, index, &all, both, seed) - calls;
        estimate.prompt_tokens += calls * usage.prompt_tokens;
        estimate.completion_tokens += calls * usage.completion_tokens;
        usual = plus(usual, calls, price.and_then(|price| price.cost(&usage)));
        let prompt_at_most = mean(sums.prompt_tokens_at_most);
        let worst = price.map(|price| match judge.batch {
            true => price.worst_case_in_batch(prompt_at_most, most as u64),
            false => price.worst_case(prompt_at_most, most as u64),
        });
        at_most = plus(at_most, calls, worst);
        seconds += calls as f64 * (SECONDS_A_CALL + expected as f64 / TOKENS_A_SECOND);
    }
    estimate.micro_usd = usual.map(|sum| sum.0);
    estimate.micro_usd_at_most = at_most.map(|sum| sum.0);
    if judge.kind != JudgeKind::Local {
        estimate.minutes = Some(match judge.batch {
            true => MINUTES_A_BATCH * asker.steps().len() as f64,
            false => seconds / judge.max_concurrency.max(1) as f64 / 60.0,
        });
    }
    Ok(estimate)
}

/// How many different requests a step makes of one vote.
fn requests(asker: &Asker, step: usize, pairs: &[Pair], both: f64, seed: u64) -> u64 {
    let distinct = |each: &dyn Fn(&Pair) -> Vec<String>| {
        pairs.iter().flat_map(each).collect::<HashSet<String>>().len() as u64
    };
    if asker.protocol() == TemplateProtocol::Rating {
        return distinct(&|pair| vec![pair.a.clone(), pair.b.clone()]);
    }
    if asker.template().shows_only_the_prompt(step) {
        return distinct(&|pair| vec![pair.prompt_id.clone()]);
    }
    pairs.iter().map(|pair| orders(seed, &pair.id, both).len() as u64).sum()
}

/// Adds the tokens of one pair's request, in one order; the other has as many.
fn write_out(
    judge: &JudgeConfig,
    asker: &Asker,
    step: usize,
    material: &Material,
    pair: &Pair,
    sums: &mut Sums,
) -> Result<()> {
    let Some(prompt) = material.prompts.get(pair.prompt_id.as_str()) else { return Ok(()) };
    let text = |id: &String| material.responses.get(id).map_or("", String::as_str);
    let pairwise = asker.protocol() == TemplateProtocol::Pairwise;
    let shown = prompt.prompt.display();
    let view = View {
        prompt: &shown,
        first: text(&pair.a),
        second: pairwise.then_some(text(&pair.b)),
        // Prompts without one are refused when the stage begins.
        reference: Some(prompt.reference.as_deref().unwrap_or_default()),
        nonce: 0,
        vote: 0,
    };
    let most = |step: usize| asker.steps()[step].max_tokens.unwrap_or(judge.max_tokens);
    let earlier: Vec<String> = (0..step)
        .map(|step| stand_in(asker.steps()[step].expected_tokens.unwrap_or(most(step) / 2).min(most(step))))
        .collect();
    let messages = asker.messages(&view, &earlier)?;
    let bytes: usize = messages.iter().map(|message| message.content.len()).sum();
    sums.written += 1;
    sums.prompt_tokens += bytes.div_ceil(BYTES_A_TOKEN) as u64 + TOKENS_A_MESSAGE * messages.len() as u64;
    let request = ChatRequest {
        max_tokens: most(step),
        schema: asker.schema(step, &view),
        choices: asker.choices(step),
        ..ChatRequest::of_judge(judge, messages)
    };
    // Earlier replies may be longer than usual; each of their tokens is a few bytes.
    let longer: usize = (0..step).map(|step| BYTES_A_TOKEN * most(step)).sum();
    sums.prompt_tokens_at_most += request.prompt_tokens_at_most() + longer as u64;
    Ok(())
}
