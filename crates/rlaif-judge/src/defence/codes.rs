//! Secrets of one call, all derived from its nonce: a response was written before they were drawn, and cannot name them.

use rand::RngExt;
use std::fmt::Write;

/// Letters of verdict codes: no vowels, so that no code is a word; no `I`, `O`, `Y` nor what looks like a digit.
const LETTERS: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ";

/// Pairs of consonants that mean something to a reader: units, titles, and the like.
const MEANINGFUL: [&str; 36] = [
    "BC", "BS", "CD", "CM", "CV", "DB", "DC", "DM", "DR", "FM", "GB", "GM", "HD", "HP", "HR", "KB", "KG",
    "KM", "LB", "LT", "MB", "MD", "MM", "MP", "MR", "MS", "NB", "PC", "PD", "PM", "PS", "RT", "ST", "TB",
    "TV", "VS",
];

/// Draws of one length before codes of one letter more are drawn: a text that holds most codes of two letters is an attack or
/// very long.
const DRAWS: usize = 64;

/// Sixteen hex digits (64 bits) that occur in none of the texts: the random part of the tags around them.
///
/// Give it the texts as they are shown, after [`super::neutralise()`].
pub fn tag_code(nonce: u64, texts: &[&str]) -> String {
    (0_u64..)
        .map(|step| format!("{:016x}", nonce.wrapping_add(step)))
        .find(|code| !texts.iter().any(|text| text.contains(code.as_str())))
        .expect("texts of finite length do not hold 2^64 different codes")
}

/// The two words with which the judge of one call names its verdict: `codes[0]` for the response shown first, `codes[1]` for the
/// one shown second. A response cannot ask for a code that was drawn after it was written.
///
/// * Two upper-case consonants each (`["QX", "LV"]`): no word and no common abbreviation. They share no letter, so that
///   a judge's slip of one letter never names the other response.
/// * Neither occurs in any of the texts, in whatever case and not even inside a word. Where a text holds too many pairs of
///   letters for that (long base64, or an attack that lists them all), the codes have three letters, or more.
/// * They depend on the nonce and the texts alone, not on the order of the texts: both orders of a pair use the same two
///   codes, by position, and a resumed run asks with the same bytes.
///
/// Give it the texts as they are shown (prompt and both responses), after [`super::neutralise()`].
pub fn verdict_codes(nonce: u64, texts: &[&str]) -> [String; 2] {
    let texts: Vec<String> = texts.iter().map(|text| text.to_ascii_uppercase()).collect();
    let mut random = rlaif_core::seed::stream(nonce, "judge/verdict codes", 0);
    for length in 2.. {
        let mut first: Option<String> = None;
        for _ in 0..DRAWS {
            let code: String =
                (0..length).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
            if MEANINGFUL.contains(&code.as_str()) || texts.iter().any(|text| text.contains(&code)) {
                continue;
            }
            match &first {
                None => first = Some(code),
                Some(first) if code.chars().any(|letter| first.contains(letter)) => {}
                Some(first) => return [first.clone(), code],
            }
        }
    }
    unreachable!("texts of finite length do not hold every code of every length")
}

/// The canary of one call: a secret that the system prompt names and tells the judge never to write. See [`leaks_canary`].
///
/// It is of no other secret's making: a judge that quotes a tag, as it may, says nothing of the canary.
pub fn canary(nonce: u64) -> String {
    let digits = format!("{:016x}", rlaif_core::seed::derive(nonce, "judge/canary", 0));
    let mut canary = String::new();
    for (index, digit) in digits.chars().enumerate() {
        let dash = if index > 0 && index % 4 == 0 { "-" } else { "" };
        write!(canary, "{dash}{digit}").expect("a string takes everything");
    }
    canary
}

/// Whether a judge's text gives the canary away: it did what a response told it, and its verdict is the response's, not its own.
/// Case and what stands between the digits do not matter.
pub fn leaks_canary(explanation: &str, nonce: u64) -> bool {
    let digits = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    digits(explanation).contains(&digits(&canary(nonce)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_are_fixed_by_the_nonce() {
        assert_eq!(verdict_codes(7, &["some text"]), verdict_codes(7, &["some text"]));
        assert_ne!(verdict_codes(7, &[]), verdict_codes(8, &[]));
        assert_eq!(verdict_codes(7, &["a", "b"]), verdict_codes(7, &["b", "a"]), "whichever stands first");
    }

    #[test]
    fn a_text_that_lists_all_codes_gets_longer_ones() {
        let all: String = LETTERS
            .iter()
            .flat_map(|&a| LETTERS.iter().map(move |&b| format!("{}{} ", a as char, b as char)))
            .collect();
        let codes = verdict_codes(1, &[&all]);
        assert!(codes.iter().all(|code| code.len() == 3), "{codes:?}");
        let ordinary =
            "The quick brown fox jumps over the lazy dog, and then it rests by the river. ".repeat(80);
        assert!((0..200).all(|nonce| verdict_codes(nonce, &[&ordinary]).iter().all(|code| code.len() == 2)));
    }

    #[test]
    fn codes_vary_from_call_to_call() {
        let seen: std::collections::BTreeSet<[String; 2]> =
            (0..500).map(|nonce| verdict_codes(nonce, &[])).collect();
        assert!(seen.len() > 490, "{} of 500", seen.len());
    }

    #[test]
    fn the_canary_is_seen_however_it_is_written() {
        let canary = canary(42);
        assert_eq!(canary.len(), 19);
        assert!(leaks_canary(&format!("The code is {canary}."), 42));
        assert!(leaks_canary(&canary.to_uppercase().replace('-', " "), 42));
        assert!(!leaks_canary("Response 1 is correct.", 42));
        assert!(!leaks_canary(&canary, 43));
        assert!(!leaks_canary(&format!("Response 1 stands in response_1_{}", tag_code(42, &[])), 42));
    }

    proptest! {
        #[test]
        fn codes_stand_in_no_text_and_share_no_letter(nonce: u64, texts in prop::collection::vec("[a-zA-Z ]{0,400}", 0..4)) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let [first, second] = verdict_codes(nonce, &texts);
            for code in [&first, &second] {
                prop_assert!(code.len() >= 2 && code.bytes().all(|letter| LETTERS.contains(&letter)));
                prop_assert!(!texts.iter().any(|text| text.to_uppercase().contains(code.as_str())));
                prop_assert!(!MEANINGFUL.contains(&code.as_str()));
            }
            prop_assert!(first.chars().all(|letter| !second.contains(letter)));
        }

        #[test]
        fn a_tag_code_stands_in_no_text(nonce: u64, near in 0..20_u64, rest in ".*") {
            let text = format!("{rest}{:016x}", nonce.wrapping_add(near));
            let code = tag_code(nonce, &[&text, &format!("{nonce:016x}")]);
            let own = format!("{nonce:016x}");
            prop_assert!(!text.contains(&code) && code != own);
            prop_assert_eq!(code.len(), 16);
        }
    }
}
