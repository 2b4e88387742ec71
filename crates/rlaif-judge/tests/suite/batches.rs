//! Batches against a provider on this machine that keeps what it was given, with a crash at every step and every way to end.

use rlaif_core::config::{JudgeConfig, JudgeKind};
use rlaif_core::money::ServiceTier;
use rlaif_judge::batch::{
    BatchItem, BatchLedger, BatchLimits, BatchOptions, BatchStop, BatchSummary, ItemOutcome, ItemResult,
    OpenBatch, drive,
};
use rlaif_judge::{Completion, Provider};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// How batches end, one after another; the last one's way goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Completed,
    /// Half of the requests are done.
    Expired,
    Cancelled,
    /// Nothing is done.
    Failed,
    /// Completed, and every request has an error.
    ErrorsOnly,
}

#[derive(Debug, Clone)]
struct Made {
    metadata: Value,
    ids: Vec<String>,
    polls: usize,
    end: End,
}

/// What the provider has.
#[derive(Debug, Default)]
struct Shop {
    files: BTreeMap<String, String>,
    batches: BTreeMap<String, Made>,
    ends: Vec<End>,
    /// Answers to the calls that make a batch are lost on the way so often.
    lose_answers: usize,
}

#[derive(Clone)]
struct Fake {
    shop: Arc<Mutex<Shop>>,
    kind: JudgeKind,
}

impl Fake {
    fn make(&self, shop: &mut Shop, metadata: Value, ids: Vec<String>) -> (String, bool) {
        let id = format!("batch_{}", shop.batches.len());
        let end = shop.ends.get(shop.batches.len()).or(shop.ends.last()).copied().unwrap_or(End::Completed);
        shop.batches.insert(id.clone(), Made { metadata, ids, polls: 0, end });
        let lost = shop.lose_answers > 0;
        shop.lose_answers = shop.lose_answers.saturating_sub(1);
        (id, lost)
    }

    /// The ids that have a reply and those that have none.
    fn done(made: &Made) -> (Vec<&String>, Vec<&String>) {
        let half = made.ids.len() / 2;
        let split = match made.end {
            End::Completed => made.ids.len(),
            End::Expired | End::Cancelled => half,
            End::Failed | End::ErrorsOnly => 0,
        };
        // In any order but that of the requests.
        let (done, left) = made.ids.split_at(split);
        (done.iter().rev().collect(), left.iter().rev().collect())
    }

