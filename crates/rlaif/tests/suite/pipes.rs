//! Commands that answer JSONL on stdin with JSONL on stdout.

use crate::common::{Lab, tiny_llama};
use serde_json::Value;

fn rows(bytes: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn logprobs_are_the_golden_ones_and_a_bad_line_is_answered_as_such() {
    let golden: Value =
        serde_json::from_slice(&std::fs::read(tiny_llama().join("golden.json")).unwrap()).unwrap();
    let ids: Vec<u64> =
        golden["input_ids"][0].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    let input = format!("{{\"ids\": {ids:?}}}\nnonsense\n{{\"ids\": [9999]}}\n{{\"ids\": [5]}}\n");
    let model = tiny_llama();
    let output =
        Lab::new().rlaif(&["logprobs", model.to_str().unwrap()]).write_stdin(input).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "two lines cannot be answered");
    let rows = rows(&output.stdout);
    assert_eq!(rows.len(), 4, "answers stay in step with questions");
    let expected = golden["token_logprobs"][0].as_array().unwrap();
    let got = rows[0]["logprobs"].as_array().unwrap();
    assert_eq!(got.len(), ids.len() - 1);
    for (got, expected) in got.iter().zip(expected) {
        let (got, expected) = (got.as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((got - expected).abs() < 1e-4, "{got} is not {expected}");
    }
    assert!(rows[1]["error"].as_str().unwrap().contains("line 2"));
    assert!(rows[2]["error"].as_str().unwrap().contains("9999"));
    assert_eq!(rows[3]["logprobs"].as_array().unwrap().len(), 0);
}

#[test]
fn parse_reads_verdicts_and_never_guesses() {
    let input = concat!(
        "{\"id\": \"1\", \"text\": \"Both are fine.\\nBetter response: 2\", \"style\": \"better-response\"}\n",
        "{\"id\": \"2\", \"text\": \"I cannot say.\", \"style\": \"better-response\"}\n",
    );
    let output = Lab::new().rlaif(&["parse"]).write_stdin(input).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let rows = rows(&output.stdout);
    assert_eq!((rows[0]["id"].as_str(), rows[0]["verdict"].as_str()), (Some("1"), Some("second")));
    assert!(rows[1]["verdict"].is_null() && rows[1]["reason"].is_string(), "{}", rows[1]);
}

#[test]
fn parse_answers_bad_rows_and_says_how_many() {
    let input = concat!(
        "{\"id\": 1, \"text\": \"[[A]]\", \"style\": \"brackets-abc\", \"more\": []}\n",
        "\n",
        "{\"id\": 2, \"style\": \"auto\"}\n",
        "{\"id\": 3, \"text\": \"[[A]]\", \"style\": \"brackets\"}\n",
        "nonsense\n",
    );
    let output = Lab::new().rlaif(&["parse"]).write_stdin(input).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let rows = rows(&output.stdout);
    let ids: Vec<&Value> = rows.iter().map(|row| &row["id"]).collect();
    assert_eq!(ids, [&Value::from(1), &Value::from(2), &Value::from(3), &Value::Null]);
    assert_eq!(rows[0]["verdict"], "first");
    assert!(rows[3]["reason"].as_str().unwrap().contains("line 5"), "{}", rows[3]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("3 of 4 rows could not be read"), "{stderr}");
}

#[test]
fn score_refuses_a_model_that_is_no_reward_model() {
    let model = tiny_llama();
    let (_, stderr) = Lab::new().ends_with(1, &["score", model.to_str().unwrap()]);
    assert!(stderr.contains("score.weight"), "{stderr}");
}

/// As `rlaif plan | head -0`: the reading end is gone before anything is written.
#[test]
fn a_closed_stdout_ends_commands_quietly() {
    let lab = Lab::new();
    for args in
        [&["plan", "rlaif.toml"][..], &["plan", "rlaif.toml", "--json"], &["config", "show", "rlaif.toml"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = lab.process(args).stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        assert!(!stderr.contains("error"), "{args:?}: {stderr}");
    }
}
