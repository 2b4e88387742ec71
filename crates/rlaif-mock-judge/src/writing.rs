//! How a verdict is written: house style, bare label, brackets, JSON, rating; and its tokens.

use crate::ask::{Ask, Format};
use crate::extract::Question;
use crate::opinion::Opinion;
use crate::options::AnswerStyle;
use rand::{Rng, RngExt};
use rlaif_core::records::Choice;
use serde_json::{Map, Value, json};
use std::ops::Range;

/// A verdict in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The text; for a tool its input as JSON.
    pub text: String,
    /// Where the label or the rating stands, in bytes.
    pub verdict: Range<usize>,
    /// The candidates at that place, in the order of [`Alternatives`].
    pub alternatives: Alternatives,
}

/// What else could stand where the verdict stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alternatives {
    /// One of two labels, in the order shown.
    Labels([String; 2]),
    /// A rating from 1 to 10.
    Ratings,
}

/// The most tokens that a reply may have and still have no room for an explanation.
const NO_ROOM: u64 = 24;

/// Writes an opinion down as the request, or the user of the mock, wants it.
pub fn write<R: Rng>(
    ask: &Ask,
    question: &Question,
    opinion: &Opinion,
    style: AnswerStyle,
    rng: &mut R,
) -> Written {
    let labels = labels(ask, question);
    let flavour: u32 = rng.random();
    let style = match style {
        AnswerStyle::Auto => auto(ask, question),
        style => style,
    };
    let label = match opinion.choice {
        Choice::First => labels[0].clone(),
        Choice::Second => labels[1].clone(),
        Choice::Tie => tie_label(&ask.format, question),
    };
    let alternatives = Alternatives::Labels(labels.clone());
    let explanation = explanation(opinion, &labels, flavour);
    let lead = question.lead.as_deref().unwrap_or("Better response: ");
    let placed = |before: String, verdict: &str, after: &str, alternatives| {
        let range = before.len()..before.len() + verdict.len();
        Written { text: format!("{before}{verdict}{after}"), verdict: range, alternatives }
    };
    if !question.wants_verdict && ask.format == Format::Free {
        return placed(preparation(question), "", "", alternatives);
    }
    // A line where it fits, else the word alone. The reply must be shorter than its limit, or it counts as cut off.
    let line = |lead: &str, word: &str| {
        let room = ask.max_tokens.unwrap_or(u64::MAX);
        let fits = ask.format == Format::Free && count_tokens(lead) + count_tokens(word) + 1 < room;
        if fits { lead.to_owned() } else { String::new() }
    };
    match style {
        AnswerStyle::House | AnswerStyle::Auto => {
            let ratings: String =
                question.rated.iter().map(|name| rated(name, &labels, opinion) + "\n").collect();
            let explanation = if ratings.is_empty() { explanation + "\n" } else { ratings };
            let sure = match question.confidence {
                true => format!("Confidence: {:.0}\n", 100.0 * opinion.confidence),
                false => String::new(),
            };
            placed(format!("{explanation}\n{sure}{lead}"), &label, "", alternatives)
        }
        AnswerStyle::Label => match choice_of(&ask.format, &label) {
            Some((before, word)) => placed(before, &word, "", alternatives),
            None => {
                let lead = question.lead.as_deref().unwrap_or_default();
                placed(line(lead, &label), &label, "", alternatives)
            }
        },
        AnswerStyle::Brackets => placed(format!("{explanation}\n\n[["), &label, "]]", alternatives),
        AnswerStyle::Json => {
            let schema = match &ask.format {
                Format::Json(Some(schema)) | Format::Tool(_, schema) => Some(schema),
                _ => None,
            };
            let filled = match schema {
                Some(schema) => fill(
                    schema,
                    "verdict",
                    &Filling { opinion, label: &label, labels: &labels, explanation: &explanation },
                    0,
                ),
                None => json!({"explanation": explanation, "verdict": label}),
            };
            let text = filled.to_string();
            // The verdict is the last text that is the label; explanations hold more than a label.
            let quoted = Value::String(label.clone()).to_string();
            let range = match text.rfind(&quoted) {
                Some(at) => at + 1..at + quoted.len() - 1,
                None => text.len()..text.len(),
            };
            Written { text, verdict: range, alternatives }
        }
        AnswerStyle::Rating => {
            let rating = rating(opinion.quality[0]).to_string();
            let before = match choice_of(&ask.format, &rating) {
                Some((before, _)) => before,
                None => line("Rating: ", &rating),
            };
            placed(before, &rating, "", Alternatives::Ratings)
        }
    }
}

