//! What paid judges are asked, step by step, and what their replies say: plans requests from pairs, templates and votes, and reads the
//! raw replies in the ledger. Both are pure functions of config, prompts, responses and replies.

use super::{Assignment, PARSER};
use crate::context::Context;
use crate::progress::say;
use anyhow::Result;
use rlaif_core::config::JudgeConfig;
use rlaif_core::money::{MicroUsd, Price, Usage};
use rlaif_core::records::{Order, Pair, Verdict};
use rlaif_core::seed;
use rlaif_judge::chat::TOP_LOGPROBS;
use rlaif_judge::reply::{Fault, fault};
use rlaif_judge::template::{AnswerKind, TemplateProtocol, nonce};
use rlaif_judge::{Answer, Asker, ChatModel, ChatRequest, View, is_same_model, orders, read_answer};
use rlaif_store::store::{Asked, PlanSummary, PlannedRequest, Presentation, ReadReply, Reply, VerdictRow};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

/// Replies that are read, or requests that are planned, between two looks at the ledger.
const PAGE: usize = 256;

/// One judge with its templates and one set of pairs.
pub struct Asking<'a> {
    /// The run.
    pub context: &'a Context,
    /// Who is asked.
    pub judge: &'a JudgeConfig,
    /// Through which templates.
    pub askers: &'a [Asker],
    /// What it charges, where that is known.
    pub price: Option<Price>,
}

/// What a reply said.
struct Read<'a> {
    reply: &'a Reply,
    verdict: Option<Verdict>,
    usage: Option<Usage>,
    cost: Option<MicroUsd>,
    fault: Option<Fault>,
    model: Option<String>,
}

impl Read<'_> {
    fn reading(&self) -> ReadReply<'_> {
        ReadReply {
            reply: self.reply,
            verdict: self.verdict.as_ref(),
            usage: self.usage,
            cost: self.cost,
            fault: self.fault.map(Fault::as_str),
            model: self.model.as_deref(),
        }
    }
}

/// What one presentation shows, owned.
pub struct Shown<'a> {
    prompt: String,
    first: std::borrow::Cow<'a, str>,
    second: Option<std::borrow::Cow<'a, str>>,
    reference: Option<&'a str>,
    nonce: u64,
    vote: u32,
}

impl Shown<'_> {
    /// As the template takes it.
    pub fn view(&self) -> View<'_> {
        View {
            prompt: &self.prompt,
            first: &self.first,
            second: self.second.as_deref(),
            reference: self.reference,
            nonce: self.nonce,
            vote: self.vote,
        }
    }
}

/// What a presentation of a pair shows. A rating shows one response: that of the step, a or b.
pub fn shown<'a>(
    work: &'a Assignment,
    run_seed: u64,
    asker: &Asker,
    pair: &Pair,
    order: Order,
    vote: u32,
    step: u32,
) -> Result<Shown<'a>> {
    let prompt = work.prompt(pair)?;
    let (first, second) = work.shown(pair, order)?;
    let (first, second, nonce) = match asker.protocol() {
        TemplateProtocol::Pairwise => (first, Some(second), nonce(run_seed, &pair.id, vote)),
        TemplateProtocol::Rating if step == 0 => (first, None, nonce(run_seed, &pair.a, vote)),
        TemplateProtocol::Rating => (second, None, nonce(run_seed, &pair.b, vote)),
    };
    Ok(Shown {
        prompt: prompt.prompt.display(),
        first,
        second,
        reference: prompt.reference.as_deref(),
        nonce,
        vote,
    })
}

/// The requests of a template: its steps, or for a rating the two responses.
pub fn requests_of(asker: &Asker) -> usize {
    match asker.protocol() {
        TemplateProtocol::Pairwise => asker.steps().len(),
        TemplateProtocol::Rating => 1,
    }
}

