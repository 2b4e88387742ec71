//! An evaluation of tiny models by a judge that knows whose each response is, and judges them by a planted quality and length.

use crate::common::{Lab, shown_response, tiny_llama};
use crate::review_lab::wait;
use rlaif_core::people::HumanChoice;
use rlaif_core::records::Response;
use rlaif_store::Store;
use rlaif_store::store::NewHumanVerdict;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// What a judge's choice hangs on: P(i beats j) = σ(qualityᵢ − qualityⱼ + length·tanh((charsᵢ − charsⱼ)/10)).
#[derive(Clone)]
pub struct Taste {
    /// By policy; 0 for the baseline.
    pub quality: HashMap<&'static str, f64>,
    /// How much it likes length.
    pub length: f64,
}

impl Taste {
    pub fn of(quality: &[(&'static str, f64)], length: f64) -> Self {
        Self { quality: quality.iter().copied().collect(), length }
    }

    fn quality_of(&self, response: &Response) -> f64 {
        let policy = response.id.split('/').next().unwrap();
        self.quality.get(policy).copied().unwrap_or(0.0)
    }

    /// Whether a response beats another: the same for both orders, drawn by the two texts and the name of the one who judges.
    pub fn prefers(&self, who: &str, one: &Response, other: &Response) -> bool {
        let (a, b) = if one.text <= other.text { (one, other) } else { (other, one) };
        let chars = |response: &Response| response.text.chars().count() as f64;
        let lead =
            self.quality_of(a) - self.quality_of(b) + self.length * ((chars(a) - chars(b)) / 10.0).tanh();
        let a_wins = draw(&format!("{who}\n{}\n{}\n{}", a.prompt_id, a.text, b.text)) < sigmoid(lead);
        a_wins == std::ptr::eq(a, one)
    }
}

pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Between 0 and 1, by a text.
fn draw(text: &str) -> f64 {
    let hash = blake3::hash(text.as_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()) as f64 / u64::MAX as f64
}

/// What a judge sees of a text: never control characters.
fn key(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).collect()
}

struct Judge {
    database: PathBuf,
    taste: Taste,
    known: Mutex<HashMap<String, Response>>,
    calls: Arc<AtomicUsize>,
    delay: Duration,
}

impl Judge {
    /// The response of a text; what the ledger has is read again where it is new.
    fn response(&self, shown: &str, label: &str) -> Response {
        let text = key(shown_response(shown, label));
        let mut known = self.known.lock().unwrap();
        if !known.contains_key(&text) {
            *known = responses(&self.database).into_iter().map(|it| (key(&it.text), it)).collect();
        }
        known.get(&text).unwrap_or_else(|| panic!("nobody said {text:?}")).clone()
    }
}

impl Respond for Judge {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let shown = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
        let (first, second) = (self.response(shown, "1"), self.response(shown, "2"));
        let better = if self.taste.prefers("judge", &first, &second) { 1 } else { 2 };
        // Who loses is the clearer one.
        let clarity = if better == 1 { "clarity: 1 = 3, 2 = 8" } else { "clarity: 1 = 8, 2 = 3" };
        let reply = json!({
            "id": "x", "object": "chat.completion", "model": "fake-1",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {
                "role": "assistant", "content": format!("{clarity}\n\nBetter response: {better}")}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        });
        ResponseTemplate::new(200).set_body_json(reply).set_delay(self.delay)
    }
}

/// Every response of a ledger, whoever's it is.
fn responses(database: &Path) -> Vec<Response> {
    let database = database.to_path_buf();
    // Its own thread, since the server that asks is one of a runtime.
    let read = move || {
        wait(async {
            let store = Store::open_read_only(&database).await.unwrap();
            let mut all = Vec::new();
            for policy in
                ["baseline", "strong", "weak", "regression/baseline", "regression/strong", "regression/weak"]
            {
                all.extend(store.responses(policy, None).await.unwrap());
            }
            all
        })
    };
    std::thread::spawn(read).join().unwrap()
}

/// A lab that only evaluates, with its judge.
pub struct Evaluated {
    pub lab: Lab,
    calls: Arc<AtomicUsize>,
    _runtime: Runtime,
    _server: MockServer,
}

/// A golden model other than the Llama.
pub fn golden(name: &str) -> PathBuf {
    tiny_llama().parent().unwrap().join(name)
}

