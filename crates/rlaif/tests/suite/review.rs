//! `rlaif review` over HTTP: who is let in, who sees what, and what stays.

use crate::common::Lab;
use crate::review_lab::{Server, exported, form, lab_of, verdicts};
use rlaif_core::people::HumanChoice;
use std::collections::BTreeSet;

const TEXTS: [(&str, &str); 4] = [
    ("zebra zero", "ape zero"),
    ("ape one", "zebra one"),
    ("zebra two", "ape two"),
    ("ape three", "zebra three"),
];

#[test]
fn a_forged_request_is_denied_whatever_is_forged() {
    let lab = lab_of(&TEXTS);
    let server = Server::of(&lab, &[]);
    let person = server.person("ada");
    let page = person.get("/pair?queue=all");
    let pair = page.field("pair");
    let body = form(&[("csrf", &person.csrf), ("queue", "all"), ("pair", &pair), ("choice", "left")]);
    let host = server.host.clone();
    let port = host.split(':').nth(1).unwrap().to_string();
    let origin = format!("http://{host}");
    let kind = "application/x-www-form-urlencoded";

    let mut cells = 0;
    let mut denied = |what: &str,
                      status: &[u16],
                      method: &str,
                      path: &str,
                      headers: &[(&str, &str)],
                      body: &str| {
        let reply = server.send(method, path, headers, body);
        assert!(status.contains(&reply.status), "{what}: {method} {path} {headers:?} gave {}", reply.status);
        assert_eq!(reply.header("set-cookie"), None, "{what}");
        assert!(!reply.body.contains("zebra"), "{what}");
        cells += 1;
    };
    let good: Vec<(&str, &str)> =
        vec![("Host", &host), ("Cookie", &person.cookie), ("Origin", &origin), ("Content-Type", kind)];
    let with = |name: &'static str, value: Option<&str>| -> Vec<(String, String)> {
        let mut headers: Vec<(String, String)> = good
            .iter()
            .filter(|(known, _)| *known != name)
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        headers.extend(value.map(|value| (name.to_string(), value.to_string())));
        headers
    };
    fn view(headers: &[(String, String)]) -> Vec<(&str, &str)> {
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    let hosts = [
        "evil.example".to_string(),
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        format!("127.0.0.1:{port}.evil.example"),
        format!("127.0.0.2:{port}"),
        "127.0.0.1".into(),
        format!("localhost:{}", port.parse::<u32>().unwrap() ^ 1),
        format!("evil@127.0.0.1:{port}"),
    ];
    for name in &hosts {
        for path in ["/", "/pair?queue=all", "/style.css", &server.start] {
            denied("host", &[421], "GET", path, &view(&with("Host", Some(name))[..]), "");
        }
        let own = format!("http://{name}"); // as after DNS rebinding: all of one piece, and not ours
        let headers =
            [("Host", name.as_str()), ("Cookie", &person.cookie), ("Origin", &own), ("Content-Type", kind)];
        denied("host", &[421], "POST", "/verdict", &headers, &body);
    }
    denied("no host", &[400, 421], "GET", "/", &view(&with("Host", None)), "");
    denied("host in the line", &[421], "GET", "http://evil.example/pair?queue=all", &good[..3], "");

    for name in [
        "http://evil.example",
        "null",
        "",
        &format!("https://{host}"),
        "http://127.0.0.1",
        &format!("http://localhost:{port}"),
    ] {
        for path in ["/verdict", "/undo", "/name"] {
            denied("origin", &[403], "POST", path, &view(&with("Origin", Some(name))), &body);
        }
        denied("origin", &[403], "GET", "/pair?queue=all", &view(&with("Origin", Some(name))), "");
    }
    for path in ["/verdict", "/undo", "/name", "/csp-report"] {
        denied("no origin", &[403], "POST", path, &view(&with("Origin", None)), &body);
        for site in ["cross-site", "same-site", "none", "what"] {
            denied("site", &[403], "POST", path, &view(&with("Sec-Fetch-Site", Some(site))), &body);
        }
    }
    for site in ["cross-site", "same-site"] {
        denied("site", &[403], "GET", "/pair?queue=all", &view(&with("Sec-Fetch-Site", Some(site))), "");
    }

    for method in ["DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "QUERY", "get", "FOO"]
    {
        for path in ["/", "/verdict", "/undo"] {
            denied("method", &[400, 405], method, path, &good, &body);
        }
    }
    for path in ["/verdict", "/undo", "/csp-report"] {
        denied("method of the page", &[405], "GET", path, &good[..3], "");
    }
    denied("method of the page", &[405], "POST", "/pair", &good, &body);

    for cookie in [
        None,
        Some("rlaif_review=1"),
        Some(&*person.cookie.replace('=', "=0")),
        Some(&*format!("x{}", person.cookie)),
    ] {
        for path in ["/", "/pair?queue=all", "/agreement", "/name", "/review.js", "/none"] {
            denied("cookie", &[401], "GET", path, &view(&with("Cookie", cookie))[..], "");
        }
        denied("cookie", &[401], "POST", "/verdict", &view(&with("Cookie", cookie)), &body);
    }
    for query in ["", "?token=", "?token=0", "?other=1"] {
        denied("token", &[403], "GET", &format!("/start{query}"), &[("Host", &host)], "");
    }

    let other = server.person("bob");
    let fields = |csrf: &str| form(&[("csrf", csrf), ("queue", "all"), ("pair", &pair), ("choice", "left")]);
    for csrf in ["", "0", &other.csrf, &person.csrf[1..], &person.csrf.to_uppercase()] {
        for path in ["/verdict", "/undo", "/name"] {
            denied("csrf", &[403], "POST", path, &good, &fields(csrf));
        }
    }
    let without = form(&[("queue", "all"), ("pair", &pair), ("choice", "left")]);
    denied("no csrf", &[403], "POST", "/verdict", &good, &without);
    for kind in ["text/plain", "application/json", "multipart/form-data; boundary=x"] {
        denied("kind", &[415], "POST", "/verdict", &view(&with("Content-Type", Some(kind))), &body);
    }
    denied("kind", &[415], "POST", "/verdict", &good[..3], &body);
    denied("size", &[413], "POST", "/verdict", &good, &format!("{body}&note={}", "x".repeat(1 << 20)));
    println!("{cells} forged requests were denied");
    assert!(cells >= 150);
    assert!(verdicts(&lab).is_empty(), "none of them judged anything");
    let reply = server.send("POST", "/verdict", &good, &body);
    assert_eq!(reply.status, 303, "and the same without a forgery does: {}", reply.body);
    assert_eq!(verdicts(&lab).len(), 1);
}

#[test]
fn every_answer_is_fenced_in_and_tells_nothing_of_judges_or_this_machine() {
    let lab = lab_of(&TEXTS);
    let server = Server::of(&lab, &[]);
    let started = server.send("GET", &server.start, &[("Host", &server.host)], "");
    let cookie = started.header("set-cookie").unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict") && cookie.contains("Path=/"), "{cookie}");
    let person = server.person("ada");
    let token = server.start.split('=').nth(1).unwrap();
    let folder = lab.path("").display().to_string();
    for path in [
        "/",
        "/pair?queue=disagree",
        "/pair?queue=none",
        "/name",
        "/agreement",
        "/none",
        "/style.css",
        "/review.js",
    ] {
        let reply = person.get(path);
        let policy = reply.header("content-security-policy").unwrap();
        for rule in [
            "default-src 'none'",
            "img-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(reply.header("referrer-policy"), Some("same-origin"), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), None, "{path}");
        for secret in [folder.as_str(), token, "baseline", "JUDGE-SAYS-SO", "0.95", "p0/0", "p1/0"] {
            assert!(!reply.body.contains(secret), "{path} shows `{secret}`");
        }
    }
}

#[test]
fn two_reviewers_share_a_queue_and_never_a_pair() {
    let lab = lab_of(&TEXTS);
    let server = Server::of(&lab, &[]);
    let (ada, bob) = (server.person("ada"), server.person("bob"));
    let shown = |person: &crate::review_lab::Person| person.get("/pair?queue=all").field("pair");
    let (first, second) = (shown(&ada), shown(&bob));
    assert_ne!(first, second);
    assert_eq!(shown(&ada), first, "loading the page again changes nothing");
    let judged: Vec<Vec<String>> = std::thread::scope(|scope| {
        let work = |person| {
            move || {
                (0..2)
                    .map(|_| {
                        let person: &crate::review_lab::Person = person;
                        person.judge("all", "left").0
                    })
                    .collect()
            }
        };
        let (one, other) = (scope.spawn(work(&ada)), scope.spawn(work(&bob)));
        vec![one.join().unwrap(), other.join().unwrap()]
    });
    let all: BTreeSet<&String> = judged.iter().flatten().collect();
    assert_eq!(all.len(), 4, "{judged:?}");
    assert!(ada.get("/pair?queue=all").body.contains("Nothing left for you here"));
    assert_eq!(verdicts(&lab).len(), 4);
}

#[test]
fn a_verdict_is_there_after_kill_9_and_undo_keeps_what_was_taken_back() {
    let lab = lab_of(&TEXTS);
    let server = Server::of(&lab, &[]);
    let ada = server.person("ada");
    let (_, left) = ada.judge("tag:medical", "left");
    server.kill();
    let said = verdicts(&lab);
    assert_eq!((said.len(), said[0].queue.as_str(), said[0].reviewer.as_str()), (1, "tag:medical", "ada"));
    let first_left = said[0].first_left;
    assert_eq!(left.starts_with("ape"), first_left, "`ape` is first in the order of bytes");
    assert_eq!(said[0].choice == HumanChoice::First, first_left, "what was on the left won");

    let server = Server::of(&lab, &[]);
    let ada = server.person("ada");
    let (second, _) = ada.judge("tag:medical", "tie");
    assert!(ada.get("/pair?queue=tag:medical").body.contains("Nothing left"));
    let undone = ada.post("/undo", &[("queue", "tag:medical")]);
    let again = ada.get(undone.header("location").unwrap());
    assert_eq!(again.field("pair"), second);
    let said = ada.post(
        "/verdict",
        &[
            ("queue", "tag:medical"),
            ("pair", &second),
            ("choice", "right"),
            ("c0", "left"),
            ("note", "<b>why</b>"),
        ],
    );
    assert_eq!(said.status, 303);
    server.kill();
    let said = verdicts(&lab);
    let stands: Vec<bool> = said.iter().map(|verdict| verdict.undone_ms.is_none()).collect();
    assert_eq!(stands, [true, false, true]);

    let lines = exported(&lab, "human-verdicts");
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[1]["choice"], lines[1]["undone_ms"].is_null()), (&"tie".into(), false));
    assert_eq!((&lines[2]["choice"], &lines[2]["note"]), (&"right".into(), &"<b>why</b>".into()));
    assert_eq!(lines[2]["criteria"]["accuracy"], "left");
    assert_eq!(lines[0]["left"].as_str(), Some(left.as_str()));

    let rows = exported(&lab, "preferences");
    let of = |pair: &serde_json::Value| rows.iter().find(|row| &row["pair_id"] == pair).unwrap();
    for line in [&lines[0], &lines[2]] {
        let row = of(&line["pair_ids"][0]);
        assert_eq!(
            (&row["judges"][0], &row["weight"], &row["p"]),
            (&"human".into(), &2.0.into(), &1.0.into())
        );
        let won = line[line["choice"].as_str().unwrap()].as_str();
        assert_eq!(row["chosen"].as_str(), won);
    }
    assert_eq!(rows.iter().filter(|row| row["judges"][0] == "tone" && row["weight"] == 1.0).count(), 2);
}

