//! Examples before the pair, with verdicts that do not lean to one place: a judge that sees the first response win three times
//! of four learns the place, not the quality.

use rand::seq::SliceRandom;
use regex::Regex;
use rlaif_core::config::FewShot;
use rlaif_core::records::Choice;
use std::sync::LazyLock;

/// What is drawn, and whether it balances.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// In the order in which they are shown.
    pub examples: Vec<FewShot>,
    /// How often the first and the second response wins, where they differ by more than one.
    pub unbalanced: Option<(usize, usize)>,
}

/// Which examples a template can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// How many; `None` for all.
    pub n: Option<usize>,
    /// Whether a tie can be shown.
    pub ties: bool,
    /// Whether explanations are shown.
    pub explains: bool,
}

/// Words by which an explanation names a place. One that has such a word cannot be shown with its responses the other way round.
static NAMES_A_PLACE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)\b(?:1|2|[ab]|one|two|first|second|former|latter|1st|2nd)\b")
        .expect("a constant pattern")
});

/// Draws examples so that the first and the second response win as often as each other, as far as the given ones allow: by
/// choosing among them, and by showing some the other way round, which keeps their verdict on the texts. The same seed always
/// draws the same.
///
/// All examples stay in the order of the config; a drawn subset is shuffled.
pub fn draw(given: &[FewShot], wanted: Wanted, seed: u64) -> Drawn {
    let usable: Vec<&FewShot> =
        given.iter().filter(|example| wanted.ties || example.verdict != Choice::Tie).collect();
    let mut random = rlaif_core::seed::stream(seed, "judge/few-shot", 0);
    let mut order: Vec<usize> = (0..usable.len()).collect();
    let n = wanted.n.unwrap_or(usable.len()).min(usable.len());
    if wanted.n.is_some() {
        order.shuffle(&mut random);
    }
    let ties = usable.iter().filter(|example| example.verdict == Choice::Tie).count();
    // As large a share of ties as the given examples have, so that a draw leans neither to nor from them.
    let ties_drawn = if usable.is_empty() { 0 } else { (ties * n + usable.len() / 2) / usable.len() };
    let decided = n - ties_drawn;

    let of = |choice: Choice, free: bool| -> Vec<usize> {
        let fits =
            |i: &usize| usable[*i].verdict == choice && can_be_turned(usable[*i], wanted.explains) == free;
        order.iter().copied().filter(fits).collect()
    };
    let (fixed, free) = (
        [of(Choice::First, false), of(Choice::Second, false)],
        [of(Choice::First, true), of(Choice::Second, true)],
    );
    // Half for each place; where the number is odd, the one that is not turned anyway.
    let more_firsts = fixed[0].len() + free[0].len() > fixed[1].len() + free[1].len();
    let firsts = if more_firsts { decided.div_ceil(2) } else { decided / 2 };
    let targets = [firsts, decided - firsts];
    let mut chosen: Vec<(usize, Choice)> = Vec::new();
    let mut counts = [0; 2];
    let places = [Choice::First, Choice::Second];
    let mut left = free.clone();
    for place in 0..2 {
        let take = fixed[place].len().min(targets[place]);
        chosen.extend(fixed[place][..take].iter().map(|&i| (i, places[place])));
        let own = left[place].len().min(targets[place] - take);
        chosen.extend(left[place].drain(..own).map(|i| (i, places[place])));
        counts[place] = take + own;
    }
    // What is still missing is turned round, and what cannot be turned leaves the draw unbalanced.
    for place in 0..2 {
        let turned = left[1 - place].len().min(targets[place] - counts[place]);
        chosen.extend(left[1 - place].drain(..turned).map(|i| (i, places[place])));
        counts[place] += turned;
    }
    for place in 0..2 {
        let missing = decided - counts[0] - counts[1];
        let rest = fixed[place].iter().skip(targets[place]).take(missing);
        let rest: Vec<(usize, Choice)> = rest.map(|&i| (i, places[place])).collect();
        counts[place] += rest.len();
        chosen.extend(rest);
    }
    let drawn_ties: Vec<usize> =
        order.iter().copied().filter(|&i| usable[i].verdict == Choice::Tie).take(ties_drawn).collect();
    let examples = order.iter().filter_map(|i| {
        let place = chosen.iter().find(|(chosen, _)| chosen == i).map(|(_, place)| *place);
        match place {
            Some(place) if place == usable[*i].verdict => Some(usable[*i].clone()),
            Some(_) => Some(turned(usable[*i])),
            None => drawn_ties.contains(i).then(|| usable[*i].clone()),
        }
    });
    let unbalanced = (counts[0].abs_diff(counts[1]) > 1).then_some((counts[0], counts[1]));
    Drawn { examples: examples.collect(), unbalanced }
}

