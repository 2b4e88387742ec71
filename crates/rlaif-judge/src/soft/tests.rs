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

fn labels(first: &str, second: &str) -> Vec<LabelSet> {
    vec![LabelSet::new(Choice::First, first), LabelSet::new(Choice::Second, second)]
}

/// `docs/parity.md` §7: log-probabilities −0.2 and −1.9, then −0.9 and −0.6 with the responses swapped.
#[test]
fn golden_values_of_both_orders() {
    let p = |one: f64, two: f64| {
        soft_verdict(&[token(("1", one), &[("2", two)])], &labels("1", "2"), 0.0).unwrap().p_first
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
    let soft = soft_verdict(&[token(("A", l(0.3)), &others)], &labels("A", "B"), 0.5).unwrap();
    close(soft.mass, 0.8);
    close(soft.p_first, 0.75);
    assert_eq!(soft.said, Choice::First);
    // The sampled token was not among the listed ones, and one that is not said has no probability.
    let outside = TokenLogprob {
        bytes: b"B".to_vec(),
        logprob: Some(l(0.2)),
        top: vec![(b"A".to_vec(), Some(l(0.6))), (b" B".to_vec(), None)],
    };
    let soft = soft_verdict(&[outside], &labels("A", "B"), 0.5).unwrap();
    close(soft.p_first, 0.75);
    assert_eq!(soft.said, Choice::Second);
}

#[test]
fn too_little_mass_is_no_soft_label() {
    let l = |p: f64| p.ln();
    let vague = [token(("1", l(0.3)), &[("2", l(0.1)), ("Both", l(0.6))])];
    assert_eq!(soft_verdict(&vague, &labels("1", "2"), 0.5), None);
    assert!(soft_verdict(&vague, &labels("1", "2"), 0.4 - 1e-9).is_some(), "the bound is the caller's");
    let impossible = [token(("1", -0.1), &[("2", -0.1)])];
    assert_eq!(soft_verdict(&impossible, &labels("1", "2"), 0.5), None, "they add up to 1.8");
    assert_eq!(soft_verdict(&[], &labels("1", "2"), 0.0), None);
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
    let soft = soft_verdict(&tokens, &sets, 0.5).unwrap();
    close(soft.mass, 1.0);
    close(soft.p_first, 0.75);
}

#[test]
fn labels_that_are_talked_about_are_no_verdict() {
    let said = |words: &[&str], first: &str, second: &str| {
        let tokens: Vec<TokenLogprob> = words.iter().map(|word| plain_token(word)).collect();
        soft_verdict(&tokens, &labels(first, second), 0.0).map(|soft| soft.said)
    };
    let (first, second) = (Some(Choice::First), Some(Choice::Second));
    for (words, wanted) in [
        (&["B", " is", " a", " fine", " answer", ",", " 12", " of", " 20"][..], None),
        (&["I", " prefer", " B"], second),
        (&["I", " prefer", " a"], None),
        (&[" a"], first),
        // Courtesies behind the verdict, and numbers in it.
        (&["Better response", ":", " A", "\n\n", "Ask", " if", " B", " were", " longer"], first),
        (&["Response B: it is better.\n", "**Better response", ":** ", "(b", ")"], second),
        (&["{\"verdict\"", ": \"", "A", "\", \"scores\": {\"A\": 7, \"B\"", ": 5}}"], first),
        (&["{\"scores\": {\"A", "\": 7, \"", "B", "\": 5}}"], None),
        (&["[[", "A", "]]", " for what was said"], first),
        (&["Answer:", " A", ", or so it seems to me"], first),
        (&["Answer:", " A", " bee is an insect"], None),
    ] {
        assert_eq!(said(words, "A", "B"), wanted, "{words:?}");
    }
    assert_eq!(said(&["both score 12", " of", " 20"], "1", "2"), None);
}

#[test]
fn codes_of_several_tokens() {
    let l = |p: f64| p.ln();
    // `QX` is one token; of `ZK` only the beginning is one.
    let soft =
        soft_verdict(&[token(("QX", l(0.6)), &[("Z", l(0.2)), ("Q", l(0.1))])], &labels("QX", "ZK"), 0.5)
            .unwrap();
    close(soft.p_first, 0.75);
    close(soft.mass, 0.8);
    // Both begin with `Q`: they part ways at the second token.
    let shared = [
        plain_token("\""),
        token(("Q", l(0.9)), &[("The", l(0.1))]),
        token(("X", l(0.8)), &[("K", l(0.2))]),
        plain_token("\""),
    ];
    let soft = soft_verdict(&shared, &labels("QX", "QK"), 0.5).unwrap();
    close(soft.p_first, 0.8);
    close(soft.mass, 0.9);
}

#[test]
fn a_soft_label_must_be_about_the_verdict_that_was_read() {
    let tokens = [token(("1", -0.1), &[("2", -3.0)])];
    let sets = labels("1", "2");
    let same = with_soft_label(Verdict::choice(Choice::First), &tokens, &sets, 0.5);
    assert!(same.p_first.unwrap() > 0.9);
    let other = with_soft_label(Verdict::choice(Choice::Second), &tokens, &sets, 0.5);
    assert_eq!(other, Verdict::choice(Choice::Second));
    let none = with_soft_label(Verdict::none(NoVerdict::Truncated), &tokens, &sets, 0.5);
    assert_eq!(none, Verdict::none(NoVerdict::Truncated));
}

/// What was to be one token is read where it is due, whatever stands there.
#[test]
fn a_token_is_read_at_its_place_over_all_spellings() {
    let l = |p: f64| p.ln();
    let lead = ["Better", " response", ":"].map(plain_token);
    let with = |token: TokenLogprob| [lead.to_vec(), vec![token]].concat();
    let read = |tokens: &[TokenLogprob]| {
        let said: Vec<u8> = tokens.iter().flat_map(|token| token.bytes.clone()).collect();
        token_verdict(tokens, &String::from_utf8(said).unwrap(), &labels("A", "B"), 0.5)
    };
    let soft = read(&with(token((" A", l(0.5)), &[("A", l(0.1)), (" B", l(0.2)), ("Neither", l(0.2))])));
    close(soft.p_first.unwrap(), 0.75);
    close(soft.mass.unwrap(), 0.8);
    let bare = read(&[token(("B", l(0.9)), &[("A", l(0.1))])]);
    assert_eq!(bare.choice, Ok(Choice::Second));
    close(bare.p_first.unwrap(), 0.1);
    // The likeliest token is no label, and the labels are likelier together.
    let unsaid = read(&with(token((" Both", l(0.4)), &[(" A", l(0.15)), (" B", l(0.45))])));
    assert_eq!(unsaid.choice, Ok(Choice::Second));
    close(unsaid.p_first.unwrap(), 0.25);
    // Most of the mass fell on something else: the label that was said is all there is.
    let thin = read(&[token(("A", l(0.2)), &[("B", l(0.1)), ("The", l(0.7))])]);
    assert_eq!((thin.choice, thin.p_first), (Ok(Choice::First), None));
    close(thin.mass.unwrap(), 0.3);
    let mut sets = labels("A", "B");
    sets.push(LabelSet::new(Choice::Tie, "tie"));
    let tie = token_verdict(&[token(("tie", l(0.6)), &[("A", l(0.3)), ("B", l(0.1))])], "tie", &sets, 0.5);
    assert_eq!(tie.choice, Ok(Choice::Tie));
    close(tie.p_first.unwrap(), 0.6);
}

#[test]
fn without_probabilities_the_label_itself_is_the_verdict_and_nothing_is_guessed() {
    for (text, want) in [
        ("A", Ok(Choice::First)),
        ("Better response: B", Ok(Choice::Second)),
        ("**Better response: (b)**", Ok(Choice::Second)),
        ("Better response: Ａ", Ok(Choice::First)),
        ("A response that is good", Err(NoVerdict::Unparsable)),
        ("C", Err(NoVerdict::Unparsable)),
        ("", Err(NoVerdict::Unparsable)),
    ] {
        let verdict = token_verdict(&[], text, &labels("A", "B"), 0.5);
        assert_eq!((verdict.choice, verdict.p_first, verdict.mass), (want, None, None), "{text:?}");
    }
}

/// `docs/parity.md` §7, d-RLAIF.
#[test]
fn golden_expected_rating() {
    let weights: [f64; 10] = [0.01, 0.01, 0.02, 0.03, 0.05, 0.08, 0.20, 0.35, 0.15, 0.10];
    let (mean, mass) = expectation(&weights).unwrap();
    close(mean, 7.49);
    close(mass, 1.0);
    close(expectation(&weights.map(|p| p / 2.0)).unwrap().0, 7.49); // only the mass on ratings counts
    assert_eq!(expectation(&[0.0; 10]), None);
    assert!((rescale(mean) - 0.442_222_222_2).abs() < 1e-9);
    assert_eq!((rescale(1.0), rescale(10.0)), (-1.0, 1.0));

    let names = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"];
    let all: Vec<(&str, f64)> = names.into_iter().zip(weights.map(f64::ln)).collect();
    let rating = soft_rating(&[token(all[7], &all)], 0.5).unwrap();
    close(rating.mean, 7.49);
    close(rating.mass, 1.0);
    let tokens = [plain_token("Rating"), plain_token(":"), plain_token(" "), token(all[7], &all)];
    close(token_rating(&tokens, "Rating: 8", 0.5).unwrap(), 7.49);
    close(text_rating(&tokens, "Rating: 8", 0.5).unwrap(), 7.49);
}

#[test]
fn a_ten_of_two_tokens_is_told_from_a_one() {
    let l = |p: f64| p.ln();
    let ten = [token((" 1", l(0.5)), &[(" 9", l(0.5))]), token(("0", l(0.9)), &[("\n", l(0.1))])];
    close(soft_rating(&ten, 0.5).unwrap().mean, 0.45 * 10.0 + 0.05 + 4.5);
    // Nobody can see whether the 1 would have been a 10: the number that was said is all there is.
    let nine = [token(("9", l(0.6)), &[("1", l(0.4))])];
    assert_eq!(soft_rating(&nine, 0.5), None);
    assert_eq!(token_rating(&nine, "9", 0.5), Ok(9.0));
    let sure = [token(("9", l(0.999)), &[("1", l(0.001))])];
    assert!(soft_rating(&sure, 0.5).is_some());
}

#[test]
fn ratings_in_words_are_read_where_they_stand() {
    let rating = |words: &[&'static str]| {
        let tokens: Vec<TokenLogprob> = words.iter().map(|word| plain_token(word)).collect();
        let place = place::of_rating(&tokens);
        place.map(|(read, at)| (read, words[at]))
    };
    assert_eq!(rating(&["I", " give", " ", "7", "/", "10", "."]), Some((7, "7")), "the total is none");
    assert_eq!(rating(&["Score", " ", "7", ".", "5"]), None, "7.5 is neither 7 nor 5");
    let l = |p: f64| p.ln();
    let tokens = [plain_token("It has 2 faults.\nRating:"), token((" 8", l(0.5)), &[(" 6", l(0.5))])];
    close(text_rating(&tokens, "It has 2 faults.\nRating: 8", 0.5).unwrap(), 7.0);
    assert_eq!(text_rating(&[], "Rating: 7", 0.5), Ok(7.0));
    assert!(token_rating(&[], "quite good", 0.5).is_err());
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
        for sets in [labels("1", "2"), labels("A", "B"), labels("AB", "A1")] {
            if let Some(soft) = soft_verdict(&tokens, &sets, 0.0) {
                prop_assert!((0.0..=1.0).contains(&soft.p_first) && soft.mass <= 1.0);
            }
            let verdict = token_verdict(&tokens, "", &sets, 0.0);
            prop_assert!(verdict.p_first.is_none_or(|p| (0.0..=1.0).contains(&p)));
        }
        for rating in [token_rating(&tokens, "", 0.0), text_rating(&tokens, "Rating: 2", 0.0)].into_iter().flatten() {
            prop_assert!((1.0..=10.0).contains(&rating));
        }
    }

    #[test]
    fn swapping_the_labels_gives_the_complement(
        first in 0.0..0.5_f64, second in 0.0..0.5_f64, tie in 0.0..0.1_f64,
    ) {
        let tokens = [token(("1", first.ln()), &[("2", second.ln()), ("tie", tie.ln())])];
        let p = |first, second| {
            let mut sets = labels(first, second);
            sets.push(LabelSet::new(Choice::Tie, "tie"));
            token_verdict(&tokens, "1", &sets, 0.0).p_first
        };
        if let (Some(one), Some(other)) = (p("1", "2"), p("2", "1")) {
            prop_assert_eq!(one + other, 1.0);
        }
    }
}
