//! A run that pays a mock judge for verdicts, killed and failing as one likes, and the oracle: the mock's ledger against the
//! database. The file that joins engine and ledger is the program's own.

#![allow(dead_code, reason = "each user needs a part")]

#[path = "../../../../rlaif/src/judging/ledger.rs"]
pub mod ledger;

use ledger::{Ledger, Planned, Tally, ask_again};
use rlaif_core::config::Durability;
use rlaif_core::money::{MicroUsd, Price};
use rlaif_core::records::{FinishReason, Message, Order, Pair, Prompt, PromptText, Response, Split};
use rlaif_judge::budget::Limit;
use rlaif_judge::chat::{ChatRequest, RawReply};
use rlaif_judge::engine::{EngineOptions, Event, Journal, Stop, Summary, judge_all};
use rlaif_judge::reply::{Fault, fault};
use rlaif_judge::retry::RetryPolicy;
use rlaif_judge::{Budget, LimitOptions, OpenAi, Style, read_reply};
use rlaif_mock_judge::{Entry, MockJudge};
use rlaif_store::store::{BASELINE, PlannedRequest, Presentation, ReadReply, Spooled, Store, TRAIN_PAIRS};
use rlaif_store::{Result, StoreError};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// The judge's name in the ledger.
pub const JUDGE: &str = "mock";

/// Responses a prompt: 1035 pairs.
const RESPONSES: usize = 46;

/// How a run is made.
#[derive(Debug, Clone)]
pub struct Run {
    /// The ledger.
    pub db: PathBuf,
    /// The judge's base URL.
    pub url: String,
    /// Calls in flight.
    pub concurrency: usize,
    /// Most time for a call.
    pub timeout: Duration,
    /// First wait before a retry.
    pub base: Duration,
    pub max_retries: usize,
    pub max_resends: usize,
    pub limits: LimitOptions,
    /// Longer waits are spent in the ledger.
    pub park_after: Duration,
    pub max_usd: Option<MicroUsd>,
    pub durability: Durability,
    /// A line is written here for each reply that is safe, as `task attempt`.
    pub safe: Option<PathBuf>,
}

impl Run {
    pub fn new(db: PathBuf, url: String) -> Self {
        Self {
            db,
            url,
            concurrency: 32,
            timeout: Duration::from_secs(30),
            base: Duration::from_millis(2),
            max_retries: 8,
            max_resends: 6,
            limits: LimitOptions::default(),
            park_after: Duration::from_secs(60),
            max_usd: None,
            durability: Durability::Power,
            safe: None,
        }
    }

    /// Goes on where the last process stopped: sends, reads, asks again for what is no use, until nothing is left.
    pub async fn to_the_end(&self) -> std::result::Result<(Summary, Tally), Stop<StoreError>> {
        let store = Store::open_with(&self.db, self.durability).await.map_err(Stop::Journal)?;
        let mut sum = (Summary::default(), Tally::default());
        loop {
            let sent = self.send(&store).await;
            read(&store).await.map_err(Stop::Journal)?;
            let (summary, tally) = sent?;
            sum.0.replied += summary.replied;
            sum.0.given_up += summary.given_up;
            sum.0.retries += summary.retries;
            sum.1.charged = [sum.1.charged, tally.charged].iter().sum();
            if ask_again(&store, JUDGE, &[TRAIN_PAIRS]).await.map_err(Stop::Journal)? == 0 {
                return Ok(sum);
            }
        }
    }

