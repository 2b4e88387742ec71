//! Text is text only: whatever any string of the data holds, the page has the same elements with the same attributes.

use super::fixture::sample;
use crate::report::data::ReportData;
use crate::report::render;
use regex::Regex;
use serde_json::Value;

/// 150 ways in which a text could become an element or an attribute: every carrier with every way out of where it stands.
fn payloads() -> Vec<String> {
    let ways_out = ["", "\">", "'>", "</title></style></script></svg></textarea>", "-->\n"];
    let carriers = [
        "<script>alert(1)</script>",
        "<ScRiPt >alert(1)</sCrIpT>",
        "<img src=x onerror=alert(1)>",
        "<svg onload=alert(1)>",
        "<svg><script>alert(1)</script></svg>",
        "<iframe srcdoc=\"<script>alert(1)</script>\"></iframe>",
        "<body onload=alert(1)>",
        "<input autofocus onfocus=alert(1)>",
        "<details open ontoggle=alert(1)><summary>x</summary></details>",
        "<object data=javascript:alert(1)>",
        "<embed src=javascript:alert(1)>",
        "<meta http-equiv=refresh content=\"0; url=javascript:alert(1)\">",
        "<base href=http://198.51.100.9/>",
        "<link rel=stylesheet href=http://198.51.100.9/s.css>",
        "<style>@import 'http://198.51.100.9/s.css';</style>",
        "<form action=javascript:alert(1)><button>x</button></form>",
        "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
        "\" onload=\"alert(1)",
        "' onload='alert(1)",
        " onload=alert(1) ",
        "<a href=javascript:alert(1)>x</a>",
        "[x](javascript:alert(1))",
        "<!--><script>alert(1)</script>-->",
        "<title>x</title>",
        "<text x=\"0\">x</text>",
        "<rect onclick=alert(1)>",
        "]]><script>alert(1)</script>",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "{{ 7 * 7 }}{% raw %}",
        "<\u{0}script>alert(1)</script>",
    ];
    carriers.iter().flat_map(|carrier| ways_out.map(|out| format!("{out}{carrier}"))).collect()
}

/// Words that the data's enums are written with; anything else there could not be read back.
const ENUMS: [&str; 3] = ["finding", "outcome", "measure"];

/// The data with every text replaced, also the names of tags and parts.
fn with_texts(data: &ReportData, text: &str) -> ReportData {
    fn replace(value: &mut Value, text: &str) {
        match value {
            Value::String(old) => *old = text.into(),
            Value::Array(items) => items.iter_mut().for_each(|item| replace(item, text)),
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    match (key.as_str(), &mut *value) {
                        (key, Value::String(_)) if ENUMS.contains(&key) => {}
                        ("tags" | "parts", Value::Object(named)) => {
                            let first = named.values().next().cloned();
                            *named = first.map(|value| (text.to_string(), value)).into_iter().collect();
                            named.values_mut().for_each(|value| replace(value, text));
                        }
                        (_, value) => replace(value, text),
                    }
                }
            }
            _ => {}
        }
    }
    let mut value = serde_json::to_value(data).unwrap();
    replace(&mut value, text);
    serde_json::from_value(value).unwrap()
}

/// Every tag with the names of its attributes; marks of invisible characters and of differences are left out.
fn tags(html: &str) -> Vec<String> {
    let own = Regex::new(r#"<span class="unseen">U\+[0-9A-F]+</span>|</?mark>"#).unwrap();
    let html = own.replace_all(html, "");
    // What stands in our own style and script is no markup.
    let raw = Regex::new(r#"(?s)(<(style|script) nonce="[0-9a-f]+">).*?(</(style|script)>)"#).unwrap();
    let html = raw.replace_all(&html, "$1$3");
    let values = Regex::new(r#""[^"]*""#).unwrap();
    let tag = Regex::new(r#"<[^<>]*>?"#).unwrap();
    let html = values.replace_all(&html, "\"\"");
    tag.find_iter(&html).map(|found| found.as_str().to_string()).collect()
}

#[test]
fn no_text_of_the_data_becomes_an_element_or_an_attribute() {
    let payloads = payloads();
    assert_eq!(payloads.iter().collect::<std::collections::BTreeSet<_>>().len(), 150);
    let data = sample();
    let want = tags(&render(&with_texts(&data, "plain")).unwrap());
    assert!(want.len() > 1000, "{}", want.len());
    for payload in &payloads {
        let html = render(&with_texts(&data, payload)).unwrap();
        let got = tags(&html);
        let differs = want.iter().zip(&got).find(|(want, got)| want != got);
        assert!(want == got, "{payload:?}: {} tags, want {}; first {differs:?}", got.len(), want.len());
    }
}

#[test]
fn each_kind_of_text_by_itself_stays_text() {
    let attack = "</div></details><script>alert(1)</script><img src=x onerror=alert(1)>\" onload='alert(1)";
    let mut data = sample();
    data.disagreements.as_mut().unwrap().pairs[0].a = format!("{attack} one");
    data.disagreements.as_mut().unwrap().pairs[0].b = format!("two {attack}");
    data.disagreements.as_mut().unwrap().pairs[0].people[0].note = Some(attack.into());
    let evaluation = data.evaluation.as_mut().unwrap();
    evaluation.policies[1].policy = attack.into();
    evaluation.samples[0].responses[1].policy = attack.into();
    evaluation.samples[0].responses[1].text = attack.into();
    data.metrics.get_mut("ppo").unwrap()[0].values.insert(attack.into(), 1.0);
    data.tags.insert("eval-00".into(), vec![attack.into()]);
    let html = render(&data).unwrap();
    let scripts = html.matches("<script").count();
    assert_eq!(scripts, 1, "our own");
    assert!(!html.contains("<img") && !html.contains("\" onload"));
    assert!(html.contains("&lt;script&gt;") && html.contains("&#60;script&#62;"), "the text itself is shown");
}

#[test]
fn what_cannot_be_seen_is_shown_by_its_number() {
    let mut data = sample();
    data.evaluation.as_mut().unwrap().samples[0].responses[0].text = "safe\u{202e}evil".into();
    assert!(render(&data).unwrap().contains("safe<span class=\"unseen\">U+202E</span>evil"));
}
