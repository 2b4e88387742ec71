//! What was found, as measurements.

use super::{SUBJECT, TrainingSet};
use crate::context::Context;
use rayon::prelude::*;
use rlaif_core::audit::Measurement;
use rlaif_core::preference_set::cycles::{orders, relabelled};
use rlaif_core::preference_set::duplicates::{Repeat, duplicates};
use rlaif_core::preference_set::imbalance::{self, Groups};
use rlaif_core::preference_set::leakage::{Leak, References, leaked_prompts};
use rlaif_core::preference_set::personal::{Finding, Kind, Patterns};
use rlaif_core::preference_set::{LabelledPair, NEAR, Numbers, Sum, mean, share};
use rlaif_core::similarity::too_similar;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Examples of each finding.
const TOLD: usize = 5;
/// Sources that are told by themselves.
const SOURCES: usize = 8;
/// Characters of a name that are shown.
const NAME: usize = 60;

/// Everything that is measured of a set.
pub fn measurements(context: &Context, set: &TrainingSet) -> Vec<Measurement> {
    let numbers = Numbers::of(&set.pairs);
    let audit = Measuring {
        set,
        numbers: &numbers,
        resamples: context.config.evaluate.bootstrap,
        seed: context.config.run.seed,
    };
    let mut of_pairs = audit.duplicates();
    of_pairs.extend(audit.contradictions());
    of_pairs.extend(audit.cycles());
    of_pairs.extend(audit.imbalance());
    let mut of_rows = audit.personal();
    of_rows.push(audit.leaked_references(context));
    let mut found = vec![audit.pairs()];
    found.extend(of_pairs.into_iter().map(|it| known_if(!set.pairs.is_empty(), it)));
    found.extend(audit.leaked_prompts(context));
    let any = !set.pairs.is_empty() || !set.responses.is_empty();
    found.extend(of_rows.into_iter().map(|it| known_if(any, it)));
    found
}

/// Nothing of nothing is not measured: a set that is not there keeps no bound.
fn known_if(any: bool, measured: Measurement) -> Measurement {
    if any {
        measured
    } else {
        Measurement::missing(measured.subject, &measured.measure, "there is nothing to look through")
    }
}

struct Measuring<'a> {
    set: &'a TrainingSet,
    numbers: &'a Numbers,
    resamples: usize,
    seed: u64,
}

