//! The browser of samples, and that of the pairs on which judges and people chose differently. Their texts are untrusted, and become HTML
//! in [`crate::review::markup`] alone.

use super::block::How;
use super::data::{ReportData, Sample, SampleResponse};
use super::evidence::Disagreement;
use super::format::{count, number, percent, plural};
use super::headline::policy_name;
use crate::review::markup;
use std::collections::BTreeSet;

/// Characters of prompts and responses on the page; `evaluation.json` has them all.
const MOST_CHARS: usize = 2_000_000;

/// Open from the start, and on paper.
const OPEN: usize = 3;

/// On paper at all.
const PRINTED: usize = 12;

/// Prompts with what each policy said.
pub struct Samples {
    /// What is here, and what is not.
    pub note: String,
    /// In the order of the file.
    pub items: Vec<SampleView>,
    /// What the list can be narrowed to.
    pub filters: Vec<Filter>,
    /// Where they come from.
    pub how: How,
}

/// A choice above a list.
pub struct Filter {
    /// `policy`, `tag`, `outcome`.
    pub name: &'static str,
    /// For people.
    pub label: &'static str,
    /// Value, and what stands for it.
    pub options: Vec<(String, String)>,
}

/// One prompt.
pub struct SampleView {
    /// The prompt, as HTML.
    pub prompt: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Values by which it is found: a line each, such as `tag:safety`.
    pub keys: String,
    /// Open from the start.
    pub open: bool,
    /// On paper.
    pub printed: bool,
    /// What each policy said.
    pub responses: Vec<ResponseView>,
}

/// What a policy said.
pub struct ResponseView {
    /// Which.
    pub policy: String,
    /// It is the baseline's.
    pub baseline: bool,
    /// `won`, `lost`, `even`, `none`; empty for the baseline.
    pub outcome: &'static str,
    /// As HTML.
    pub text: String,
    /// Numbers beside it.
    pub facts: String,
}

/// The samples of the evaluation.
pub fn samples(data: &ReportData) -> Samples {
    let all = data.evaluation.as_ref().map_or(&[][..], |evaluation| &evaluation.samples);
    let mut left = MOST_CHARS;
    let fits = |sample: &&Sample| {
        let size = sample.prompt.len() + sample.responses.iter().map(|it| it.text.len()).sum::<usize>();
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    };
    let shown: Vec<&Sample> = all.iter().take_while(fits).collect();
    let note = match shown.len() == all.len() {
        true => "Every held-out prompt in the order of the file; none was picked.".into(),
        false => format!(
            "The first {} of {} held-out prompts in the order of the file; none was picked. All are in evaluation.json.",
            shown.len(),
            all.len()
        ),
    };
    let view = |(index, sample): (usize, &&Sample)| self::sample(index, sample, data);
    Samples {
        note,
        items: shown.iter().enumerate().map(view).collect(),
        filters: filters(&shown, data),
        how: How::of("evaluate", &data.run.config_path, "samples, evaluation.json"),
    }
}

fn sample(index: usize, sample: &Sample, data: &ReportData) -> SampleView {
    let tags = data.tags.get(&sample.prompt_id).cloned().unwrap_or_default();
    let mut keys: Vec<String> = tags.iter().map(|tag| format!("tag:{tag}")).collect();
    for response in &sample.responses {
        let outcome = outcome(response);
        keys.push(format!("policy:{}", response.policy));
        keys.push(format!("outcome:{outcome}"));
        keys.push(format!("both:{}:{outcome}", response.policy));
    }
    SampleView {
        prompt: markup::plain(&sample.prompt),
        tags,
        // A tag may hold anything, also the end of a line.
        keys: keys.iter().map(|key| key.replace('\n', " ")).collect::<Vec<_>>().join("\n"),
        open: index < OPEN,
        printed: index < PRINTED,
        responses: sample.responses.iter().map(response).collect(),
    }
}

fn response(response: &SampleResponse) -> ResponseView {
    let mut facts = Vec::new();
    facts.extend(response.p_beats_baseline.map(|p| format!("beats the baseline: {}", percent(p))));
    facts.extend(response.reward.map(|r| format!("reward {}", number(r))));
    facts.extend(response.sentiment.map(|s| format!("sentiment {}", number(s))));
    if !response.ended {
        facts.push("cut off".into());
    }
    ResponseView {
        policy: policy_name(&response.policy),
        baseline: response.policy == "baseline",
        outcome: outcome(response),
        text: markup::plain(&response.text),
        facts: facts.join(" · "),
    }
}

/// What judges make of a response against the baseline's, by their p.
fn outcome(response: &SampleResponse) -> &'static str {
    match response.p_beats_baseline {
        _ if response.policy == "baseline" => "",
        Some(p) if p > 0.5 => "won",
        Some(p) if p < 0.5 => "lost",
        Some(_) => "even",
        None => "none",
    }
}

