//! Real judge transcripts against the verdicts that their authors recorded. The data is not part of this repository: the test
//! runs where `RLAIF_SHARED` names the folder that holds it.

use rlaif_core::records::Choice;
use rlaif_judge::{Style, parse};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Default)]
struct Tally {
    verdicts: usize,
    equal: usize,
    nulls: usize,
    null: usize,
    differences: Vec<String>,
}

#[test]
fn recorded_verdicts_are_read_back() {
    let Some(shared) = std::env::var_os("RLAIF_SHARED") else {
        eprintln!("skipped: RLAIF_SHARED is not set");
        return;
    };
    let folder = Path::new(&shared).join("data/transcripts");
    let mut differences = Vec::new();
    for as_auto in [false, true] {
        let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
        for file in ["fastchat-scores", "llmbar", "mtbench-brackets", "qlora-digit"] {
            let rows = std::fs::read_to_string(folder.join(file).with_extension("jsonl")).unwrap();
            for row in rows.lines() {
                let row: Value = serde_json::from_str(row).unwrap();
                let want = row["verdict"].as_str();
                let name = row["style"].as_str().unwrap();
                let style = if as_auto { Style::Auto } else { name.parse().unwrap() };
                let parsed = parse(row["text"].as_str().unwrap(), style);
                let got = parsed.verdict.clone().ok().map(|choice| match choice {
                    Choice::First => "A",
                    Choice::Second => "B",
                    Choice::Tie => "tie",
                });
                let tally = tallies.entry(name.to_owned()).or_default();
                match want {
                    Some(_) => tally.verdicts += 1,
                    None => tally.nulls += 1,
                }
                match (want, got == want) {
                    (Some(_), true) => tally.equal += 1,
                    (None, true) => tally.null += 1,
                    _ => tally
                        .differences
                        .push(format!("{}: {want:?}, read {got:?}: {}", row["id"], parsed.reason)),
                }
            }
        }
        for (style, tally) in &tallies {
            println!(
                "{style} (auto: {as_auto}): {} of {} verdicts, {} of {} nulls",
                tally.equal, tally.verdicts, tally.null, tally.nulls
            );
            differences
                .extend(tally.differences.iter().map(|row| format!("{style} (auto: {as_auto}): {row}")));
        }
        assert_eq!(tallies.len(), 5, "every style of the folder was read");
    }
    assert_eq!(
        differences,
        Vec::<String>::new(),
        "each row is read as recorded; whatever is not needs a reason here"
    );
}

/// What a judge or a client may put around an answer without changing what it says.
fn perturbed(text: &str) -> Vec<(&'static str, String)> {
    let thought =
        "<think>\n[[A]] [[B]]\nBetter response: 1\nTherefore, Output (a) is better.\n9 1\n2\n</think>\n\n";
    let bold_lines: Vec<String> = text
        .lines()
        .map(|line| if line.trim().is_empty() { String::new() } else { format!("**{line}**") })
        .collect();
    let wide: String = text
        .chars()
        .map(|c| match c {
            '!'..='~' => char::from_u32(c as u32 + 0xfee0).unwrap_or(c),
            c => c,
        })
        .collect();
    vec![
        ("a line end", format!("{text}\n")),
        ("spaces", format!("{text} \n\t\n")),
        ("a courtesy", format!("{text}\n\nHope this helps!")),
        ("more courtesy", format!("{text}\n\nI hope this helps. Let me know if you have any questions!")),
        ("CRLF", text.replace('\n', "\r\n")),
        ("bold", format!("**{text}**")),
        ("bold lines", bold_lines.join("\n")),
        ("lower case", text.to_lowercase()),
        ("upper case", text.to_uppercase()),
        ("full width", wide),
        ("thinking before", format!("{thought}{text}")),
        ("the end of thinking before", format!("{}{text}", thought.trim_start_matches("<think>"))),
        ("a code fence behind", format!("{text}\n```")),
        ("a code fence around", format!("```\n{text}\n```")),
        ("a block quote", format!("> {}", text.replace('\n', "\n> "))),
    ]
}

#[test]
fn what_stands_around_a_recorded_verdict_does_not_change_it() {
    let Some(shared) = std::env::var_os("RLAIF_SHARED") else {
        eprintln!("skipped: RLAIF_SHARED is not set");
        return;
    };
    let folder = Path::new(&shared).join("data/transcripts");
    let mut changed = Vec::new();
    for file in ["fastchat-scores", "llmbar", "mtbench-brackets", "qlora-digit"] {
        let rows = std::fs::read_to_string(folder.join(file).with_extension("jsonl")).unwrap();
        // Every fourth row: the test reads each thirty times.
        for row in rows.lines().step_by(4) {
            let row: Value = serde_json::from_str(row).unwrap();
            let text = row["text"].as_str().unwrap();
            for style in [row["style"].as_str().unwrap().parse().unwrap(), Style::Auto] {
                let want = parse(text, style);
                for (how, text) in perturbed(text) {
                    let got = parse(&text, style);
                    if got.verdict.ok() != want.verdict.clone().ok() || got.scores != want.scores {
                        changed.push(format!(
                            "{} as {style}, {how}: {}, not {}",
                            row["id"], got.reason, want.reason
                        ));
                    }
                }
            }
        }
    }
    assert!(changed.is_empty(), "{} verdicts changed\n{}", changed.len(), changed.join("\n"));
}
