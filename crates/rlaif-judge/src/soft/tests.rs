use super::*;
use proptest::prelude::*;
use rlaif_core::records::NoVerdict;

fn close(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-9, "got {got}, want {want}");
}

/// A token with its log-probability and those of others.
fn token(own: (&str, f64), others: &[(&str, f64)]) -> TokenLogprob {
    let top = std::iter::once(&own).chain(others);
    TokenLogprob {
        bytes: own.0.as_bytes().to_vec(),
        logprob: Some(own.1),
        top: top.map(|(text, logprob)| (text.as_bytes().to_vec(), Some(*logprob))).collect(),
    }
}

fn plain_token(text: &str) -> TokenLogprob {
    token((text, -0.01), &[])
}

fn reply(tokens: Vec<TokenLogprob>) -> Completion {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.bytes.clone()).collect();
    Completion {
        text: Some(String::from_utf8_lossy(&bytes).into_owned()),
        logprobs: tokens,
        ..Completion::default()
    }
}

fn labels(first: &str, second: &str) -> Vec<LabelSet> {
    vec![LabelSet::new(Choice::First, first), LabelSet::new(Choice::Second, second)]
}

/// `docs/parity.md` §7: log-probabilities −0.2 and −1.9, then −0.9 and −0.6 with the responses swapped.
#[test]
fn golden_values_of_both_orders() {
    let p = |one: f64, two: f64| {
        let verdict = reply(vec![token(("1", one), &[("2", two)])]);
        soft_verdict(&verdict, &labels("1", "2"), 0.0).unwrap().p_first
    };
    assert!((p(-0.2, -1.9) - 0.845_534_734_9).abs() < 1e-9);
    let a_wins = 0.5 * (p(-0.2, -1.9) + (1.0 - p(-0.9, -0.6)));
    assert!((a_wins - 0.709_988_625_9).abs() < 1e-9, "{a_wins}");
}

#[test]
fn all_spellings_count_and_the_rest_makes_the_mass_smaller() {
    let l = |p: f64| p.ln();
    let others =
        [(" A", l(0.2)), ("a", l(0.05)), ("Ａ", l(0.05)), ("B", l(0.1)), (" b", l(0.1)), ("The", l(0.1))];
    let soft = soft_verdict(&reply(vec![token(("A", l(0.3)), &others)]), &labels("A", "B"), 0.5).unwrap();
    close(soft.mass, 0.8);
    close(soft.p_first, 0.75);
    assert_eq!(soft.said, Choice::First);
    // The sampled token was not among the listed ones, and one that is not said has no probability.
    let outside = TokenLogprob {
        bytes: b"B".to_vec(),
        logprob: Some(l(0.2)),
        top: vec![(b"A".to_vec(), Some(l(0.6))), (b" B".to_vec(), None)],
    };
    let soft = soft_verdict(&reply(vec![outside]), &labels("A", "B"), 0.5).unwrap();
    close(soft.p_first, 0.75);
    assert_eq!(soft.said, Choice::Second);
}

#[test]
fn too_little_mass_is_no_soft_label() {
    let l = |p: f64| p.ln();
    let vague = reply(vec![token(("1", l(0.3)), &[("2", l(0.1)), ("Both", l(0.6))])]);
    assert_eq!(soft_verdict(&vague, &labels("1", "2"), 0.5), None);
    assert!(soft_verdict(&vague, &labels("1", "2"), 0.4 - 1e-9).is_some(), "the bound is the caller's");
    let impossible = reply(vec![token(("1", -0.1), &[("2", -0.1)])]);
    assert_eq!(soft_verdict(&impossible, &labels("1", "2"), 0.5), None, "they add up to 1.8");
    assert_eq!(soft_verdict(&Completion::default(), &labels("1", "2"), 0.0), None);
}

#[test]
fn the_verdict_is_found_behind_an_explanation() {
    let l = |p: f64| p.ln();
    let mut tokens: Vec<TokenLogprob> =
        ["Response", " ", "1", " is", " better", " than", " ", "2", ".", "\n", "Better", " response", ":"]
            .map(plain_token)
            .to_vec();
    tokens.push(token((" 1", l(0.7)), &[(" 2", l(0.2)), (" tie", l(0.1))]));
    tokens.push(plain_token("\n"));
    let mut sets = labels("1", "2");
    sets.push(LabelSet::new(Choice::Tie, "tie"));
    let soft = soft_verdict(&reply(tokens), &sets, 0.5).unwrap();
    close(soft.mass, 1.0);
    close(soft.p_first, 0.75);
}

#[test]
fn an_article_is_no_verdict_and_digits_of_numbers_are_none() {
    let tokens: Vec<TokenLogprob> =
        ["B", " is", " a", " fine", " answer", ",", " 12", " of", " 20"].map(plain_token).to_vec();
    let completion = reply(tokens);
    assert_eq!(soft_verdict(&completion, &labels("A", "B"), 0.0).unwrap().said, Choice::Second);
    assert_eq!(soft_verdict(&completion, &labels("1", "2"), 0.0), None);
}

