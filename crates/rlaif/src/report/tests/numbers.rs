//! Every number on the page stems from the data: none is left when the data has none, and none stays when the data's change.

use super::fixture::sample;
use crate::report::data::ReportData;
use crate::report::format::{count, dollars, duration, number, percent, utc};
use crate::report::render;
use regex::Regex;
use rlaif_core::stats::sample_size::{Spread, smallest_difference};
use serde_json::Value;
use std::collections::BTreeSet;

/// What our own sentences say: 95 % intervals, 50 % and 0 % without bias, a Brier score of 0.25 or 0, p of a prompt and model number, years
/// of papers, n-grams, AlpacaEval 2 and the like.
const OUR_OWN: [&str; 14] =
    ["0.00", "30", "95", "50", "0", "1", "0.25", "2", "4", "2008", "0.0", "80.0", "20", "10"];

/// The words of the page, without style, script, and the axes of charts; what stands under the pointer is left in.
fn words(html: &str) -> String {
    let raw = Regex::new(r"(?s)<(style|script)[^>]*>.*?</(style|script)>|<head>.*?</head>").unwrap();
    let axes = Regex::new(r"(?s)<text [^>]*>.*?</text>").unwrap();
    let tag = Regex::new(r"<[^>]*>").unwrap();
    let html = raw.replace_all(html, " ");
    let html = axes.replace_all(&html, " ");
    let text = tag.replace_all(&html, " ");
    text.replace("&#39;", "'").replace("&#34;", "\"").replace("&quot;", "\"").replace("&#38;", "&")
}

fn numbers_in(text: &str) -> BTreeSet<String> {
    let number = Regex::new(r"\d[\d\u{202f}]*(?:\.\d+)?(?:e[−-]?\d+)?").unwrap();
    number.find_iter(text).map(|found| found.as_str().trim_end_matches('\u{202f}').to_string()).collect()
}

/// How a number may be written.
fn forms(value: f64, into: &mut BTreeSet<String>) {
    let size = value.abs();
    let mut texts = vec![number(size), percent(size), format!("{size}"), duration(size)];
    texts.extend(
        (0..=3).flat_map(|places| [format!("{size:.places$}"), format!("{:.places$}", 100.0 * size)]),
    );
    if size.fract() == 0.0 {
        texts.extend([count(size as u64), dollars(size as i64), utc(size as u64 / 1000)]);
    }
    texts.iter().for_each(|text| into.extend(numbers_in(text)));
}

/// Every number of the data, and those in its texts.
fn known(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Number(found) => forms(found.as_f64().unwrap(), into),
        Value::String(text) => into.extend(numbers_in(text)),
        Value::Array(items) => items.iter().for_each(|item| known(item, into)),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            into.extend(numbers_in(key));
            known(value, into);
        }),
        Value::Null | Value::Bool(_) => {}
    }
}

/// What the page computes itself: sums, shares of a whole, ratios, lengths of lists.
fn derived(data: &ReportData, into: &mut BTreeSet<String>) {
    forms(data.run.stages.iter().map(|stage| stage.seconds).sum(), into);
    let shares = |counts: Vec<u64>, into: &mut BTreeSet<String>| {
        let total: u64 = counts.iter().sum();
        counts.iter().for_each(|n| forms(*n as f64 / total.max(1) as f64, into));
    };
    shares(data.fates.iter().map(|it| it.count).collect(), into);
    if let Some(labels) = &data.labels {
        for counts in [&labels.trained, &labels.routes, &labels.reviewers] {
            shares(counts.iter().map(|it| it.count).collect(), into);
        }
    }
    let kept: u64 = data.fates.iter().filter(|it| it.fate == "kept").map(|it| it.count).sum();
    let judged: u64 = data.fates.iter().map(|it| it.count).sum();
    [kept, judged].into_iter().for_each(|n| forms(n as f64, into));
    if let Some(generate) = &data.generate {
        forms(generate.ended as f64 / generate.responses as f64, into);
    }
    for change in &data.changes {
        forms(change.after / change.before, into);
    }
    if let Some(found) = &data.disagreements {
        forms(found.pairs.len() as f64, into);
        found.pairs.iter().for_each(|it| forms(f64::from(it.votes.0 + it.votes.1), into));
    }
    if let Some(evaluation) = &data.evaluation {
        let regression = evaluation.regression.iter();
        for it in regression.clone().flat_map(|it| &it.policies) {
            forms((it.worse + it.judged.map_or(0, |(_, _, lost)| lost)) as f64, into);
        }
        regression.for_each(|it| forms((it.rules + it.judged) as f64, into));
        for (wins, ties, losses) in evaluation.policies.iter().filter_map(|it| it.outcomes) {
            let spread = Spread::one_order(ties as f64 / (wins + ties + losses) as f64);
            if let Some(visible) = smallest_difference(evaluation.prompts, spread, 0.8) {
                forms(0.5 + visible, into);
            }
        }
    }
    (0..=crate::report::worse::findings(data).len()).for_each(|n| forms(n as f64, into)); // "and 3 more"
    if let Some(audit) = &data.audit {
        let all = audit.parts.values().map(|part| part.measurements.len()).sum::<usize>();
        (0..=all).for_each(|n| forms(n as f64, into));
    }
}

/// The same shape of data with every number another one.
fn shifted(value: &mut Value) {
    match value {
        Value::Number(found) => {
            *value = match (found.as_u64(), found.as_f64()) {
                (Some(n), _) if n > 1_000_000_000_000 => Value::from(n + 86_400_000 * 47),
                (Some(n), _) => Value::from(n + 1013),
                (None, Some(x)) if x.abs() < 1.0 => Value::from(x * 0.913_7),
                (None, x) => Value::from(x.unwrap_or(0.0) * 1.317),
            };
        }
        Value::Array(items) => items.iter_mut().for_each(shifted),
        Value::Object(map) => map.values_mut().for_each(shifted),
        _ => {}
    }
}

fn strangers(data: &ReportData) -> Vec<String> {
    let mut known_numbers: BTreeSet<String> = OUR_OWN.iter().map(|text| (*text).to_string()).collect();
    known(&serde_json::to_value(data).unwrap(), &mut known_numbers);
    derived(data, &mut known_numbers);
    numbers_in(&words(&render(data).unwrap())).difference(&known_numbers).cloned().collect()
}

#[test]
fn every_number_stems_from_the_data() {
    assert_eq!(strangers(&sample()), Vec::<String>::new());
}

#[test]
fn other_data_leave_no_number_behind() {
    let mut value = serde_json::to_value(sample()).unwrap();
    // Votes are of 32 bits and steps of a curve in order; both may grow alike.
    shifted(&mut value);
    let data: ReportData = serde_json::from_value(value).unwrap();
    assert_eq!(strangers(&data), Vec::<String>::new());
}

#[test]
fn no_data_leaves_no_number() {
    let found = numbers_in(&words(&render(&ReportData::default()).unwrap()));
    let ours: BTreeSet<String> = OUR_OWN.iter().map(|text| (*text).to_string()).collect();
    let version = numbers_in(env!("CARGO_PKG_VERSION"));
    let left: Vec<&String> =
        found.iter().filter(|it| !ours.contains(*it) && !version.contains(*it)).collect();
    assert_eq!(left, Vec::<&String>::new());
}
