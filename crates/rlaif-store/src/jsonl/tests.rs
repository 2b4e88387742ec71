use super::*;
use proptest::prelude::*;
use rlaif_core::records::{Demonstration, Message, PreferenceRow, PromptText};

fn reasons(bytes: &[u8]) -> (usize, Vec<(u64, String)>) {
    let rows = read_prompts_from(bytes).unwrap();
    (rows.good.len(), rows.bad.into_iter().map(|bad| (bad.line, bad.reason)).collect())
}

#[test]
fn prompts_are_texts_or_messages_with_optional_fields() {
    let file = "\u{feff}{\"prompt\": \"Hello?\", \"extra\": 1}\r\n\
        \n\
        {\"id\": 7, \"prompt\": \"Hi\", \"tags\": [\"safety\"], \"reference\": \"Hello!\"}\n\
        {\"id\": \"c\", \"prompt\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"Hi\"}]}\n\
        {\"id\": \"d\", \"prompt\": null, \"tags\": null, \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}";
    let rows = read_prompts_from(file.as_bytes()).unwrap();
    assert_eq!(rows.bad, []);
    let ids: Vec<_> = rows.good.iter().map(|prompt| prompt.id.as_str()).collect();
    // BLAKE3 of "Hello?", as `b3sum` gives it.
    assert_eq!(ids, [&blake3::hash(b"Hello?").to_hex()[..16], "7", "c", "d"]);
    assert_eq!(rows.good[0].prompt, PromptText::Text("Hello?".into()));
    assert_eq!(rows.good[1].tags, ["safety"]);
    assert_eq!(rows.good[1].reference.as_deref(), Some("Hello!"));
    assert_eq!(
        rows.good[2].prompt,
        PromptText::Messages(vec![Message::system("Be brief."), Message::user("Hi")])
    );
}

#[test]
fn every_bad_row_is_kept_aside_with_its_line_and_reason() {
    let file = [
        &b"{\"prompt\": \"good\"}\n"[..],
        b"{\"prompt\": \"torn\n",
        b"[1, 2]\n",
        b"{\"prompt\": \"\xff\"}\n",
        b"{\"prompt\": \"  \"}\n",
        b"{\"prompt\": 3}\n",
        b"{\"instruction\": \"x\", \"input\": \"\"}\n",
        b"{\"prompt\": \"good\"}\n",
        b"{\"id\": \"a\", \"prompt\": \"also good\"}\n",
        b"{\"id\": \"a\", \"prompt\": \"other\"}\n",
        b"{\"prompt\": [{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"assistant\", \"content\": \"y\"}]}\n",
        b"{\"prompt\": [{\"role\": \"human\", \"content\": \"x\"}]}\n",
        b"{\"prompt\": \"x\", \"tags\": \"safety\"}\n",
        b"{\"prompt\": \"x\", \"messages\": []}\n",
        b"{\"prompt\": null}\n",
        b"{\"id\": true, \"prompt\": \"x\"}\n",
        b"{\"prompt\": \"last\"}",
    ]
    .concat();
    let (good, bad) = reasons(&file);
    assert_eq!(good, 3);
    let want = [
        (2, "not JSON: EOF while parsing a string, at byte 16"),
        (3, "the row must be an object such as {\"prompt\": \"…\"}, got an array"),
        (4, "not UTF-8: byte 13 of the line is not part of a character"),
        (5, "`prompt` is empty"),
        (6, "`prompt` must be a string or an array of messages, got a number"),
        (
            7,
            "the row has neither `prompt` nor `messages` (its fields: `instruction`, `input`); rename the field to `prompt`",
        ),
        (8, "the same prompt is on line 1; give both an `id` to use it twice"),
        (10, "the id `a` is taken by line 9"),
        (11, "`prompt` must end with a turn of `user`, not of `assistant`"),
        (12, "`prompt[0].role` must be `system`, `user` or `assistant`, got `human`"),
        (13, "`tags` must be an array of strings, got a string"),
        (14, "the row has both `prompt` and `messages`; keep one"),
        (15, "`prompt` is null"),
        (16, "`id` must be a string or a whole number, got a boolean"),
    ];
    assert_eq!(bad, want.map(|(line, reason)| (line, reason.to_owned())));
}

