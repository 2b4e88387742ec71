//! When two responses are too near to make a pair.

use rapidfuzz::distance::levenshtein;
use std::collections::HashMap;

/// Characters beyond which an edit distance is taken over words: it keeps a pair of book chapters below a millisecond's work.
const LONG: usize = 4000;

/// Normalised edit distance of two texts, in [0, 1]: 0 is the same text, 1 has nothing in common.
///
/// distance(a, b) = levenshtein(a, b) / max(|a|, |b|), Levenshtein 1966, over characters after lower-casing and with every
/// run of whitespace as one space. Texts of which one has more than 4000 characters are compared over words, so
/// that the work stays bounded; identical ones are still 0 and disjoint ones 1.
///
/// Two empty texts are the same: 0. Symmetric.
pub fn distance(a: &str, b: &str) -> f64 {
    between(&normalise(a), &normalise(b))
}

/// Whether [`distance`] is below `min_distance`, or the texts are the same after normalisation, which is too near for any
/// threshold.
pub fn too_similar(a: &str, b: &str, min_distance: f64) -> bool {
    nearer_than(&normalise(a), &normalise(b), min_distance)
}

/// [`too_similar`] of texts that are [`normalise`]d already.
pub(crate) fn nearer_than(a: &str, b: &str, min_distance: f64) -> bool {
    if a == b {
        return true;
    }
    // |length difference| is a lower bound of the edit distance: most unlike pairs need no more than that.
    let (length_a, length_b) = (a.chars().count(), b.chars().count());
    let longest = length_a.max(length_b);
    if longest <= LONG && length_a.abs_diff(length_b) as f64 / longest as f64 >= min_distance {
        return false;
    }
    between(a, b) < min_distance
}

/// [`distance`] of texts that are normalised already.
fn between(a: &str, b: &str) -> f64 {
    if a == b {
        return 0.0;
    }
    if a.len().max(b.len()) > LONG && a.chars().count().max(b.chars().count()) > LONG {
        let mut ids = HashMap::new();
        let mut by_word = |text: &str| -> Vec<u64> {
            text.split(' ')
                .map(|word| {
                    let next = ids.len() as u64;
                    *ids.entry(word.to_owned()).or_insert(next)
                })
                .collect()
        };
        return levenshtein::normalized_distance(by_word(a), by_word(b));
    }
    levenshtein::normalized_distance(a.chars(), b.chars())
}

/// Lower case, with every run of whitespace as one space and none at the ends.
pub(crate) fn normalise(text: &str) -> String {
    let mut normalised = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !normalised.is_empty() {
            normalised.push(' ');
        }
        normalised.extend(word.chars().flat_map(char::to_lowercase));
    }
    normalised
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values() {
        // kitten → sitting takes 3 edits over 7 characters.
        assert!((distance("kitten", "sitting") - 3.0 / 7.0).abs() < 1e-12);
        assert_eq!(distance("abc", "xyz"), 1.0);
        assert_eq!(distance("", "abc"), 1.0);
        assert_eq!(distance("", ""), 0.0);
        assert!((distance("für", "fur") - 1.0 / 3.0).abs() < 1e-12, "characters, not bytes");
    }

    #[test]
    fn case_and_whitespace_do_not_make_a_text_different() {
        assert_eq!(distance("Hello,  World!\n", " hello, world!"), 0.0);
        assert!(too_similar("Sure!\n\nHere", "sure! here", 0.0));
        assert!(distance("ab", "a b") > 0.0);
    }

    #[test]
    fn long_texts_are_compared_by_word() {
        let a = "lorem ipsum ".repeat(2000);
        let mut b = a.clone();
        b.push_str("dolor");
        assert!((distance(&a, &b) - 1.0 / 4001.0).abs() < 1e-12);
        assert_eq!(distance(&a, &"other words ".repeat(2000)), 1.0);
        assert!(too_similar(&a, &b, 0.1));
    }

    #[test]
    fn the_length_shortcut_agrees_with_the_distance() {
        let texts = [
            "",
            "a",
            "yes",
            "yes, of course",
            "no",
            "Certainly! Here is a list.",
            "certainly here is a list",
        ];
        for a in texts {
            for b in texts {
                for min_distance in [0.05, 0.1, 0.3, 0.5, 1.0] {
                    let want = distance(a, b) < min_distance || distance(a, b) == 0.0;
                    assert_eq!(too_similar(a, b, min_distance), want, "{a:?} {b:?} {min_distance}");
                }
                assert_eq!(distance(a, b), distance(b, a));
            }
        }
    }
}
