//! The front matter of a template: what is asked, what is shown, and how the answer is read. TOML between two lines `---`.

use super::TemplateError;
use crate::parse::Style;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fmt;

/// What a template asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateProtocol {
    /// Two responses, which of them is better.
    Pairwise,
    /// One response, how good it is from 1 to 10.
    Rating,
}

/// A text that a template may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Field {
    /// The request, between tags.
    Prompt,
    /// The response shown first, between tags.
    First,
    /// The response shown second, between tags.
    Second,
    /// The one response of a rating, between tags.
    Response,
    /// The prompt's reference answer, between tags.
    Reference,
    /// `label.criteria`: a list of `{name, text, levels, all_levels}`.
    Criteria,
    /// `label.criteria` under its other name.
    Rubric,
    /// One principle of `label.principles`.
    Principle,
    /// All of `label.principles`.
    Principles,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 9] = [
        Self::Prompt,
        Self::First,
        Self::Second,
        Self::Response,
        Self::Reference,
        Self::Criteria,
        Self::Rubric,
        Self::Principle,
        Self::Principles,
    ];

    /// Its name in front matter and templates.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::First => "first",
            Self::Second => "second",
            Self::Response => "response",
            Self::Reference => "reference",
            Self::Criteria => "criteria",
            Self::Rubric => "rubric",
            Self::Principle => "principle",
            Self::Principles => "principles",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What kind of reply a step wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerKind {
    /// Words.
    Text,
    /// One token, read from the log-probabilities at its place; where an endpoint gives none, from the text.
    Token,
    /// A JSON object that fits `schema`.
    Json,
}

/// One request of a template; a later one goes on with the conversation of the earlier.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What kind of reply is wanted.
    pub answer: AnswerKind,
    /// How the last step's verdict is written, in the words of `rlaif parse`.
    pub style: Option<Style>,
    /// Most tokens of the reply. Default: the judge's `max_tokens`.
    pub max_tokens: Option<usize>,
    /// Tokens of an ordinary reply, for `rlaif plan`. Default: half of the most.
    pub expected_tokens: Option<usize>,
    /// `token`: what stands before the token, such as `Better response:`. Local judges are made to begin with it.
    #[serde(default)]
    pub prefix: String,
    /// `json`: the JSON Schema that the reply must fit.
    pub schema: Option<Value>,
    /// Whether the reply has a line `name: LABEL = rating, LABEL = rating` for each criterion. Default false.
    #[serde(default)]
    pub scores: bool,
    /// Whether the reply says how sure the judge is, on a line `Confidence: 85`: p, where no log-probabilities gave one. Default false.
    #[serde(default)]
    pub confidence: bool,
}

/// The front matter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontMatter {
    /// Name in labels, reports and the ledger: small letters, digits, `_` and `-`.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// What is asked about.
    pub protocol: TemplateProtocol,
    /// What is shown. A text that is not named here cannot be used.
    pub fields: Vec<Field>,
    /// How the two responses are called, in their tags and in the verdict. Default `1` and `2`.
    #[serde(default = "numbers")]
    pub labels: [String; 2],
    /// Whether a tie may be the verdict. Default false.
    #[serde(default)]
    pub tie: bool,
    /// Whether two random words, drawn for each call, may stand in for the labels. Default false.
    #[serde(default)]
    pub codes: bool,
    /// The requests, one after another.
    pub steps: Vec<Step>,
}

fn numbers() -> [String; 2] {
    ["1".into(), "2".into()]
}

/// The styles whose labels are ours to choose, and the labels that their parsers know.
const LABELLED: [(Style, &[&str]); 4] = [
    (Style::BetterResponse, &["1", "2", "A", "B"]),
    (Style::BracketsAbc, &["A", "B"]),
    (Style::Json, &["1", "2", "A", "B"]),
    (Style::Digit123, &["1", "2"]),
];

/// Whether a verdict in this style is one of the template's labels at its place.
pub(super) fn names_a_label(style: Style) -> bool {
    LABELLED.iter().any(|(labelled, _)| *labelled == style)
}

