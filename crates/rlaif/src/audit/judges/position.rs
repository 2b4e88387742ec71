//! Whether a voice chooses the place instead of the response, over pairs that it has seen in both orders.

use super::material::{Material, Voice, has_order};
use crate::agreement::RESAMPLES;
use rlaif_core::audit::Measurement;
use rlaif_core::records::Choice;
use rlaif_core::stats::interval::cluster_share;
use rlaif_core::stats::position::position_report;

/// Same place both times; the share of the first place among verdicts that are no ties; McNemar's p.
pub fn measure(material: &Material, voice: &Voice) -> Vec<Measurement> {
    let names = ["same_position", "first_rate", "mcnemar_p"];
    let none = |why: &str| names.map(|name| Measurement::missing(&voice.subject, name, why)).to_vec();
    if voice.judge.as_ref().is_some_and(|judge| !has_order(judge)) {
        return none("it sees one response at a time: there is no place to choose");
    }
    let prompts = material.by_prompt(|place, _| voice.places[place]);
    let all: Vec<(Choice, Choice)> = prompts.iter().flatten().copied().collect();
    let Some(report) = position_report(&all) else {
        return none("it has seen no pair in both orders: `label.position_check_rate`");
    };
    let same = |(ab, ba): &(Choice, Choice)| f64::from(u8::from(ab == ba && *ab != Choice::Tie));
    let same: Vec<Vec<f64>> = prompts.iter().map(|pairs| pairs.iter().map(same).collect()).collect();
    let decided = |pairs: &Vec<(Choice, Choice)>| -> Vec<f64> {
        let choices = pairs.iter().flat_map(|(ab, ba)| [*ab, *ba]).filter(|choice| *choice != Choice::Tie);
        choices.map(|choice| f64::from(u8::from(choice == Choice::First))).collect()
    };
    let first: Vec<Vec<f64>> = prompts.iter().map(decided).collect();
    let verdicts = first.iter().map(Vec::len).sum::<usize>() as u64;
    let few = "it takes two prompts";
    let interval = |values: &[Vec<f64>]| cluster_share(values, RESAMPLES, material.run_seed);
    vec![
        Measurement::maybe(&voice.subject, names[0], interval(&same), report.pairs, few),
        Measurement::maybe(&voice.subject, names[1], interval(&first), verdicts, few),
        Measurement::exact(&voice.subject, names[2], report.p_value, report.both_first + report.both_second)
            .note(format!(
                "{} pairs the first place both times, {} the second",
                report.both_first, report.both_second
            )),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::material::made;
    use super::*;
    use rlaif_core::config::{JudgeConfig, Protocol};

    #[test]
    fn shares_are_of_pairs_and_their_intervals_of_prompts() {
        // Six prompts with ten pairs each, all alike within a prompt.
        let prompts: Vec<String> = (0..6).map(|i| format!("p{i}")).collect();
        let pairs: Vec<(&str, (u64, u64))> =
            prompts.iter().flat_map(|prompt| (0..10).map(|i| (prompt.as_str(), (i, i + 1)))).collect();
        let material = made::material(&pairs);
        let judge = JudgeConfig { protocol: Protocol::Pairwise, ..JudgeConfig::default() };
        let mut voice = made::voice("judge `x`", Some(judge.clone()), vec![None; pairs.len()]);
        for (i, places) in voice.places.iter_mut().enumerate() {
            *places = Some(match i / 10 {
                0..3 => (Choice::First, Choice::First),
                3 => (Choice::Tie, Choice::Tie),
                _ => (Choice::First, Choice::Second),
            });
        }
        let found = measure(&material, &voice);
        assert_eq!((found[0].value, found[0].n), (Some(0.5), 60));
        assert!(found[0].high.unwrap() - found[0].low.unwrap() > 0.6, "six prompts are few: {:?}", found[0]);
        assert_eq!((found[1].value, found[1].n), (Some(0.8), 100), "ties choose no place");
        assert_eq!(found[2].n, 30);
        assert!((found[2].value.unwrap() / (2.0 * 0.5_f64.powi(30)) - 1.0).abs() < 1e-9, "{:?}", found[2]);
        voice.judge = Some(JudgeConfig { protocol: Protocol::Rating, ..judge });
        assert!(measure(&material, &voice)[0].note.as_ref().unwrap().contains("one response at a time"));
    }
}
