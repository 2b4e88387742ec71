//! What needs no judge: pairs that a rule decides or sets aside before anything is paid, and lengths.
//!
//! | pair | becomes |
//! |---|---|
//! | both responses show the same text | a tie |
//! | one is empty, only punctuation, a master key alone, or the request again | lost by that one |
//! | both are | set aside: neither is worth learning from |
//! | one is longer than `label.max_response_chars` | set aside, or both are cut at that length |
//!
//! A rule's verdict is of the judge named [`RULE`], so that it is told from what models said and no judge's statistics count it.
//! Rules are few and narrow on purpose: what they decide, nobody looks at again.

use super::neutralise;
use rlaif_core::records::{Choice, NoVerdict, Verdict};
use std::borrow::Cow;

/// The name under which rules give verdicts; no judge may have it.
pub const RULE: &str = "rule";

/// Openings that say nothing and yet win (Zhao et al. 2025), when they are all there is.
const MASTER_KEYS: [&str; 14] = [
    "thought process",
    "let's solve this problem step by step",
    "let us solve this problem step by step",
    "let's think step by step",
    "let me think",
    "let me think about it",
    "let me think step by step",
    "solution",
    "final answer",
    "the answer is",
    "here is the answer",
    "answer",
    "reasoning",
    "解",
];

/// A request of fewer letters may be its own answer (“Hello”).
const ECHO_FROM: usize = 20;

/// What a rule says of a pair, with response a as the first; `None` where a judge has to look.
pub fn rule(prompt: &str, a: &str, b: &str) -> Option<Verdict> {
    let [shown_a, shown_b] = [a, b].map(|text| neutralise(text).trim().to_owned());
    let said = |choice, reason: String| Verdict { explanation: Some(reason), ..Verdict::choice(choice) };
    if shown_a == shown_b {
        return Some(said(Choice::Tie, "by rule: both responses show the same text".into()));
    }
    match (defect(prompt, &shown_a), defect(prompt, &shown_b)) {
        (None, None) => None,
        (Some(of_a), None) => Some(said(Choice::Second, format!("by rule: the other response {of_a}"))),
        (None, Some(of_b)) => Some(said(Choice::First, format!("by rule: the other response {of_b}"))),
        (Some(of_a), Some(of_b)) => {
            let reason = match of_a == of_b {
                true => format!("each response {of_a}"),
                false => format!("one response {of_a}, the other {of_b}"),
            };
            Some(Verdict::none(NoVerdict::SetAside(reason)))
        }
    }
}

/// Why a text is no response, whatever was asked.
fn defect(prompt: &str, shown: &str) -> Option<&'static str> {
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = |text: &str| {
        let lower = squeezed(text).to_lowercase().replace('’', "'");
        lower.trim_matches(|c: char| ".,:;!?…*#\"'`“”- ".contains(c)).to_owned()
    };
    if shown.is_empty() {
        return Some("is empty");
    }
    // Operators, arrows and emoji may be an answer; these are none.
    if shown.chars().all(|c| c.is_whitespace() || ".,:;…-–—_'\"`“”‘’*#()[]{}|\\".contains(c)) {
        return Some("is only punctuation");
    }
    if MASTER_KEYS.contains(&words(shown).as_str()) {
        return Some("is an opening without an answer");
    }
    let asked = squeezed(&neutralise(prompt));
    if asked.chars().filter(|c| c.is_alphanumeric()).count() >= ECHO_FROM && squeezed(shown) == asked {
        return Some("only repeats the request");
    }
    None
}

/// Why a pair is too long for a limit in characters: counted alike on both sides.
pub fn too_long(a: &str, b: &str, max_chars: usize) -> Option<NoVerdict> {
    let longest = a.chars().count().max(b.chars().count());
    (longest > max_chars).then(|| {
        NoVerdict::SetAside(format!("a response of {longest} characters is above the limit of {max_chars}"))
    })
}

/// The text up to the limit, at the end of a word where one is near, with a line that says so. Both responses of a pair go through
/// it with the same limit; a text within it stays as it is, and where one was cut the judge sees that and why.
pub fn cut(text: &str, max_chars: usize) -> Cow<'_, str> {
    let Some((end, _)) = text.char_indices().nth(max_chars) else { return Cow::Borrowed(text) };
    let kept = &text[..end];
    // A word cut in two would look like the response's own fault. Scripts without spaces are cut where they are.
    let near = kept.char_indices().rev().take(40).find(|(_, c)| c.is_whitespace()).map_or(end, |(at, _)| at);
    Cow::Owned(format!(
        "{}\n[cut here: only the first {max_chars} characters of each response are shown]",
        text[..near].trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASKED: &str = "What is the capital of Australia, please?";

    #[test]
    fn what_rules_decide() {
        let good = "Canberra.";
        for bad in [
            "",
            " \n",
            "\u{200b}",
            ":",
            "...",
            "**",
            "Thought process:",
            "Let’s think step by step.",
            "解",
            "Final answer:",
            ASKED,
        ] {
            assert_eq!(rule(ASKED, bad, good).unwrap().choice, Ok(Choice::Second), "{bad:?}");
            assert_eq!(rule(ASKED, good, bad).unwrap().choice, Ok(Choice::First), "{bad:?}");
        }
        assert_eq!(rule(ASKED, "Canberra.", " Canberra.\u{200b}").unwrap().choice, Ok(Choice::Tie));
        assert!(matches!(rule(ASKED, "", ":").unwrap().choice, Err(NoVerdict::SetAside(_))));
    }

    #[test]
    fn what_a_judge_has_to_see() {
        for text in ["4", "+", "👍", "→", "No.", "?", "Solution: 42", "ok", "Let me think. It is Canberra."]
        {
            assert_eq!(rule(ASKED, text, "Canberra."), None, "{text:?}");
        }
        assert_eq!(rule("Hello", "Hello", "Hi there"), None, "a greeting is answered by one");
    }

    #[test]
    fn both_sides_are_cut_by_the_same_rule() {
        assert_eq!(cut("short", 10), "short");
        assert_eq!(
            cut("one two three four", 10),
            "one two\n[cut here: only the first 10 characters of each response are shown]"
        );
        assert!(cut(&"語".repeat(100), 60).starts_with(&"語".repeat(60)));
        assert!(too_long("abc", "abcd", 3).is_some());
        assert_eq!(too_long("äöü", "abc", 3), None, "characters, not bytes");
    }

    proptest! {
        #[test]
        fn rules_do_not_depend_on_the_order(prompt in ".{0,60}", a in "[ .:a-c]{0,6}", b in "[ .:a-c]{0,6}") {
            let swapped = rule(&prompt, &b, &a).map(|verdict| verdict.choice.map(|choice| match choice {
                Choice::First => Choice::Second,
                Choice::Second => Choice::First,
                Choice::Tie => Choice::Tie,
            }));
            let straight = rule(&prompt, &a, &b).map(|verdict| verdict.choice);
            prop_assert_eq!(straight.as_ref().map(Result::is_ok), swapped.as_ref().map(Result::is_ok));
            if let (Some(Ok(one)), Some(Ok(other))) = (straight, swapped) {
                prop_assert_eq!(one, other);
            }
        }

        #[test]
        fn a_cut_text_begins_as_the_whole(text in ".{0,300}", max in 1..200_usize) {
            let shown = cut(&text, max).into_owned();
            let kept = shown.split("\n[cut here").next().unwrap();
            prop_assert!(text.starts_with(kept) && kept.chars().count() <= max.max(text.chars().count().min(max)));
        }
    }
}