    fn object(&self, id: &str, made: &Made, base: &str) -> Value {
        let ended = made.polls >= 2;
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        if self.kind == JudgeKind::Anthropic {
            let url = ended.then(|| format!("{base}/v1/messages/batches/{id}/results"));
            return json!({"id": id, "type": "message_batch", "processing_status": if ended { "ended" } else { "in_progress" },
                "request_counts": {"processing": made.ids.len(), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
                "created_at": null, "results_url": url});
        }
        let word = match (ended, made.end) {
            (false, _) => "in_progress",
            (_, End::Completed | End::ErrorsOnly) => "completed",
            (_, End::Expired) => "expired",
            (_, End::Cancelled) => "cancelled",
            (_, End::Failed) => "failed",
        };
        let (done, left) = Self::done(made);
        let file = |there: bool, kind: &str| (ended && there).then(|| format!("file-{kind}-{id}"));
        let failed = word == "failed";
        let errors = failed.then(
            || json!({"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]}),
        );
        json!({"id": id, "status": word, "metadata": made.metadata, "created_at": created, "errors": errors,
            "output_file_id": file(!done.is_empty(), "out"), "error_file_id": file(!left.is_empty() && !failed, "err")})
    }

    fn openai(&self, request: &Request, base: &str) -> ResponseTemplate {
        let mut shop = self.shop.lock().unwrap();
        let ok = |value: Value| ResponseTemplate::new(200).set_body_json(value);
        let path = request.url.path().to_owned();
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("POST", ["files"]) => {
                let id = format!("file-{}", shop.files.len());
                let text = String::from_utf8(request.body.clone()).unwrap();
                let lines = text.lines().filter(|line| line.starts_with('{')).collect::<Vec<_>>().join("\n");
                assert!(text.contains("name=\"purpose\"\r\n\r\nbatch\r\n"));
                shop.files.insert(id.clone(), lines);
                ok(json!({"id": id, "object": "file"}))
            }
            ("POST", ["batches"]) => {
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                let lines = shop.files[body["input_file_id"].as_str().unwrap()].clone();
                let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
                let ids = lines.lines().map(|l| line(l)["custom_id"].as_str().unwrap().to_owned()).collect();
                let (id, lost) = self.make(&mut shop, body["metadata"].clone(), ids);
                if lost { ResponseTemplate::new(502) } else { ok(self.object(&id, &shop.batches[&id], base)) }
            }
            ("GET", ["batches"]) => {
                let data: Vec<Value> =
                    shop.batches.iter().rev().map(|(id, made)| self.object(id, made, base)).collect();
                ok(json!({"object": "list", "data": data, "has_more": false}))
            }
            ("GET", ["batches", id]) => {
                shop.batches.get_mut(*id).unwrap().polls += 1;
                ok(self.object(id, &shop.batches[*id], base))
            }
            ("GET", ["files", file, "content"]) => {
                let (kind, id) = file.trim_start_matches("file-").split_once('-').unwrap();
                let (done, left) = Self::done(&shop.batches[id]);
                let line = |custom_id: &str| match kind {
                    "out" => json!({"id": "x", "custom_id": custom_id, "error": null,
                        "response": {"status_code": 200, "request_id": "r", "body": completion(custom_id)}}),
                    _ => {
                        json!({"id": "x", "custom_id": custom_id, "response": null, "error": {"code": "batch_expired", "message": "too late"}})
                    }
                };
                let ids = if kind == "out" { done } else { left };
                let text: Vec<String> = ids.into_iter().map(|id| line(id).to_string()).collect();
                // The last line has no end, as some servers write it.
                ResponseTemplate::new(200).set_body_string(text.join("\n"))
            }
            other => panic!("{other:?}"),
        }
    }

    fn anthropic(&self, request: &Request, base: &str) -> ResponseTemplate {
        let mut shop = self.shop.lock().unwrap();
        let ok = |value: Value| ResponseTemplate::new(200).set_body_json(value);
        let path = request.url.path().to_owned();
        let parts: Vec<&str> = path.trim_start_matches("/v1/messages/").split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("POST", ["batches"]) => {
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                let requests = body["requests"].as_array().unwrap();
                let ids = requests.iter().map(|r| r["custom_id"].as_str().unwrap().to_owned()).collect();
                let (id, lost) = self.make(&mut shop, Value::Null, ids);
                if lost { ResponseTemplate::new(502) } else { ok(self.object(&id, &shop.batches[&id], base)) }
            }
            ("GET", ["batches"]) => {
                let data: Vec<Value> =
                    shop.batches.iter().rev().map(|(id, made)| self.object(id, made, base)).collect();
                let last = data.last().map(|batch| batch["id"].clone());
                ok(json!({"data": data, "has_more": false, "last_id": last}))
            }
            ("GET", ["batches", id]) => {
                shop.batches.get_mut(*id).unwrap().polls += 1;
                ok(self.object(id, &shop.batches[*id], base))
            }
            ("GET", ["batches", id, "results"]) => {
                let made = &shop.batches[*id];
                let (done, left) = Self::done(made);
                let word = match made.end {
                    End::Cancelled => json!({"type": "canceled"}),
                    End::Failed | End::ErrorsOnly => {
                        json!({"type": "errored", "error": {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}})
                    }
                    _ => json!({"type": "expired"}),
                };
                let message = |id: &str| {
                    json!({"type": "message", "stop_reason": "end_turn", "content": [{"type": "text", "text": id}],
                    "usage": {"input_tokens": 1, "output_tokens": 1}})
                };
                let mut lines: Vec<String> =
                    left.iter().map(|id| json!({"custom_id": id, "result": word}).to_string()).collect();
                lines.extend(done.iter().map(|id| {
                    json!({"custom_id": id, "result": {"type": "succeeded", "message": message(id)}})
                        .to_string()
                }));
                ResponseTemplate::new(200).set_body_string(lines.join("\n"))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn completion(text: &str) -> Value {
    json!({"choices": [{"finish_reason": "stop", "message": {"content": text}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
}

impl Respond for Fake {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let base = format!("http://{}", request.headers["host"].to_str().unwrap());
        match self.kind {
            JudgeKind::Anthropic => self.anthropic(request, &base),
            _ => self.openai(request, &base),
        }
    }
}

/// What survives a crash.
#[derive(Debug, Default)]
struct Kept {
    items: BTreeSet<String>,
    replies: BTreeMap<String, Vec<u8>>,
    refused: BTreeMap<String, String>,
    tries: HashMap<String, usize>,
    batches: BTreeMap<String, (OpenBatch, Vec<String>)>,
    ended: Vec<String>,
}

/// A ledger that dies before or after its n-th call, as a process does.
struct Mortal<'a> {
    kept: &'a mut Kept,
    calls: usize,
    dies_at: usize,
}

#[derive(Debug, PartialEq)]
struct Dead;

impl Mortal<'_> {
    /// Even numbers die before the work and odd ones after it.
    fn step(&mut self, work: impl FnOnce(&mut Kept)) -> Result<(), Dead> {
        self.calls += 2;
        if self.calls - 1 == self.dies_at {
            return Err(Dead);
        }
        work(self.kept);
        if self.calls == self.dies_at { Err(Dead) } else { Ok(()) }
    }
}

impl BatchLedger for Mortal<'_> {
    type Error = Dead;

    async fn open(&mut self) -> Result<Vec<OpenBatch>, Dead> {
        let ids = |name: &String| -> Vec<String> {
            self.kept
                .batches
                .iter()
                .filter(|(other, _)| *other != name)
                .filter_map(|(_, (batch, _))| batch.id.clone())
                .chain(self.kept.ended.clone())
                .collect()
        };
        Ok(self
            .kept
            .batches
            .iter()
            .map(|(name, (batch, _))| OpenBatch { others: ids(name), ..batch.clone() })
            .collect())
    }

    async fn unsent(&mut self, limits: BatchLimits) -> Result<Vec<BatchItem>, Dead> {
        let busy: BTreeSet<&String> = self.kept.batches.values().flat_map(|(_, items)| items).collect();
        let free =
            self.kept.items.iter().filter(|id| !busy.contains(id) && !self.kept.replies.contains_key(*id));
        let free = free.filter(|id| {
            !self.kept.refused.contains_key(*id) && self.kept.tries.get(*id).copied().unwrap_or(0) < 4
        });
        Ok(free
            .take(limits.requests)
            .map(|id| BatchItem {
                custom_id: id.clone(),
                body: format!("{{\"model\":\"m\",\"n\":\"{id}\"}}"),
            })
            .collect())
    }

    async fn intend(&mut self, name: &str, account: &str, items: &[BatchItem]) -> Result<(), Dead> {
        let batch = OpenBatch {
            name: name.into(),
            account: account.into(),
            intended: SystemTime::now(),
            items: items.len(),
            creating: false,
            id: None,
            others: vec![],
        };
        let ids = items.iter().map(|item| item.custom_id.clone()).collect();
        self.step(|kept| drop(kept.batches.insert(name.into(), (batch, ids))))
    }

    async fn creating(&mut self, name: &str) -> Result<(), Dead> {
        self.step(|kept| kept.batches.get_mut(name).unwrap().0.creating = true)
    }

    async fn created(&mut self, name: &str, id: &str) -> Result<(), Dead> {
        self.step(|kept| kept.batches.get_mut(name).unwrap().0.id = Some(id.into()))
    }

    async fn forget(&mut self, name: &str) -> Result<(), Dead> {
        self.step(|kept| drop(kept.batches.remove(name)))
    }

    async fn harvest(&mut self, _: &str, results: Vec<ItemResult>) -> Result<(), Dead> {
        self.step(|kept| {
            for ItemResult { custom_id, outcome } in results {
                match outcome {
                    ItemOutcome::Replied(body) => drop(kept.replies.entry(custom_id).or_insert(body)),
                    ItemOutcome::NotDone(_) => {}
                    ItemOutcome::Refused(why) => drop(kept.refused.insert(custom_id, why)),
                }
            }
        })
    }

    async fn ended(&mut self, name: &str, _: &str, _: Option<&str>) -> Result<(), Dead> {
        self.step(|kept| {
            let (batch, items) = kept.batches.remove(name).unwrap();
            kept.ended.extend(batch.id);
            for item in items {
                *kept.tries.entry(item).or_default() += 1;
            }
        })
    }

    async fn holds(&mut self, name: &str, custom_id: &str) -> Result<bool, Dead> {
        Ok(self.kept.batches[name].1.iter().any(|id| id == custom_id))
    }
}

struct Setup {
    server: MockServer,
    shop: Arc<Mutex<Shop>>,
    kind: JudgeKind,
}

impl Setup {
    async fn new(kind: JudgeKind, ends: &[End]) -> Self {
        let shop = Arc::new(Mutex::new(Shop { ends: ends.to_vec(), ..Shop::default() }));
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(Fake { shop: shop.clone(), kind }).mount(&server).await;
        Self { server, shop, kind }
    }

    /// Drives until the end, or the death at this step.
    async fn drive(
        &self,
        kept: &mut Kept,
        dies_at: usize,
        key: &str,
    ) -> Result<BatchSummary, BatchStop<Dead>> {
        let judge = JudgeConfig {
            kind: self.kind,
            base_url: Some(format!("{}/v1", self.server.uri())),
            api_key_env: Some("K".into()),
            model: "m".into(),
            ..JudgeConfig::default()
        };
        let client = Provider::from_config(&judge, |_| Some(key.to_owned())).unwrap().batches().unwrap();
        let (_keep, stop) = tokio::sync::watch::channel(false);
        let options = BatchOptions {
            limits: BatchLimits { requests: 4, bytes: 1 << 20 },
            most_open: 2,
            poll: Duration::from_millis(1),
            poll_at_most: Duration::from_millis(2),
            settle: Duration::ZERO,
            stop,
        };
        drive(&client, &mut Mortal { kept, calls: 0, dies_at }, &options).await
    }

    /// Requests that were done more than once, and so paid for twice.
    fn done_twice(&self) -> Vec<String> {
        let shop = self.shop.lock().unwrap();
        let mut count: HashMap<&String, usize> = HashMap::new();
        for made in shop.batches.values() {
            for id in Fake::done(made).0 {
                *count.entry(id).or_default() += 1;
            }
        }
        count.into_iter().filter(|(_, n)| *n > 1).map(|(id, _)| id.clone()).collect()
    }
}

fn ten() -> Kept {
    Kept { items: (0..10).map(|n| format!("item-{n}")).collect(), ..Kept::default() }
}

fn check(kept: &Kept) {
    assert_eq!(
        kept.replies.keys().cloned().collect::<BTreeSet<_>>(),
        kept.items,
        "every request has its reply"
    );
    for (id, body) in &kept.replies {
        let completion = Completion::read(body).unwrap();
        assert_eq!(
            completion.text.as_ref(),
            Some(id),
            "a reply is for its own request, in whatever order they come"
        );
        assert_eq!(completion.usage.unwrap().tier, ServiceTier::Batch, "and has the price of a batch");
    }
    assert!(kept.batches.is_empty());
}

const KINDS: [JudgeKind; 2] = [JudgeKind::Openai, JudgeKind::Anthropic];

#[tokio::test]
async fn a_crash_at_any_step_makes_no_batch_twice_and_loses_nothing() {
    for kind in KINDS {
        let mut crashes = 0;
        for dies_at in 1.. {
            let setup = Setup::new(kind, &[End::Completed]).await;
            let mut kept = ten();
            let died = match setup.drive(&mut kept, dies_at, "key").await {
                Err(BatchStop::Ledger(Dead)) => true,
                Err(other) => panic!("{other}"),
                Ok(_) => false,
            };
            setup.drive(&mut kept, 0, "key").await.unwrap();
            check(&kept);
            assert_eq!(setup.done_twice(), Vec::<String>::new(), "{kind:?} died at {dies_at}");
            assert_eq!(
                setup.shop.lock().unwrap().batches.len(),
                3,
                "{kind:?} died at {dies_at}: 4 + 4 + 2 requests"
            );
            if !died {
                break;
            }
            crashes += 1;
        }
        assert_eq!(
            crashes,
            2 * 3 * 5,
            "before and after intend, creating, created, harvest and ended of three batches"
        );
    }
}

#[tokio::test]
async fn every_way_to_end_is_harvested_and_only_what_is_missing_is_sent_again() {
    for kind in KINDS {
        for end in [End::Expired, End::Cancelled, End::ErrorsOnly] {
            let setup = Setup::new(kind, &[end, end, End::Completed]).await;
            let mut kept = ten();
            let summary = setup.drive(&mut kept, 0, "key").await.unwrap();
            check(&kept);
            assert_eq!(setup.done_twice(), Vec::<String>::new(), "{kind:?} {end:?}");
            assert_eq!(summary.replies, 10);
            assert!(summary.without_reply > 0, "{kind:?} {end:?}");
        }
    }
}

#[tokio::test]
async fn a_provider_that_fails_every_batch_stops_the_run() {
    let setup = Setup::new(JudgeKind::Openai, &[End::Failed]).await;
    let mut kept = ten();
    let stop = setup.drive(&mut kept, 0, "key").await.unwrap_err();
    assert!(stop.to_string().contains("Enqueued token limit reached"), "{stop}");
    assert!(setup.shop.lock().unwrap().batches.len() <= 3);
    // Later the provider has room again.
    setup.shop.lock().unwrap().ends = vec![End::Completed];
    setup.drive(&mut kept, 0, "key").await.unwrap();
    check(&kept);
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_found_again() {
    for kind in KINDS {
        let setup = Setup::new(kind, &[End::Completed]).await;
        setup.shop.lock().unwrap().lose_answers = 2;
        let mut kept = ten();
        let summary = setup.drive(&mut kept, 0, "key").await.unwrap();
        check(&kept);
        assert_eq!((summary.created, summary.found_again), (1, 2), "{kind:?}");
        assert_eq!(setup.done_twice(), Vec::<String>::new(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_batch_of_another_key_is_not_abandoned() {
    let setup = Setup::new(JudgeKind::Openai, &[End::Completed]).await;
    let mut kept = ten();
    // intend, creating, created: dies after the third.
    setup.drive(&mut kept, 6, "key").await.unwrap_err();
    let stop = setup.drive(&mut kept, 0, "another key").await.unwrap_err();
    assert!(matches!(&stop, BatchStop::OtherAccount { id } if id == "batch_0"), "{stop}");
    setup.drive(&mut kept, 0, "key").await.unwrap();
    check(&kept);
    assert_eq!(setup.done_twice(), Vec::<String>::new());
}