#[test]
fn demonstrations_have_three_shapes_and_every_other_row_says_what_is_wrong() {
    let file = [
        &b"{\"prompt\": \"Hi\", \"completion\": \"Hello\", \"messages\": null}\n"[..],
        b"{\"prompt\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"completion\": [{\"role\": \"assistant\", \"content\": \"Hello\"}]}\n",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Hello\"}]}\n",
        b"{\"text\": \"Once\", \"id\": 3}\n",
        b"{\"prompt\": \"Hi\", \"completion\": \" \"}\n",
        b"{\"prompt\": \"Hi\"}\n",
        b"{\"completion\": \"Hello\"}\n",
        b"{\"question\": \"Hi\", \"answer\": \"Hello\"}\n",
        b"{\"prompt\": \"Hi\", \"completion\": \"Hello\", \"text\": \"x\"}\n",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}\n",
        b"{\"messages\": [{\"role\": \"assistant\", \"content\": \"Hi\"}]}\n",
        b"{\"text\": 4}\n",
        b"{\"text\": \"\xff\"}\n",
        b"{\"text\": \"torn",
    ]
    .concat();
    let rows = read_demonstrations_from(file.as_slice()).unwrap();
    let (user, assistant) = (Message::user("Hi"), Message::assistant("Hello"));
    let completion = |prompt| Demonstration::Completion { prompt, completion: "Hello".into() };
    assert_eq!(
        rows.good,
        [
            (1, completion(PromptText::Text("Hi".into()))),
            (2, completion(PromptText::Messages(vec![user.clone()]))),
            (3, Demonstration::Messages { messages: vec![user, assistant] }),
            (4, Demonstration::Text { text: "Once".into() }),
        ]
    );
    let bad: Vec<_> = rows.bad.iter().map(|bad| (bad.line, bad.reason.as_str())).collect();
    assert_eq!(
        bad,
        [
            (5, "`completion` is empty"),
            (6, "`completion` is missing"),
            (
                7,
                "the row has neither `prompt` nor `messages` (its fields: `completion`); rename the field to `prompt`"
            ),
            (
                8,
                "the row has none of `prompt` with `completion`, `messages` and `text` (its fields: `question`, `answer`); rename its fields to one of these shapes"
            ),
            (9, "the row has more than one of `prompt` with `completion`, `messages` and `text`; keep one"),
            (10, "`messages` has no turn of `assistant`, so there is nothing to learn"),
            (11, "`messages` must not begin with a turn of `assistant`"),
            (12, "`text` must be a string, got a number"),
            (13, "not UTF-8: byte 11 of the line is not part of a character"),
            (14, "not JSON: EOF while parsing a string, at byte 14"),
        ]
    );
}

#[test]
fn a_line_beyond_the_limit_is_skipped_and_the_next_is_read() {
    let mut file = vec![b'x'; MAX_LINE_BYTES + 10];
    file.extend_from_slice(b"\n{\"prompt\": \"after\"}\n");
    let rows = read_prompts_from(&file[..]).unwrap();
    assert_eq!(rows.good.len(), 1);
    assert_eq!((rows.bad[0].line, rows.bad[0].excerpt.chars().count()), (1, 201));
    assert_eq!(rows.bad[0].reason, "the line has 8388618 bytes, more than 8388608");
    // Blank as it may look, it is too long to know.
    let spaces = vec![b' '; MAX_LINE_BYTES + 1];
    assert_eq!(read_prompts_from(&spaces[..]).unwrap().bad.len(), 1);
}