impl Measuring<'_> {
    fn pairs(&self) -> Measurement {
        let n = self.set.pairs.len();
        let one = Measurement::exact(SUBJECT, "pairs", n as f64, n as u64);
        let singles = self.set.responses.len();
        match (n, singles) {
            (0, 0) => one.note("there is nothing to train on yet; run `rlaif run CONFIG --until label`"),
            (_, 0) => one,
            _ => one.note(format!("and {singles} single responses")),
        }
    }

    /// A count and, of the same pairs, the share.
    fn counted(
        &self,
        measure: &str,
        share: &str,
        found: &[usize],
        examples: Vec<String>,
    ) -> [Measurement; 2] {
        let places: HashSet<usize> = found.iter().copied().collect();
        let sums = self.numbers.by_prompt(|index| Some(f64::from(u8::from(places.contains(&index)))));
        [
            count(measure, found.len(), self.set.pairs.len()).examples(examples),
            self.share_of(share, &sums, "there are no pairs"),
        ]
    }

    fn share_of(&self, measure: &str, sums: &[Sum], why: &str) -> Measurement {
        with_interval(SUBJECT, measure, sums, share(sums, self.resamples, self.seed), why)
    }

    fn id(&self, pair: usize) -> String {
        name(&self.set.pairs[pair].id)
    }

    fn duplicates(&self) -> Vec<Measurement> {
        let pairs = &self.set.pairs;
        let found = duplicates(pairs, self.numbers);
        let told = |repeats: &[Repeat], verb: &str| -> Vec<String> {
            let told = |it: &Repeat| format!("{} {verb} {}", self.id(it.later), self.id(it.first));
            repeats.iter().take(TOLD).map(told).collect()
        };
        let later = |repeats: &[Repeat]| repeats.iter().map(|it| it.later).collect::<Vec<_>>();
        let mut measured = Vec::new();
        measured.extend(self.counted(
            "duplicate_pairs",
            "duplicate_pairs_share",
            &later(&found.pairs),
            told(&found.pairs, "is"),
        ));
        measured.extend(self.counted(
            "near_duplicate_pairs",
            "near_duplicate_pairs_share",
            &later(&found.near_pairs),
            told(&found.near_pairs, "is nearly"),
        ));
        let prompts = count("duplicate_prompts", found.prompts.len(), found.prompt_ids);
        measured.push(prompts.examples(told(&found.prompts, "asks what")));
        let (mut asks, mut says) = (HashMap::new(), HashMap::new());
        for (index, pair) in self.numbers.pairs.iter().enumerate() {
            asks.entry(pair.prompt as usize).or_insert(index);
            says.entry(pair.chosen as usize).or_insert(index);
            says.entry(pair.rejected as usize).or_insert(index);
        }
        let of_texts = |repeats: &[Repeat], first: &HashMap<usize, usize>| -> Vec<String> {
            let place = |text: &usize| first.get(text).map(|pair| self.id(*pair)).unwrap_or_default();
            let told = |it: &Repeat| format!("in {} nearly as in {}", place(&it.later), place(&it.first));
            repeats.iter().take(TOLD).map(told).collect()
        };
        let (n_prompts, n_responses) =
            (self.numbers.prompts.normalised.len(), self.numbers.responses.normalised.len());
        let near = count("near_duplicate_prompts", found.near_prompts.len(), n_prompts);
        measured.push(near.examples(of_texts(&found.near_prompts, &asks)));
        let responses = count("duplicate_responses", found.responses.len(), n_responses);
        measured.push(responses.examples(told(&found.responses, "answers as")));
        let near = count("near_duplicate_responses", found.near_responses.len(), n_responses);
        measured.push(near.examples(of_texts(&found.near_responses, &says)));
        let equal: Vec<usize> = (0..pairs.len())
            .into_par_iter()
            .filter(|index| too_similar(&pairs[*index].chosen, &pairs[*index].rejected, NEAR))
            .collect();
        let examples = equal.iter().take(TOLD).map(|index| self.id(*index)).collect();
        measured.extend(self.counted("near_equal_sides", "near_equal_sides_share", &equal, examples));
        measured
    }

    fn contradictions(&self) -> Vec<Measurement> {
        let twice = relabelled(&self.set.pairs, self.numbers);
        let both_ways: Vec<_> = twice.iter().filter(|it| it.contradict).collect();
        let within = both_ways.iter().filter(|it| it.within_source).count();
        let told = |labels: [usize; 2]| {
            let said =
                |index: usize| format!("{} (by {})", self.id(index), name(&self.set.pairs[index].source));
            format!("{} against {}", said(labels[0]), said(labels[1]))
        };
        let mut sums: HashMap<u32, Sum> = HashMap::new();
        for it in &twice {
            sums.entry(it.prompt).or_default().add(f64::from(u8::from(it.contradict)));
        }
        let examples = both_ways.iter().take(TOLD).map(|it| told(it.labels)).collect();
        vec![
            count("contradictions", both_ways.len(), twice.len()).examples(examples),
            count("contradictions_within_source", within, both_ways.len()),
            self.share_of("contradictions_share", &by_key(sums), "no two responses were labelled twice"),
        ]
    }

    fn cycles(&self) -> Vec<Measurement> {
        let mut orders = orders(&self.set.pairs, self.numbers);
        let triads: Vec<Sum> = orders.iter().map(|it| Sum { sum: it.cyclic as f64, n: it.triads }).collect();
        let could: Vec<Sum> = orders
            .iter()
            .filter(|it| it.could_cycle)
            .map(|it| Sum { sum: f64::from(u8::from(it.on_cycles > 0)), n: 1 })
            .collect();
        let total = |sums: &[Sum]| sums.iter().fold((0.0, 0), |(sum, n), it| (sum + it.sum, n + it.n));
        orders.retain(|it| it.on_cycles > 0);
        orders.sort_by_key(|it| std::cmp::Reverse((it.cyclic, it.on_cycles)));
        let examples = |with: &dyn Fn(&[usize; 3]) -> String| -> Vec<String> {
            orders.iter().filter_map(|it| it.example.as_ref()).take(TOLD).map(with).collect()
        };
        let cycle = |labels: &[usize; 3]| labels.map(|label| self.id(label)).join(", ");
        let of_prompt: HashMap<u32, usize> =
            self.numbers.pairs.iter().enumerate().rev().map(|(index, it)| (it.prompt, index)).collect();
        let prompts = orders.iter().take(TOLD).filter_map(|it| {
            let pair = of_prompt.get(&it.prompt)?;
            Some(format!("{}: {} responses on cycles", name(&self.set.pairs[*pair].prompt_id), it.on_cycles))
        });
        let ((cyclic, all), (with_cycle, n)) = (total(&triads), total(&could));
        vec![
            Measurement::exact(SUBJECT, "cyclic_triads", cyclic, all).examples(examples(&cycle)),
            self.share_of(
                "cyclic_triads_share",
                &triads,
                "no three responses were all compared with each other",
            ),
            Measurement::exact(SUBJECT, "cyclic_prompts", with_cycle, n).examples(prompts.collect()),
            self.share_of("cyclic_prompts_share", &could, "no prompt has enough comparisons for a cycle"),
        ]
    }

    fn leaked_prompts(&self, context: &Context) -> Vec<Measurement> {
        let eval = &context.prompts.eval;
        let asked: Vec<String> = eval.iter().map(|prompt| prompt.prompt.display()).collect();
        let train: Vec<(String, String)> = context
            .prompts
            .train
            .iter()
            .map(|prompt| (prompt.id.clone(), prompt.prompt.display()))
            .chain(self.set.pairs.iter().map(|pair| (pair.id.clone(), pair.prompt.clone())))
            .chain(self.set.responses.iter().map(|it| (it.id.clone(), it.prompt.clone())))
            .collect();
        let borrowed: Vec<&str> = asked.iter().map(String::as_str).collect();
        let leaks =
            leaked_prompts(&borrowed, &train.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>());
        let mut same = Vec::new();
        let mut near = Vec::new();
        for (prompt, leak) in eval.iter().zip(&leaks) {
            let told = |place: &usize| format!("{} is in {}", name(&prompt.id), name(&train[*place].0));
            match leak {
                Some(Leak::Same(place)) => same.push(told(place)),
                Some(Leak::Near(place)) => near.push(told(place)),
                None => {}
            }
        }
        let sums: Vec<Sum> =
            leaks.iter().map(|leak| Sum { sum: f64::from(u8::from(leak.is_some())), n: 1 }).collect();
        let counted = |measure: &str, mut found: Vec<String>| {
            let n = found.len();
            found.truncate(TOLD);
            match eval.is_empty() {
                true => Measurement::missing(SUBJECT, measure, NO_EVAL),
                false => count(measure, n, eval.len()).examples(found),
            }
        };
        vec![
            counted("leaked_prompts", same),
            counted("near_leaked_prompts", near),
            self.share_of("leaked_prompts_share", &sums, NO_EVAL),
        ]
    }

    fn leaked_references(&self, context: &Context) -> Measurement {
        const MEASURE: &str = "leaked_references";
        let with: Vec<_> = context
            .prompts
            .eval
            .iter()
            .filter_map(|prompt| Some((prompt, prompt.reference.as_deref()?)))
            .collect();
        let texts: Vec<&str> = with.iter().map(|(_, reference)| *reference).collect();
        let Some(references) = References::new(&texts) else {
            return Measurement::missing(
                SUBJECT,
                MEASURE,
                "the reference answers are too many to look for at once",
            );
        };
        if references.is_empty() {
            let why = "no evaluation prompt has a reference answer long enough to be looked for";
            return Measurement::missing(SUBJECT, MEASURE, why);
        }
        let pairs =
            self.set.pairs.iter().flat_map(|pair| [(&pair.id, &pair.chosen), (&pair.id, &pair.rejected)]);
        let all: Vec<(&String, &String)> =
            pairs.chain(self.set.responses.iter().map(|it| (&it.id, &it.response))).collect();
        let found: Vec<(&String, usize)> =
            all.par_iter().filter_map(|(id, text)| Some((*id, references.within(text)?))).collect();
        let told = |(id, place): &(&String, usize)| {
            format!("{} has the answer of {}", name(id), name(&with[*place].0.id))
        };
        count(MEASURE, found.len(), all.len())
            .examples(found.iter().take(TOLD).map(told).collect())
            .note(format!("{} reference answers were looked for", references.len()))
    }

    fn personal(&self) -> Vec<Measurement> {
        let rows = Row::all(self.set);
        let texts: Vec<&str> = rows
            .iter()
            .flat_map(|row| row.texts.iter().map(|(_, text)| *text))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let patterns = Patterns::new();
        let by_text: HashMap<&str, Vec<Finding>> = texts
            .par_iter()
            .map(|text| (*text, patterns.find(text)))
            .filter(|(_, found)| !found.is_empty())
            .collect();
        let mut of_kind: HashMap<Kind, (usize, Vec<String>)> = HashMap::new();
        let mut sums: HashMap<&str, Sum> = HashMap::new();
        for row in &rows {
            let mut kinds = BTreeSet::new();
            for (place, text) in &row.texts {
                for finding in by_text.get(text).into_iter().flatten() {
                    let (n, examples) = of_kind.entry(finding.kind).or_default();
                    *n += usize::from(kinds.insert(finding.kind));
                    if examples.len() < TOLD {
                        examples.push(format!("{}, {place}: {}", name(row.id), finding.masked));
                    }
                }
            }
            sums.entry(row.prompt).or_default().add(f64::from(u8::from(!kinds.is_empty())));
        }
        let mut measured: Vec<Measurement> = Kind::ALL
            .into_iter()
            .map(|kind| {
                let (n, examples) = of_kind.remove(&kind).unwrap_or_default();
                count(kind.measure(), n, rows.len()).examples(examples)
            })
            .collect();
        measured.push(self.share_of("personal_share", &by_key(sums), "there are no rows"));
        measured
    }

    fn imbalance(&self) -> Vec<Measurement> {
        let pairs = &self.set.pairs;
        let n = pairs.len() as u64;
        let largest = |measure: &str, groups: &Groups, why: &str| match groups.sizes.first() {
            None => Measurement::missing(SUBJECT, measure, why),
            Some((_, first)) => {
                let told = |(group, size): &(String, u64)| format!("{}: {size}", name(group));
                Measurement::exact(SUBJECT, measure, *first as f64 / n as f64, n)
                    .examples(groups.sizes.iter().take(SOURCES).map(told).collect())
            }
        };
        let mean_of = |measure: &str, value: &dyn Fn(&LabelledPair) -> f64| {
            let sums = self.numbers.by_prompt(|index| Some(value(&pairs[index])));
            with_interval(
                SUBJECT,
                measure,
                &sums,
                mean(&sums, self.resamples, self.seed),
                "there are no pairs",
            )
        };
        let sources = Groups::by_source(pairs);
        let longer = self.numbers.by_prompt(|index| imbalance::longer(&pairs[index]));
        let is_a = self.numbers.by_prompt(|index| Some(f64::from(u8::from(pairs[index].chosen_is_a?))));
        let margins: Vec<String> = imbalance::margins(pairs).iter().map(u64::to_string).collect();
        let mut measured = vec![
            self.share_of("chosen_longer", &longer, "no two responses differ in length"),
            mean_of("chosen_length_gap", &imbalance::length_gap),
            self.share_of("chosen_is_a", &is_a, "the run has no labels of its own"),
            mean_of("label_margin", &imbalance::margin)
                .note(format!("pairs by margin, from 0 to 1 in five bins: {}", margins.join(", "))),
            largest("largest_source", &sources, "there are no pairs"),
            largest("largest_tag", &Groups::by_tag(pairs), "no prompt has a tag"),
        ];
        measured.push(match imbalance::most_of_one_prompt(self.numbers) {
            None => Measurement::missing(SUBJECT, "largest_prompt", "there are no pairs"),
            Some((most, pair)) => Measurement::exact(SUBJECT, "largest_prompt", most as f64 / n as f64, n)
                .examples(vec![format!("{}: {most}", name(&pairs[pair].prompt_id))]),
        });
        if sources.sizes.len() > 1 {
            for (source, _) in sources.sizes.iter().take(SOURCES) {
                let of = |index: usize| Some(&pairs[index]).filter(|pair| pair.source == *source);
                let sums = self.numbers.by_prompt(|index| imbalance::longer(of(index)?));
                measured.push(with_interval(
                    &format!("preferences of {}", name(source)),
                    "chosen_longer",
                    &sums,
                    share(&sums, self.resamples, self.seed),
                    "no two responses differ in length",
                ));
            }
        }
        measured
    }
}

