//! A study whose truth is known: two mock judges label real runs, one with planted faults and one without, people say what is true on a random
//! sample, and `rlaif audit` finds each fault and no other, and corrects the number that it spoils.

use crate::common::Lab;
use crate::review_lab::{Person, Server, wait};
use rand::{Rng, RngExt};
use rlaif_core::records::{FinishReason, Response};
use rlaif_core::seed;
use rlaif_mock_judge::{MockJudge, Options};
use rlaif_store::Store;
use rlaif_store::store::{BASELINE, DPO};
use serde_json::Value;

const TRAIN: usize = 300;
const EVAL: usize = 200;
/// Pairs of the random audit that people judge.
const LABELS: usize = 120;
/// In what the policy tuned by DPO writes, and nobody else.
const MARK: &str = "signed Mock";

/// A study, labelled and evaluated.
struct Study {
    lab: Lab,
    faulty: MockJudge,
    fair: MockJudge,
    /// P(the longer response is the better one), over all training pairs.
    truth: f64,
}

/// A text of a known quality, some of it in bold, whose length has nothing to do with how good it is.
fn text(random: &mut impl Rng, more: &str) -> (String, f64, usize) {
    let quality = f64::from(random.random_range(0..10_000_u32)) / 10_000.0;
    let words = random.random_range(5..60_u32);
    let body: Vec<String> = (0..words).map(|_| format!("w{}", random.random_range(0..1000_u32))).collect();
    let bold = if random.random::<bool>() { "**bold** " } else { "" };
    let text = format!("{bold}{} {more} [q={quality:.4}]", body.join(" "));
    let length = text.chars().count();
    (text, quality, length)
}

fn response(policy: &str, prompt_id: &str, index: usize, text: String) -> Response {
    Response {
        id: format!("{policy}/{prompt_id}/{index}"),
        prompt_id: prompt_id.into(),
        index,
        text,
        token_ids: vec![40, 41, 42],
        logprobs: vec![-1.0; 3],
        finish_reason: FinishReason::Stop,
    }
}

impl Study {
    fn new() -> Self {
        let start = |options| MockJudge::start_on_thread(options).unwrap();
        let faulty = start(Options {
            accuracy: 0.85,
            position_bias: 0.2,
            length_bias: 2.0,
            own_mark: Some(MARK.into()),
            self_preference: 1.5,
            seed: 1,
            ..Options::default()
        });
        let fair = start(Options { accuracy: 0.9, seed: 2, ..Options::default() });
        let lab = Lab::new();
        let prompts = |name: &str, n: usize| -> String {
            (0..n)
                .map(|i| format!("{{\"id\": \"{name}-{i:03}\", \"prompt\": \"Say {name} {i}\"}}\n"))
                .collect()
        };
        lab.write("prompts.jsonl", &prompts("train", TRAIN));
        lab.write("eval.jsonl", &prompts("eval", EVAL));
        let judge = |name: &str, mock: &MockJudge, more: &str| {
            format!(
                "[[label.judges]]\nname = \"{name}\"\nkind = \"openai\"\nprotocol = \"pairwise\"\nmodel = \"mock-{name}\"\n\
                 base_url = \"{}\"\nusd_per_million_input = 1.0\nusd_per_million_output = 1.0\n{more}\n",
                mock.base_url()
            )
        };
        let judges = judge("faulty", &faulty, &format!("own_policies = [\"{DPO}\"]"))
            + &judge("fair", &fair, "own_policies = [\"other\"]\ntemplates = [\"explain\", \"metrics\"]");
        lab.judged_by(&judges, "tripwire_rate = 0.0\n");
        lab.edit("seed = 7", "seed = 7\nstages = [\"generate\", \"label\", \"dpo\", \"evaluate\"]");
        lab.edit("n = 4", "n = 2");
        lab.edit("pairs_per_prompt = 3", "pairs_per_prompt = 1");
        lab.edit("[dpo]\nepochs = 1\nbatch_size = 4", "[dpo]\nepochs = 1\nbatch_size = 64");
        lab.edit("samples_per_prompt = 2\nsentiment = true", "samples_per_prompt = 1\nsentiment = false");
        lab.edit("[reward]", &format!("[review]\naudit_pairs = {LABELS}\n[reward]"));
        let mut study = Self { lab, faulty, fair, truth: 0.0 };
        study.label();
        study.evaluate();
        study
    }