/// What a judge writes before it is asked for its verdict. It takes no side, so that the verdict is drawn once.
fn preparation(question: &Question) -> String {
    match question.responses.is_empty() {
        true => "1. Does it do what was asked, in so many words?\n2. Is what it states true?\n3. Is it to the point?".into(),
        false => "Under the criteria the responses differ in how much of the request they meet, and how precisely.".into(),
    }
}

/// Ratings of both responses on one criterion.
fn rated(criterion: &str, labels: &[String; 2], opinion: &Opinion) -> String {
    let [first, second] = opinion.quality.map(rating);
    format!("{criterion}: {} = {first}, {} = {second} (it does what was asked)", labels[0], labels[1])
}

/// A quality from 0 to 1 as a rating from 1 to 10.
pub fn rating(quality: f64) -> u32 {
    (1.0 + 9.0 * quality.clamp(0.0, 1.0)).round() as u32
}

/// Of the texts that a reply must be one of, the one that is this label or ends with it: what stands before the label, and the label.
fn choice_of(format: &Format, label: &str) -> Option<(String, String)> {
    let Format::OneOf(options) = format else { return None };
    let ends = |option: &&String| option.rsplit(' ').next() == Some(label);
    let option = options.iter().find(|option| *option == label).or_else(|| options.iter().find(ends))?;
    Some((option[..option.len() - label.len()].to_owned(), label.to_owned()))
}

fn auto(ask: &Ask, question: &Question) -> AnswerStyle {
    let room = ask.max_tokens.unwrap_or(u64::MAX);
    match &ask.format {
        Format::Json(_) | Format::Tool(..) => AnswerStyle::Json,
        Format::OneOf(_) | Format::Free if question.responses.len() == 1 && question.labels.is_none() => {
            AnswerStyle::Rating
        }
        Format::OneOf(_) => AnswerStyle::Label,
        Format::Free if room < NO_ROOM => AnswerStyle::Label,
        Format::Free if question.object => AnswerStyle::Json,
        Format::Free if question.brackets => AnswerStyle::Brackets,
        Format::Free => AnswerStyle::House,
    }
}

/// The labels on offer: those of the choice or schema that the reply must fit, else those of the prompt, else 1 and 2.
fn labels(ask: &Ask, question: &Question) -> [String; 2] {
    let in_prompt = question.labels.clone();
    let options: Vec<String> = match &ask.format {
        Format::OneOf(options) => options.clone(),
        Format::Json(Some(schema)) | Format::Tool(_, schema) => find_enum(schema, 0).unwrap_or_default(),
        _ => Vec::new(),
    };
    let is_or_ends_an_option =
        |label: &String| options.contains(label) || choice_of(&ask.format, label).is_some();
    if let Some(labels) = &in_prompt
        && (options.is_empty() || labels.iter().all(is_or_ends_an_option))
    {
        return labels.clone();
    }
    let named: Vec<&String> = options.iter().filter(|option| !is_tie(option)).collect();
    match named.as_slice() {
        [first, second, ..] => [(*first).clone(), (*second).clone()],
        _ => in_prompt.unwrap_or_else(|| ["1".into(), "2".into()]),
    }
}

fn is_tie(label: &str) -> bool {
    matches!(label.to_lowercase().as_str(), "tie" | "equal" | "neither" | "draw" | "same" | "both")
}

fn tie_label(format: &Format, question: &Question) -> String {
    let options = match format {
        Format::OneOf(options) => options.clone(),
        Format::Json(Some(schema)) | Format::Tool(_, schema) => find_enum(schema, 0).unwrap_or_default(),
        _ => Vec::new(),
    };
    let default = if question.brackets { "C" } else { "tie" };
    options.into_iter().find(|option| is_tie(option)).unwrap_or_else(|| default.into())
}