const NO_EVAL: &str = "the run has no evaluation prompts";

/// A row with its texts and where they stand.
struct Row<'a> {
    id: &'a str,
    prompt: &'a str,
    texts: Vec<(&'static str, &'a str)>,
}

impl<'a> Row<'a> {
    fn all(set: &'a TrainingSet) -> Vec<Self> {
        let pairs = set.pairs.iter().map(|pair| Self {
            id: &pair.id,
            prompt: &pair.prompt,
            texts: vec![("prompt", &pair.prompt), ("chosen", &pair.chosen), ("rejected", &pair.rejected)],
        });
        let singles = set.responses.iter().map(|it| Self {
            id: &it.id,
            prompt: &it.prompt,
            texts: vec![("prompt", &it.prompt), ("response", &it.response)],
        });
        pairs.chain(singles).collect()
    }
}

/// Sums in an order that does not hang on how a map lays them out.
fn by_key<K: Ord + std::hash::Hash>(sums: HashMap<K, Sum>) -> Vec<Sum> {
    let mut sums: Vec<(K, Sum)> = sums.into_iter().collect();
    sums.sort_by(|a, b| a.0.cmp(&b.0));
    sums.into_iter().map(|(_, sum)| sum).collect()
}

fn count(measure: &str, found: usize, of: usize) -> Measurement {
    Measurement::exact(SUBJECT, measure, found as f64, of as u64)
}

/// With its interval where there is one; the bare number where all of it is of one prompt.
fn with_interval(
    subject: &str,
    measure: &str,
    sums: &[Sum],
    interval: Option<rlaif_core::stats::Interval>,
    why: &str,
) -> Measurement {
    let (sum, n) = sums.iter().fold((0.0, 0), |(sum, n), it| (sum + it.sum, n + it.n));
    match interval {
        Some(interval) => Measurement::of(subject, measure, interval, n),
        None if n > 0 => {
            Measurement::exact(subject, measure, sum / n as f64, n).note("of one prompt: no interval")
        }
        None => Measurement::missing(subject, measure, why),
    }
}

/// A name as a terminal can be shown it: others chose it.
fn name(text: &str) -> String {
    let shown: String = text.chars().take(NAME).flat_map(char::escape_debug).collect();
    match text.chars().nth(NAME) {
        Some(_) => format!("`{shown}…`"),
        None => format!("`{shown}`"),
    }
}