    /// Sends all that is planned, once.
    pub async fn send(&self, store: &Store) -> std::result::Result<(Summary, Tally), Stop<StoreError>> {
        let model = OpenAi::new(&self.url, None, self.timeout).expect("a client");
        let (spent, _) = store.charged("label").await.map_err(Stop::Journal)?;
        let limit = self.max_usd.map(|max| Limit { key: "label.max_usd", max, spent });
        let budget = Budget::within(limit.into_iter().collect());
        let (_keep, stop) = watch::channel(false);
        let retry = RetryPolicy {
            base: self.base,
            max_resends: self.max_resends,
            cap: Duration::from_secs(1),
            ..RetryPolicy::new(self.max_retries)
        };
        let options = EngineOptions {
            concurrency: self.concurrency,
            retry,
            limits: self.limits,
            park_after: self.park_after,
            price: Some(price()),
            seed: 1,
            ..EngineOptions::new(&budget, stop)
        };
        let ledger = Ledger::new(store, "label", JUDGE, |_| ());
        let safe = self.safe.as_ref().map(|path| {
            File::options().create(true).append(true).open(path).expect("a file for what is safe")
        });
        let journal = Safe { ledger, safe };
        let summary =
            judge_all(&model, &mut Planned::new(store, JUDGE, &[TRAIN_PAIRS], usize::MAX), options, &journal)
                .await?;
        Ok((summary, journal.ledger.tally()))
    }
}

/// 1 dollar a million tokens of the prompt, 4 of the reply: what the mock must be told too.
pub fn price() -> Price {
    Price::from_dollars(1.0, 4.0, None).expect("a price")
}

/// The ledger, and a note of each reply that it says it keeps: from here on nothing may lose it.
struct Safe<'a, F: Fn(Tally)> {
    ledger: Ledger<'a, F>,
    safe: Option<File>,
}

impl<F: Fn(Tally)> Journal for Safe<'_, F> {
    type Error = StoreError;
    type Kept = Spooled;

    fn arrived(&self, task: i64, attempt: u32, reply: &RawReply) -> Result<Spooled> {
        let kept = self.ledger.arrived(task, attempt, reply)?;
        if let Some(mut safe) = self.safe.as_ref() {
            safe.write_all(format!("{task} {attempt}\n").as_bytes()).expect("the note is written");
        }
        Ok(kept)
    }

    async fn record(&self, events: Vec<Event<Spooled>>) -> Result<()> {
        self.ledger.record(events).await
    }
}

/// Makes a ledger with `n` pairs to judge, in one order each.
pub async fn plan(db: &Path, n: usize) -> Result<()> {
    plan_as(db, n, ChatRequest::canonical_body).await
}

/// The same in another dialect.
pub async fn plan_as(db: &Path, n: usize, body: impl Fn(&ChatRequest) -> String) -> Result<()> {
    let store = Store::open_with(db, Durability::Process).await?;
    let a_prompt = RESPONSES * (RESPONSES - 1) / 2;
    let mut left = n;
    for number in 0..n.div_ceil(a_prompt) {
        let prompt_id = format!("p{number}");
        let text = PromptText::Text(format!("Question {number}?"));
        let prompt = Prompt { id: prompt_id.clone(), prompt: text, tags: vec![], reference: None };
        store.put_prompts(&[(prompt, Split::Train)]).await?;
        let responses: Vec<Response> = (0..RESPONSES)
            .map(|index| Response {
                id: format!("{prompt_id}/{index}"),
                prompt_id: prompt_id.clone(),
                index,
                text: format!("Answer {index} to question {number}."),
                token_ids: vec![],
                logprobs: vec![],
                finish_reason: FinishReason::Stop,
            })
            .collect();
        store.put_responses(BASELINE, &responses).await?;
        let pairs: Vec<Pair> = (0..RESPONSES)
            .flat_map(|a| (a + 1..RESPONSES).map(move |b| (a, b)))
            .take(left)
            .map(|(a, b)| Pair {
                id: format!("{prompt_id}/{a}-{b}"),
                prompt_id: prompt_id.clone(),
                a: responses[a].id.clone(),
                b: responses[b].id.clone(),
            })
            .collect();
        left -= pairs.len();
        store.put_pairs(TRAIN_PAIRS, &pairs).await?;
        let text = |id: &str| {
            &responses[id.rsplit('/').next().and_then(|i| i.parse::<usize>().ok()).unwrap_or(0)].text
        };
        let requests: Vec<PlannedRequest> =
            pairs.iter().map(|pair| request(number, pair, text(&pair.a), text(&pair.b), &body)).collect();
        store.plan_requests(&requests).await?;
    }
    store.put_planned(JUDGE, TRAIN_PAIRS, "all").await?;
    store.close().await
}

