//! How varied texts are: distinct n-grams over all of them, n-grams that one of them repeats.

use std::collections::HashSet;

/// distinct-n, Li et al. 2016 (<https://arxiv.org/abs/1510.03055>): different n-grams of all `texts` over all their n-grams.
///
/// In (0, 1]. It falls when texts repeat themselves and when they come to say the same as each other. It also falls the more tokens there
/// are, so compare sets of about the same size. `None` where no text has n tokens.
pub fn distinct(texts: &[&[u32]], n: usize) -> Option<f64> {
    let (mut different, mut all) = (HashSet::new(), 0_usize);
    for ngram in texts.iter().flat_map(|text| ngrams(text, n)) {
        different.insert(ngram);
        all += 1;
    }
    (all > 0).then(|| different.len() as f64 / all as f64)
}

/// seq-rep-n, Welleck et al. 2020 (<https://arxiv.org/abs/1908.04319>, section 6): 1 − different n-grams of `text` over its n-grams.
///
/// 0 where every n-gram stands once. `None` below n tokens.
pub fn repeated(text: &[u32], n: usize) -> Option<f64> {
    distinct(&[text], n).map(|distinct| 1.0 - distinct)
}

fn ngrams(text: &[u32], n: usize) -> impl Iterator<Item = &[u32]> {
    text.windows(n.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_counts_over_all_texts() {
        let texts: [&[u32]; 3] = [&[1, 2, 3], &[1, 2, 4], &[5]];
        assert_eq!(distinct(&texts, 1), Some(5.0 / 7.0));
        assert_eq!(distinct(&texts, 2), Some(3.0 / 4.0), "no n-gram reaches from one text into the next");
        assert_eq!(distinct(&texts, 4), None);
        assert_eq!(distinct(&[], 1), None);
        let same: [&[u32]; 2] = [&[1, 2, 3], &[1, 2, 3]];
        assert_eq!(distinct(&same, 2), Some(0.5), "texts that say the same are not varied");
    }

    #[test]
    fn repeated_counts_within_a_text() {
        assert_eq!(repeated(&[1, 2, 3, 4, 5], 4), Some(0.0));
        // 1234 2341 3412 4123 1234: four different of five.
        assert!((repeated(&[1, 2, 3, 4, 1, 2, 3, 4], 4).unwrap() - 0.2).abs() < 1e-12);
        assert!((repeated(&[7; 13], 4).unwrap() - 0.9).abs() < 1e-12);
        assert_eq!(repeated(&[1, 2, 3], 4), None);
    }
}
