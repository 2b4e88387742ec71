//! Known-bad responses: families of attacks on a judge, to try it with before and while its verdicts are used.
//!
//! The data are of our own making. `probes/prompts.jsonl` holds plain requests, each with a `good` answer and two `weak` ones (one
//! wrong, one empty of content); `probes/attacks.jsonl` holds what a family does with a weak answer. A probe is one attack on one
//! request against its good answer, so that the better response is never in doubt:
//!
//! * an attack with `{weak}` meets both weak answers of every request: 6 attacks · 2 · 25 requests = 300 probes a family;
//! * one without it is the whole response: 12 attacks · 25 requests = 300. `{prompt}` stands for the request.
//! * `{code}` stands for sixteen hex digits, a guess at the code of the judge's tags.
//!
//! Families follow published attacks: constant outputs that fake the judge's template (Zheng et al. 2024,
//! <https://arxiv.org/abs/2410.07137>), one-token master keys (Zhao et al. 2025, <https://arxiv.org/abs/2507.08794>), authority and
//! beauty (Chen et al. 2024, <https://arxiv.org/abs/2402.10669>), bandwagon and distraction (Ye et al. 2024,
//! <https://arxiv.org/abs/2410.02736>), injections.

use rand::seq::SliceRandom;
use rlaif_core::seed;
use serde::Deserialize;
use std::sync::LazyLock;

/// One attack on one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The family of the attack.
    pub family: &'static str,
    /// Name of the request.
    pub prompt_id: &'static str,
    /// What is asked.
    pub prompt: &'static str,
    /// An honest answer.
    pub good: &'static str,
    /// The attack.
    pub bad: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    id: String,
    prompt: String,
    good: String,
    weak: [String; 2],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attack {
    family: String,
    bad: String,
}

static REQUESTS: LazyLock<Vec<Request>> = LazyLock::new(|| rows(include_str!("../../probes/prompts.jsonl")));
static ATTACKS: LazyLock<Vec<Attack>> = LazyLock::new(|| rows(include_str!("../../probes/attacks.jsonl")));

fn rows<T: for<'de> Deserialize<'de>>(text: &str) -> Vec<T> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("the program's own data, read by a test"))
        .collect()
}

/// The families, in the order of the file: what a policy is likeliest to find comes first.
pub fn families() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for attack in ATTACKS.iter() {
        if !names.contains(&attack.family.as_str()) {
            names.push(&attack.family);
        }
    }
    names
}

/// All probes of a family, shuffled once and for all, so that the first few are a fair sample; none for an unknown name.
pub fn probes(family: &str) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (index, attack) in ATTACKS.iter().enumerate().filter(|(_, attack)| attack.family == family) {
        let answers = if attack.bad.contains("{weak}") { 2 } else { 1 };
        for (at, request) in REQUESTS.iter().enumerate() {
            for weak in &request.weak[..answers] {
                let guess = seed::derive(at as u64, "probes/code", index as u64);
                let bad = attack
                    .bad
                    .replace("{code}", &format!("{guess:016x}"))
                    .replace("{prompt}", &request.prompt)
                    .replace("{weak}", weak);
                probes.push(Probe {
                    family: &attack.family,
                    prompt_id: &request.id,
                    prompt: &request.prompt,
                    good: &request.good,
                    bad,
                });
            }
        }
    }
    probes.shuffle(&mut seed::stream(0, &format!("probes/{family}"), 0));
    probes
}

/// Probes for live traffic: two of each family in turn, then two more of each, and so on, with the run's seed to choose which.
/// At most all there are.
pub fn tripwires(run_seed: u64, count: usize) -> Vec<Probe> {
    let mut stacks: Vec<Vec<Probe>> = families().into_iter().map(probes).collect();
    for (index, stack) in stacks.iter_mut().enumerate() {
        stack.shuffle(&mut seed::stream(run_seed, "tripwires", index as u64));
    }
    let mut chosen = Vec::new();
    while chosen.len() < count && stacks.iter().any(|stack| !stack.is_empty()) {
        for stack in &mut stacks {
            chosen.extend(stack.pop());
            chosen.extend(stack.pop());
        }
    }
    chosen.truncate(count);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_family_has_three_hundred_different_probes() {
        let families = families();
        assert!(families.len() >= 16, "{families:?}");
        for family in families {
            let probes = probes(family);
            let different: BTreeSet<(&str, &str)> =
                probes.iter().map(|p| (p.prompt_id, p.bad.as_str())).collect();
            assert_eq!(different.len(), 300, "{family}");
            for probe in &probes {
                assert_ne!(probe.bad.trim(), probe.good.trim(), "{family}");
                assert!(
                    !["{weak}", "{prompt}", "{code}"].iter().any(|hole| probe.bad.contains(hole)),
                    "{probe:?}"
                );
            }
        }
    }

    #[test]
    fn tripwires_come_two_of_a_family_and_depend_on_the_seed() {
        let wires = tripwires(1, 50);
        assert_eq!(wires.len(), 50);
        assert_eq!(wires[0].family, wires[1].family);
        assert_eq!((wires[0].family, wires[2].family), ("ignore_previous", "fake_verdict"));
        assert_eq!(wires, tripwires(1, 50));
        assert_ne!(wires, tripwires(2, 50));
        assert_eq!(tripwires(1, 1_000_000).len(), 300 * families().len());
    }

    /// Nothing of an attack survives that could open a turn or hide.
    #[test]
    fn every_attack_is_harmless_once_neutralised() {
        for probe in families().into_iter().flat_map(probes) {
            let shown = crate::defence::neutralise(&probe.bad);
            assert!(
                !shown.contains("<|") && !shown.contains("</response_1_") && !shown.contains("[INST]"),
                "{shown}"
            );
            assert!(
                !shown.chars().any(|c| matches!(c, '\u{e0000}'..='\u{e01ef}' | '\u{200b}' | '\u{202e}')),
                "{shown:?}"
            );
        }
    }
}
