//! What sections are made of. Every string is ready; templates only lay it out and escape it.

use super::data::Estimate;
use super::format::Unit;

/// A part of the page with a heading of its own.
pub struct Section {
    /// Its anchor.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What stands in it.
    pub blocks: Vec<Block>,
}

/// Things that one command made.
#[derive(Default)]
pub struct Block {
    /// Heading; empty for none.
    pub title: String,
    /// Paragraphs.
    pub notes: Vec<String>,
    /// What is not there, and the command that makes it; both empty where all is there.
    pub missing: (String, String),
    /// Findings, the bad ones first.
    pub findings: Vec<Finding>,
    /// Numbers.
    pub facts: Vec<Fact>,
    /// Pictures.
    pub figures: Vec<Figure>,
    /// Tables.
    pub tables: Vec<Table>,
    /// The command that makes it all, and where it leaves it; empty where there is nothing.
    pub how: How,
}

impl Block {
    /// A block that says what is missing, and how to get it.
    pub fn missing(title: &str, words: &str, command: String) -> Self {
        Self { title: title.into(), missing: (words.into(), command), ..Self::default() }
    }

    /// Nothing would be seen of it.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
            && self.missing.0.is_empty()
            && self.findings.is_empty()
            && self.facts.is_empty()
            && self.figures.is_empty()
            && self.tables.is_empty()
    }
}

/// Where numbers come from.
#[derive(Default, Clone)]
pub struct How {
    /// `rlaif label rlaif.toml`
    pub command: String,
    /// `stages.label.numbers, manifest.json`
    pub place: String,
}

impl How {
    /// `rlaif STAGE ARGUMENTS`, which leaves its numbers in `place`.
    pub fn of(stage: &str, arguments: &str, place: &str) -> Self {
        Self { command: format!("rlaif {stage} {arguments}"), place: place.into() }
    }
}

/// How good a piece of news is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    /// It got worse, or fails.
    Bad,
    /// Look at it, or too little is known.
    Unclear,
    /// It was looked at, and nothing is wrong.
    Good,
    /// Something was found that is neither good nor bad.
    Told,
    /// No judgement.
    Plain,
}

impl Tone {
    /// Its class in the style.
    pub fn class(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Unclear => "unclear",
            Self::Good => "good",
            Self::Told => "told",
            Self::Plain => "plain",
        }
    }
}

/// One sentence about the run, with its tone in a word.
pub struct Finding {
    /// How good it is.
    pub tone: Tone,
    /// `worse`, `look`, `as before`, `fails`, …: colour alone tells nobody.
    pub mark: &'static str,
    /// The sentence.
    pub words: String,
}

impl Finding {
    /// A finding.
    pub fn new(tone: Tone, mark: &'static str, words: String) -> Self {
        Self { tone, mark, words }
    }
}

/// A number with a name.
pub struct Fact {
    /// Its name.
    pub label: String,
    /// The number.
    pub value: String,
    /// Interval, n, and what to think of it.
    pub note: String,
}

impl Fact {
    /// A fact.
    pub fn new(label: &str, value: String, note: String) -> Self {
        Self { label: label.into(), value, note }
    }

    /// An estimate with its interval and what it rests on.
    pub fn estimate(label: &str, estimate: &Estimate, unit: Unit, of: &str) -> Self {
        let interval = unit.interval(estimate).map(|i| format!("95\u{202f}% CI {i}"));
        let rests_on = estimate.n.map(|n| super::format::plural(n, of));
        let note = [interval, rests_on].into_iter().flatten().collect::<Vec<_>>().join(", ");
        Self::new(label, unit.value(estimate), note)
    }

    /// The value is words, which are set smaller than a number.
    pub fn is_words(&self) -> bool {
        !self.value.contains(|c: char| c.is_ascii_digit())
    }
}

/// A picture with its title and legend.
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// Our own SVG.
    pub svg: String,
    /// Which ink is which.
    pub legend: Vec<Legend>,
    /// The metric and file behind it.
    pub source: String,
}

/// One entry of a legend.
pub struct Legend {
    /// `accent`, `second` or `dashed`.
    pub class: &'static str,
    /// What is drawn so.
    pub label: String,
}

/// Rows of cells; the first cell of a row names it.
pub struct Table {
    /// For screen readers, and above the table where `titled`.
    pub label: String,
    /// The heads of the columns.
    pub head: Vec<String>,
    /// The columns from this one on hold numbers, and stand right.
    pub numbers_from: usize,
    /// The rows.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with nothing in it.
    pub fn new(label: &str, head: &[&str], numbers_from: usize) -> Self {
        let head = head.iter().map(|text| (*text).into()).collect();
        Self { label: label.into(), head, numbers_from, rows: Vec::new() }
    }

    /// The table, where it has rows.
    pub fn filled(self) -> Option<Self> {
        (!self.rows.is_empty()).then_some(self)
    }
}

/// A cell.
#[derive(Default)]
pub struct Cell {
    /// What stands in it.
    pub value: String,
    /// Small print under it: an interval.
    pub small: String,
    /// `bad`, `good`, `unclear`, or nothing.
    pub class: &'static str,
}

impl Cell {
    /// Words or a number.
    pub fn of(value: impl Into<String>) -> Self {
        Self { value: value.into(), ..Self::default() }
    }

    /// With small print.
    pub fn with(value: impl Into<String>, small: impl Into<String>) -> Self {
        Self { value: value.into(), small: small.into(), class: "" }
    }

    /// An estimate over its interval; a dash where there is none.
    pub fn estimate(estimate: Option<&Estimate>, unit: Unit) -> Self {
        match estimate {
            Some(estimate) => Self::with(unit.value(estimate), unit.interval(estimate).unwrap_or_default()),
            None => Self::of("–"),
        }
    }

    /// So many words that a narrow column would be a tall one.
    pub fn is_long(&self) -> bool {
        self.value.chars().count() > 40
    }

    /// In the colour of a tone.
    #[must_use]
    pub fn toned(self, tone: Tone) -> Self {
        Self { class: tone.class(), ..self }
    }
}
