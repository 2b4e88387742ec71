//! Statistics of real people: PandaLM's three annotators on 500 pairs, against the reference libraries. The data is not ours to ship; this
//! runs where `RLAIF_SHARED` names the folder that holds it.

use crate::golden_pandalm as golden;
use rlaif_core::stats::Interval;
use rlaif_core::stats::agreement::{Weights, accuracy, cohen_kappa, weighted_kappa};
use rlaif_core::stats::bradley_terry::{Comparison, strengths};
use rlaif_core::stats::krippendorff::{Scale, krippendorff_alpha};
use rlaif_core::stats::length::{Judged, length_controlled, longer_wins};
use rlaif_core::stats::paired::mcnemar;
use rlaif_core::stats::ppi::{Tuning, prediction_powered};
use rlaif_core::stats::raters::{Tally, fleiss_kappa, gwet_ac1, over_prompts, tallies};
use rlaif_core::stats::rogan_gladen::rogan_gladen;
use rlaif_core::stats::{equivalence, two_shares};
use serde_json::Value;

/// b, tie, a.
const CATEGORIES: [usize; 3] = [0, 1, 2];

struct Row {
    said: Vec<usize>,
    chars_a: u64,
    chars_b: u64,
}

impl Row {
    fn mean_p(&self) -> f64 {
        self.said.iter().map(|said| *said as f64 / 2.0).sum::<f64>() / 3.0
    }
}

/// `None`, and a line that says so, where the data is not.
fn rows() -> Option<Vec<Row>> {
    let Some(shared) = std::env::var_os("RLAIF_SHARED") else {
        eprintln!("skipped: RLAIF_SHARED is not set");
        return None;
    };
    let path = std::path::Path::new(&shared).join("data/pairs/pandalm.jsonl");
    let chars = |response: &Value| match response {
        Value::String(text) => text.chars().count() as u64,
        other => other.to_string().len() as u64,
    };
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let said = row["annotators"].as_array().unwrap().iter().map(|said| match said.as_str().unwrap() {
            "b" => 0,
            "tie" => 1,
            "a" => 2,
            other => panic!("{other}"),
        });
        Row { said: said.collect(), chars_a: chars(&row["response_a"]), chars_b: chars(&row["response_b"]) }
    };
    let rows: Vec<Row> = std::fs::read_to_string(path).unwrap().lines().map(row).collect();
    assert_eq!(rows.len(), golden::PAIRS);
    Some(rows)
}

#[track_caller]
fn close(got: impl Into<Option<f64>>, want: f64) {
    let got = got.into().unwrap();
    assert!((got - want).abs() < 1e-9, "{got} {want}");
}

#[track_caller]
fn interval_close(got: Option<Interval>, want: (f64, f64, f64)) {
    let got = got.unwrap();
    close(got.estimate, want.0);
    close(got.low, want.1);
    close(got.high, want.2);
}

#[test]
fn two_annotators_agree_as_scikit_learn_says() {
    let Some(rows) = rows() else { return };
    let of = |annotator: usize| rows.iter().map(|row| row.said[annotator]).collect::<Vec<_>>();
    for (k, (i, j)) in [(0, 1), (0, 2), (1, 2)].into_iter().enumerate() {
        let (a, b) = (of(i), of(j));
        close(cohen_kappa(&a, &b), golden::KAPPA[k].0);
        close(weighted_kappa(&a, &b, 3, Weights::Linear), golden::KAPPA[k].1);
        close(weighted_kappa(&a, &b, 3, Weights::Quadratic), golden::KAPPA[k].2);
        interval_close(accuracy(&a, &b), golden::ACCURACY[k]);
    }
}

#[test]
fn three_annotators_agree_as_statsmodels_irrcac_and_krippendorff_say() {
    let Some(rows) = rows() else { return };
    let scales = [Scale::Nominal, Scale::Ordinal, Scale::Interval];
    let ratings = |seen: fn(usize, usize) -> bool| -> Vec<Tally> {
        let items: Vec<Vec<Option<usize>>> = rows
            .iter()
            .enumerate()
            .map(|(i, row)| {
                row.said.iter().enumerate().map(|(r, said)| seen(i, r).then_some(*said)).collect()
            })
            .collect();
        tallies(&items, &CATEGORIES).unwrap()
    };
    let all = ratings(|_, _| true);
    close(fleiss_kappa(&all), golden::FLEISS);
    close(gwet_ac1(&all), golden::AC1);
    for (scale, want) in scales.into_iter().zip(golden::ALPHA) {
        close(krippendorff_alpha(&all, scale), want);
    }
    let part = ratings(|i, r| !(r == 1 && i % 3 != 0 || r == 2 && i >= 300));
    close(fleiss_kappa(&part), golden::FLEISS_PART);
    close(gwet_ac1(&part), golden::AC1_PART);
    for (scale, want) in scales.into_iter().zip(golden::ALPHA_PART) {
        close(krippendorff_alpha(&part, scale), want);
    }
    let prompts: Vec<Vec<Tally>> = all.into_iter().map(|tally| vec![tally]).collect();
    let kappa = over_prompts(&prompts, 500, 0, |items| fleiss_kappa(items)).unwrap();
    assert!(kappa.low > 0.75 && kappa.high < 0.9, "{kappa}");
}