    fn store<T>(&self, work: impl AsyncFnOnce(&Store) -> T) -> T {
        wait(async {
            let store = Store::open(self.lab.run_folder().join("rlaif.db")).await.unwrap();
            let done = work(&store).await;
            store.close().await.unwrap();
            done
        })
    }

    /// The policy's responses give way to texts of known quality before anybody judges them.
    fn label(&mut self) {
        self.lab.done(&["run", "rlaif.toml", "--until", "generate"]);
        let mut random = seed::stream(3, "study", 0);
        let mut longer_is_better = 0.0;
        let mut responses = Vec::new();
        for i in 0..TRAIN {
            let id = format!("train-{i:03}");
            let ((a, qa, la), (b, qb, lb)) = (text(&mut random, ""), text(&mut random, ""));
            longer_is_better += if la == lb { 0.0 } else { f64::from(u8::from((la > lb) == (qa > qb))) };
            responses.extend([response(BASELINE, &id, 0, a), response(BASELINE, &id, 1, b)]);
        }
        self.truth = longer_is_better / TRAIN as f64;
        self.store(async |store| {
            store.clear_generate().await.unwrap();
            store.put_responses(BASELINE, &responses).await.unwrap();
        });
        self.lab.done(&["run", "rlaif.toml", "--until", "dpo"]);
    }

    /// As [`Self::label`], with the stage opened again once its texts are others.
    fn evaluate(&self) {
        self.lab.done(&["run", "rlaif.toml"]);
        let mut random = seed::stream(3, "study", 1);
        let (mut theirs, mut tuned) = (Vec::new(), Vec::new());
        for i in 0..EVAL {
            let id = format!("eval-{i:03}");
            theirs.push(response(BASELINE, &id, 0, text(&mut random, "").0));
            tuned.push(response(DPO, &id, 0, text(&mut random, MARK).0));
        }
        self.store(async |store| {
            store.clear_evaluate().await.unwrap();
            store.put_responses(BASELINE, &theirs).await.unwrap();
            store.put_responses(DPO, &tuned).await.unwrap();
        });
        let mut manifest: Value = serde_json::from_str(&self.lab.read("runs/tiny/manifest.json")).unwrap();
        manifest["stages"]["evaluate"]["state"] = "started".into();
        self.lab.write("runs/tiny/manifest.json", &manifest.to_string());
        self.lab.done(&["run", "rlaif.toml"]);
    }

    /// A person who sees which response is better judges the random audit.
    fn people(&self) {
        let server = Server::of(&self.lab, &[]);
        let person: Person<'_> = server.person("ada");
        for _ in 0..LABELS {
            let page = person.get("/pair?queue=audit");
            let quality = |side: &str| -> f64 {
                let (_, shown) = page.body.split_once(&format!("<h2 id=\"on-{side}\">")).unwrap();
                shown.split_once("[q=").unwrap().1[..6].parse().unwrap()
            };
            let better = if quality("left") > quality("right") { "left" } else { "right" };
            let said = person
                .post("/verdict", &[("queue", "audit"), ("pair", &page.field("pair")), ("choice", better)]);
            assert_eq!(said.status, 303, "{}", said.body);
        }
        server.kill();
    }

    fn audit(&self, code: i32, more: &[&str]) -> Measured {
        let (stdout, _) = self.lab.ends_with(code, &[&["audit", "rlaif.toml", "--json"], more].concat());
        let audit: Value = serde_json::from_str(&stdout).unwrap();
        let parts = audit["parts"].as_object().unwrap();
        Measured(parts.values().flat_map(|part| part["measurements"].as_array().unwrap().clone()).collect())
    }
}

