//! What a careful person would record for judges' texts of every style. The texts are our own, written in the manner of
//! several families of models; what each of them says was decided before the parser saw it.

mod arena;
mod auto;
mod brackets;
mod digits;
mod house;
mod json;
mod outputs;
mod ratings;
mod scores;

use rlaif_core::records::Choice;
use rlaif_judge::{Style, parse};

/// A text and what it says: `first`, `second`, `tie` or `null`.
type Row = (&'static str, &'static str);

fn word(text: &str, style: Style) -> &'static str {
    match parse(text, style).verdict {
        Ok(Choice::First) => "first",
        Ok(Choice::Second) => "second",
        Ok(Choice::Tie) => "tie",
        Err(_) => "null",
    }
}

/// Checks every row, and that what comes around a text changes nothing.
fn check(style: Style, table: &[Row]) {
    let mut wrong = Vec::new();
    for (text, want) in table {
        let around = [
            ("as it is", (*text).to_owned()),
            ("spaces behind", format!("{text}  \n\n\t")),
            ("CRLF", text.replace('\n', "\r\n")),
            (
                "after thinking",
                format!("<think>\n[[A]] [[B]] Output (b) is better.\n1\n2\n</think>\n\n{text}"),
            ),
        ];
        for (how, text) in around {
            let got = word(&text, style);
            if got != *want {
                wrong.push(format!(
                    "{how}: want {want}, got {got} ({}): {text:?}",
                    parse(&text, style).reason
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{style}: {} wrong\n{}", wrong.len(), wrong.join("\n"));
}