#[test]
fn one_annotator_corrected_by_another_as_ppi_python_says() {
    let Some(rows) = rows() else { return };
    let p = |row: &Row, annotator: usize| row.said[annotator] as f64 / 2.0;
    let labelled: Vec<(f64, f64)> = rows[..100].iter().map(|row| (p(row, 2), p(row, 0))).collect();
    let alone: Vec<f64> = rows[100..].iter().map(|row| p(row, 0)).collect();
    interval_close(prediction_powered(&labelled, &alone, Tuning::Power).map(|got| got.rate), golden::PPI);

    let sure: Vec<(bool, bool)> = rows
        .iter()
        .filter(|row| row.said[0] != 1 && row.said[2] != 1)
        .map(|row| (row.said[0] == 2, row.said[2] == 2))
        .collect();
    let (known, rest) = sure.split_at(100);
    let count = |pairs: &[(bool, bool)], wanted: fn(&(bool, bool)) -> bool| {
        pairs.iter().filter(|pair| wanted(pair)).count() as u64
    };
    let got = rogan_gladen(
        (count(rest, |(judge, _)| *judge), rest.len() as u64),
        (count(known, |(judge, people)| *judge && *people), count(known, |(_, people)| *people)),
        (count(known, |(judge, people)| !*judge && !*people), count(known, |(_, people)| !*people)),
    );
    interval_close(got, golden::ROGAN_GLADEN);
}

#[test]
fn length_counts_as_the_same_formula_in_numpy_says() {
    let Some(rows) = rows() else { return };
    let prompts: Vec<Vec<Judged>> = rows
        .iter()
        .map(|row| vec![Judged { chars_a: row.chars_a, chars_b: row.chars_b, p: row.mean_p() }])
        .collect();
    close(longer_wins(&prompts, 100, 0).unwrap().estimate, golden::LONGER_WINS);
    let got = length_controlled(&prompts, 100, 0).unwrap();
    let (c, length, rate) = golden::LENGTH_CONTROLLED;
    close(got.c, c);
    close(got.length, length);
    close(got.rate.estimate, rate);
}

#[test]
fn tests_of_difference_and_equivalence_as_statsmodels_says() {
    let Some(rows) = rows() else { return };
    let count = |wanted: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| wanted(row)).count() as u64;
    let (first, decisive) = (count(&|row| row.said[0] == 2), count(&|row| row.said[0] != 1));
    close(equivalence::share(first, decisive, 0.45, 0.55).unwrap().p_value(), golden::TOST_SHARE);
    let of = |annotator: usize| rows.iter().map(|row| row.said[annotator] as f64 / 2.0).collect::<Vec<_>>();
    close(equivalence::paired(&of(0), &of(2), -0.05, 0.05).unwrap().p_value(), golden::TOST_PAIRED);
    let (b, c) = (
        count(&|row| row.said[0] == 2 && row.said[1] == 0),
        count(&|row| row.said[0] == 0 && row.said[1] == 2),
    );
    close(mcnemar(b, c), golden::MCNEMAR);
    let same = |rows: &[Row]| {
        (rows.iter().filter(|row| row.said[0] == row.said[1]).count() as u64, rows.len() as u64)
    };
    interval_close(two_shares::difference(same(&rows[..250]), same(&rows[250..])), golden::NEWCOMBE);
}

#[test]
fn ranking_as_choix_says() {
    let Some(rows) = rows() else { return };
    let comparisons: Vec<Comparison> = rows
        .iter()
        .enumerate()
        .map(|(k, row)| Comparison { a: k % 4, b: k / 4 % 4, p: row.mean_p() })
        .filter(|pair| pair.a != pair.b)
        .collect();
    let got = strengths(4, &comparisons, 0.0).unwrap();
    got.iter().zip(golden::STRENGTHS).for_each(|(got, want)| close(*got, want));
}