impl Asking<'_> {
    /// Plans the first request of every presentation, pair by pair; both orders stand together, so that the second finds the first in
    /// the provider's cache.
    pub fn plan_first<'w>(
        &self,
        model: &impl ChatModel,
        traffic: &[(&'w Assignment<'w>, &'w Pair)],
    ) -> Result<PlanSummary> {
        let mut summary = PlanSummary::default();
        for pairs in traffic.chunks(PAGE) {
            let mut page = Vec::new();
            for (work, pair) in pairs {
                self.presentations(work, pair, |asker, order, vote, step| {
                    page.push(self.request(model, work, asker, pair, order, vote, step, &[])?);
                    Ok(())
                })?;
            }
            let planned = self.context.wait(self.context.store.plan_requests(&page))?;
            summary.new += planned.new;
            summary.answered += planned.answered;
        }
        Ok(summary)
    }

    /// Every first request of a pair: template, order, vote and step.
    pub fn presentations(
        &self,
        work: &Assignment,
        pair: &Pair,
        mut each: impl FnMut(&Asker, Order, u32, u32) -> Result<()>,
    ) -> Result<()> {
        for asker in self.askers {
            for vote in 0..self.votes() {
                if asker.protocol() == TemplateProtocol::Rating {
                    // Each response by itself: there is no order, and it is asked once however many pairs it is in.
                    each(asker, Order::Ab, vote, 0)?;
                    each(asker, Order::Ab, vote, 1)?;
                    continue;
                }
                for order in orders(self.seed(), &pair.id, work.label.position_check_rate) {
                    each(asker, order, vote, 0)?;
                }
            }
        }
        Ok(())
    }

    /// Plans a later step of every presentation whose earlier reply has come. One that holds no text ends the presentation, with its
    /// reason.
    pub fn plan_step(&self, model: &impl ChatModel, work: &Assignment, step: u32) -> Result<()> {
        let pairs: HashMap<&str, &Pair> = work.pairs.iter().map(|pair| (pair.id.as_str(), pair)).collect();
        for asker in self.askers.iter().filter(|asker| requests_of(asker) > step as usize) {
            let mut after: Option<Reply> = None;
            loop {
                let store = &self.context.store;
                let asked = self.asked(asker, work);
                let page =
                    self.context.wait(store.ready_for_step(asked, PARSER, step, after.as_ref(), PAGE))?;
                let (mut planned, mut ended) = (Vec::new(), Vec::new());
                for reply in &page {
                    let shown = &reply.presentation;
                    let Some(pair) = pairs.get(shown.pair_id.as_str()) else { continue };
                    match self.earlier(asker, shown, step)? {
                        Ok(earlier) => planned.push(self.request(
                            model,
                            work,
                            asker,
                            pair,
                            shown.order,
                            shown.vote,
                            step,
                            &earlier,
                        )?),
                        Err(verdict) => ended.push(row(shown, verdict)),
                    }
                }
                self.context.wait(store.plan_requests(&planned))?;
                self.context.wait(store.put_verdicts(PARSER, &ended))?;
                match page.into_iter().next_back() {
                    Some(last) => after = Some(last),
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Reads every reply on the pairs of the work that this version has not read.
    pub fn read(&self, work: &Assignment) -> Result<()> {
        let pairs: HashMap<&str, &Pair> = work.pairs.iter().map(|pair| (pair.id.as_str(), pair)).collect();
        for asker in self.askers {
            let mut after: Option<Reply> = None;
            loop {
                let store = &self.context.store;
                let asked = self.asked(asker, work);
                let page = self.context.wait(store.unread(asked, PARSER, after.as_ref(), PAGE))?;
                let mut read = Vec::new();
                for reply in &page {
                    let Some(pair) = pairs.get(reply.presentation.pair_id.as_str()) else { continue };
                    read.push(self.read_one(work, asker, pair, reply)?);
                }
                let readings: Vec<ReadReply<'_>> = read.iter().map(Read::reading).collect();
                self.context.wait(store.put_readings(PARSER, &readings))?;
                match page.into_iter().next_back() {
                    Some(last) => after = Some(last),
                    None => break,
                }
            }
        }
        Ok(())
    }

    fn read_one<'r>(
        &self,
        work: &Assignment,
        asker: &Asker,
        pair: &Pair,
        reply: &'r Reply,
    ) -> Result<Read<'r>> {
        let answer = self.answer(asker, reply.step, &reply.raw, reply.max_tokens);
        let cost = self.price.zip(answer.usage).and_then(|(price, usage)| price.cost(&usage));
        let model = answer.completion.as_ref().and_then(|reply| reply.model.clone());
        let usage = answer.usage;
        if let Some(served) = model.as_ref().filter(|served| !is_same_model(&self.judge.model, served)) {
            self.warn_of_stranger(served);
        }
        if !reply.last_step {
            let reason = answer.text.as_ref().err().map(|no_text| &no_text.reason);
            let fault = reason.and_then(|reason| fault(reason, &reply.raw));
            return Ok(Read { reply, verdict: None, usage, cost, fault, model });
        }
        let shown = &reply.presentation;
        let verdict = match self.earlier(asker, shown, reply.step)? {
            Ok(earlier) => {
                let seen = self::shown(work, self.seed(), asker, pair, shown.order, shown.vote, reply.step)?;
                asker.read(&seen.view(), &earlier, &answer)
            }
            Err(verdict) => verdict,
        };
        let fault = verdict.choice.as_ref().err().and_then(|reason| fault(reason, &reply.raw));
        Ok(Read { reply, verdict: Some(verdict), usage, cost, fault, model })
    }

    /// Says once a process that another model answered.
    fn warn_of_stranger(&self, served: &str) {
        static TOLD: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());
        let (judge, asked) = (&self.judge.name, &self.judge.model);
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert((judge.clone(), served.to_owned())) {
            say(&format!("judge `{judge}`: `{asked}` was asked and `{served}` answered"));
        }
    }

    /// The texts of the steps before, or the verdict of a presentation that ended with one of them.
    fn earlier(
        &self,
        asker: &Asker,
        shown: &Presentation,
        step: u32,
    ) -> Result<Result<Vec<String>, Verdict>> {
        if step == 0 {
            return Ok(Ok(Vec::new()));
        }
        let replies = self.context.wait(self.context.store.earlier_replies(shown, step))?;
        let mut texts = Vec::new();
        for (step, (raw, max_tokens)) in (0..).zip(&replies) {
            match self.answer(asker, step, raw, *max_tokens).text {
                Ok(text) => texts.push(text),
                Err(no_text) => {
                    let verdict = Verdict::none(no_text.reason);
                    return Ok(Err(Verdict { explanation: no_text.said, ..verdict }));
                }
            }
        }
        Ok(Ok(texts))
    }

    /// Every response's ratings by one template: of response and vote, the rating or why there is none.
    pub fn ratings(&self, work: &Assignment, asker: &Asker) -> Result<super::ratings::Ratings> {
        let pairs: HashMap<&str, &Pair> = work.pairs.iter().map(|pair| (pair.id.as_str(), pair)).collect();
        let mut ratings = super::ratings::Ratings::default();
        let mut after: Option<Reply> = None;
        loop {
            let asked = self.asked(asker, work);
            let page = self.context.wait(self.context.store.all_replies(asked, after.as_ref(), PAGE))?;
            for reply in &page {
                let Some(pair) = pairs.get(reply.presentation.pair_id.as_str()) else { continue };
                let response = if reply.step == 0 { &pair.a } else { &pair.b };
                let vote = reply.presentation.vote;
                ratings.add(response, vote, || {
                    asker.read_rating(&self.answer(asker, 0, &reply.raw, reply.max_tokens))
                });
            }
            match page.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(ratings),
            }
        }
    }

    /// The request of one step.
    pub fn request(
        &self,
        model: &impl ChatModel,
        work: &Assignment,
        asker: &Asker,
        pair: &Pair,
        order: Order,
        vote: u32,
        step: u32,
        earlier: &[String],
    ) -> Result<PlannedRequest> {
        let seen = shown(work, self.seed(), asker, pair, order, vote, step)?;
        let request = self.chat_request(asker, &seen.view(), earlier)?;
        let body = model.body(&request);
        let pairwise = asker.protocol() == TemplateProtocol::Pairwise;
        Ok(PlannedRequest {
            presentation: Presentation {
                pair_id: pair.id.clone(),
                judge: self.judge.name.clone(),
                template: asker.name().to_owned(),
                order,
                vote,
            },
            step,
            // A rating is a score of one response: its verdicts come of two of them.
            last_step: pairwise && step as usize + 1 == asker.steps().len(),
            request_key: match (work.each_anew, asker.protocol()) {
                (false, _) => request_key(self.judge.base_url(), vote, &body),
                (true, TemplateProtocol::Pairwise) => {
                    key_of_copy(self.judge.base_url(), vote, &body, &pair.id)
                }
                // A rating is asked once a response, however many pairs it is in.
                (true, TemplateProtocol::Rating) => {
                    let response = if step == 0 { &pair.a } else { &pair.b };
                    key_of_copy(self.judge.base_url(), vote, &body, response)
                }
            },
            body,
            prompt_tokens_at_most: request.prompt_tokens_at_most(),
            max_tokens: request.max_tokens as u64,
        })
    }

    /// The request of the step after these replies, as it would be sent.
    pub fn chat_request(&self, asker: &Asker, view: &View<'_>, earlier: &[String]) -> Result<ChatRequest> {
        let (at, step) = (earlier.len(), &asker.steps()[earlier.len()]);
        let nonce = asker.nonce_of(at, view);
        let votes = self.votes() > 1;
        let request = ChatRequest::of_judge(self.judge, asker.messages(view, earlier)?);
        let last = at + 1 == asker.steps().len();
        // Words before the last step are an explanation: nobody reads how likely they were.
        let top_logprobs = match step.answer {
            AnswerKind::Token => Some(TOP_LOGPROBS),
            _ => request.top_logprobs.filter(|_| last),
        };
        Ok(ChatRequest {
            max_tokens: step.max_tokens.unwrap_or(self.judge.max_tokens),
            // 31 bits: some servers keep seeds in a signed integer.
            seed: votes.then(|| seed::derive(nonce, "judge/vote", u64::from(view.vote)) >> 33),
            top_logprobs,
            schema: asker.schema(at, view),
            choices: asker.choices(at),
            ..request
        })
    }

    /// What a reply to a step answers, which could have so many tokens.
    fn answer(&self, asker: &Asker, step: u32, raw: &[u8], max_tokens: u32) -> Answer {
        let step = &asker.steps()[(step as usize).min(asker.steps().len() - 1)];
        let most = match step.answer {
            AnswerKind::Token => usize::MAX,
            _ => max_tokens as usize,
        };
        read_answer(raw, most)
    }

    fn asked<'a>(&'a self, asker: &'a Asker, work: &'a Assignment) -> Asked<'a> {
        Asked { judge: &self.judge.name, template: asker.name(), set: work.set }
    }

    fn votes(&self) -> u32 {
        u32::try_from(self.judge.votes.max(1)).unwrap_or(u32::MAX)
    }

    fn seed(&self) -> u64 {
        self.context.config.run.seed
    }
}

/// The key of a request that is asked anew for each copy of a pair or response.
fn key_of_copy(base_url: &str, vote: u32, body: &str, copy: &str) -> String {
    blake3::hash(format!("{}\n{copy}", request_key(base_url, vote, body)).as_bytes()).to_hex().to_string()
}

/// The hash of all that decides a reply.
pub fn request_key(base_url: &str, vote: u32, body: &str) -> String {
    blake3::hash(format!("{base_url}\n{vote}\n{body}").as_bytes()).to_hex().to_string()
}

fn row(shown: &Presentation, verdict: Verdict) -> VerdictRow {
    VerdictRow {
        pair_id: shown.pair_id.clone(),
        judge: shown.judge.clone(),
        template: shown.template.clone(),
        order: shown.order,
        vote: shown.vote,
        verdict,
    }
}

/// The askers' longest conversation, in requests.
pub fn steps(askers: &[Asker]) -> u32 {
    u32::try_from(askers.iter().map(requests_of).max().unwrap_or(0)).unwrap_or(u32::MAX)
}
