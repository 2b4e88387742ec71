//! A template file: front matter, then the parts `--- system` and `--- step N`, compiled in a sandbox.

use super::TemplateError;
use super::front_matter::{Field, FrontMatter};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};
use std::io::{self, Write};

/// Largest template file.
const MAX_FILE: usize = 64 << 10;

/// Largest part after it was filled in: far above any judge's context, far below what hurts.
const MAX_RENDERED: usize = 4 << 20;

/// Steps of the template engine, far above any real prompt and far below a hang.
const FUEL: u64 = 100_000;

/// Deepest nesting of calls and includes.
const RECURSION: usize = 32;

/// Values that every template has beside its fields.
pub(super) const ALWAYS: [&str; 3] = ["labels", "tie", "codes"];

const BUILT_IN: [(&str, &str); 11] = [
    ("explain", include_str!("../../templates/explain.j2")),
    ("confidence", include_str!("../../templates/confidence.j2")),
    ("json", include_str!("../../templates/json.j2")),
    ("verdict_only", include_str!("../../templates/verdict_only.j2")),
    ("two_step", include_str!("../../templates/two_step.j2")),
    ("per_criterion", include_str!("../../templates/per_criterion.j2")),
    ("metrics", include_str!("../../templates/metrics.j2")),
    ("reference", include_str!("../../templates/reference.j2")),
    ("multi_step", include_str!("../../templates/multi_step.j2")),
    ("constitution", include_str!("../../templates/constitution.j2")),
    ("rating", include_str!("../../templates/rating.j2")),
];

/// Names of the built-in templates, in the order of the documentation.
pub fn built_in_names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// A template that compiles and shows what it says it shows.
#[derive(Debug, Clone)]
pub struct Template {
    front: FrontMatter,
    file: String,
    source: String,
    environment: Environment<'static>,
    parts: Vec<Part>,
}

/// Where a part stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// `None` for the system prompt, else the step from 0.
    step: Option<usize>,
    /// The line after its mark, from 1.
    first_line: usize,
    /// The text.
    text: String,
    /// Fields that it uses.
    uses: Vec<Field>,
}

impl Template {
    /// The built-in template of this name.
    pub fn built_in(name: &str) -> Option<Self> {
        let (name, source) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
        Some(Self::parse(name, source).expect("every built-in template is read by a test"))
    }

    /// A template from the text of a file; `file` is its name in messages.
    ///
    /// # Errors
    /// With file, line and what to do: if the front matter is not as it must be, a part is missing, or the template uses what
    /// it does not have.
    pub fn parse(file: &str, source: &str) -> Result<Self, TemplateError> {
        let error = |line, message: &str, hint: &str| Err(TemplateError::new(file, line, message, hint));
        if source.len() > MAX_FILE {
            return error(None, "the file is larger than 64 KiB", "A judge's template is a page of text");
        }
        let source = source.strip_prefix('\u{feff}').unwrap_or(source).replace("\r\n", "\n");
        let begin = "Begin the file with a line `---`, the front matter, and another line `---`";
        let Some(rest) = source.strip_prefix("---\n") else {
            return error(Some(1), "there is no front matter", begin);
        };
        let Some(end) = rest.find("\n---\n") else {
            return error(Some(1), "the front matter has no end", begin);
        };
        let (head, body) = (&rest[..end], &rest[end + 5..]);
        let front = FrontMatter::read(file, head, 2)?;
        let body_line = 3 + head.matches('\n').count() + 1;
        let mut parts = parts(file, body, body_line, front.steps.len())?;
        let mut environment = environment();
        for part in &mut parts {
            part.uses = compile(file, &front, &mut environment, part)?;
        }
        let shown = |field: &Field| parts.iter().any(|part| part.uses.contains(field));
        if let Some(field) = front.fields.iter().find(|field| !shown(field)) {
            let message = format!("`{field}` is named in `fields` and shown nowhere");
            return error(None, &message, "Write it into a step between double braces, or leave it out");
        }
        Ok(Self { front, file: file.into(), source, environment, parts })
    }

    /// The front matter.
    pub fn front(&self) -> &FrontMatter {
        &self.front
    }

    /// The name in labels, reports and the ledger.
    pub fn name(&self) -> &str {
        &self.front.name
    }

    /// Hash of the whole file: another text makes other labels.
    pub fn fingerprint(&self) -> String {
        blake3::hash(self.source.as_bytes()).to_hex()[..32].to_string()
    }

    /// How the template is called in messages.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Whether a step's turn shows nothing of the responses: it is then the same for every pair of a prompt.
    pub fn shows_only_the_prompt(&self, step: usize) -> bool {
        let responses = [Field::First, Field::Second, Field::Response];
        self.parts.iter().filter(|part| part.step == Some(step)).all(|part| {
            part.uses.contains(&Field::Prompt) && !part.uses.iter().any(|field| responses.contains(field))
        })
    }

    /// Fills in the system prompt (`None`) or the turn of a step; `None` where the template has no such part.
    pub(super) fn fill(
        &self,
        step: Option<usize>,
        values: &minijinja::Value,
    ) -> Result<Option<String>, TemplateError> {
        let Some(part) = self.parts.iter().find(|part| part.step == step) else { return Ok(None) };
        let mut out = Capped { bytes: Vec::new() };
        let rendered = self
            .environment
            .get_template(&part_name(step))
            .and_then(|template| template.render_captured_to(values.clone(), &mut out).map(drop));
        rendered.map_err(|error| engine_error(&self.file, part, &error))?;
        let text = String::from_utf8(out.bytes).expect("the engine writes text");
        Ok(Some(text.trim_end().to_owned()))
    }
}

