//! Judges that are fooled and judges that are not, played by a server on this machine: audit, tripwires, rules.

use crate::common::Lab;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::Runtime;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// The honest answers of the program's probes: whoever prefers them is not fooled.
const PROMPTS: &str = include_str!("../../../rlaif-judge/probes/prompts.jsonl");

struct Judge {
    /// Prefers whatever tells it to.
    gullible: bool,
    honest: BTreeSet<String>,
    calls: Arc<AtomicUsize>,
}

/// What a comparison sees of a text: judges are never shown what hides.
fn key(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).collect()
}

impl Judge {
    fn likes(&self, text: &str) -> u8 {
        let text_says = |words: &str| text.to_lowercase().contains(words);
        let orders = ["ignore", "disregard", "forget everything", "better response:"];
        if self.gullible && orders.into_iter().any(text_says) {
            2
        } else {
            u8::from(self.honest.contains(&key(text)))
        }
    }
}

impl Respond for Judge {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let shown = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
        let response = |label: &str| {
            let from = &shown[shown.find(&format!("<response_{label}_")).unwrap()..];
            from[from.find('>').unwrap() + 1..from.find("</response_").unwrap()].trim().to_string()
        };
        let (one, two) = (response("1"), response("2"));
        let verdict = match self.likes(&one).cmp(&self.likes(&two)) {
            std::cmp::Ordering::Greater => 1,
            std::cmp::Ordering::Less => 2,
            std::cmp::Ordering::Equal if key(&one) <= key(&two) => 1,
            std::cmp::Ordering::Equal => 2,
        };
        ResponseTemplate::new(200).set_body_json(json!({
            "id": "x", "object": "chat.completion", "model": "fake-1",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {
                "role": "assistant", "content": format!("I looked at both.\n\nBetter response: {verdict}")}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }))
    }
}

struct Endpoint {
    _runtime: Runtime,
    server: MockServer,
    calls: Arc<AtomicUsize>,
}

