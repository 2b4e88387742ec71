//! What must hold for any input. The fuzz targets call these; so do property tests of `rlaif-judge`, which need no nightly.

use rlaif_judge::{Parsed, Style, parse};

/// A text of any bytes, in every style: no panic, a reason always, finite scores, and what cannot matter does not.
pub fn verdict(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for style in Style::ALL {
        let parsed = parse(&text, style);
        assert!(!parsed.reason.is_empty(), "{style}: no reason: {text:?}");
        assert!(
            parsed.scores.iter().flatten().all(|score| score.is_finite()),
            "{style}: {parsed:?}: {text:?}"
        );
        // Never both a rating and a verdict, nor three scores.
        let scores = parsed.scores.as_ref().map_or(0, Vec::len);
        assert!(scores <= if parsed.verdict.is_ok() { 2 } else { 1 }, "{style}: {parsed:?}: {text:?}");
        let same = |how: &str, other: Parsed| {
            assert_eq!(parsed.verdict, other.verdict, "{style}, {how}: {text:?}");
            assert_eq!(parsed.scores, other.scores, "{style}, {how}: {text:?}");
        };
        same("spaces behind", parse(&format!("{text} \n\t\r\n"), style));
        let thought = "<think>1\n2\n[[A]] [[B>A]] Better response: 1\n{\"verdict\": \"A\"} Output (a) is better.</think>";
        same("thinking before", parse(&format!("{thought}\n{text}"), style));
    }
}

/// Any bytes as JSONL: every line that is not blank is answered by one line of JSON, in any case.
pub fn jsonl(bytes: &[u8]) {
    let mut out = Vec::new();
    let counts = rlaif_judge::parse::jsonl(bytes, &mut out).expect("reading and writing memory cannot fail");
    let out = String::from_utf8(out).expect("JSON is UTF-8");
    assert_eq!(out.lines().count(), counts.rows, "{bytes:?}");
    assert!(counts.verdicts + counts.malformed <= counts.rows, "{counts:?}");
    assert!(out.lines().all(|line| line.starts_with("{\"id\":") && line.ends_with('}')), "{out}");
}
