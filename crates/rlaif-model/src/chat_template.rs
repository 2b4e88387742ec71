//! Chat templates: Jinja from a model's files, run in a box.
//!
//! A template is a program that somebody else wrote. It gets the messages and a few strings, a budget of steps, and no
//! way to files or network. What it sees follows transformers (`apply_chat_template`): `trim_blocks` and `lstrip_blocks`,
//! Python's string and dict methods, `raise_exception`, `strftime_now`, and a `tojson` that does not escape HTML.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use rlaif_core::records::Message;
use serde::Serialize;

use crate::error::{ModelError, Result};

const MAX_TEMPLATE_BYTES: usize = 1 << 18;
const MAX_RENDERED_BYTES: usize = 1 << 26;
/// Instructions, and 64 bytes of text count as one. The longest templates spend some thousands on a message.
const BASE_FUEL: u64 = 1_000_000;
const FUEL_A_MESSAGE: u64 = 20_000;
const MAX_FUEL: u64 = 50_000_000;
const NAME: &str = "chat";

/// A compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    origin: String,
    source: String,
}

/// Strings of the tokenizer that templates name.
#[derive(Debug, Clone, Default)]
pub struct SpecialStrings {
    /// Beginning of a text.
    pub bos_token: Option<String>,
    /// End of a text or turn.
    pub eos_token: Option<String>,
    /// Padding.
    pub pad_token: Option<String>,
    /// What stands for the unknown.
    pub unk_token: Option<String>,
}

impl ChatTemplate {
    /// Compiles a template; `origin` is the file or key it came from, for messages.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] with the line, if it is not Jinja or too long.
    pub fn new(origin: &str, source: &str) -> Result<Self> {
        let mut template = ChatTemplate {
            environment: Environment::new(),
            origin: origin.to_string(),
            source: source.to_string(),
        };
        if source.len() > MAX_TEMPLATE_BYTES {
            let reason = format!("it has {} bytes; at most {MAX_TEMPLATE_BYTES} are allowed", source.len());
            return Err(ModelError::ChatTemplate { template: origin.to_string(), line: 0, reason });
        }
        let environment = &mut template.environment;
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the default delimiters are sound"));
        environment.set_recursion_limit(64);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| strftime(now(), &format));
        environment.add_filter("tojson", to_json);
        let compiled = environment.add_template_owned(NAME, without_generation_tags(source));
        match compiled {
            Ok(()) => Ok(template),
            Err(error) => Err(template.explain(&error)),
        }
    }

    /// The file or key that it came from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The template as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation; with `add_generation_prompt` up to where the assistant would begin.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] if the template refuses these messages, fails, or runs too long.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        special: &SpecialStrings,
    ) -> Result<String> {
        let mut environment = self.environment.clone();
        let text: usize = messages.iter().map(|message| message.content.len()).sum();
        let fuel = BASE_FUEL + FUEL_A_MESSAGE * messages.len() as u64 + text as u64;
        environment.set_fuel(Some(fuel.min(MAX_FUEL)));
        let turn = |message: &Message| context! { role => message.role.as_str(), content => message.content.as_str() };
        let values = context! {
            messages => messages.iter().map(turn).collect::<Vec<Value>>(),
            add_generation_prompt,
            bos_token => special.bos_token.as_deref().unwrap_or(""),
            eos_token => special.eos_token.as_deref().unwrap_or(""),
            pad_token => special.pad_token.as_deref().unwrap_or(""),
            unk_token => special.unk_token.as_deref().unwrap_or(""),
            tools => (),
            documents => (),
        };
        let rendered = environment.get_template(NAME).and_then(|template| template.render(values));
        let rendered = rendered.map_err(|error| self.explain(&error))?;
        if rendered.len() > MAX_RENDERED_BYTES {
            let reason =
                format!("it wrote {} bytes; at most {MAX_RENDERED_BYTES} are allowed", rendered.len());
            return Err(ModelError::ChatTemplate { template: self.origin.clone(), line: 0, reason });
        }
        Ok(rendered)
    }

    fn explain(&self, error: &Error) -> ModelError {
        let reason = match error.kind() {
            ErrorKind::OutOfFuel => "it runs too long, and was stopped".to_string(),
            kind => match error.detail() {
                Some(detail) => format!("{detail} ({kind})"),
                None => kind.to_string(),
            },
        };
        ModelError::ChatTemplate { template: self.origin.clone(), line: error.line().unwrap_or(0), reason }
    }
}