impl Evaluated {
    /// The tiny Llama as the baseline, `strong` and `weak` next to it, so many held-out prompts.
    pub fn new(prompts: usize, taste: Taste, delay: Duration) -> Self {
        let lab = Lab::new();
        let rows: Vec<String> = (0..prompts)
            .map(|i| {
                let tag = if i < 12 { "rare" } else { "common" };
                format!("{{\"id\": \"e{i:03}\", \"prompt\": \"Tell {i}\", \"tags\": [\"{tag}\"]}}\n")
            })
            .collect();
        lab.write("eval.jsonl", &rows.concat());
        let calls = Arc::new(AtomicUsize::new(0));
        let judge = Judge {
            database: lab.run_folder().join("rlaif.db"),
            taste,
            known: Mutex::default(),
            calls: calls.clone(),
            delay,
        };
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(MockServer::start());
        runtime.block_on(Mock::given(method("POST")).respond_with(judge).mount(&server));
        let judge = format!(
            "[[label.judges]]\nname = \"fake\"\nkind = \"openai\"\nprotocol = \"pairwise\"\nmodel = \"fake-1\"\ntemplates = [\"per_criterion\"]\nbase_url = \"{}/v1\"\n\
             usd_per_million_input = 1.0\nusd_per_million_output = 5.0\nmax_concurrency = 4\n",
            server.uri()
        );
        lab.judged_by(&judge, "tripwire_rate = 0.0\n");
        lab.edit("seed = 7", "seed = 7\nstages = ['evaluate', 'report']");
        lab.edit("samples_per_prompt = 2\nsentiment = true", "samples_per_prompt = 1");
        let models = format!(
            "\n[[evaluate.models]]\nname = \"strong\"\nmodel = {:?}\n\n[[evaluate.models]]\nname = \"weak\"\nmodel = {:?}\n",
            golden("qwen2"),
            golden("mistral")
        );
        let text = lab.read("rlaif.toml");
        lab.write("rlaif.toml", &(text + &models));
        Self { lab, calls, _runtime: runtime, _server: server }
    }

    /// Puts a baseline in place that ends its turn with one of sixteen letters, so that its answers are shorter than the others'.
    pub fn brief_baseline(&self) {
        std::fs::create_dir(self.lab.path("brief")).unwrap();
        for file in std::fs::read_dir(tiny_llama()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), self.lab.path("brief").join(file.file_name())).unwrap();
        }
        let ends: Vec<u32> = std::iter::once(2).chain(100..116).collect();
        let file = "brief/generation_config.json";
        let mut config: Value = serde_json::from_str(&self.lab.read(file)).unwrap();
        config["eos_token_id"] = ends.into();
        self.lab.write(file, &config.to_string());
        self.lab.edit(&tiny_llama().display().to_string(), "brief");
        self.lab.edit("max_new_tokens = 12", "max_new_tokens = 40");
    }

    /// How often the judge was asked.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// `evaluation.json`.
    pub fn evaluation(&self) -> Value {
        let path = self.lab.run_folder().join("evaluation.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// How `policy` did against `other`.
    pub fn comparison(&self, policy: &str, other: &str) -> Value {
        let evaluation = self.evaluation();
        let all = evaluation["comparisons"].as_array().unwrap();
        let found = all.iter().find(|it| it["policy"] == policy && it["other"] == other);
        found.unwrap_or_else(|| panic!("{policy} has not met {other}")).clone()
    }

    /// Everything that was said.
    pub fn responses(&self) -> Vec<Response> {
        responses(&self.lab.run_folder().join("rlaif.db"))
    }

    /// Ada judges so many of a comparison's pairs, in the queue of the evaluation and its order.
    pub fn people_judge(&self, set: &str, many: usize, taste: &Taste) {
        let by_id: HashMap<String, Response> =
            self.responses().into_iter().map(|response| (response.id.clone(), response)).collect();
        wait(async {
            let store = Store::open(self.lab.run_folder().join("rlaif.db")).await.unwrap();
            let mut pairs = store.review_pairs(set).await.unwrap();
            pairs.sort_by_key(|pair| blake3::hash(pair.key.hash.as_bytes()).to_hex().to_string());
            for pair in pairs.iter().take(many) {
                let a_wins = taste.prefers("ada", &by_id[&pair.pair.a], &by_id[&pair.pair.b]);
                let (prompt, a, b) = store.pair_texts(&pair.pair.id).await.unwrap().unwrap();
                let verdict = NewHumanVerdict {
                    prompt: &prompt,
                    a: &a,
                    b: &b,
                    reviewer: "ada",
                    queue: "evaluation",
                    a_left: true,
                    choice: if a_wins { HumanChoice::First } else { HumanChoice::Second },
                    criteria: &Default::default(),
                    note: None,
                    shown_ms: 0,
                    judged_ms: 1,
                };
                store.put_human_verdict(&verdict).await.unwrap();
            }
            store.close().await.unwrap();
        });
    }
}

/// Whether an estimate's interval holds a value.
pub fn holds(estimate: &Value, value: f64) -> bool {
    let end = |name: &str| estimate[name].as_f64().unwrap_or_else(|| panic!("no interval in {estimate}"));
    end("low") <= value && value <= end("high")
}