struct Measured(Vec<Value>);

impl Measured {
    fn row(&self, subject: &str, measure: &str) -> &Value {
        let is = |row: &&Value| row["subject"] == subject && row["measure"] == measure;
        self.0.iter().find(is).unwrap_or_else(|| panic!("no `{measure}` of {subject} in {:#?}", self.0))
    }

    /// Value, low, high.
    fn interval(&self, judge: &str, measure: &str) -> [f64; 3] {
        let row = self.row(&format!("judge `{judge}`"), measure);
        ["value", "low", "high"].map(|key| row[key].as_f64().unwrap_or_else(|| panic!("{row}")))
    }

    #[track_caller]
    fn above(&self, judge: &str, measure: &str, bound: f64) {
        let [_, low, _] = self.interval(judge, measure);
        assert!(
            low > bound,
            "{measure} of {judge}: {:?} is not above {bound}",
            self.interval(judge, measure)
        );
    }

    #[track_caller]
    fn holds(&self, judge: &str, measure: &str, truth: f64) {
        let [_, low, high] = self.interval(judge, measure);
        assert!(
            low <= truth && truth <= high,
            "{measure} of {judge}: {:?}, {truth}",
            self.interval(judge, measure)
        );
    }
}

#[test]
fn each_planted_fault_is_found_and_its_number_corrected() {
    let study = Study::new();
    // Before people have said anything, what hangs on them is not measured, and says what is missing.
    let unlabelled = study.audit(0, &[]);
    let row = unlabelled.row("judge `faulty`", "label_accuracy");
    assert!(row["value"].is_null() && row["note"].as_str().unwrap().contains("100 more"), "{row}");
    let why = study.audit(1, &["--set", "audit.bounds.label_accuracy.min=0.5"]);
    assert_eq!(why.row("judge `faulty`", "label_accuracy")["outcome"], "not_measured");

    study.people();
    let found = study.audit(0, &[]);
    // Position.
    found.above("faulty", "first_rate", 0.52);
    found.above("faulty", "same_position", 0.2);
    let p = |judge: &str| found.row(&format!("judge `{judge}`"), "mcnemar_p")["value"].as_f64().unwrap();
    assert!(p("faulty") < 1e-4 && p("fair") > 0.05, "{} {}", p("faulty"), p("fair"));
    found.holds("fair", "first_rate", 0.5);
    // Length.
    found.above("faulty", "longer_wins", study.truth);
    found.above("faulty", "longer_wins_excess", 0.0);
    found.above("faulty", "length_coefficient", 0.2);
    found.holds("fair", "longer_wins", study.truth);
    found.holds("fair", "longer_wins_excess", 0.0);
    // Nobody planted anything for markdown.
    found.holds("faulty", "markdown_wins_excess", 0.0);
    found.holds("fair", "markdown_wins_excess", 0.0);
    // Self-preference; the fair judge has no stake, and is who it is measured by.
    found.above("faulty", "self_preference", 0.03);
    found.above("faulty", "self_preference_bias", 0.05);
    let row = found.row("judge `fair`", "self_preference");
    assert!(row["note"].as_str().unwrap().contains("`other`"), "{row}");
    // What people would say: the raw interval misses the truth, the corrected one holds it.
    let [_, raw_low, _] = found.interval("faulty", "longer_wins");
    assert!(raw_low > study.truth);
    found.holds("faulty", "longer_wins_corrected", study.truth);
    found.holds("fair", "longer_wins_corrected", study.truth);
    let row = found.row("judge `faulty`", "longer_wins_corrected");
    assert_eq!(row["n"], LABELS, "{row}");
    // Agreement.
    let accuracy = |judge| found.interval(judge, "accuracy")[0];
    assert!(
        accuracy("fair") > 0.9 && accuracy("faulty") < accuracy("fair"),
        "{} {}",
        accuracy("fair"),
        accuracy("faulty")
    );
    found.above("fair", "cohen_kappa", 0.5);
    assert_eq!(
        found.row("judge `fair`", "accuracy_all")["value"],
        found.row("judge `fair`", "accuracy")["value"]
    );
    found.row("all judges together", "label_accuracy");
    let template = found.row("judge `fair`, template `metrics`", "accuracy")["value"].as_f64().unwrap();
    assert!(template > 0.75, "{template}");
    found.row("judge `faulty` and judge `fair`", "judges_cohen_kappa");
    // Without people's labels on it, a win rate is corrected by the error rates on training pairs.
    let subject = format!("judge `fair`, `{DPO}` over `{BASELINE}`");
    assert!(found.row(&subject, "win_rate_corrected")["note"].as_str().unwrap().contains("Rogan & Gladen"));

    let equal = found.row(&subject, "win_rate_equal_length");
    let has_spread = equal["low"].as_f64() < equal["high"].as_f64();
    assert!(equal["value"].is_null() != has_spread, "a rate has a spread, or is not told: {equal}");

    // Bounds: the fair judge keeps what the faulty one breaks, and the table says which.
    let bounds = ["--set", "audit.bounds.same_position.max=0.15"];
    let held = study.audit(1, &bounds);
    assert_eq!(held.row("judge `faulty`", "same_position")["outcome"], "fail");
    let bounds =
        ["--set", "audit.bounds.accuracy.min=0.4", "--set", "audit.bounds.people_longer_wins.max=0.9"];
    let held = study.audit(0, &bounds);
    assert_eq!(held.row("judge `faulty`", "accuracy")["outcome"], "pass");
    let (table, _) = study.lab.done(&["audit", "rlaif.toml", "--judges"]);
    assert!(
        table.contains("judge `faulty`\n") && table.contains("chooses the same place in both orders"),
        "{table}"
    );

    repeats(&study);
}