#[test]
fn several_ratings_show_how_far_people_agree() {
    let lab = lab_of(&TEXTS);
    let server = Server::of(&lab, &["--set", "review.ratings_per_pair=2"]);
    let (ada, bob, cas) = (server.person("ada"), server.person("bob"), server.person("cas"));
    for choice in ["left", "tie", "left", "left"] {
        let key = ada.judge("audit", choice).0;
        assert_eq!(bob.judge("audit", choice).0, key, "both are shown the same pairs");
    }
    assert!(cas.get("/pair?queue=audit").body.contains("Nothing left"), "two are enough");
    let page = cas.get("/agreement").body;
    assert!(
        page.contains("People with each other")
            && page.contains(
                "<th scope=\"row\">ada</th><td>bob</td><td class=\"number\">4</td><td class=\"number\">3</td>"
            ),
        "{page}"
    );
    assert!(page.contains("all judges together"), "{page}");
}

/// Reward and DPO learn from people once they have said something, and the plan says why.
#[test]
fn labels_of_people_come_before_the_judges_in_training() {
    let lab = Lab::new();
    lab.done(&["run", "rlaif.toml", "--until", "reward"]);
    let before = lab.weights("reward");
    let server = Server::of(&lab, &[]);
    let ada = server.person("ada");
    for _ in 0..6 {
        ada.judge("all", "right");
    }
    server.kill();
    let (plan, _) = lab.done(&["plan", "rlaif.toml"]);
    let line = |stage: &str| plan.lines().find(|line| line.starts_with(stage)).unwrap().to_string();
    assert!(line("label").contains("skip"), "{plan}");
    assert!(
        line("reward").contains("recompute") && line("reward").contains("labels of people changed"),
        "{plan}"
    );
    lab.done(&["run", "rlaif.toml", "--until", "reward"]);
    assert_ne!(lab.weights("reward"), before);
    let again = lab.done(&["plan", "rlaif.toml"]).0;
    assert!(again.lines().any(|line| line.starts_with("reward") && line.contains("skip")), "{again}");

    // Everything is computed anew, and what people said comes back with the texts.
    let people =
        |lab: &Lab| exported(lab, "preferences").iter().filter(|row| row["judges"][0] == "human").count();
    assert_eq!(people(&lab), 6);
    lab.edit("pairs_per_prompt = 3", "pairs_per_prompt = 4");
    lab.done(&["run", "rlaif.toml", "--until", "label"]);
    assert_eq!(people(&lab), 6);
}

#[test]
fn a_server_for_others_must_be_asked_for_and_says_what_that_means() {
    let lab = lab_of(&TEXTS);
    let (_, stderr) = lab.ends_with(1, &["review", "rlaif.toml", "--listen", "0.0.0.0:0"]);
    assert!(stderr.contains("--allow-host"), "{stderr}");
    let empty = Lab::new();
    let (_, stderr) = empty.ends_with(1, &["review", "rlaif.toml"]);
    assert!(stderr.contains("there is no run"), "{stderr}");
    assert!(!empty.run_folder().exists());
}