fn request(
    number: usize,
    pair: &Pair,
    first: &str,
    second: &str,
    body: impl Fn(&ChatRequest) -> String,
) -> PlannedRequest {
    let shown = format!(
        "<request_0a1b2c3d>\nQuestion {number}?\n</request_0a1b2c3d>\n<response_1_0a1b2c3d>\n{first}\n</response_1_0a1b2c3d>\n\
         <response_2_0a1b2c3d>\n{second}\n</response_2_0a1b2c3d>"
    );
    let rules =
        "Explain which response is better. End with one line, `Better response: 1` or `Better response: 2`.";
    let request = ChatRequest {
        model: "mock-judge".into(),
        messages: vec![Message::system(rules), Message::user(shown)],
        max_tokens: 200,
        temperature: Some(0.0),
        ..ChatRequest::default()
    };
    let body = body(&request);
    PlannedRequest {
        presentation: Presentation {
            pair_id: pair.id.clone(),
            judge: JUDGE.into(),
            template: "explain".into(),
            order: Order::Ab,
            vote: 0,
        },
        step: 0,
        last_step: true,
        request_key: blake3::hash(body.as_bytes()).to_hex().to_string(),
        prompt_tokens_at_most: request.prompt_tokens_at_most(),
        max_tokens: request.max_tokens as u64,
        body,
    }
}

/// Reads every reply that was not read.
pub async fn read(store: &Store) -> Result<()> {
    let mut after = 0;
    loop {
        let page = store.unread_replies_after("v1", after, 1024).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.reply_id;
        let read: Vec<_> = page
            .iter()
            .map(|reply| {
                let reading = read_reply(&reply.raw, Style::BetterResponse, reply.max_tokens as usize);
                let fault =
                    reading.verdict.choice.as_ref().err().and_then(|reason| fault(reason, &reply.raw));
                (reply, reading, fault)
            })
            .collect();
        let readings: Vec<ReadReply<'_>> = read
            .iter()
            .map(|(reply, reading, fault)| ReadReply {
                reply,
                verdict: Some(&reading.verdict),
                usage: reading.usage,
                cost: reading.usage.and_then(|usage| price().cost(&usage)),
                fault: fault.map(Fault::as_str),
                model: reading.model.as_deref(),
            })
            .collect();
        store.put_readings("v1", &readings).await?;
    }
}

/// What the oracle found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Requests, those that asked again included.
    pub requests: u64,
    /// By state.
    pub states: BTreeMap<String, u64>,
    /// Attempts by class.
    pub classes: BTreeMap<String, u64>,
    /// Calls that the mock saw.
    pub calls: u64,
    /// Whole good replies that were paid for more than once, each of which the ledger lists as possibly billed.
    pub bought_again: u64,
    /// What the mock billed, and of it what was for replies that we hold.
    pub billed: i64,
    pub held: i64,
    /// What the ledger says that its replies cost.
    pub known: i64,
    /// What the budget counts.
    pub charged: i64,
    /// Replies whose cost is unknown, such as empty ones.
    pub unknown: u64,
    /// Replies that were safe at some moment.
    pub safe: u64,
}

/// Compares the ledger with what the mock knows. Everything that must hold is asserted.
pub async fn check(db: &Path, judge: &MockJudge, safe: Option<&Path>) -> Findings {
    assert!(judge.ledger().settled(Duration::from_secs(60)).await, "the mock is done");
    let entries = judge.ledger().entries();
    check_entries(db, &entries, safe).await
}