#[test]
fn files_without_a_usable_row_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prompts.jsonl");
    let message = |contents: Option<&str>| {
        if let Some(contents) = contents {
            std::fs::write(&path, contents).unwrap();
        }
        let error = read_prompts(&path).unwrap_err().to_string();
        error.replace(&path.display().to_string(), "PATH")
    };
    assert_eq!(message(None), "opening `PATH` failed");
    assert_eq!(message(Some("\n \n")), "`PATH` holds no usable row: the file is empty");
    assert_eq!(
        message(Some("{}\n{}\n")),
        "`PATH` holds no usable row: line 1: the row has neither `prompt` nor `messages` (its fields: none); rename the \
         field to `prompt`, and 1 more like it or with faults of their own"
    );
}

fn row(prompt: PromptText, p: f64) -> PreferenceRow {
    PreferenceRow {
        prompt,
        chosen: "Gladly!".into(),
        rejected: "No.".into(),
        p,
        explanation: None,
        judges: vec!["tone".into()],
        prompt_id: "train-01".into(),
        pair_id: "train-01/0-1".into(),
    }
}

#[test]
fn preferences_are_written_as_trl_reads_them_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("preferences.jsonl");
    let text = [row(PromptText::Text("Help?".into()), 1.0)];
    write_preferences(&path, &text).unwrap();
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "{\"prompt\":\"Help?\",\"chosen\":\"Gladly!\",\"rejected\":\"No.\",\"p\":1.0,\"explanation\":null,\
         \"judges\":[\"tone\"],\"prompt_id\":\"train-01\",\"pair_id\":\"train-01/0-1\"}\n"
    );
    assert_eq!(read_preferences(&path).unwrap(), Rows { good: text.to_vec(), bad: vec![] });

    // One conversation makes all rows conversations: Arrow has one type a column.
    let mixed = [
        row(PromptText::Text("Help?".into()), 0.75),
        row(PromptText::Messages(vec![Message::user("Hi")]), 0.5),
    ];
    write_preferences(&path, &mixed).unwrap();
    let lines: Vec<Vec<Message>> = std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["prompt"].take())
        .map(|prompt| serde_json::from_value(prompt).unwrap())
        .collect();
    assert_eq!(lines, [[Message::user("Help?")], [Message::user("Hi")]]);
    let back = read_preferences(&path).unwrap();
    assert_eq!(back.good.iter().map(|row| row.p).collect::<Vec<_>>(), [0.75, 0.5]);
    assert_eq!(back.good[1], mixed[1]);

    // The file is replaced in one step and nothing is left beside it.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn preferences_of_others_are_read_or_refused_with_the_reason() {
    let file = r#"{"prompt": "a", "chosen": "x", "rejected": "y"}
{"prompt": "a", "chosen": "x", "rejected": "y", "p": 0.2}
{"prompt": "a", "chosen": "x", "rejected": "x"}
{"prompt": "a", "rejected": "x"}
{"prompt": "a", "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}], "rejected": "y"}"#;
    let rows = read_preferences_from(file.as_bytes()).unwrap();
    assert_eq!((rows.good.len(), rows.good[0].p, rows.good[0].pair_id.as_str()), (1, 1.0, "line-1"));
    let reasons: Vec<_> = rows.bad.iter().map(|bad| bad.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "`p` is P(chosen beats rejected) and must be in [0.5, 1], got 0.2",
            "`chosen` and `rejected` are the same text",
            "`chosen` is missing",
            "`chosen` must be one turn of `assistant`; the turns before it belong into `prompt`",
        ]
    );
}

