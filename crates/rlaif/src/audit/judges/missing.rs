//! Verdicts that did not come: why, and which responses they hang on. A judge that refuses more of one kind of response takes these pairs out of
//! what is trained on.

use super::material::{Item, Material, Voice};
use crate::agreement::RESAMPLES;
use rlaif_core::audit::Measurement;
use rlaif_core::records::NoVerdict;
use rlaif_core::stats::Interval;
use rlaif_core::stats::interval::{bootstrap_items, cluster_share};
use rlaif_core::stats::two_shares::difference;
use std::collections::{BTreeMap, BTreeSet};

/// Kinds of missing verdicts, by the names of their measures.
const KINDS: [&str; 5] = ["refused", "filtered", "unreadable", "steered", "failed"];

fn kind(reason: &NoVerdict) -> Option<&'static str> {
    Some(match reason {
        NoVerdict::Refused => KINDS[0],
        NoVerdict::Filtered => KINDS[1],
        NoVerdict::Ambiguous | NoVerdict::Truncated | NoVerdict::Unparsable | NoVerdict::Empty => KINDS[2],
        NoVerdict::Steered => KINDS[3],
        NoVerdict::Failed(_) => KINDS[4],
        NoVerdict::SetAside(_) => return None, // nobody was asked
    })
}

/// What one verdict lacks; `None` where nobody was asked.
fn lacks(reason: &Option<NoVerdict>) -> Option<Option<&'static str>> {
    match reason {
        None => Some(None),
        Some(reason) => kind(reason).map(Some),
    }
}

/// Shares of single verdicts by kind, pairs that lack one, and what they hang on.
pub fn measure(material: &Material, voice: &Voice) -> Vec<Measurement> {
    let seed = material.run_seed;
    let verdicts = material.by_prompt(|place, _| {
        let said: Vec<_> = voice.asked[place].iter().filter_map(lacks).collect();
        (!said.is_empty()).then_some(said)
    });
    let n = verdicts.iter().flatten().map(Vec::len).sum::<usize>() as u64;
    let nobody = "it was asked nothing";
    let mut found = Vec::new();
    for name in KINDS {
        let lacking = |said: &Vec<Vec<Option<&'static str>>>| -> Vec<f64> {
            said.iter().flatten().map(|lacks| f64::from(u8::from(*lacks == Some(name)))).collect()
        };
        let values: Vec<Vec<f64>> = verdicts.iter().map(lacking).collect();
        found.push(Measurement::maybe(
            &voice.subject,
            name,
            cluster_share(&values, RESAMPLES, seed),
            n,
            nobody,
        ));
    }
    let pairs: Vec<Option<bool>> = voice.asked.iter().map(|asked| pair_lacks(asked)).collect();
    let values = material.by_prompt(|place, _| pairs[place].map(|lacks| f64::from(u8::from(lacks))));
    let asked = values.iter().map(Vec::len).sum::<usize>() as u64;
    found.insert(
        0,
        Measurement::maybe(&voice.subject, "missing", cluster_share(&values, RESAMPLES, seed), asked, nobody),
    );

    let long = longer_than_most(&material.items);
    let subject = &voice.subject;
    let groups = |wanted: &dyn Fn(&Item) -> bool| {
        material.by_prompt(|place, item| pairs[place].map(|lacks| (wanted(item), lacks)))
    };
    let by_length = more_often(&groups(&|item| item.a.length > long || item.b.length > long), seed);
    let alike = "all pairs are of one kind";
    found.push(
        Measurement::maybe(subject, "missing_long", by_length, asked, alike)
            .note(format!("pairs with a response of more than {long} (the median) against others")),
    );
    found.push(from_longer(material, subject, &pairs));
    let policies: BTreeSet<&str> =
        material.items.iter().flat_map(|item| [item.a.policy.as_str(), item.b.policy.as_str()]).collect();
    for policy in policies.iter().filter(|_| policies.len() > 2) {
        let difference =
            more_often(&groups(&|item| item.a.policy == *policy || item.b.policy == *policy), seed);
        let subject = format!("{subject}, policy `{policy}`");
        found.push(Measurement::maybe(subject, "missing_policy", difference, asked, alike));
    }
    found
}

/// Whether a pair lacks a verdict that was asked for; `None` where none was.
fn pair_lacks(asked: &[Option<NoVerdict>]) -> Option<bool> {
    let lacking: Vec<bool> = asked.iter().filter_map(lacks).map(|lacks| lacks.is_some()).collect();
    (!lacking.is_empty()).then(|| lacking.contains(&true))
}

/// The median length of the responses of all pairs.
fn longer_than_most(items: &[Item]) -> u64 {
    let mut lengths: Vec<u64> = items.iter().flat_map(|item| [item.a.length, item.b.length]).collect();
    lengths.sort_unstable();
    lengths.get(lengths.len() / 2).copied().unwrap_or(0)
}