/// As [`check`], with the mock's ledger.
pub async fn check_entries(db: &Path, entries: &[Entry], safe: Option<&Path>) -> Findings {
    let mut by_body: HashMap<&str, Vec<&Entry>> = HashMap::new();
    let entries: Vec<&Entry> = entries.iter().filter(|entry| entry.endpoint != "download").collect();
    for entry in &entries {
        by_body.entry(&entry.request).or_default().push(entry);
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(db).read_only(true);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    // request, body, state, attempts, possibly billed, replies, their known cost, those of unknown cost
    type Row = (i64, String, String, i64, i64, i64, i64, i64);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT q.seq, b.body, q.state, q.attempts, q.lost_sends, count(y.id), coalesce(sum(y.cost_micro_usd), 0),
                count(y.id) - count(y.cost_micro_usd)
         FROM requests q JOIN request_bodies b USING (seq) LEFT JOIN replies y ON y.request = q.seq GROUP BY q.seq",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let classes: Vec<(Option<String>, i64)> =
        sqlx::query_as("SELECT class, count(*) FROM attempts GROUP BY 1")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let charged: i64 = sqlx::query_scalar("SELECT coalesce(sum(charged), 0) FROM charges")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let added_up: i64 = sqlx::query_scalar("SELECT coalesce(sum(charged), 0) FROM attempts")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(charged, added_up, "the kept total is the sum");
    let replies: HashSet<(i64, i64)> =
        sqlx::query_as::<_, (i64, i64)>("SELECT request, attempt FROM replies")
            .fetch_all(&mut connection)
            .await
            .unwrap()
            .into_iter()
            .collect();

    let mut found =
        Findings { charged, requests: rows.len() as u64, calls: entries.len() as u64, ..Findings::default() };
    found.billed = entries.iter().map(|entry| entry.cost.0).sum();
    for (class, count) in classes {
        found.classes.insert(class.unwrap_or_else(|| "unread".into()), count.unsigned_abs());
    }
    // A request and the one that asks again with the same body look the same to the mock.
    let mut ours: HashMap<String, (i64, i64, i64, i64, i64)> = HashMap::new();
    for (_, body, state, attempts, lost, replies, known, unknown) in &rows {
        *found.states.entry(state.clone()).or_default() += 1;
        let hash = blake3::hash(body.as_bytes()).to_hex().to_string();
        let sum = ours.entry(hash).or_default();
        *sum = (sum.0 + attempts, sum.1 + lost, sum.2 + replies, sum.3 + known, sum.4 + unknown);
    }
    for (hash, (attempts, lost, replies, known, unknown)) in &ours {
        let seen = by_body.remove(hash.as_str()).unwrap_or_default();
        assert!(seen.len() as i64 <= *attempts, "every call that came was claimed first");
        let bought = seen.iter().filter(|entry| entry.is_bought()).count() as i64;
        assert!(
            bought <= replies + lost,
            "{bought} good replies bought, {replies} kept, {lost} calls possibly billed"
        );
        found.bought_again += (bought - 1).max(0).unsigned_abs();
        let delivered: i64 = seen
            .iter()
            .filter(|entry| entry.written && entry.status == Some(200))
            .map(|entry| entry.cost.0)
            .sum();
        if *lost == 0 && *unknown == 0 {
            assert_eq!(*known, delivered, "what a request cost is what the mock billed for it: {seen:#?}");
        }
        assert!(*known <= delivered);
        found.held += if *lost == 0 && *unknown == 0 { delivered } else { *known };
        found.known += known;
        found.unknown += unknown.unsigned_abs();
    }
    assert!(by_body.is_empty(), "the mock was asked nothing else");
    if let Some(safe) = safe {
        let last: HashMap<i64, i64> = rows.iter().map(|row| (row.0, row.3)).collect();
        for line in std::fs::read_to_string(safe).unwrap_or_default().lines() {
            let (request, attempt) = line.split_once(' ').unwrap();
            let (request, attempt): (i64, i64) = (request.parse().unwrap(), attempt.parse().unwrap());
            assert!(replies.contains(&(request, attempt)), "a reply that had arrived was lost: {line}");
            assert_eq!(last[&request], attempt, "a reply that had arrived was bought again: {line}");
            found.safe += 1;
        }
    }
    found
}
