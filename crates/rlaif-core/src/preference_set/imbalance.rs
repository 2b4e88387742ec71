//! What the chosen responses have in common besides being better: a model can learn that instead.

use super::{LabelledPair, Numbers};
use crate::stats::histogram::histogram_between;
use std::collections::BTreeMap;

/// How large a part of the set each of several groups is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// Name and pairs, the largest first.
    pub sizes: Vec<(String, u64)>,
}

impl Groups {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
        names.for_each(|name| *sizes.entry(name).or_default() += 1);
        let mut sizes: Vec<(String, u64)> =
            sizes.into_iter().map(|(name, n)| (name.to_string(), n)).collect();
        sizes.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        Self { sizes }
    }

    /// The pairs of each source.
    pub fn by_source(pairs: &[LabelledPair]) -> Self {
        Self::of(pairs.iter().map(|pair| pair.source.as_str()))
    }

    /// The pairs of each tag; a pair with several tags is in several groups, one without any in none.
    pub fn by_tag(pairs: &[LabelledPair]) -> Self {
        Self::of(pairs.iter().flat_map(|pair| pair.tags.iter().map(String::as_str)))
    }
}

/// 1 where the chosen response has more characters, 0 where the rejected one has; nothing where they are equally long.
pub fn longer(pair: &LabelledPair) -> Option<f64> {
    match length_gap(pair) {
        0.0 => None,
        gap => Some(f64::from(u8::from(gap > 0.0))),
    }
}

/// Characters of the chosen response less those of the rejected one.
pub fn length_gap(pair: &LabelledPair) -> f64 {
    pair.chosen.chars().count() as f64 - pair.rejected.chars().count() as f64
}

/// |2p − 1|: 0 where the label says nothing, 1 where it is sure.
pub fn margin(pair: &LabelledPair) -> f64 {
    (2.0 * pair.p - 1.0).abs()
}

/// Margins in five bins of equal width, from 0 to 1.
pub fn margins(pairs: &[LabelledPair]) -> Vec<u64> {
    let margins: Vec<f64> = pairs.iter().map(margin).collect();
    histogram_between(&margins, 0.0, 1.0, 5).map_or_else(Vec::new, |histogram| histogram.counts)
}

/// The most pairs that one prompt has, and a pair of it.
pub fn most_of_one_prompt(numbers: &Numbers) -> Option<(u64, usize)> {
    let mut counts: BTreeMap<u32, (u64, usize)> = BTreeMap::new();
    for (index, pair) in numbers.pairs.iter().enumerate() {
        counts.entry(pair.prompt).or_insert((0, index)).0 += 1;
    }
    counts.into_values().max_by_key(|(n, first)| (*n, std::cmp::Reverse(*first)))
}

#[cfg(test)]
mod tests {
    use super::super::pair;
    use super::*;

    #[test]
    fn lengths_are_counted_in_characters_and_equal_ones_left_out() {
        assert_eq!(longer(&pair("1", "p", "für", "fur", "x")), None);
        assert_eq!(longer(&pair("1", "p", "four", "fur", "x")), Some(1.0));
        assert_eq!(longer(&pair("1", "p", "fur", "four", "x")), Some(0.0));
        assert_eq!(length_gap(&pair("1", "p", "fünf", "f", "x")), 3.0);
    }

    #[test]
    fn groups_are_told_the_largest_first() {
        let tagged = |source, tags: &[&str]| LabelledPair {
            tags: tags.iter().map(ToString::to_string).collect(),
            ..pair("1", "p", "a", "b", source)
        };
        let set = [tagged("y", &[]), tagged("x", &["s"]), tagged("x", &["s", "t"])];
        assert_eq!(Groups::by_source(&set).sizes, [("x".into(), 2), ("y".into(), 1)]);
        assert_eq!(Groups::by_tag(&set).sizes, [("s".into(), 2), ("t".into(), 1)]);
        assert_eq!(most_of_one_prompt(&Numbers::of(&set)), Some((3, 0)));
        assert_eq!(most_of_one_prompt(&Numbers::default()), None);
    }

    #[test]
    fn margins_say_how_sure_labels_are() {
        let with = |p| LabelledPair { p, ..pair("1", "p", "a", "b", "x") };
        let set = [with(0.5), with(0.75), with(0.95), with(1.0)];
        assert!((set.iter().map(margin).sum::<f64>() - 2.4).abs() < 1e-12);
        assert_eq!(margins(&set), [1, 0, 1, 0, 2]);
    }
}