/// A judge that errs at random repeats itself less often than one that does not; what was asked is not asked again.
fn repeats(study: &Study) {
    let calls = |mock: &MockJudge| mock.ledger().summary().calls;
    let before = (calls(&study.faulty), calls(&study.fair));
    let few = ["--repeat", "--set", "audit.repeat_pairs=40", "--set", "audit.repeat_times=3"];
    let found = study.audit(0, &few);
    let asked = (calls(&study.faulty) - before.0, calls(&study.fair) - before.1);
    // 40 pairs, 3 times, in both orders; the first step of `metrics` shows the prompt alone, so that both orders of a time share it, and is
    // asked anew although it is the same to the byte each time.
    assert_eq!(asked, (240, 240 + 120 + 240));
    let same = |judge| found.interval(judge, "repeat_same");
    assert_eq!(found.row("judge `fair`", "repeat_same")["n"], 160);
    // 0.9² + 0.1²; once in twenty a 95 % interval misses the truth, and one of twice its width hardly ever.
    let [fair, low, high] = same("fair");
    let half = (high - low) / 2.0;
    assert!(low - half < 0.82 && 0.82 < high + half, "{fair} [{low}, {high}]");
    found.row("judge `faulty`", "repeat_kappa");
    assert_eq!(study.audit(0, &few).interval("fair", "repeat_same"), [fair, low, high]);
    assert_eq!(
        (calls(&study.faulty), calls(&study.fair)),
        (before.0 + 240, before.1 + 600),
        "nothing is bought twice"
    );
    let kept: Value = serde_json::from_str(&study.lab.read("runs/tiny/audit.json")).unwrap();
    assert!(kept["parts"]["judges"].is_object() && kept["parts"]["repeat"].is_object(), "{kept}");
    let failed = study.audit(1, &[&few[..], &["--set", "audit.bounds.repeat_same.min=0.99"]].concat());
    assert_eq!(failed.row("judge `fair`", "repeat_same")["outcome"], "fail");
}