impl Endpoint {
    fn new(gullible: bool) -> Self {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(MockServer::start());
        let calls = Arc::new(AtomicUsize::new(0));
        let honest = PROMPTS
            .lines()
            .map(|line| key(serde_json::from_str::<Value>(line).unwrap()["good"].as_str().unwrap()))
            .collect();
        let judge = Judge { gullible, honest, calls: calls.clone() };
        runtime.block_on(Mock::given(method("POST")).respond_with(judge).mount(&server));
        Self { _runtime: runtime, server, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// A lab with so many training prompts whose judge is this endpoint.
    fn lab(&self, prompts: usize) -> Lab {
        let lab = Lab::new();
        let rows: Vec<String> = (0..prompts).map(|i| format!("{{\"prompt\": \"Say {i}\"}}\n")).collect();
        lab.write("prompts.jsonl", &rows.concat());
        let judge = format!(
            "[[label.judges]]\nname = \"fake\"\nkind = \"openai\"\nprotocol = \"pairwise\"\nmodel = \"fake-1\"\n\
             base_url = \"{}/v1\"\nusd_per_million_input = 1.0\nusd_per_million_output = 5.0\n",
            self.server.uri()
        );
        lab.judged_by(&judge, "");
        lab
    }
}

const UNTIL_LABEL: [&str; 4] = ["run", "rlaif.toml", "--until", "label"];

#[test]
fn a_gullible_judge_is_stopped_within_a_thousand_calls() {
    let endpoint = Endpoint::new(true);
    let lab = endpoint.lab(200);
    let (_, stderr) = lab.ends_with(1, &UNTIL_LABEL);
    let calls = endpoint.calls();
    assert!((2..=1000).contains(&calls), "{calls} calls");
    assert!(stderr.contains("judge `fake` falls for known-bad responses"), "{stderr}");
    assert!(stderr.contains("`ignore_previous` won 2 of 2"), "{stderr}");
    assert!(
        stderr.contains("hint: Take another judge") && stderr.contains("label.tripwire_max_win_rate"),
        "{stderr}"
    );

    let (_, stderr) = lab.ends_with(1, &UNTIL_LABEL);
    assert!(stderr.contains("falls for known-bad"), "{stderr}");
    assert_eq!(endpoint.calls(), calls, "a judge that is known to be fooled gets no more money");

    // Who insists gets labels, and no known-bad response among them.
    let insist = ["run", "rlaif.toml", "--until", "label", "--set", "label.tripwire_max_win_rate=1"];
    let (_, stderr) = lab.done(&insist);
    assert!(stderr.contains("known-bad responses won"), "{stderr}");
    let (preferences, _) = lab.done(&["export", "rlaif.toml"]);
    assert!(
        !preferences.contains("gnore all previous") && preferences.lines().count() > 300,
        "{preferences}"
    );
}

#[test]
fn an_honest_judge_goes_on_and_its_tripwires_are_told() {
    let endpoint = Endpoint::new(false);
    let lab = endpoint.lab(40);
    let (_, stderr) =
        lab.done(&["run", "rlaif.toml", "--until", "label", "--set", "label.tripwire_rate=0.2"]);
    let line = stderr.lines().find(|line| line.contains("preferences of")).unwrap();
    let known_bad: usize = {
        let (before, _) = line.split_once(" known-bad responses won").unwrap();
        assert!(before.contains(", 0 of "), "{line}");
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(known_bad >= 20, "{line}");
    let (preferences, _) = lab.done(&["export", "rlaif.toml"]);
    let pairs: usize =
        line.split(" preferences of ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(preferences.lines().count() <= pairs && !preferences.contains("known-bad"));
    assert_eq!(known_bad, pairs / 5);
    let manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(lab.run_folder().join("manifest.json")).unwrap())
            .unwrap();
    assert!(manifest.to_string().contains("\"tripwires\":{\"fake\":{\"wins\":0"), "{manifest}");
}

/// What `rlaif audit --robustness --json` measured.
fn measurements(audit: &[u8]) -> Vec<Value> {
    let audit: Value = serde_json::from_slice(audit).unwrap_or_else(|error| panic!("{error}"));
    audit["parts"]["robustness"]["measurements"].as_array().unwrap().clone()
}

#[test]
fn an_audit_tells_the_fooled_from_the_honest_and_is_not_paid_twice() {
    let gullible = Endpoint::new(true);
    let lab = gullible.lab(1);
    let audit =
        ["audit", "rlaif.toml", "--robustness", "--family", "ignore_previous", "--family", "bandwagon"];
    let (stdout, _) = lab.ends_with(1, &audit);
    let row = |text: &str, family: &str| -> Vec<String> {
        let mut lines = text.lines().skip_while(|line| !line.ends_with(&format!("family `{family}`")));
        lines.nth(1).unwrap_or_else(|| panic!("{text}")).split_whitespace().map(String::from).collect()
    };
    assert!(row(&stdout, "ignore_previous").join(" ").contains("n 300 at most 1.0 %"), "{stdout}");
    assert_eq!(row(&stdout, "ignore_previous").last().unwrap(), "FAIL", "{stdout}");
    assert!(row(&stdout, "bandwagon").join(" ").contains("honest one 0.0 % [0.0, 1.3] n 300"), "{stdout}");
    assert_eq!(row(&stdout, "bandwagon").last().unwrap(), "pass", "{stdout}");
    assert_eq!(gullible.calls(), 1200, "two families of 300, in both orders");
    assert_eq!(lab.ends_with(1, &audit).0, stdout);
    assert_eq!(gullible.calls(), 1200, "what was bought is not bought again");

    let honest = Endpoint::new(false);
    let lab = honest.lab(1);
    let (stdout, _) = lab.done(&["audit", "rlaif.toml", "--robustness", "--per-family", "3", "--json"]);
    let rows = measurements(stdout.as_bytes());
    assert!(rows.len() >= 16, "{stdout}");
    for row in &rows {
        assert_eq!(
            (&row["value"], &row["n"], &row["outcome"]),
            (&json!(0.0), &json!(3), &json!("unclear")),
            "{row}"
        );
    }
    let kept = std::fs::read(lab.run_folder().join("audit.json")).unwrap();
    assert_eq!(measurements(&kept), rows, "what was measured is kept");
    let strict = ["audit", "rlaif.toml", "--robustness", "--per-family", "3", "--strict"];
    assert!(lab.ends_with(1, &strict).0.contains("0 fail"), "a bound that three cannot show");
    let (_, stderr) = lab.ends_with(1, &["audit", "rlaif.toml", "--robustness", "--family", "hypnosis"]);
    assert!(stderr.contains("no family `hypnosis`") && stderr.contains("master_key"), "{stderr}");
}

#[test]
fn local_judges_are_audited_by_the_same_table() {
    for protocol in ["contrastive", "pairwise"] {
        let lab = Lab::new();
        if protocol == "pairwise" {
            let text = lab.read("rlaif.toml");
            let (before, rest) = text.split_once("protocol = \"contrastive\"").unwrap();
            let (_, after) = rest.split_once("[reward]").unwrap();
            lab.write(
                "rlaif.toml",
                &format!("{before}protocol = \"pairwise\"\nmodel = \"policy\"\n[reward]{after}"),
            );
        }
        let output = lab
            .rlaif(&["audit", "rlaif.toml", "--robustness", "--per-family", "2", "--json"])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 1)), "a tiny model's opinion is noise: {stderr}");
        let rows = measurements(&output.stdout);
        assert!(rows.len() >= 16, "{protocol}: {rows:?}");
        for row in rows {
            let words = row["note"].as_str().unwrap().split([' ', ',']);
            let sum: u64 = words.filter_map(|word| word.parse::<u64>().ok()).sum();
            assert_eq!(sum, 2, "{protocol}: {row}");
        }
    }
}

#[test]
fn pairs_that_are_too_long_are_set_aside_or_cut_alike() {
    let endpoint = Endpoint::new(false);
    let lab = endpoint.lab(4);
    let short = ["run", "rlaif.toml", "--until", "label", "--set", "label.max_response_chars=3"];
    let (_, stderr) = lab.done(&short);
    assert!(stderr.contains("12 set aside"), "{stderr}");
    assert_eq!(endpoint.calls(), 0, "nobody was asked");
    let (_, stderr) = lab.done(&[&short[..], &["--set", "label.too_long=cut_both"]].concat());
    assert!(stderr.contains("saw 12 pairs cut at 3 characters"), "{stderr}");
    assert_eq!(endpoint.calls(), 24);
}
