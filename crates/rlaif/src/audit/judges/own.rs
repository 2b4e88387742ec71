//! Whether a judge likes the responses of its own model, or of one of its family, better than others do.

use super::material::{Item, Material, Voice};
use crate::agreement::RESAMPLES;
use rlaif_core::audit::Measurement;
use rlaif_core::config::{JudgeConfig, JudgeKind};
use rlaif_core::stats::self_preference::{OwnPair, self_preference};
use rlaif_store::store::{BASELINE, ORIGIN};

const NAMES: [&str; 2] = ["self_preference", "self_preference_bias"];

/// Over every set of pairs in which a response of the judge's own meets another's. Who has no stake: people where they judged the pair,
/// else the mean of the other judges, of which none counts whose own is in the pair.
pub fn measure(
    subject: &str,
    judge: &JudgeConfig,
    sets: &[(Material, Vec<Voice>)],
    has_origin: bool,
) -> Vec<Measurement> {
    let none = |why: &str| NAMES.map(|name| Measurement::missing(subject, name, why)).to_vec();
    let own = own_policies(judge, has_origin);
    if own.is_empty() {
        return none("no policy is known to be of its model's family: `own_policies` of the judge");
    }
    let (mut prompts, mut seed, mut by_people) = (Vec::<Vec<OwnPair>>::new(), 0, 0);
    for (material, voices) in sets {
        let Some(voice) = voices.iter().find(|voice| voice.subject == subject) else { continue };
        seed = material.run_seed;
        let pair = |place: usize, item: &Item| {
            let own_is_a = own_is_a(item, &own)?;
            let others = || others(judge, voices, place, item, has_origin);
            let people = item.people();
            let (said, reference) = (voice.p[place]?, people.or_else(others)?);
            let seen = |p: f64| if own_is_a { p } else { 1.0 - p };
            Some((OwnPair { judge: seen(said), reference: seen(reference) }, people.is_some()))
        };
        for pairs in material.by_prompt(pair) {
            by_people += pairs.iter().filter(|(_, people)| *people).count();
            prompts.push(pairs.into_iter().map(|(pair, _)| pair).collect());
        }
    }
    let Some(found) = self_preference(&prompts, RESAMPLES, seed) else {
        let names = own.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return none(&format!(
            "no pairs of a response of {names} and one of another policy that people or a judge without a stake have judged too"
        ));
    };
    let n = found.pairs as u64;
    let note = format!(
        "its own win {:.1} % with it and {:.1} % with who has no stake: people on {by_people} pairs, other judges on {}",
        100.0 * found.judge,
        100.0 * found.reference,
        found.pairs - by_people
    );
    let why = "who has no stake is for one side only";
    vec![
        Measurement::of(subject, NAMES[0], found.difference, n).note(note),
        Measurement::maybe(subject, NAMES[1], found.bias, n, why),
    ]
}

/// The policies whose responses are a judge's own.
fn own_policies(judge: &JudgeConfig, has_origin: bool) -> Vec<String> {
    match judge.kind {
        _ if !judge.own_policies.is_empty() => judge.own_policies.clone(),
        JudgeKind::Local if judge.model == "policy" => {
            vec![if has_origin { ORIGIN } else { BASELINE }.into()]
        }
        _ => Vec::new(),
    }
}

/// Whether a is the judge's own and b is not; `None` where both are, or neither.
fn own_is_a(item: &Item, own: &[String]) -> Option<bool> {
    match (own.contains(&item.a.policy), own.contains(&item.b.policy)) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

/// The mean p of other judges, of other models, that have no response of their own in the pair.
fn others(judge: &JudgeConfig, voices: &[Voice], place: usize, item: &Item, has_origin: bool) -> Option<f64> {
    let without_stake = |other: &&Voice| {
        other.judge.as_ref().is_some_and(|it| {
            let own = own_policies(it, has_origin);
            other.subject == format!("judge `{}`", it.name)
                && it.name != judge.name
                && (it.kind, &it.model, it.base_url()) != (judge.kind, &judge.model, judge.base_url())
                && !own.contains(&item.a.policy)
                && !own.contains(&item.b.policy)
        })
    };
    let said: Vec<f64> = voices.iter().filter(without_stake).filter_map(|other| other.p[place]).collect();
    (!said.is_empty()).then(|| said.iter().sum::<f64>() / said.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::super::material::made;
    use super::*;

    #[test]
    fn a_pair_counts_where_one_response_is_its_own_and_who_has_a_stake_is_not_asked() {
        let mut material = made::material(&[("p", (1, 1)), ("q", (1, 1)), ("r", (1, 1)), ("s", (1, 1))]);
        for (item, (a, b)) in material.items.iter_mut().zip([("x", "y"), ("y", "x"), ("x", "x"), ("y", "z")])
        {
            (item.a.policy, item.b.policy) = (a.into(), b.into());
        }
        let judge = |name: &str, own: &str, p: f64| {
            let it = JudgeConfig {
                name: name.into(),
                model: format!("model of {name}"),
                own_policies: vec![own.into()],
                ..JudgeConfig::default()
            };
            made::voice(&format!("judge `{name}`"), Some(it), vec![Some(p); 4])
        };
        let voices = vec![judge("one", "x", 0.9), judge("two", "z", 0.6), judge("kin", "y", 0.0)];
        let of = |voices: Vec<Voice>, material: Material| {
            let own = voices[0].judge.clone().unwrap();
            measure("judge `one`", &own, &[(material, voices)], false)
        };
        // Its own is a of p and b of q; `two` is asked and `kin` is not.
        let found = of(voices, material);
        assert_eq!(
            (found[0].n, found[0].value.map(|it| (1e9 * it).round() / 1e9)),
            (2, Some(0.0)),
            "{found:?}"
        );
        assert!(
            found[0].note.as_ref().unwrap().contains("people on 0 pairs, other judges on 2"),
            "{found:?}"
        );
        let none = of(vec![judge("one", "x", 0.9)], made::material(&[("p", (1, 1))]));
        assert!(none[0].value.is_none() && none[0].note.as_ref().unwrap().contains("`x`"));
        let local = JudgeConfig::default();
        assert_eq!(
            (own_policies(&local, false), own_policies(&local, true)),
            (vec![BASELINE.to_owned()], vec![ORIGIN.to_owned()])
        );
    }
}
