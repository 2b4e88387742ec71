//! Social-bias probes: what should not move when one group is put in another's place.
//!
//! The texts are of our own writing and lie in `probes/bias/`: groups, templates, stereotypes. Three kinds of item come of them:
//!
//! * [`Probe::Text`]: a prompt that speaks of nobody, and the same response about a person of either group (counterfactual pairs);
//! * [`Probe::Decision`]: a case with a person of either group in it, and a favourable and an unfavourable answer that speak of nobody;
//! * [`Probe::Stereotype`]: two sentences that differ in one word, as in StereoSet (Nadeem et al. 2021, <https://arxiv.org/abs/2004.09456>)
//!   and CrowS-Pairs (Nangia et al. 2020, <https://arxiv.org/abs/2010.00133>); both words stand on either side equally often.
//!
//! Every item is one [`Comparison`] of two responses, or two of them, and its value is the first one's margin less the second one's, so that
//! judges, reward models and policies are asked by the same code. 0 is what an item should come to; above 0 favours the reference
//! group, or the stereotype.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What kind an item is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// The same response about another group.
    Text,
    /// The same decision about another group.
    Decision,
    /// A stereotype against its opposite.
    Stereotype,
}

/// Two responses to a prompt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Comparison {
    /// What is asked.
    pub prompt: String,
    /// About the reference group, favourable, or the stereotype.
    pub a: String,
    /// The other.
    pub b: String,
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its kind.
    pub probe: Probe,
    /// What differs: `gender`, `age`, …
    pub axis: &'static str,
    /// Which groups are compared: an index into [`contrasts`]; of stereotypes 0.
    pub contrast: usize,
    /// Name of the template, of stereotypes the sentence; items of one template are alike.
    pub template: &'static str,
    /// Number of the two people among all; items of the same two are alike. Of stereotypes 0.
    pub people: usize,
    /// One; of a decision two: about the reference group, and about the other.
    pub comparisons: Vec<Comparison>,
}

/// A prompt that a policy answers in its own words, about either group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// As of an [`Item`].
    pub axis: &'static str,
    /// As of an [`Item`].
    pub contrast: usize,
    /// As of an [`Item`].
    pub template: &'static str,
    /// As of an [`Item`].
    pub people: usize,
    /// About the reference group, and about the other.
    pub prompts: [String; 2],
}

/// Two groups, and people who differ in nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contrast {
    /// What differs.
    pub axis: String,
    /// The group that a positive value favours.
    pub reference: String,
    /// The other.
    pub group: String,
    people: Vec<[Person; 2]>,
}

impl Contrast {
    /// As it stands in a table.
    pub fn words(&self) -> String {
        format!("{} over {}", self.reference, self.group)
    }
}

/// What fills the slots of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Person {
    who: String,
    name: String,
    /// They, them, their.
    pronouns: [&'static str; 3],
}

impl Person {
    /// Of `Name Surname|she` and what is said of the person between commas.
    fn new(text: &str, note: Option<&str>) -> Self {
        let (full, pronoun) = text.split_once('|').unwrap_or((text, "they"));
        let pronouns = match pronoun {
            "she" => ["she", "her", "her"],
            "he" => ["he", "him", "his"],
            _ => ["they", "them", "their"],
        };
        Self {
            who: note.map_or_else(|| full.to_owned(), |note| format!("{full}, {note},")),
            name: full.split(' ').next().unwrap_or(full).to_owned(),
            pronouns,
        }
    }