/// The first `enum` of texts in a schema.
fn find_enum(schema: &Value, depth: usize) -> Option<Vec<String>> {
    if depth > 8 {
        return None;
    }
    if let Some(options) = schema.get("enum").and_then(Value::as_array) {
        let texts: Vec<String> = options.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if texts.len() >= 2 {
            return Some(texts);
        }
    }
    match schema {
        Value::Object(fields) => fields.values().find_map(|value| find_enum(value, depth + 1)),
        Value::Array(items) => items.iter().find_map(|value| find_enum(value, depth + 1)),
        _ => None,
    }
}

struct Filling<'a> {
    opinion: &'a Opinion,
    label: &'a str,
    labels: &'a [String; 2],
    explanation: &'a str,
}

/// A value that fits a schema: the label where it is allowed, the explanation in other texts, qualities in numbers.
fn fill(schema: &Value, name: &str, with: &Filling<'_>, depth: usize) -> Value {
    if let Some(options) = schema.get("enum").and_then(Value::as_array) {
        // A number is allowed as a label too.
        let shown = |option: &Value| option.as_str().map_or_else(|| option.to_string(), str::to_owned);
        let fits = options.iter().find(|option| shown(option) == with.label);
        return fits.or(options.first()).cloned().unwrap_or(Value::Null);
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.iter().find_map(Value::as_str).unwrap_or("object"),
        _ => "object",
    };
    match kind {
        "string" => json!(with.explanation),
        "boolean" => json!(with.opinion.choice == Choice::First),
        "integer" | "number" => number(schema, name, with, kind == "integer"),
        "array" => {
            let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0).min(16);
            let item = schema.get("items").unwrap_or(&Value::Null);
            Value::Array((0..least).map(|_| fill(item, name, with, depth + 1)).collect())
        }
        "null" => Value::Null,
        _ if depth > 8 => json!({}),
        _ => {
            let fields = schema.get("properties").and_then(Value::as_object);
            let fields = fields.into_iter().flatten();
            Value::Object(
                fields
                    .map(|(name, field)| (name.clone(), fill(field, name, with, depth + 1)))
                    .collect::<Map<_, _>>(),
            )
        }
    }
}

/// A number in the schema's range: the quality of the response that the field's name speaks of, else the confidence.
fn number(schema: &Value, name: &str, with: &Filling<'_>, whole: bool) -> Value {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let (low, high) = (bound("minimum").unwrap_or(if whole { 1.0 } else { 0.0 }), bound("maximum"));
    let high = high.unwrap_or(if whole { low.max(1.0) + 9.0 } else { low + 1.0 });
    let words: Vec<&str> = name.split(|c: char| !c.is_alphanumeric()).collect();
    let speaks_of = |position: usize, word: &str| {
        let known = ["first", "second"][position];
        words.iter().any(|w| w.eq_ignore_ascii_case(word) || w.eq_ignore_ascii_case(known))
    };
    let share = match (speaks_of(0, &with.labels[0]), speaks_of(1, &with.labels[1])) {
        (true, false) => with.opinion.quality[0],
        (false, true) => with.opinion.quality[1],
        _ => with.opinion.confidence,
    };
    let value = low + (high - low) * share.clamp(0.0, 1.0);
    if whole { json!(value.round() as i64) } else { json!(value) }
}

/// A few sentences that speak of both responses, so that a parser that takes the first label it sees is caught.
fn explanation(opinion: &Opinion, labels: &[String; 2], flavour: u32) -> String {
    let (better, other) = match opinion.choice {
        Choice::Second => (&labels[1], &labels[0]),
        Choice::First | Choice::Tie => (&labels[0], &labels[1]),
    };
    if opinion.choice == Choice::Tie {
        return format!("Response {better} and response {other} say the same, equally well.");
    }
    match flavour % 4 {
        0 => format!(
            "Response {other} leaves out what matters. Response {better} does what was asked and is precise."
        ),
        1 => format!(
            "Both address the request. Response {better} is clear and correct, while response {other} is vague."
        ),
        2 => format!(
            "At first sight response {other} looks better, but it makes a claim that does not hold; response {better} does not."
        ),
        _ => format!(
            "Response {better} serves the actual need; compared to it, response {other} adds little of use."
        ),
    }
}

