use rlaif_judge::{Style, parse};

const TABLE: &[(&str, Option<f64>)] = &[
    ("Rating: 7", Some(7.0)),
    ("Rating: 7.5/10", Some(7.5)),
    ("[[7]]", Some(7.0)),
    ("Rating: [[8.5]]", Some(8.5)),
    ("[[8/10]]", Some(8.0)),
    ("I'd give it an 8", Some(8.0)),
    ("I would give this response a 6.", Some(6.0)),
    ("I'd rate it 9.", Some(9.0)),
    ("I rate this answer as a solid 7.", Some(7.0)),
    ("Overall it deserves a score of 5.", Some(5.0)),
    ("7 out of 10", Some(7.0)),
    ("I'd say 6/10, since the second half is off topic.", Some(6.0)),
    ("8", Some(8.0)),
    ("**9**", Some(9.0)),
    ("10/10", Some(10.0)),
    ("1", Some(1.0)),
    ("7.5", Some(7.5)),
    ("The answer is right but dry.\n\n7", Some(7.0)),
    ("Score: 8", Some(8.0)),
    ("**Score:** 8.25", Some(8.25)),
    ("Score = 4", Some(4.0)),
    ("Grade: 3/10", Some(3.0)),
    ("### Rating\n8\n\nIt is clear.", Some(8.0)),
    ("Rating (1-10): 6", Some(6.0)),
    ("On a scale of 1 to 10, I'd rate this 8.", Some(8.0)),
    ("Rating on a scale from 1 to 10: 7", Some(7.0)),
    ("Final rating: 6. The two examples are good.", Some(6.0)),
    ("Helpfulness: 8/10\nAccuracy: 6/10\nOverall: 7/10", Some(7.0)),
    ("Accuracy score: 7\nDepth score: 5\nOverall score: 6", Some(6.0)),
    ("Rating: 8,5", Some(8.5)),
    ("Rating：８／１０", Some(8.0)),
    ("评分：Rating: 9", Some(9.0)),
    ("Rating: 8/10\n\nAgain: Rating: 8/10", Some(8.0)),
    ("\\boxed{7}", Some(7.0)),
    ("<rating>7</rating>", Some(7.0)),
    ("```\n8\n```", Some(8.0)),
    (r#"{"rating": 7, "reason": "ok"}"#, Some(7.0)),
    ("Write it like this, for example: \"Rating: [[5]]\".\n\nRating: [[8]]", Some(8.0)),
    ("In 2019, 3 of 4 sources agreed. Rating: 6", Some(6.0)),
    ("Rating: 7\n\nHope this helps!", Some(7.0)),
    ("8 - clear and short", None),
    ("<think>Rating: 2</think>Rating: 9", Some(9.0)),
    // No rating.
    ("Rating: high", None),
    ("Rating: eight or so", None),
    ("Rating: 6-7", None),
    ("Rating: 6 or 7", None),
    ("Rating: between 6 and 7", None),
    ("between 6 and 7", None),
    ("I'd say 6 to 7 out of 10.", None),
    ("6/10 or 7/10", None),
    ("Rating: 6. Rating: 8.", None),
    ("[[6]] … [[8]]", None),
    ("Rating: 0", None),
    ("Rating: 11", None),
    ("Rating: 10.5", None),
    ("Rating: -4", None),
    ("Rating: −4", None),
    ("Rating: 70%", None),
    ("Rating: 70/100", None),
    ("Rating: 4/5", None),
    ("4/5", None),
    ("Not an 8.", None),
    ("[[rating]]", None),
    ("The answer lists 8 items.", None),
    ("1. Clear.\n2. Short.", None),
    ("Rating:", None),
    ("Rating: N/A", None),
    ("2024", None),
    ("I'm sorry, but I can't rate this.", None),
    ("<think>Rating: 7", None),
    ("", None),
];

#[test]
fn rating_texts() {
    let mut wrong = Vec::new();
    for (text, want) in TABLE {
        for text in
            [(*text).to_owned(), format!("{text}\n \n"), format!("<think>[[3]] Rating: 4\n5</think>{text}")]
        {
            let parsed = parse(&text, Style::Rating1To10);
            assert!(parsed.verdict.is_err(), "a rating is no verdict: {text}");
            if parsed.scores.as_deref() != want.as_ref().map(std::slice::from_ref) {
                wrong.push(format!("want {want:?}, got {:?} ({}): {text:?}", parsed.scores, parsed.reason));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}
