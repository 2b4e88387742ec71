//! Two runs of the fixture, one of which differs.

use super::data::{Contrast, Shown, SideBySide};
use super::{compared, config_differences, render, table};
use crate::report::data::{Estimate, ReportData};
use crate::report::tests::{fixture::sample, leave};
use rlaif_core::Config;

fn other() -> ReportData {
    let mut other = sample();
    other.run.name = "other".into();
    let evaluation = other.evaluation.as_mut().unwrap();
    evaluation.policies[1].win_rate = Some(Estimate::new(0.41, 0.31, 0.51, 48));
    evaluation.policies[1].kl = Some(Estimate::new(4.7, 4.0, 5.4, 24));
    evaluation.policies[2].length = None;
    other
}

fn both() -> SideBySide {
    compared(&[sample(), other()], Vec::new())
}

fn contrast<'a>(data: &'a SideBySide, measure: &str, policy: &str) -> &'a Contrast {
    data.contrasts.iter().find(|it| it.measure.starts_with(measure) && it.policy == policy).unwrap()
}

#[test]
fn a_difference_is_shown_where_its_interval_excludes_none() {
    let data = both();
    let won = contrast(&data, "Win rate against", "ppo");
    assert_eq!((won.run, won.shown), (1, Shown::Lower));
    // By hand: −0.309, and √(0.1² + 0.093²), √(0.1² + 0.104²) below and above it.
    let (low, high) = won.difference.interval().unwrap();
    assert!((won.difference.value + 0.309).abs() < 1e-12);
    assert!((low + 0.309 + (0.1_f64.powi(2) + 0.093_f64.powi(2)).sqrt()).abs() < 1e-12, "{low}");
    assert!((high + 0.309 - (0.1_f64.powi(2) + 0.104_f64.powi(2)).sqrt()).abs() < 1e-12, "{high}");
    assert_eq!(contrast(&data, "KL", "ppo").shown, Shown::No);
    assert!(data.contrasts.iter().all(|it| it.measure != "Reward"), "each run has its own reward model");
    let lengths = data.contrasts.iter().filter(|it| it.measure.starts_with("Length"));
    assert_eq!(lengths.count(), 1, "what one run lacks is not compared");
}

#[test]
fn only_keys_that_differ_are_told() {
    let mut other = Config::default();
    other.run.name = "other".into();
    other.run.seed = 7;
    other.ppo.kl_budget = Some(3.5);
    let found = config_differences(&[&Config::default(), &other]).unwrap();
    let told: Vec<(&str, Vec<Option<&str>>)> =
        found.iter().map(|it| (it.key.as_str(), it.values.iter().map(Option::as_deref).collect())).collect();
    assert_eq!(told, [("ppo.kl_budget", vec![None, Some("3.5")]), ("run.seed", vec![Some("0"), Some("7")])]);
}

#[test]
fn page_and_table_say_what_is_shown_and_what_is_not() {
    let data = both();
    leave("compare.html", &render(&data).unwrap());
    let html = render(&data).unwrap().replace('\u{202f}', " ");
    let shown = "other: Win rate against baseline of PPO −30.9 pp (95 % CI −44.6";
    assert!(
        html.contains(shown) && html.contains(">lower</span>") && html.contains(">not shown</span>"),
        "{html}"
    );
    let text = table(&data).replace('\u{202f}', " ");
    assert!(text.contains(&format!("shown   {shown}")), "{text}");
    assert!(text.contains("PPO: Win rate against baseline"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("other against quickstart: 1 of "), "{text}");
    assert!(!html.contains("http://") && html.contains("default-src 'none'"));
}

#[test]
fn what_makes_numbers_incomparable_is_said() {
    let mut strange = other();
    let evaluation = strange.evaluation.as_mut().unwrap();
    evaluation.judges = vec!["strict".into()];
    evaluation.samples.pop();
    strange.run.model = "elsewhere".into();
    let warnings = compared(&[sample(), strange], Vec::new()).warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert_eq!(both().warnings, [""; 0]);
}

#[test]
fn names_of_runs_and_values_of_configs_are_text_only() {
    let attack = "</td><script>alert(1)</script>\" onload='alert(1)\u{1b}[31m";
    let mut strange = other();
    strange.run.name = attack.into();
    strange.evaluation.as_mut().unwrap().policies[1].policy = attack.into();
    let mut config = Config::default();
    config.policy.model = attack.into();
    let differences = config_differences(&[&Config::default(), &config]).unwrap();
    let data = compared(&[sample(), strange], differences);
    let html = render(&data).unwrap();
    assert_eq!(html.matches("<script").count(), 1, "our own");
    assert!(!html.contains("\" onload"));
    assert!(!table(&data).contains('\u{1b}'));
}

#[test]
fn a_comparison_survives_json() {
    let data = both();
    let json = serde_json::to_string(&data).unwrap();
    let read: SideBySide = serde_json::from_str(&json).unwrap();
    // The last bit of a float may be lost, and is not compared.
    assert_eq!((&read.runs, &read.config, &read.warnings), (&data.runs, &data.config, &data.warnings));
    let shown = |of: &SideBySide| of.contrasts.iter().map(|it| (it.run, it.shown)).collect::<Vec<_>>();
    assert_eq!(shown(&read), shown(&data));
    assert_eq!(read.measures.len(), data.measures.len());
}