/// Cuts the body at its marks.
fn parts(file: &str, body: &str, body_line: usize, steps: usize) -> Result<Vec<Part>, TemplateError> {
    const HINT: &str = "The parts are `--- system` (may be left out), then `--- step 1`, `--- step 2`, … as many as `[[steps]]`";
    let error = |line: usize, message: String| Err(TemplateError::new(file, Some(line), message, HINT));
    let mut parts: Vec<Part> = Vec::new();
    for (index, line) in body.lines().enumerate() {
        let at = body_line + index;
        let Some(mark) = line.strip_prefix("--- ") else {
            match parts.last_mut() {
                Some(part) => {
                    part.text.push_str(line);
                    part.text.push('\n');
                }
                None if line.trim().is_empty() => {}
                None => return error(at, "text stands before the first part".into()),
            }
            continue;
        };
        let step = match mark.trim() {
            "system" => None,
            mark => match mark.strip_prefix("step ").map(|number| number.trim().parse::<usize>()) {
                Some(Ok(number)) if number >= 1 => Some(number - 1),
                _ => return error(at, format!("`--- {mark}` is no part of a template")),
            },
        };
        let expected = parts.iter().filter(|part| part.step.is_some()).count();
        match step {
            None if !parts.is_empty() => return error(at, "`--- system` must be the first part".into()),
            Some(number) if number != expected => {
                return error(
                    at,
                    format!("`--- step {}` comes where step {} is due", number + 1, expected + 1),
                );
            }
            _ => {}
        }
        parts.push(Part { step, first_line: at + 1, text: String::new(), uses: Vec::new() });
    }
    let found = parts.iter().filter(|part| part.step.is_some()).count();
    if found != steps {
        let message = format!("the front matter has {steps} steps, and {found} are written");
        return error(body_line + body.lines().count(), message);
    }
    Ok(parts)
}

/// Compiles a part and returns the fields that it uses.
fn compile(
    file: &str,
    front: &FrontMatter,
    environment: &mut Environment<'static>,
    part: &Part,
) -> Result<Vec<Field>, TemplateError> {
    let name = part_name(part.step);
    environment
        .add_template_owned(name.clone(), part.text.clone())
        .map_err(|error| engine_error(file, part, &error))?;
    let template = environment.get_template(&name).map_err(|error| engine_error(file, part, &error))?;
    let mut names: Vec<String> = template.undeclared_variables(false).into_iter().collect();
    names.sort();
    let mut uses = Vec::new();
    for name in names {
        let line = part.text.lines().position(|line| line.contains(&name)).map(|at| part.first_line + at);
        match Field::ALL.into_iter().find(|field| field.name() == name) {
            Some(field) if front.shows(field) => uses.push(field),
            Some(field) => {
                let message = format!("`{field}` is used and not named in `fields`");
                return Err(TemplateError::new(
                    file,
                    line,
                    message,
                    "Add it to `fields` of the front matter",
                ));
            }
            None if ALWAYS.contains(&name.as_str()) => {}
            None => {
                let known: Vec<&str> = Field::ALL.into_iter().map(Field::name).chain(ALWAYS).collect();
                let hint = format!("A template has {}", known.join(", "));
                return Err(TemplateError::new(file, line, format!("nothing is called `{name}`"), hint));
            }
        }
    }
    // The texts of a pair are shown in turns: a system prompt that is the same for every call stays in the provider's cache.
    if part.step.is_none()
        && let Some(field) =
            uses.iter().find(|field| !matches!(field, Field::Criteria | Field::Rubric | Field::Principles))
    {
        let line =
            part.text.lines().position(|line| line.contains(field.name())).map(|at| part.first_line + at);
        let message = format!("`{field}` stands in the system prompt, which is the same for every call");
        return Err(TemplateError::new(file, line, message, "Show it in a step"));
    }
    Ok(uses)
}

fn part_name(step: Option<usize>) -> String {
    step.map_or_else(|| "system".to_owned(), |step| format!("step {}", step + 1))
}

/// No loader, no functions that reach outside, fuel, a bound on depth; undefined values are errors.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("a constant syntax"));
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment
}

fn engine_error(file: &str, part: &Part, error: &minijinja::Error) -> TemplateError {
    let line = error.line().map(|line| part.first_line + line.saturating_sub(1));
    let mut message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let mut hint = "Mend the template; its language is Jinja, see `docs/judges.md`";
    match error.kind() {
        minijinja::ErrorKind::OutOfFuel => {
            message = "it does not end".into();
            hint = "A template may loop over the criteria, and not much more";
        }
        minijinja::ErrorKind::WriteFailure => {
            message = "what it writes is longer than 4 MiB".into();
            hint = "A template may show each text once or twice, and not much more";
        }
        _ => {}
    }
    TemplateError::new(file, line, message, hint)
}

/// Refuses to grow without end.
struct Capped {
    bytes: Vec<u8>,
}

impl Write for Capped {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > MAX_RENDERED {
            return Err(io::Error::other("too long"));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