#[test]
fn rows_to_train_on_say_how_much_they_count_and_who_labelled_them() {
    let file = r#"{"prompt": "a", "chosen": "x", "rejected": "y"}
{"prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "assistant", "content": "x"}], "rejected": [{"role": "assistant", "content": "y"}], "p": 0.25, "margin": 0.5, "weight": 2, "source": "me"}
{"prompt": "a", "chosen": "x", "rejected": "y", "judges": ["tone", "gpt"]}
{"prompt": "a", "chosen": "x", "rejected": ""}
{"prompt": "a", "chosen": "x"}
{"prompt": "a", "chosen": "x", "rejected": "x"}
{"prompt": "a", "chosen": "x", "rejected": "y", "p": 1.5}
{"prompt": "a", "chosen": "x", "rejected": "y", "p": NaN}
{"prompt": "a", "chosen": "x", "rejected": "y", "weight": 0}
{"prompt": "a", "chosen": "x", "rejected": "y", "margin": "big"}"#;
    let rows = read_preference_data_from(file.as_bytes()).unwrap();
    let told: Vec<_> = rows
        .good
        .iter()
        .map(|d| (d.line, d.row.chosen.as_str(), d.row.p, d.margin, d.weight, d.source.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (1, "x", 1.0, 0.0, 1.0, "human"),
            (2, "y", 0.75, -0.5, 2.0, "me"), // turned round: rejected was likelier to win
            (3, "x", 1.0, 0.0, 1.0, "tone+gpt"),
        ]
    );
    let reasons: Vec<_> = rows.bad.iter().map(|bad| (bad.line, bad.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (4, "`rejected` is empty"),
            (5, "`rejected` is missing"),
            (6, "`chosen` and `rejected` are the same text"),
            (7, "`p` is P(chosen beats rejected) and must be in [0, 1], got 1.5"),
            (8, "not JSON: expected value, at byte 54"),
            (9, "`weight` must be above 0, got 0; delete the row if it is not to count"),
            (10, "`margin` must be a finite number, got a string"),
        ]
    );
}

#[test]
fn rows_to_tune_on_are_pairs_or_single_responses_but_not_both() {
    let response = r#"{"prompt": "a", "completion": "x", "label": true}"#;
    let pair = r#"{"prompt": "a", "chosen": "x", "rejected": "y", "label": 1, "completion": "passed over"}"#;
    let of = |lines: &[&str]| read_tuning_rows_from(lines.join("\n").as_bytes()).unwrap();
    let reasons = |rows: &Rows<TuningRow>| -> Vec<(u64, String)> {
        rows.bad.iter().map(|bad| (bad.line, bad.reason.clone())).collect()
    };
    let messages = r#"{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "z"}], "label": false, "source": "me", "prompt_id": "p"}"#;
    let rows = of(&[
        response,
        messages,
        pair,
        r#"{"prompt": "a", "completion": "x"}"#,
        r#"{"prompt": "a", "completion": "x", "label": 1}"#,
        r#"{"prompt": "a", "label": true}"#,
        r#"{"prompt": "a", "completion": " ", "label": true}"#,
        r#"{"prompt": "a", "chosen": "x"}"#,
    ]);
    let told: Vec<_> = rows
        .good
        .iter()
        .map(|row| match row {
            TuningRow::Response(r) => (r.line, r.completion.as_str(), r.label, r.source.as_str()),
            TuningRow::Pair(_) => panic!("{row:?}"),
        })
        .collect();
    assert_eq!(told, [(1, "x", true, "human"), (2, "z", false, "me")]);
    let mixed = "the row is a pair, and line 1 a single response; keep the two in files of their own";
    assert_eq!(
        reasons(&rows),
        [
            (3, mixed.into()),
            (4, "`label` is missing: true for a desirable response, false for another".into()),
            (5, "`label` must be true or false, got a number".into()),
            (6, "`completion` is missing".into()),
            (7, "`completion` is empty".into()),
            (8, mixed.into()),
        ]
    );
    let rows = of(&[pair, response, r#"{"prompt": "a", "chosen": "x"}"#]);
    assert!(matches!(rows.good.as_slice(), [TuningRow::Pair(data)] if data.row.chosen == "x"));
    assert_eq!(
        reasons(&rows),
        [
            (2, "the row is a single response, and line 1 a pair; keep the two in files of their own".into()),
            (3, "`rejected` is missing".into()),
        ]
    );
    let rows = read_preference_data_from(response.as_bytes()).unwrap();
    assert!(rows.bad[0].reason.starts_with("the row is a single response, and this learns from pairs"));
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_other() {
    struct Broken;
    impl serde::Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("broken"))
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    write_jsonl(&path, [1, 2]).unwrap();
    assert!(write_jsonl(&path, [Broken]).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

proptest! {
    #[test]
    fn readers_never_panic_and_account_for_every_line(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let rows = read_prompts_from(&bytes[..]).unwrap();
        let written = bytes.split(|&byte| byte == b'\n').enumerate().filter(|(index, line)| {
            let line = if *index == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
            !line.trim_ascii().is_empty()
        });
        prop_assert_eq!(rows.good.len() + rows.bad.len(), written.count());
        read_preferences_from(&bytes[..]).unwrap();
        read_preference_data_from(&bytes[..]).unwrap();
        read_tuning_rows_from(&bytes[..]).unwrap();
        read_probe_from(&bytes[..]).unwrap();
    }

    #[test]
    fn what_looks_like_json_is_good_or_has_a_reason(
        line in r#"\{"(prompt|messages|id|tags|chosen)": ?("[a-z\\]{0,4}"|\[[{}"a-z:,]{0,8}\]|-?[0-9.e]{1,6}|null)\}"#
    ) {
        let rows = read_prompts_from(line.as_bytes()).unwrap();
        prop_assert_eq!(rows.good.len() + rows.bad.len(), 1);
        prop_assert!(rows.bad.iter().all(|bad| !bad.reason.is_empty() && bad.line == 1));
        read_preferences_from(line.as_bytes()).unwrap();
    }

    #[test]
    fn preferences_come_back_as_they_were(prompt in "\\PC{1,20}[a-z]", chosen in "[a-z]\\PC{0,20}", p in 0.5..=1.0_f64) {
        let row = PreferenceRow { chosen, rejected: "1 other".into(), ..row(PromptText::Text(prompt), p) };
        let line = preference_line(&row, false).to_string();
        let mut back = read_preferences_from(line.as_bytes()).unwrap();
        // serde_json reads numbers to within one unit in the last place, unless built with `float_roundtrip`.
        prop_assert!((back.good[0].p - p).abs() <= f64::EPSILON);
        back.good[0].p = p;
        prop_assert_eq!(back.good, vec![row]);
    }
}

/// The example that new users run first: data without a fault, held-out prompts that are held out, and a probe on which
/// length tells nothing.
#[test]
fn the_quickstart_is_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart");
    let (train, eval) = (
        read_prompts(&folder.join("prompts.jsonl")).unwrap(),
        read_prompts(&folder.join("eval.jsonl")).unwrap(),
    );
    let probe = read_probe(&folder.join("probe.jsonl")).unwrap();
    assert_eq!((train.bad.len(), eval.bad.len(), probe.bad.len()), (0, 0, 0));
    assert_eq!((train.good.len(), eval.good.len(), probe.good.len()), (96, 24, 60));
    assert!(eval.good.iter().all(|held_out| train.good.iter().all(|seen| seen.prompt != held_out.prompt)));
    assert!(probe.good.iter().all(|pair| train.good.iter().all(|seen| seen.prompt != pair.prompt)));
    let longer = probe.good.iter().filter(|pair| pair.worse.len() > pair.better.len()).count();
    assert_eq!(longer, 30);

    let text = std::fs::read_to_string(folder.join("rlaif.toml")).unwrap();
    let resolved = rlaif_core::Config::load(&text, &[], |_| None).unwrap();
    assert_eq!(resolved.config.validate(), []);
}