impl FrontMatter {
    /// Reads the text between the two lines `---`; `first_line` is where it begins in the file.
    pub(super) fn read(file: &str, text: &str, first_line: usize) -> Result<Self, TemplateError> {
        let front: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| first_line + text[..span.start].matches('\n').count());
            let message = error.message().trim().replace('\n', ", ");
            TemplateError::new(file, line, message, "See `docs/judges.md` for what a front matter holds")
        })?;
        match front.problem() {
            None => Ok(front),
            Some((key, message, hint)) => {
                let line = text.lines().position(|line| line.trim_start().starts_with(key));
                Err(TemplateError::new(file, line.map(|line| first_line + line), message, hint))
            }
        }
    }

    /// The first thing that is wrong: the key, what, and what to do.
    fn problem(&self) -> Option<(&'static str, String, &'static str)> {
        let name_fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(name_fits) {
            let message = format!("`name` cannot be {:?}", self.name);
            return Some(("name", message, "Use small letters, digits, `_` and `-`, at most 64"));
        }
        let (wanted, unwanted): (&[Field], &[Field]) = match self.protocol {
            TemplateProtocol::Pairwise => (&[Field::First, Field::Second], &[Field::Response]),
            TemplateProtocol::Rating => (&[Field::Response], &[Field::First, Field::Second]),
        };
        if let Some(field) = wanted.iter().find(|field| !self.fields.contains(field)) {
            let message = format!("a template of this protocol must show `{field}`");
            return Some(("fields", message, "Add it to `fields`, and `{{ … }}` with its name to a step"));
        }
        if let Some(field) = self.fields.iter().find(|field| unwanted.contains(field)) {
            let message = format!("a template of this protocol has no `{field}`");
            return Some(("fields", message, "A rating shows `response`, a comparison `first` and `second`"));
        }
        let Some((last, earlier)) = self.steps.split_last() else {
            return Some(("steps", "there is no step".into(), "Write `[[steps]]` and `answer = \"text\"`"));
        };
        let says_more = |step: &Step| step.style.is_some() || step.scores || step.confidence;
        if earlier.iter().any(|step| step.answer != AnswerKind::Text || says_more(step)) {
            let message = "a step before the last must be a text without verdict".to_string();
            return Some((
                "[[steps]]",
                message,
                "Set `answer = \"text\"` there, without `style`, `scores` and `confidence`",
            ));
        }
        if self.steps.iter().any(|step| step.max_tokens == Some(0)) {
            return Some((
                "max_tokens",
                "`max_tokens` must be at least 1".into(),
                "Leave it out for the judge's",
            ));
        }
        self.problem_of_the_last(last)
    }

    fn problem_of_the_last(&self, last: &Step) -> Option<(&'static str, String, &'static str)> {
        if last.schema.is_some() != (last.answer == AnswerKind::Json) {
            let message = "`schema` and `answer = \"json\"` go together".to_string();
            return Some(("answer", message, "Give the schema of the object that the judge is to write"));
        }
        if let Some(schema) = &last.schema
            && !is_strict(schema)
        {
            let message = "`schema` must be that of an object with all `properties` in `required` and `additionalProperties = false`";
            let hint = "Write it as `[steps.schema]`; endpoints that hold answers to a schema take no other";
            return Some(("[steps.schema]", message.into(), hint));
        }
        if last.confidence && (last.answer != AnswerKind::Text || self.protocol == TemplateProtocol::Rating) {
            let message = "`confidence` is a line of a verdict in words".to_string();
            return Some(("confidence", message, "Set `answer = \"text\"`, or leave it out"));
        }
        if self.protocol == TemplateProtocol::Rating {
            let fits = match last.answer {
                AnswerKind::Token => last.style.is_none(),
                _ => last.style == Some(Style::Rating1To10),
            };
            let message = "a rating is a token, or a text of the style `rating-1-10`".to_string();
            return (!fits).then_some(("style", message, "Set `answer = \"token\"` without a `style`"));
        }
        if self.labels[0] == self.labels[1] || self.labels.iter().any(|label| !is_word(label)) {
            let message = "`labels` must be two different words of ASCII letters and digits".to_string();
            return Some(("labels", message, "Write `labels = [\"A\", \"B\"]`"));
        }
        if last.answer == AnswerKind::Token {
            return match (last.style.is_some(), self.codes) {
                (true, _) => {
                    Some(("style", "a token has no style".into(), "Leave `style` out: the token is a label"))
                }
                (_, true) => {
                    let message = "`codes` cannot stand in for labels that are read as one token".to_string();
                    Some(("codes", message, "Leave it out, or let the judge answer in words"))
                }
                _ => None,
            };
        }
        let Some(style) = last.style else {
            let message = "the last step needs the `style` of its verdict".to_string();
            return Some(("[[steps]]", message, "Such as `style = \"better-response\"`"));
        };
        if style == Style::Rating1To10 {
            let message = "`rating-1-10` is no verdict on two responses".to_string();
            return Some(("style", message, "Such as `style = \"better-response\"`"));
        }
        match LABELLED.iter().find(|(known, _)| *known == style) {
            Some((_, known)) => {
                let fit = self.labels.iter().all(|label| known.contains(&label.as_str()));
                let message = format!("the style `{style}` knows the labels {}", known.join(", "));
                (!fit).then_some(("labels", message, "Take two of them, the one shown first first"))
            }
            None if self.codes => {
                let message = format!("the style `{style}` cannot be written in codes");
                Some(("codes", message, "Leave it out, or use the style `better-response`"))
            }
            None => None,
        }
    }

    /// Whether a field is shown.
    pub fn shows(&self, field: Field) -> bool {
        self.fields.contains(&field)
    }
}

/// Whether a schema is one that strict endpoints take, as far as its outermost object goes.
fn is_strict(schema: &Value) -> bool {
    let required = schema.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let properties = schema.get("properties").and_then(Value::as_object);
    let all =
        |properties: &Map<String, Value>| properties.keys().all(|name| required.iter().any(|r| r == name));
    schema.get("type").is_some_and(|kind| kind == "object")
        && schema.get("additionalProperties") == Some(&Value::Bool(false))
        && properties.is_some_and(all)
}

fn is_word(label: &str) -> bool {
    !label.is_empty() && label.len() <= 16 && label.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