fn filters(shown: &[&Sample], data: &ReportData) -> Vec<Filter> {
    let responses = || shown.iter().flat_map(|sample| &sample.responses);
    let tuned: BTreeSet<&str> =
        responses().map(|it| it.policy.as_str()).filter(|policy| *policy != "baseline").collect();
    let tags: BTreeSet<&String> =
        shown.iter().filter_map(|it| data.tags.get(&it.prompt_id)).flatten().collect();
    let outcomes = [
        ("won", "preferred to the baseline’s"),
        ("lost", "the baseline’s preferred"),
        ("even", "even"),
        ("none", "no verdict, or the same text"),
    ];
    let there = |outcome: &str| responses().any(|it| self::outcome(it) == outcome);

    let filters = [
        Filter {
            name: "policy",
            label: "Policy",
            options: tuned.into_iter().map(|it| (it.into(), policy_name(it))).collect(),
        },
        Filter {
            name: "tag",
            label: "Tag",
            options: tags.into_iter().map(|tag| (tag.replace('\n', " "), tag.clone())).collect(),
        },
        Filter {
            name: "outcome",
            label: "Outcome",
            options: outcomes
                .into_iter()
                .filter(|it| there(it.0))
                .map(|it| (it.0.into(), it.1.into()))
                .collect(),
        },
    ];
    filters.into_iter().filter(|filter| !filter.options.is_empty()).collect()
}

/// Pairs on which judges and people chose differently.
pub struct Disagreed {
    /// How many there are.
    pub note: String,
    /// The first of them.
    pub items: Vec<PairView>,
    /// Where they come from.
    pub how: How,
}

/// Such a pair.
pub struct PairView {
    /// The prompt, as HTML.
    pub prompt: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Who chose what, in a line.
    pub summary: String,
    /// Open from the start.
    pub open: bool,
    /// On paper.
    pub printed: bool,
    /// Both texts with the words marked that the other has not, as HTML.
    pub texts: [String; 2],
    /// What is said of each text: who chose it.
    pub chosen_by: [String; 2],
    /// p of each judge.
    pub judges: String,
    /// One judge's explanation, as HTML; empty for none.
    pub explanation: String,
    /// What people said: name, choice, note as HTML.
    pub people: Vec<(String, String, String)>,
}

/// The pairs of the page; `None` where no person has said anything.
pub fn disagreed(data: &ReportData) -> Option<Disagreed> {
    let found = data.disagreements.as_ref()?;
    let shown = found.pairs.len() as u64;
    let mut note = format!(
        "Judges and most people chose differently on {} of {} that both have judged.",
        count(found.total),
        plural(found.of, "pair")
    );
    if shown < found.total {
        note += &format!(" The first {} are here.", count(shown));
    }
    note += " Opposite choices come before ties, and those of which judges were surest come first. Marked words are not in the other text.";
    Some(Disagreed {
        note,
        items: found.pairs.iter().enumerate().map(|(index, it)| pair(index, it)).collect(),
        how: How::of("review", &data.run.config_path, "human_verdicts, verdicts and preferences in rlaif.db"),
    })
}

fn pair(index: usize, it: &Disagreement) -> PairView {
    let side = |word: &str| match word {
        "a" => "A".to_string(),
        "b" => "B".to_string(),
        other => other.to_string(),
    };
    let (a, b, ties) = it.votes;
    let votes = |n: u32, what: &str| (n > 0).then(|| format!("{} {what}", plural(u64::from(n), "vote")));
    let people = [votes(a, "for A"), votes(b, "for B"), votes(ties, "for a tie")];
    let p_of_a = percent(it.p);
    let (left, right) = markup::word_diff(&it.a, &it.b);
    let judges: Vec<String> =
        it.judges.iter().map(|(name, p)| format!("{name}: {} for A", percent(*p))).collect();
    PairView {
        prompt: markup::plain(&it.prompt),
        tags: it.tags.clone(),
        summary: format!(
            "judges {p_of_a} for A; people {}",
            people.into_iter().flatten().collect::<Vec<_>>().join(", ")
        ),
        open: index < OPEN,
        printed: index < PRINTED,
        texts: [left, right],
        chosen_by: [chosen_by(it, true), chosen_by(it, false)],
        judges: judges.join("; "),
        explanation: it.explanation.as_deref().map(markup::plain).unwrap_or_default(),
        people: it
            .people
            .iter()
            .map(|said| {
                let note = said.note.as_deref().map(markup::plain).unwrap_or_default();
                (said.reviewer.clone(), side(&said.choice), note)
            })
            .collect(),
    }
}

/// Who chose this side.
fn chosen_by(it: &Disagreement, is_a: bool) -> String {
    let judges = if is_a { it.p > 0.5 } else { it.p < 0.5 };
    let (a, b, ties) = it.votes;
    let people = if is_a { a > b && a > ties } else { b > a && b > ties };
    match (judges, people) {
        (true, true) => "chosen by judges and people",
        (true, false) => "chosen by judges",
        (false, true) => "chosen by people",
        (false, false) => "",
    }
    .into()
}