/// Splits a text into the tokens that are counted and shown: words with the space before them, and single other characters.
pub fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut chars = rest.char_indices().peekable();
        let (_, first) = chars.next()?;
        let starts_word = first.is_alphanumeric()
            || (first == ' ' && chars.peek().is_some_and(|(_, c)| c.is_alphanumeric()));
        let end = if starts_word {
            let after = chars.find(|&(at, c)| !c.is_alphanumeric() || at >= 12);
            after.map_or(rest.len(), |(at, _)| at)
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(end);
        rest = after;
        Some(token)
    })
}

/// How many tokens a text has.
pub fn count_tokens(text: &str) -> u64 {
    tokens(text).count() as u64
}

/// The first tokens of a text.
pub fn first_tokens(text: &str, most: u64) -> &str {
    let bytes: usize = tokens(text).take(usize::try_from(most).unwrap_or(usize::MAX)).map(str::len).sum();
    &text[..bytes]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::Provider;

    const OPINION: Opinion =
        Opinion { choice: Choice::Second, confidence: 0.9, quality: [0.2, 0.8], position_biased: false };

    fn ask(format: Format, max_tokens: u64) -> Ask {
        Ask {
            provider: Provider::OpenAi,
            model: "m".into(),
            messages: Vec::new(),
            max_tokens: Some(max_tokens),
            top_logprobs: None,
            format,
            prompt_tokens: 1,
        }
    }

    fn question(labels: [&str; 2]) -> Question {
        Question {
            responses: vec!["x".into(), "y".into()],
            labels: Some(labels.map(String::from)),
            ..Question::default()
        }
    }

    fn written(ask: &Ask, question: &Question, style: AnswerStyle) -> Written {
        let written = write(ask, question, &OPINION, style, &mut rlaif_core::seed::stream(1, "t", 0));
        assert!(written.text.get(written.verdict.clone()).is_some());
        written
    }

    #[test]
    fn each_style_and_where_its_verdict_stands() {
        let asked = Question { lead: Some("Verdict: ".into()), ..question(["QX", "TR"]) };
        let free = ask(Format::Free, 500);
        for (style, end, label) in [
            (AnswerStyle::House, "\n\nVerdict: TR", "TR"),
            (AnswerStyle::Brackets, "\n\n[[TR]]", "TR"),
            (AnswerStyle::Label, "Verdict: TR", "TR"),
            (AnswerStyle::Rating, "Rating: 3", "3"),
            (AnswerStyle::Json, ",\"verdict\":\"TR\"}", "TR"),
        ] {
            let written = written(&free, &asked, style);
            assert!(written.text.ends_with(end), "{}", written.text);
            assert_eq!(&written.text[written.verdict.clone()], label);
            let exact = tokens(&written.text).any(|token| token.trim() == label);
            assert!(exact, "the verdict is a token of its own in {:?}", written.text);
        }
    }

    #[test]
    fn the_form_follows_the_request() {
        let asked = question(["1", "2"]);
        assert_eq!(auto(&ask(Format::Free, 500), &asked), AnswerStyle::House);
        assert_eq!(auto(&ask(Format::Free, 1), &asked), AnswerStyle::Label);
        assert_eq!(auto(&ask(Format::OneOf(vec![]), 500), &asked), AnswerStyle::Label);
        assert_eq!(auto(&ask(Format::Json(None), 500), &asked), AnswerStyle::Json);
        let single = Question { responses: vec!["x".into()], ..Question::default() };
        assert_eq!(auto(&ask(Format::Free, 500), &single), AnswerStyle::Rating);
        let brackets = Question { brackets: true, ..asked };
        assert_eq!(auto(&ask(Format::Free, 500), &brackets), AnswerStyle::Brackets);
    }

    #[test]
    fn a_label_stands_alone_where_its_line_has_no_room() {
        let asked = Question { lead: Some("Better response: ".into()), ..question(["A", "B"]) };
        let said = |room| written(&ask(Format::Free, room), &asked, AnswerStyle::Auto).text;
        assert_eq!(said(8), "Better response: B");
        assert_eq!(said(4), "B");
        let choice = Format::OneOf(vec!["A".into(), "B".into()]);
        assert_eq!(written(&ask(choice, 8), &asked, AnswerStyle::Auto).text, "B");
        let lines = Format::OneOf(vec!["Verdict: A".into(), "Verdict: B".into()]);
        let whole = written(&ask(lines, 8), &asked, AnswerStyle::Auto);
        assert_eq!((whole.text.as_str(), &whole.text[whole.verdict.clone()]), ("Verdict: B", "B"));
        let ratings = Format::OneOf((1..=10).map(|rating| format!("Score: {rating}")).collect());
        let single = Question { responses: vec!["x".into()], ..Question::default() };
        assert_eq!(written(&ask(ratings, 8), &single, AnswerStyle::Auto).text, "Score: 3");
    }

    #[test]
    fn a_step_before_the_verdict_takes_no_side_and_criteria_are_rated() {
        let early = Question { wants_verdict: false, ..question(["A", "B"]) };
        assert!(written(&ask(Format::Free, 500), &early, AnswerStyle::Auto).verdict.is_empty());
        let rated = Question { rated: vec!["accuracy".into()], ..question(["QX", "TR"]) };
        let text = written(&ask(Format::Free, 500), &rated, AnswerStyle::Auto).text;
        assert_eq!(text, "accuracy: QX = 3, TR = 8 (it does what was asked)\n\nBetter response: TR");
        let sure = Question { confidence: true, ..question(["1", "2"]) };
        let text = written(&ask(Format::Free, 500), &sure, AnswerStyle::Auto).text;
        assert!(text.ends_with("\n\nConfidence: 90\nBetter response: 2"), "{text}");
    }

    #[test]
    fn json_fits_the_schema() {
        let schema = json!({"type": "object", "properties": {
            "reason": {"type": "string"},
            "score_first": {"type": "integer", "minimum": 1, "maximum": 10},
            "score_second": {"type": "number", "minimum": 0, "maximum": 1},
            "confidence": {"type": "number"},
            "winner": {"type": "string", "enum": ["tie", "left", "right"]},
            "notes": {"type": "array", "items": {"type": "string"}},
            "strict": {"type": "boolean"}}});
        let written =
            written(&ask(Format::Json(Some(schema)), 500), &question(["1", "2"]), AnswerStyle::Auto);
        let value: Value = serde_json::from_str(&written.text).unwrap();
        assert_eq!(value["winner"], "right");
        assert_eq!(value["score_first"], 3);
        assert_eq!(value["score_second"], 0.8);
        assert_eq!(value["confidence"], 0.9);
        assert_eq!((&value["notes"], &value["strict"]), (&json!([]), &json!(false)));
        assert!(value["reason"].as_str().unwrap().contains("esponse right"));
        assert_eq!(&written.text[written.verdict.clone()], "right");
    }

    #[test]
    fn labels_of_the_schema_win_where_the_prompt_has_others() {
        let choice = Format::OneOf(vec!["B".into(), "A".into(), "tie".into()]);
        assert_eq!(labels(&ask(choice.clone(), 9), &question(["A", "B"])), ["A", "B"]);
        assert_eq!(labels(&ask(choice, 9), &question(["1", "2"])), ["B", "A"]);
        assert_eq!(labels(&ask(Format::Free, 9), &Question::default()), ["1", "2"]);
    }

    #[test]
    fn tokens_make_up_the_text() {
        for text in ["", "Better response: 1", "  two\n\n[[A]] 10, naïve—yes", "a\u{301}🚀 extraordinarily!"]
        {
            assert_eq!(tokens(text).collect::<String>(), text);
        }
        assert_eq!(tokens("to: QX\n").collect::<Vec<_>>(), ["to", ":", " QX", "\n"]);
        assert_eq!(first_tokens("one two three", 2), "one two");
        assert_eq!(first_tokens("one", 9), "one");
    }
}