/// The same example with its responses the other way round.
fn turned(example: &FewShot) -> FewShot {
    let verdict = match example.verdict {
        Choice::First => Choice::Second,
        Choice::Second => Choice::First,
        Choice::Tie => Choice::Tie,
    };
    FewShot { first: example.second.clone(), second: example.first.clone(), verdict, ..example.clone() }
}

fn can_be_turned(example: &FewShot, explains: bool) -> bool {
    !explains || example.explanation.as_ref().is_none_or(|text| !NAMES_A_PLACE.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example(number: usize, verdict: Choice, explanation: Option<&str>) -> FewShot {
        FewShot {
            prompt: format!("prompt {number}"),
            first: format!("good {number}"),
            second: format!("bad {number}"),
            explanation: explanation.map(String::from),
            verdict,
        }
    }

    const ALL: Wanted = Wanted { n: None, ties: true, explains: true };

    fn wins(drawn: &Drawn) -> (usize, usize, usize) {
        let count = |choice| drawn.examples.iter().filter(|example| example.verdict == choice).count();
        (count(Choice::First), count(Choice::Second), count(Choice::Tie))
    }

    #[test]
    fn examples_that_lean_to_a_place_are_turned_where_they_can_be() {
        let given: Vec<FewShot> = (0..4).map(|i| example(i, Choice::First, Some("It is vague."))).collect();
        let drawn = draw(&given, ALL, 1);
        assert_eq!(wins(&drawn), (2, 2, 0));
        assert_eq!(drawn.unbalanced, None);
        for (shown, given) in drawn.examples.iter().zip(&given) {
            let better = if shown.verdict == Choice::First { &shown.first } else { &shown.second };
            assert_eq!(
                (better, &shown.prompt),
                (&given.first, &given.prompt),
                "the verdict on the texts stays"
            );
        }
    }

    #[test]
    fn an_explanation_that_names_places_is_never_turned_and_the_user_is_told() {
        let given: Vec<FewShot> =
            (0..4).map(|i| example(i, Choice::First, Some("Response 1 is right."))).collect();
        let drawn = draw(&given, ALL, 1);
        assert_eq!((wins(&drawn), drawn.unbalanced), ((4, 0, 0), Some((4, 0))));
        assert_eq!(drawn.examples, given);
        let bare = draw(&given, Wanted { explains: false, ..ALL }, 1);
        assert_eq!((wins(&bare), bare.unbalanced), ((2, 2, 0), None), "it is not shown, so it names nothing");
    }

    #[test]
    fn a_draw_is_seeded_and_keeps_the_share_of_ties() {
        let mut given: Vec<FewShot> = (0..8).map(|i| example(i, Choice::Second, None)).collect();
        given.extend((8..12).map(|i| example(i, Choice::Tie, None)));
        let wanted = Wanted { n: Some(6), ..ALL };
        let drawn = draw(&given, wanted, 7);
        assert_eq!(wins(&drawn), (2, 2, 2));
        assert_eq!(draw(&given, wanted, 7), drawn);
        assert!((0..20).any(|seed| draw(&given, wanted, seed) != drawn));
        assert_eq!(wins(&draw(&given, Wanted { ties: false, ..wanted }, 7)), (3, 3, 0));
    }

    proptest! {
        #[test]
        fn as_many_as_wanted_and_as_balanced_as_can_be(
            given in prop::collection::vec((0..3_usize, 0..3_usize), 0..12), n in prop::option::of(0..14_usize), seed: u64,
        ) {
            let choices = [Choice::First, Choice::Second, Choice::Tie];
            let words = [None, Some("It is vague."), Some("The first one is vague.")];
            let examples: Vec<FewShot> =
                given.iter().enumerate().map(|(i, (c, w))| example(i, choices[*c], words[*w])).collect();
            let drawn = draw(&examples, Wanted { n, ..ALL }, seed);
            prop_assert_eq!(drawn.examples.len(), n.unwrap_or(examples.len()).min(examples.len()));
            let mut prompts: Vec<&String> = drawn.examples.iter().map(|example| &example.prompt).collect();
            prompts.sort();
            prompts.dedup();
            prop_assert_eq!(prompts.len(), drawn.examples.len(), "none twice");
            let (first, second, _) = wins(&drawn);
            prop_assert_eq!(drawn.unbalanced.is_some(), first.abs_diff(second) > 1);
            let fixed = |choice| examples.iter().filter(|e| e.verdict == choice && !can_be_turned(e, true)).count();
            let decided = first + second;
            if fixed(Choice::First) <= decided / 2 && fixed(Choice::Second) <= decided / 2 {
                prop_assert!(first.abs_diff(second) <= 1);
            }
        }
    }
}