/// `{% generation %}…{% endgeneration %}`, by which transformers marks assistant tokens, changes no text: an `if true`.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let (before, tag) = rest.split_at(open + 2);
        result.push_str(before);
        let inner = tag.trim_start_matches(['-', '+']);
        let word_at = tag.len() - inner.trim_start().len();
        let word_end =
            tag[word_at..].find(|c: char| !c.is_alphanumeric()).map_or(tag.len(), |end| word_at + end);
        let replacement = match &tag[word_at..word_end] {
            "generation" => "if true",
            "endgeneration" => "endif",
            other => other,
        };
        result.push_str(&tag[..word_at]);
        result.push_str(replacement);
        rest = &tag[word_end..];
    }
    result.push_str(rest);
    result
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: Value, options: minijinja::value::Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let fail = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut bytes = Vec::new();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
            value.serialize(&mut serializer).map_err(fail)?;
        }
        None => {
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PythonFormatter);
            value.serialize(&mut serializer).map_err(fail)?;
        }
    }
    String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// `", "` and `": "`, as Python writes JSON on one line.
struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Seconds since 1970; `SOURCE_DATE_EPOCH` where it is set, for prompts that do not change overnight.
fn now() -> u64 {
    let fixed = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    fixed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// The directives of `strftime` that chat templates use, in UTC and English.
fn strftime(seconds: u64, format: &str) -> Result<String, Error> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const WEEKDAYS: [&str; 7] =
        ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let days = seconds / 86_400;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = civil_date(days);
    let (month_name, weekday) = (MONTHS[month as usize - 1], WEEKDAYS[(days % 7) as usize]);
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let written = match characters.next() {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('B') => month_name.to_string(),
            Some('b' | 'h') => month_name[..3].to_string(),
            Some('A') => weekday.to_string(),
            Some('a') => weekday[..3].to_string(),
            Some('H') => format!("{hour:02}"),
            Some('M') => format!("{minute:02}"),
            Some('S') => format!("{second:02}"),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('%') => "%".to_string(),
            other => {
                let directive = other.map(String::from).unwrap_or_default();
                let detail = format!("strftime_now does not know `%{directive}`");
                return Err(Error::new(ErrorKind::InvalidOperation, detail));
            }
        };
        text.push_str(&written);
    }
    Ok(text)
}

/// Year, month and day of a number of days since 1970-01-01 (Howard Hinnant, `civil_from_days`).
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // from 0000-03-01, so that leap days come last in a year
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(content: &str) -> Vec<Message> {
        vec![Message { role: "user".to_string(), content: content.to_string() }]
    }

    fn render(source: &str, content: &str) -> Result<String> {
        ChatTemplate::new("test.jinja", source)?.render(&user(content), true, &SpecialStrings::default())
    }

    #[test]
    fn blocks_are_trimmed_and_python_methods_work_as_in_transformers() {
        let source = "{% for m in messages %}\n  {% if true %}\n[{{ m['content'].strip().upper() }}]\n  {% endif %}\n{% endfor %}\n{{ messages[0] | tojson }}";
        assert_eq!(render(source, " <a> ").unwrap(), "[<A>]\n{\"role\": \"user\", \"content\": \" <a> \"}");
    }

    #[test]
    fn generation_tags_change_nothing() {
        let source = "a{%- generation -%} {{ messages[0].content }} {% endgeneration %}b";
        assert_eq!(render(source, "x").unwrap(), "ax b");
    }

    #[test]
    fn what_a_template_raises_names_the_template_and_the_line() {
        let error = render("a\n{{ raise_exception('roles must alternate') }}", "x").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`test.jinja`, line 2: roles must alternate"), "{text}");
        let error = ChatTemplate::new("test.jinja", "a\n\n{% if %}").unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
    }

    #[test]
    fn a_template_cannot_run_away() {
        let endless = "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}";
        assert!(render(endless, "x").unwrap_err().to_string().contains("runs too long"));
        let recursive = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        assert!(render(recursive, "x").is_err());
        let doubling = "{% set ns = namespace(s='x' * 1000) %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}";
        assert!(render(doubling, "x").is_err());
        let file = "{% include '/etc/passwd' %}";
        assert!(render(file, "x").is_err());
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(strftime(0, "%A %d %b %Y %H:%M:%S").unwrap(), "Thursday 01 Jan 1970 00:00:00");
        assert_eq!(strftime(1_709_210_096, "%a %d %B %Y %T").unwrap(), "Thu 29 February 2024 12:34:56");
        assert!(strftime(0, "%Q").is_err());
    }
}
