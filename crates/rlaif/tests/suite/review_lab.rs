//! A run with pairs to judge, made in the ledger without a model, and `rlaif review` in front of it.

use crate::common::Lab;
use rlaif_core::records::{
    Choice, Fate, FinishReason, Order, Pair, Preference, Prompt, PromptText, Response, Split, Verdict,
};
use rlaif_store::Store;
use rlaif_store::store::{BASELINE, HumanVerdict, TRAIN_PAIRS, VerdictRow};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A lab whose ledger holds one pair of these texts for each of them.
pub fn lab_of(texts: &[(&str, &str)]) -> Lab {
    let lab = Lab::new();
    std::fs::create_dir_all(lab.run_folder()).unwrap();
    wait(async {
        let store = Store::open(lab.run_folder().join("rlaif.db")).await.unwrap();
        for (i, (a, b)) in texts.iter().enumerate() {
            let id = format!("p{i}");
            let tags = if i % 2 == 0 { vec!["medical".into()] } else { Vec::new() };
            let prompt = Prompt {
                id: id.clone(),
                prompt: PromptText::Text(format!("Question {i}?")),
                tags,
                reference: None,
            };
            store.put_prompts(&[(prompt, Split::Train)]).await.unwrap();
            store.put_responses(BASELINE, &[response(i, 0, a), response(i, 1, b)]).await.unwrap();
            let pair = Pair {
                id: format!("p{i}/0-1"),
                prompt_id: id.clone(),
                a: format!("p{i}/0"),
                b: format!("p{i}/1"),
            };
            store.put_pairs(TRAIN_PAIRS, std::slice::from_ref(&pair)).await.unwrap();
            let said = |order| VerdictRow {
                pair_id: pair.id.clone(),
                judge: "tone".into(),
                template: "explain".into(),
                order,
                vote: 0,
                verdict: Verdict::choice(Choice::First),
            };
            // One judge that always likes the place on the left: its orders contradict each other.
            store.put_verdicts("test", &[said(Order::Ab), said(Order::Ba)]).await.unwrap();
            let judged = Preference {
                pair_id: pair.id,
                prompt_id: id,
                p: Some(0.95),
                spread: Some(0.5),
                fate: Fate::Kept,
                judges: vec!["tone".into()],
                explanation: Some("JUDGE-SAYS-SO".into()),
            };
            store.put_preferences(&[judged]).await.unwrap();
        }
        store.close().await.unwrap();
    });
    lab
}

/// Response `index` to prompt `p{i}`.
pub fn response(i: usize, index: usize, text: &str) -> Response {
    Response {
        id: format!("p{i}/{index}"),
        prompt_id: format!("p{i}"),
        index,
        text: text.into(),
        token_ids: vec![1],
        logprobs: vec![-1.0],
        finish_reason: FinishReason::Stop,
    }
}

/// What people said, by the ledger.
pub fn verdicts(lab: &Lab) -> Vec<HumanVerdict> {
    wait(async {
        let store = Store::open_read_only(lab.run_folder().join("rlaif.db")).await.unwrap();
        store.human_verdicts().await.unwrap()
    })
}

pub fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// `rlaif review` at work; killed (-9) when dropped.
pub struct Server {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub host: String,
    /// `/start?token=…`.
    pub start: String,
}

impl Server {
    pub fn of(lab: &Lab, more: &[&str]) -> Self {
        let args = [&["review", "rlaif.toml"], more].concat();
        let mut child = lab.process(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let rest = line.trim().strip_prefix("http://").unwrap_or_else(|| panic!("no address: {line:?}"));
        let (host, path) = rest.split_once('/').unwrap();
        Self { child, host: host.into(), start: format!("/{path}") }
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends these bytes on a connection of their own; returns what comes back.
    pub fn raw(&self, request: &[u8]) -> Reply {
        let mut tcp = TcpStream::connect(&self.host).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = tcp.write_all(request); // it may be answered before all of it is sent
        let mut bytes = Vec::new();
        let _ = tcp.read_to_end(&mut bytes);
        Reply::of(&bytes)
    }

    /// A request with these headers and nothing else.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
        if !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        self.raw(format!("{text}\r\n{body}").as_bytes())
    }

    /// A browser that has opened the printed address and has said who sits there.
    pub fn person(&self, name: &str) -> Person<'_> {
        let started = self.send("GET", &self.start, &[("Host", &self.host)], "");
        assert_eq!(started.status, 200, "{}", started.body);
        let cookie = started.header("set-cookie").unwrap().split(';').next().unwrap().to_string();
        let mut person = Person { server: self, cookie, csrf: String::new() };
        person.csrf = person.get("/name").field("csrf");
        let named = person.post("/name", &[("name", name)]);
        assert_eq!((named.status, named.header("location")), (303, Some("/")));
        person
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let header =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_string()));
        Self { status: status.unwrap_or(0), headers: lines.filter_map(header).collect(), body: body.into() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a hidden field.
    pub fn field(&self, name: &str) -> String {
        let mark = format!("name=\"{name}\" value=\"");
        let from = self.body.find(&mark).unwrap_or_else(|| panic!("no field `{name}` in {}", self.body))
            + mark.len();
        self.body[from..].split('"').next().unwrap().to_string()
    }

    /// The text of an element by what precedes it.
    pub fn after(&self, mark: &str) -> &str {
        let from =
            self.body.find(mark).unwrap_or_else(|| panic!("no `{mark}` in {}", self.body)) + mark.len();
        self.body[from..].split('<').next().unwrap()
    }
}

/// A session.
pub struct Person<'s> {
    pub server: &'s Server,
    pub cookie: String,
    pub csrf: String,
}

impl Person<'_> {
    pub fn get(&self, path: &str) -> Reply {
        self.server.send("GET", path, &[("Host", &self.server.host), ("Cookie", &self.cookie)], "")
    }

    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let mut all = vec![("csrf", self.csrf.as_str())];
        all.extend_from_slice(fields);
        self.send_post(path, &form(&all))
    }

    pub fn send_post(&self, path: &str, body: &str) -> Reply {
        let origin = format!("http://{}", self.server.host);
        let headers = [
            ("Host", self.server.host.as_str()),
            ("Cookie", &self.cookie),
            ("Origin", &origin),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        self.server.send("POST", path, &headers, body)
    }

    /// Judges the next pair of a queue; returns its key and the text on the left.
    pub fn judge(&self, queue: &str, choice: &str) -> (String, String) {
        let page = self.get(&format!("/pair?queue={queue}"));
        let (pair, left) = (
            page.field("pair"),
            page.after("<h2 id=\"on-left\">Left</h2><div class=\"response\" dir=\"auto\"><p>"),
        );
        let said = self.post("/verdict", &[("queue", queue), ("pair", &pair), ("choice", choice)]);
        assert_eq!(said.status, 303, "{}", said.body);
        (pair, left.to_string())
    }
}

pub fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// The lines of an export, as JSON.
pub fn exported(lab: &Lab, what: &str) -> Vec<HashMap<String, serde_json::Value>> {
    let (lines, _) = lab.done(&["export", "rlaif.toml", "--what", what]);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