#[test]
fn codes_of_several_tokens() {
    let l = |p: f64| p.ln();
    // `QX` is one token; of `ZK` only the beginning is one.
    let soft = soft_verdict(
        &reply(vec![token(("QX", l(0.6)), &[("Z", l(0.2)), ("Q", l(0.1))])]),
        &labels("QX", "ZK"),
        0.5,
    )
    .unwrap();
    close(soft.p_first, 0.75);
    close(soft.mass, 0.8);
    // Both begin with `Q`: they part ways at the second token.
    let shared = reply(vec![
        plain_token("\""),
        token(("Q", l(0.9)), &[("The", l(0.1))]),
        token(("X", l(0.8)), &[("K", l(0.2))]),
        plain_token("\""),
    ]);
    let soft = soft_verdict(&shared, &labels("QX", "QK"), 0.5).unwrap();
    close(soft.p_first, 0.8);
    close(soft.mass, 0.9);
}

#[test]
fn a_soft_label_must_be_about_the_verdict_that_was_read() {
    let completion = reply(vec![token(("1", -0.1), &[("2", -3.0)])]);
    let sets = labels("1", "2");
    let same = with_soft_label(Verdict::choice(Choice::First), &completion, &sets, 0.5);
    assert!(same.p_first.unwrap() > 0.9);
    let other = with_soft_label(Verdict::choice(Choice::Second), &completion, &sets, 0.5);
    assert_eq!(other, Verdict::choice(Choice::Second));
    let none = with_soft_label(Verdict::none(NoVerdict::Truncated), &completion, &sets, 0.5);
    assert_eq!(none, Verdict::none(NoVerdict::Truncated));
    let bare = bare_verdict(&completion, &sets, 0.5).unwrap();
    assert_eq!((bare.choice, bare.p_first), (Ok(Choice::First), same.p_first));
    assert_eq!(bare_verdict(&reply(vec![plain_token("Both")]), &sets, 0.5), None);
}

/// `docs/parity.md` §7.
#[test]
fn golden_expected_rating() {
    let weights: [f64; 10] = [0.01, 0.01, 0.02, 0.03, 0.05, 0.08, 0.20, 0.35, 0.15, 0.10];
    let names = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"];
    let all: Vec<(&str, f64)> = names.into_iter().zip(weights.map(f64::ln)).collect();
    let rating = soft_rating(&reply(vec![token(all[7], &all)]), 0.5).unwrap();
    close(rating.mean, 7.49);
    assert!((rating.scaled - 0.442_222_222_2).abs() < 1e-9);
    close(rating.mass, 1.0);
}

#[test]
fn a_ten_of_two_tokens_is_told_from_a_one() {
    let l = |p: f64| p.ln();
    let ten = reply(vec![
        plain_token("Rating:"),
        token((" 1", l(0.5)), &[(" 9", l(0.5))]),
        token(("0", l(0.9)), &[("\n", l(0.1))]),
    ]);
    close(soft_rating(&ten, 0.5).unwrap().mean, 0.45 * 10.0 + 0.05 + 4.5);
    // Nobody can see whether the 1 would have been a 10.
    let nine = reply(vec![token(("9", l(0.6)), &[("1", l(0.4))])]);
    assert_eq!(soft_rating(&nine, 0.5), None);
    let sure = reply(vec![token(("9", l(0.999)), &[("1", l(0.001))])]);
    assert!(soft_rating(&sure, 0.5).is_some());
}

#[test]
fn the_total_of_a_rating_is_no_rating() {
    let tokens: Vec<TokenLogprob> = ["I", " give", " ", "7", "/", "10", "."].map(plain_token).to_vec();
    close(soft_rating(&reply(tokens), 0.5).unwrap().mean, 7.0);
    let decimal: Vec<TokenLogprob> = ["Score", " ", "7", ".", "5"].map(plain_token).to_vec();
    assert_eq!(soft_rating(&reply(decimal), 0.0), None, "7.5 is neither 7 nor 5");
}

proptest! {
    #[test]
    fn never_panics_and_stays_a_probability(
        tokens in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..5), -20.0..0.1_f64, proptest::collection::vec(("[ 1Aa2Bb0ＡTie\"]{0,3}", -20.0..0.1_f64), 0..4)),
            0..6,
        ),
    ) {
        let tokens: Vec<TokenLogprob> = tokens
            .into_iter()
            .map(|(bytes, logprob, top)| TokenLogprob {
                bytes,
                logprob: Some(logprob),
                top: top.into_iter().map(|(text, p)| (text.into_bytes(), Some(p))).collect(),
            })
            .collect();
        let completion = reply(tokens);
        for sets in [labels("1", "2"), labels("A", "B"), labels("AB", "A1")] {
            if let Some(soft) = soft_verdict(&completion, &sets, 0.0) {
                prop_assert!((0.0..=1.0).contains(&soft.p_first) && soft.mass <= 1.0);
            }
        }
        if let Some(rating) = soft_rating(&completion, 0.0) {
            prop_assert!((1.0..=10.0).contains(&rating.mean));
        }
    }

    #[test]
    fn swapping_the_labels_gives_the_complement(a in -5.0..0.0_f64, b in -5.0..0.0_f64) {
        let completion = reply(vec![token(("1", a), &[("2", b)])]);
        let p = |first, second| soft_verdict(&completion, &labels(first, second), 0.0).map(|soft| soft.p_first);
        if let (Some(one), Some(other)) = (p("1", "2"), p("2", "1")) {
            prop_assert_eq!(one + other, 1.0);
        }
    }
}