    fn fill(&self, template: &str) -> String {
        let capital = |word: &str| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_uppercase().chain(letters).collect::<String>())
                .unwrap_or_default()
        };
        let [they, them, their] = self.pronouns;
        template
            .replace("{who}", &self.who)
            .replace("{name}", &self.name)
            .replace("{they}", they)
            .replace("{them}", them)
            .replace("{their}", their)
            .replace("{They}", &capital(they))
            .replace("{Their}", &capital(their))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Groups {
    women: Vec<String>,
    men: Vec<String>,
    contrast: Vec<ContrastRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContrastRow {
    axis: String,
    reference: String,
    group: String,
    #[serde(default)]
    pairs: Vec<[String; 2]>,
    people: Option<String>,
    #[serde(default)]
    notes: Vec<[String; 2]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Templates {
    text: Vec<TextRow>,
    decision: Vec<DecisionRow>,
    open: Vec<OpenRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextRow {
    id: String,
    prompt: String,
    response: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecisionRow {
    id: String,
    prompt: String,
    favourable: String,
    unfavourable: String,
    #[serde(default)]
    without: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenRow {
    id: String,
    prompt: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stereotypes {
    prompt: String,
    sentences: BTreeMap<String, Vec<String>>,
}

static TEMPLATES: LazyLock<Templates> = LazyLock::new(|| read(include_str!("../probes/bias/templates.toml")));
static STEREOTYPES: LazyLock<Stereotypes> =
    LazyLock::new(|| read(include_str!("../probes/bias/stereotypes.toml")));
static CONTRASTS: LazyLock<Vec<Contrast>> =
    LazyLock::new(|| contrasts_of(read(include_str!("../probes/bias/groups.toml"))));

fn read<T: for<'de> Deserialize<'de>>(text: &str) -> T {
    toml::from_str(text).expect("the program's own data, read by a test")
}

fn contrasts_of(groups: Groups) -> Vec<Contrast> {
    let everybody: Vec<&String> =
        groups.women.iter().zip(&groups.men).flat_map(<[&String; 2]>::from).collect();
    let of = |row: &ContrastRow| -> Vec<[Person; 2]> {
        let carriers: Vec<&String> = match row.people.as_deref() {
            Some("women") => groups.women.iter().collect(),
            Some("men") => groups.men.iter().collect(),
            _ => everybody.clone(),
        };
        let by_name = row.pairs.iter().map(|pair| [0, 1].map(|side| Person::new(&pair[side], None)));
        let by_note = row
            .notes
            .iter()
            .zip(carriers.into_iter().cycle())
            .map(|(notes, carrier)| [0, 1].map(|side| Person::new(carrier, Some(&notes[side]))));
        by_name.chain(by_note).collect()
    };
    groups
        .contrast
        .iter()
        .map(|row| Contrast {
            axis: row.axis.clone(),
            reference: row.reference.clone(),
            group: row.group.clone(),
            people: of(row),
        })
        .collect()
}

/// The groups that are compared.
pub fn contrasts() -> &'static [Contrast] {
    &CONTRASTS
}

/// The axes, in the order of the file.
pub fn axes() -> Vec<&'static str> {
    let mut axes: Vec<&str> = Vec::new();
    for contrast in contrasts() {
        if !axes.contains(&contrast.axis.as_str()) {
            axes.push(&contrast.axis);
        }
    }
    axes
}

/// Every item of these kinds, of each kind and contrast at most `per_contrast`, evenly over templates and people. Stereotypes are few,
/// and all there.
pub fn items(per_contrast: usize) -> Vec<Item> {
    let mut items = Vec::new();
    for (contrast, groups) in contrasts().iter().enumerate() {
        let texts: Vec<usize> = (0..TEMPLATES.text.len()).collect();
        for (template, people) in cells(&texts, groups.people.len(), per_contrast) {
            let TextRow { id, prompt, response } = &TEMPLATES.text[template];
            let [a, b] = [0, 1].map(|side| groups.people[people][side].fill(response));
            let comparisons = vec![Comparison { prompt: prompt.clone(), a, b }];
            items.push(item(Probe::Text, contrast, id, people, comparisons));
        }
        let decisions: Vec<usize> = (0..TEMPLATES.decision.len())
            .filter(|template| !TEMPLATES.decision[*template].without.contains(&groups.axis))
            .collect();
        for (template, people) in cells(&decisions, groups.people.len(), per_contrast) {
            let DecisionRow { id, prompt, favourable, unfavourable, .. } = &TEMPLATES.decision[template];
            let about = |side: usize| Comparison {
                prompt: groups.people[people][side].fill(prompt),
                a: favourable.clone(),
                b: unfavourable.clone(),
            };
            items.push(item(Probe::Decision, contrast, id, people, vec![about(0), about(1)]));
        }
    }
    items.extend(stereotypes());
    items
}

/// Prompts that a policy answers in its own words, of each contrast at most `per_contrast`.
pub fn open(per_contrast: usize) -> Vec<Open> {
    let all: Vec<usize> = (0..TEMPLATES.open.len()).collect();
    let of = |(contrast, groups): (usize, &'static Contrast)| {
        cells(&all, groups.people.len(), per_contrast).into_iter().map(move |(template, people)| Open {
            axis: &groups.axis,
            contrast,
            template: &TEMPLATES.open[template].id,
            people: people_number(contrast, people),
            prompts: [0, 1].map(|side| groups.people[people][side].fill(&TEMPLATES.open[template].prompt)),
        })
    };
    contrasts().iter().enumerate().flat_map(of).collect()
}

fn item(
    probe: Probe,
    contrast: usize,
    template: &'static str,
    people: usize,
    comparisons: Vec<Comparison>,
) -> Item {
    let axis = &contrasts()[contrast].axis;
    Item { probe, axis, contrast, template, people: people_number(contrast, people), comparisons }
}

/// The people of the contrasts before, and these.
fn people_number(contrast: usize, people: usize) -> usize {
    contrasts()[..contrast].iter().map(|groups| groups.people.len()).sum::<usize>() + people
}

/// The first cells of templates × people, diagonal by diagonal, so that however few they are each template and each two people come
/// about equally often.
fn cells(templates: &[usize], people: usize, most: usize) -> Vec<(usize, usize)> {
    let diagonal = |shift: usize| {
        templates
            .iter()
            .enumerate()
            .map(move |(place, template)| (*template, (place + shift) % people.max(1)))
    };
    (0..people).flat_map(diagonal).take(most).collect()
}

fn stereotypes() -> impl Iterator<Item = Item> {
    let of = |axis: &'static str, text: &'static String| {
        let (before, words, after) = alternatives(text);
        let [a, b] = words.map(|word| format!("{before}{word}{after}"));
        let comparisons = vec![Comparison { prompt: STEREOTYPES.prompt.clone(), a, b }];
        Item { probe: Probe::Stereotype, axis, contrast: 0, template: text, people: 0, comparisons }
    };
    STEREOTYPES.sentences.iter().flat_map(move |(axis, texts)| texts.iter().map(move |text| of(axis, text)))
}

/// What stands before, the two words, and what stands behind: of `The [old|young] man`.
fn alternatives(text: &str) -> (&str, [&str; 2], &str) {
    let (before, rest) = text.split_once('[').unwrap_or((text, ""));
    let (inner, after) = rest.split_once(']').unwrap_or(("", ""));
    let (stereotype, opposite) = inner.split_once('|').unwrap_or(("", ""));
    (before, [stereotype, opposite], after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const ALL: usize = usize::MAX;

    /// Where the two texts differ: what is between the words that they begin with and those that they end with.
    fn difference<'t>(a: &'t str, b: &'t str) -> [String; 2] {
        let (one, other): (Vec<&str>, Vec<&str>) = (a.split(' ').collect(), b.split(' ').collect());
        let head = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
        let rest = one.len().min(other.len()) - head;
        let tail = one.iter().rev().zip(other.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
        [one[head..one.len() - tail].join(" "), other[head..other.len() - tail].join(" ")]
    }

    #[test]
    fn every_axis_has_enough_different_items() {
        let items = items(ALL);
        let axes = axes();
        assert_eq!(axes.len(), 8, "{axes:?}");
        let seen: BTreeSet<&Vec<Comparison>> = items.iter().map(|item| &item.comparisons).collect();
        assert_eq!(seen.len(), items.len(), "no item is there twice");
        for axis in axes {
            for (probe, least) in [(Probe::Text, 96), (Probe::Decision, 64), (Probe::Stereotype, 8)] {
                let n = items.iter().filter(|item| item.axis == axis && item.probe == probe).count();
                assert!(n >= least, "{axis} {probe:?}: {n}");
            }
        }
        for (contrast, groups) in contrasts().iter().enumerate() {
            assert_eq!(groups.people.len(), 8, "{}", groups.words());
            let of = |probe| items.iter().filter(move |it| it.probe == probe && it.contrast == contrast);
            assert_eq!(of(Probe::Text).count(), 96, "{}", groups.words());
        }
    }

    /// Nothing but the person changes: the same template, with each side's words taken back to the slots, is one text.
    #[test]
    fn two_sides_differ_in_the_slots_alone() {
        let blank = |text: &str, person: &Person| {
            let mut text = text.replace(&person.who, "@").replace(&person.name, "@");
            for pronoun in person.pronouns {
                for word in [pronoun.to_owned(), pronoun[..1].to_uppercase() + &pronoun[1..]] {
                    text = text
                        .split(' ')
                        .map(|piece| match piece.trim_end_matches(['.', ',', '!', '?', ':', ';']) == word {
                            true => piece.replace(&word, "@"),
                            false => piece.to_owned(),
                        })
                        .collect::<Vec<_>>()
                        .join(" ");
                }
            }
            text
        };
        let mut checked = 0;
        for item in items(ALL).iter().filter(|item| item.probe != Probe::Stereotype) {
            let groups = &contrasts()[item.contrast];
            let [one, other] = &groups.people[item.people - people_number(item.contrast, 0)];
            let [a, b] = match item.comparisons.as_slice() {
                [only] => [&only.a, &only.b],
                [one, other] => {
                    assert_eq!((&one.a, &one.b), (&other.a, &other.b));
                    [&one.prompt, &other.prompt]
                }
                _ => panic!("{item:?}"),
            };
            assert_ne!(a, b);
            assert_eq!(blank(a, one), blank(b, other));
            checked += 1;
        }
        for open in open(ALL) {
            assert_ne!(open.prompts[0], open.prompts[1]);
        }
        assert!(checked > 3000, "{checked}");
    }

    #[test]
    fn people_differ_in_the_group_alone() {
        for groups in contrasts() {
            for [one, other] in &groups.people {
                let same_pronouns = one.pronouns == other.pronouns;
                assert!(same_pronouns || groups.axis == "gender", "{one:?} {other:?}");
                assert_ne!((&one.who, one.pronouns), (&other.who, other.pronouns));
                if one.who.contains(',') {
                    assert_eq!(one.name, other.name, "who carries a note is the same on both sides");
                }
            }
            let same = |of: fn(&[Person; 2]) -> &Person| {
                groups
                    .people
                    .iter()
                    .map(|people| (&of(people).who, of(people).pronouns))
                    .collect::<BTreeSet<_>>()
            };
            assert_eq!(same(|people| &people[0]).len(), 8, "{}", groups.words());
            assert_eq!(same(|people| &people[1]).len(), 8, "{}", groups.words());
        }
        // As many women as men where the group is no gender.
        for groups in contrasts().iter().filter(|it| !["gender", "orientation"].contains(&it.axis.as_str())) {
            let women = groups.people.iter().filter(|people| people[0].pronouns[0] == "she").count();
            assert_eq!(women, 4, "{}", groups.words());
        }
    }

    /// A note ends in a comma and a verb may not know the number, so that every filling is good English.
    #[test]
    fn templates_stay_grammatical_however_they_are_filled() {
        let texts = TEMPLATES
            .text
            .iter()
            .map(|row| (&row.id, &row.response))
            .chain(TEMPLATES.decision.iter().map(|row| (&row.id, &row.prompt)))
            .chain(TEMPLATES.open.iter().map(|row| (&row.id, &row.prompt)));
        for (id, text) in texts {
            let (_, after) = text.split_once("{who}").unwrap_or_else(|| panic!("{id} names nobody"));
            let follows = after.trim_start_matches(',').strip_prefix(' ').unwrap_or("");
            assert!(follows.starts_with(|c: char| c.is_lowercase()), "{id}: {after}");
            assert!(!after.starts_with(','), "{id}: two commas");
            assert!(!after.contains("{who}"), "{id}");
            assert!(
                text.to_lowercase().contains("{the"),
                "{id}: no pronoun, so that `he` and `they` are one text"
            );
            for verb in ["is", "was", "has", "does", "are", "were", "have", "do"] {
                for pronoun in ["{they}", "{They}"] {
                    assert!(!text.contains(&format!("{pronoun} {verb} ")), "{id}: {pronoun} {verb}");
                }
            }
            let filled = contrasts()[0].people[0][0].fill(text);
            assert!(!filled.contains(['{', '}']), "{id}: {filled}");
        }
        for row in &TEMPLATES.text {
            assert!(!row.prompt.contains('{'), "{}", row.id);
        }
    }

    #[test]
    fn favourable_answers_are_as_often_yes_as_no() {
        let yes = TEMPLATES.decision.iter().filter(|row| row.favourable.starts_with("Yes,")).count();
        assert_eq!(2 * yes, TEMPLATES.decision.len());
        for DecisionRow { id, favourable, unfavourable, .. } in &TEMPLATES.decision {
            let other = if favourable.starts_with("Yes,") { "No," } else { "Yes," };
            assert!(unfavourable.starts_with(other), "{id}");
        }
        for axis in axes() {
            assert!(
                TEMPLATES.decision.iter().filter(|row| !row.without.contains(&axis.to_owned())).count() >= 8
            );
        }
    }

    #[test]
    fn stereotypes_are_balanced_word_by_word() {
        assert_eq!(STEREOTYPES.sentences.keys().collect::<BTreeSet<_>>().len(), axes().len());
        for (axis, sentences) in &STEREOTYPES.sentences {
            assert!(axes().contains(&axis.as_str()), "{axis}");
            let mut balance: BTreeMap<(&str, &str), i32> = BTreeMap::new();
            for text in sentences {
                let (_, [one, other], after) = alternatives(text);
                assert!(
                    !one.is_empty() && !other.is_empty() && one != other && !after.contains('['),
                    "{text}"
                );
                *balance.entry((one.min(other), one.max(other))).or_default() +=
                    if one < other { 1 } else { -1 };
            }
            assert!(balance.values().all(|sum| *sum == 0), "{axis}: {balance:?}");
        }
        for item in stereotypes() {
            let [one, other] = difference(&item.comparisons[0].a, &item.comparisons[0].b);
            assert!(one.split(' ').count() <= 3 && other.split(' ').count() <= 3, "{item:?}");
        }
    }

    #[test]
    fn few_items_are_spread_over_templates_and_people() {
        let few: Vec<Item> =
            items(24).into_iter().filter(|it| it.probe == Probe::Text && it.contrast == 3).collect();
        assert_eq!(few.len(), 24);
        let count = |of: fn(&Item) -> String| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            few.iter().for_each(|item| *counts.entry(of(item)).or_default() += 1);
            counts
        };
        assert!(count(|it| it.template.to_owned()).values().all(|n| *n == 2), "{few:?}");
        assert!(count(|it| it.people.to_string()).values().all(|n| (2..=4).contains(n)), "{few:?}");
        let cells = cells(&(0..12).collect::<Vec<_>>(), 8, ALL);
        assert_eq!(cells.iter().collect::<BTreeSet<_>>().len(), 96);
    }
}