/// How much more often pairs of a group lack a verdict than others; each is (whether it is of the group, whether it lacks one). The interval is the
/// wider of Newcombe's, which also holds where none lacks one, and the bootstrap's, which knows that pairs of a prompt are alike.
fn more_often(prompts: &[Vec<(bool, bool)>], seed: u64) -> Option<Interval> {
    let counts = |pairs: &[&(bool, bool)], group: bool| {
        let of: Vec<_> = pairs.iter().filter(|(of, _)| *of == group).collect();
        (of.iter().filter(|(_, lacks)| *lacks).count() as u64, of.len() as u64)
    };
    let all: Vec<&(bool, bool)> = prompts.iter().flatten().collect();
    let newcombe = difference(counts(&all, true), counts(&all, false))?;
    let resampled = bootstrap_items(prompts, RESAMPLES, seed, |pairs| {
        let ((lack, n), (lack_of_others, others)) = (counts(pairs, true), counts(pairs, false));
        (n > 0 && others > 0).then(|| lack as f64 / n as f64 - lack_of_others as f64 / others as f64)
    });
    Some(match resampled {
        None => newcombe,
        Some(it) => Interval { low: newcombe.low.min(it.low), high: newcombe.high.max(it.high), ..newcombe },
    })
}

/// Of pairs that lack a verdict, how often the longer response is the one that lacks more of them in its other pairs.
fn from_longer(material: &Material, subject: &str, pairs: &[Option<bool>]) -> Measurement {
    let mut of: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (item, lacks) in material.items.iter().zip(pairs) {
        let Some(lacks) = lacks else { continue };
        for response in [&item.pair.a, &item.pair.b] {
            let (lacking, n) = of.entry(response).or_default();
            *lacking += f64::from(u8::from(*lacks));
            *n += 1.0;
        }
    }
    let elsewhere = |response: &str| {
        let (lacking, n) = of.get(response)?;
        (*n > 1.0).then(|| (lacking - 1.0) / (n - 1.0))
    };
    let caused = material.by_prompt(|place, item| {
        pairs[place].filter(|lacks| *lacks)?;
        let (a, b) = (elsewhere(&item.pair.a)?, elsewhere(&item.pair.b)?);
        if a == b {
            return None;
        }
        item.of_longer(f64::from(u8::from(a > b)))
    });
    let n = caused.iter().map(Vec::len).sum::<usize>() as u64;
    let why = "too few pairs without a verdict have a response that lacks more in its other pairs";
    Measurement::maybe(
        subject,
        "missing_from_longer",
        cluster_share(&caused, RESAMPLES, material.run_seed),
        n,
        why,
    )
}

#[cfg(test)]
mod tests {
    use super::super::material::made;
    use super::*;
    use rlaif_core::config::JudgeConfig;
    use rlaif_core::stats::interval::wilson;

    #[test]
    fn a_difference_is_as_wide_as_its_widest_interval() {
        let none: Vec<Vec<(bool, bool)>> = (0..40).map(|i| vec![(i % 2 == 0, false)]).collect();
        let got = more_often(&none, 0).unwrap();
        assert!(
            got.estimate == 0.0 && got.low < -0.1 && got.high > 0.1,
            "none of 20 is no proof of none: {got}"
        );
        // Ten alike pairs a prompt are one: the bootstrap is wider.
        let alike: Vec<Vec<(bool, bool)>> = (0..20).map(|i| vec![(i % 2 == 0, i % 4 == 0); 10]).collect();
        let got = more_often(&alike, 0).unwrap();
        assert!((got.estimate - 0.5).abs() < 1e-12, "{got}");
        assert!(got.high - got.low > 0.4, "{got}");
        let newcombe = difference((50, 100), (0, 100)).unwrap();
        assert!(newcombe.high - newcombe.low < 0.25, "{newcombe}");
        assert!(more_often(&[vec![(true, true)]], 0).is_none(), "there are no others");
    }

    #[test]
    fn who_was_not_asked_lacks_nothing() {
        let (refused, aside) = (Some(NoVerdict::Refused), Some(NoVerdict::SetAside("too long".into())));
        assert_eq!(pair_lacks(&[None, refused.clone()]), Some(true));
        assert_eq!(pair_lacks(&[None]), Some(false));
        assert_eq!((pair_lacks(&[aside]), pair_lacks(&[])), (None, None));
        assert_eq!(lacks(&refused), Some(Some("refused")));
    }

    /// A judge that refuses whatever is shown with the longest response of a prompt.
    #[test]
    fn refusals_are_traced_to_the_response_that_caused_them() {
        let prompts: Vec<String> = (0..30).map(|i| format!("p{i}")).collect();
        let pairs: Vec<(&str, (u64, u64))> = prompts
            .iter()
            .flat_map(|prompt| {
                [(10, 20), (20, 90), (90, 10), (30, 10)].map(|lengths| (prompt.as_str(), lengths))
            })
            .collect();
        let material = made::material(&pairs);
        let mut voice = made::voice("judge `x`", Some(JudgeConfig::default()), vec![None; pairs.len()]);
        for (asked, (_, (a, b))) in voice.asked.iter_mut().zip(&pairs) {
            let refuses = *a == 90 || *b == 90;
            *asked = vec![refuses.then_some(NoVerdict::Refused), None];
        }
        let found = measure(&material, &voice);
        let of = |name: &str| found.iter().find(|it| it.measure == name).unwrap();
        assert_eq!((of("missing").value, of("missing").n), (Some(0.5), 120));
        assert_eq!((of("refused").value, of("refused").n), (Some(0.25), 240));
        assert_eq!((of("failed").value, of("failed").high), (Some(0.0), wilson(0, 30).map(|none| none.high)));
        let long = of("missing_long");
        assert!(long.low > Some(0.3) && long.value > Some(0.6), "{long:?}");
        let caused = of("missing_from_longer");
        assert_eq!((caused.value, caused.low, caused.n), (Some(1.0), wilson(30, 30).map(|all| all.low), 60));
        assert!(!found.iter().any(|it| it.measure == "missing_policy"), "there is one policy");
    }
}
