//! From the text of `rlaif.toml`, environment and flags to a [`Config`], with the origin of each value.
//!
//! Order: flag, then environment, then file, then default. The file is checked against an example config that has every
//! key, so that all unknown keys and wrong types are found at once, not only the first.

use super::example::{ANY_KEY, ANY_VALUE, bare_examples, full_example};
use super::{Config, Problem, toml_out};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use toml::de::{DeTable, DeValue};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `--set key=value`.
    Flag,
    /// The environment variable of this name.
    Env(String),
    /// The config file.
    File,
    /// The default of this program.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::File => f.write_str("file"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A config and where each of its values came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The config, checked by [`Config::validate`].
    pub config: Config,
    /// Dotted key (`ppo.kl_coef`, `label.judges[0].model`) to origin, for every key.
    pub origins: BTreeMap<String, Origin>,
}

impl Resolved {
    /// The config as TOML with every key, its value and, as a comment behind it, its origin. Loading it gives the same
    /// config again. A key without a value is written as `"none"`.
    pub fn to_toml(&self) -> String {
        toml_out::write(&self.config, |key| self.origins.get(key).unwrap_or(&Origin::Default).to_string())
    }
}

/// Everything that is wrong with a config, at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [problem] => write!(f, "{problem}"),
            problems => {
                write!(f, "{} problems in the config", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl Config {
    /// Reads a config from the text of a file, `--set` overrides and the environment, and validates it.
    ///
    /// * `overrides`: dotted key (`ppo.kl_coef`, `label.judges[0].model`) and a TOML value; text needs no quotes, a list of
    ///   texts may be separated by commas.
    /// * `env`: looks a variable up; `ppo.optim.learning_rate` is `RLAIF_PPO_OPTIM_LEARNING_RATE`. Judges and few-shot
    ///   examples cannot be set from the environment.
    ///
    /// An optional key is emptied by `"none"`, since TOML has no null. A remote judge that names no protocol is `pairwise`.
    ///
    /// # Errors
    /// All problems at once: TOML syntax, unknown keys with the nearest known one, wrong types, missing keys, and what
    /// [`Config::validate`] finds. Problems of the file carry their line.
    pub fn load(
        text: &str,
        overrides: &[(String, String)],
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Resolved, ConfigError> {
        let mut loader = Loader::new();
        let Some(mut given) = loader.read_file(text) else {
            return Err(loader.into_error());
        };
        loader.apply_environment(&mut given, env);
        for (key, value) in overrides {
            loader.apply(&mut given, key, value, Place::Flag);
        }
        let full = loader.full.clone();
        let mut given = loader.check("", &full, given).unwrap_or_else(|| Value::Object(Map::new()));
        default_protocols(&mut given);

        let mut merged = json(&Config::default());
        merge(&mut merged, given);
        let config: Config = match serde_json::from_value(merged) {
            Ok(config) => config,
            Err(error) => {
                // Missing keys are problems already; anything else that `check` let through has only serde's words.
                if loader.problems.is_empty() {
                    loader.problem("", error.to_string());
                }
                return Err(loader.into_error());
            }
        };
        loader.validate(&config);
        if loader.problems.is_empty() {
            let origins = loader.origins(&config);
            Ok(Resolved { config, origins })
        } else {
            Err(loader.into_error())
        }
    }
}

/// Where a given value stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Line(usize),
    Env(String),
    Flag,
}

impl Place {
    fn words(&self) -> String {
        match self {
            Self::Line(line) => format!("on line {line}"),
            Self::Env(name) => format!("in `{name}`"),
            Self::Flag => "in `--set`".into(),
        }
    }
}

/// What is collected on the way.
struct Loader {
    /// A config with every key, each of a value of its type: the schema.
    full: Value,
    /// Keys that may be `"none"`, with `[0]` for every index.
    optional: BTreeSet<String>,
    problems: Vec<Problem>,
    /// Key to place, for every value that was given, tables included.
    places: BTreeMap<String, Place>,
}

impl Loader {
    fn new() -> Self {
        let mut optional = BTreeSet::new();
        for bare in bare_examples() {
            toml_out::each_leaf("", &json(&bare), &mut |key, value| {
                if value.is_null() {
                    optional.insert(key.to_owned());
                }
            });
        }
        Self { full: json(&full_example()), optional, problems: Vec::new(), places: BTreeMap::new() }
    }

    /// The problems in the order of the file; then those of variables and flags, then those of keys that were not given.
    fn into_error(mut self) -> ConfigError {
        let place = |key: &str| {
            let mut ends = key.rmatch_indices(['.', '[']).map(|(end, _)| end);
            let mut key = key;
            loop {
                if let Some(place) = self.places.get(key) {
                    return (false, Some(place));
                }
                match ends.next() {
                    Some(end) => key = &key[..end],
                    None => return (true, None),
                }
            }
        };
        let mut problems = std::mem::take(&mut self.problems);
        problems.sort_by(|a, b| place(&a.key).cmp(&place(&b.key)));
        ConfigError { problems }
    }

    fn problem(&mut self, key: &str, message: String) {
        self.problems.push(Problem { key: key.to_owned(), message });
    }

    /// "`key` {message} (line 12)".
    fn problem_at(&mut self, key: &str, message: &str) {
        self.problem(key, format!("`{key}` {message}{}", self.place_of(key)));
    }

    /// " (line 12)"; of a key that was not given, the line of its element in a list, or nothing.
    fn place_of(&self, key: &str) -> String {
        let element = key.rfind(']').map(|end| &key[..=end]);
        match self.places.get(key).or_else(|| self.places.get(element?)) {
            Some(Place::Line(line)) => format!(" (line {line})"),
            Some(Place::Env(name)) => format!(" (`{name}`)"),
            Some(Place::Flag) => " (`--set`)".into(),
            None => String::new(),
        }
    }

    /// The file as JSON; `None` if it is no TOML.
    fn read_file(&mut self, text: &str) -> Option<Value> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let message = error.message().replace('\n', ", ");
            let message = match error.span() {
                Some(span) => format!("line {}: {message}", line_of(text, span.start)),
                None => message,
            };
            self.problem("", message);
        }
        if !errors.is_empty() {
            return None;
        }
        let line = |offset: usize| Place::Line(line_of(text, offset));
        self.table_to_json("", table.get_ref(), &line)
    }

    /// A TOML table as JSON, with the place of each key noted.
    fn table_to_json(
        &mut self,
        path: &str,
        table: &DeTable<'_>,
        place: &dyn Fn(usize) -> Place,
    ) -> Option<Value> {
        let mut object = Map::new();
        for (key, value) in table {
            let path = join(path, key.get_ref());
            self.places.insert(path.clone(), place(key.span().start));
            if let Some(value) = self.value_to_json(&path, value.get_ref(), place) {
                object.insert(key.get_ref().to_string(), value);
            }
        }
        Some(Value::Object(object))
    }

    /// A TOML value as JSON; one that JSON does not have is a problem, and `None`.
    fn value_to_json(
        &mut self,
        path: &str,
        value: &DeValue<'_>,
        place: &dyn Fn(usize) -> Place,
    ) -> Option<Value> {
        match value {
            DeValue::String(text) => Some(Value::String(text.to_string())),
            DeValue::Boolean(bool) => Some(Value::Bool(*bool)),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Some(Value::from(integer)),
                Err(_) => {
                    self.problem_at(path, &format!("must be below 2^63, got {}", integer.as_str()));
                    None
                }
            },
            DeValue::Float(float) => {
                let parsed = float.as_str().parse::<f64>().ok();
                match parsed.and_then(serde_json::Number::from_f64) {
                    Some(number) => Some(Value::Number(number)),
                    None => {
                        self.problem_at(path, &format!("must be a finite number, got {}", float.as_str()));
                        None
                    }
                }
            }
            DeValue::Datetime(date) => {
                self.problem_at(path, &format!("cannot be a date, got {date}"));
                None
            }
            DeValue::Array(array) => {
                let mut values = Vec::new();
                for (index, value) in array.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.places.insert(path.clone(), place(value.span().start));
                    values.push(self.value_to_json(&path, value.get_ref(), place)?);
                }
                Some(Value::Array(values))
            }
            DeValue::Table(table) => self.table_to_json(path, table, place),
        }
    }

    fn apply_environment(&mut self, given: &mut Value, env: impl Fn(&str) -> Option<String>) {
        let mut keys = Vec::new();
        settable_keys("", &self.full, &self.optional, &mut keys);
        for key in keys.into_iter().filter(|key| !key.contains(ANY_KEY)) {
            let name = format!("RLAIF_{}", key.replace('.', "_").to_uppercase());
            if let Some(value) = env(&name) {
                self.apply(given, &key, &value, Place::Env(name));
            }
        }
    }

    /// Sets one key from the words of a flag or variable.
    fn apply(&mut self, given: &mut Value, key: &str, text: &str, place: Place) {
        let Some(path) = segments(key) else {
            self.problem(key, format!("`{key}` {} is no key such as `ppo.kl_coef`", place.words()));
            return;
        };
        let key = path.iter().fold(String::new(), |key, segment| match segment {
            Segment::Key(name) => join(&key, name),
            Segment::Index(index) => format!("{key}[{index}]"),
        });
        self.places.retain(|known, _| !is_below(known, &key));
        self.places.insert(key.clone(), place.clone());
        let Some(value) = self.setting(&key, schema_at(&self.full, &path).cloned(), text, &place) else {
            return;
        };
        let defaults = json(&Config::default());
        let (mut target, mut default) = (given, Some(&defaults));
        for segment in &path {
            target = match segment {
                Segment::Key(name) => {
                    default = default.and_then(|value| value.get(name));
                    if target.is_null() {
                        *target = Value::Object(Map::new());
                    }
                    let Some(object) = target.as_object_mut() else {
                        self.problem(&key, format!("`{key}` {}: its parent is not a table", place.words()));
                        return;
                    };
                    object.entry(name.clone()).or_insert(Value::Null)
                }
                Segment::Index(index) => {
                    if target.is_null() {
                        *target =
                            default.filter(|value| value.is_array()).cloned().unwrap_or(Value::Array(vec![]));
                    }
                    default = None;
                    let Some(array) = target.as_array_mut() else {
                        self.problem(&key, format!("`{key}` {}: its parent is not a list", place.words()));
                        return;
                    };
                    if *index == array.len() {
                        array.push(Value::Null);
                    }
                    let length = array.len();
                    let Some(element) = array.get_mut(*index) else {
                        let message = format!("`{key}` {}: the list has only {length}", place.words());
                        self.problem(&key, message);
                        return;
                    };
                    element
                }
            };
        }
        *target = value;
    }

    /// The value that a flag's or variable's text means for a key of this type.
    fn setting(&mut self, key: &str, schema: Option<Value>, text: &str, place: &Place) -> Option<Value> {
        let quoted = text.starts_with(['"', '\'']);
        match schema {
            Some(Value::String(_)) if !quoted => return Some(Value::String(text.to_owned())),
            Some(Value::Array(items))
                if (items.iter().all(Value::is_string) || has_short_form(&format!("{key}[0]")))
                    && !text.starts_with('[') =>
            {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                return Some(items.map(Value::from).collect());
            }
            _ => {}
        }
        match DeValue::parse(text) {
            Ok(value) => self.value_to_json(key, value.get_ref(), &|_| place.clone()),
            Err(_) => Some(Value::String(text.to_owned())),
        }
    }

    /// `given` without what does not fit the schema; each misfit is a problem.
    fn check(&mut self, path: &str, full: &Value, given: Value) -> Option<Value> {
        if (given.is_null() || given == "none") && self.optional.contains(&with_index_0(path)) {
            return Some(Value::Null);
        }
        match (full, given) {
            (Value::Object(_), Value::String(name)) if has_short_form(path) => Some(Value::String(name)),
            (Value::Object(known), given @ Value::Object(_))
                if known.get(ANY_KEY).is_some_and(|any| any == ANY_VALUE) =>
            {
                Some(given)
            }
            (Value::Object(known), Value::Object(given)) => {
                let mut kept = Map::new();
                for (key, value) in given {
                    let path = join(path, &key);
                    if let Some(full) = known.get(ANY_KEY) {
                        self.missing_keys(&path, full, &value);
                    }
                    let Some(full) = known.get(&key).or_else(|| known.get(ANY_KEY)) else {
                        self.unknown_key(&path, &key, known);
                        continue;
                    };
                    if let Some(value) = self.check(&path, full, value) {
                        kept.insert(key, value);
                    }
                }
                Some(Value::Object(kept))
            }
            (Value::Array(known), Value::Array(given)) => {
                let full = known.first()?;
                let mut kept = Vec::new();
                for (index, value) in given.into_iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.missing_keys(&path, full, &value);
                    if let Some(value) = self.check(&path, full, value) {
                        kept.push(value);
                    }
                }
                Some(Value::Array(kept))
            }
            (Value::Number(known), Value::Number(number)) if known.is_f64() => Some(Value::Number(number)),
            (Value::Number(known), Value::Number(number)) if known.is_u64() => {
                if number.is_u64() {
                    return Some(Value::Number(number));
                }
                let kind = if number.is_f64() { "a whole number" } else { "at least 0" };
                self.problem_at(path, &format!("must be {kind}, got {number}"));
                None
            }
            (Value::Bool(_), Value::Bool(given)) => Some(Value::Bool(given)),
            (Value::String(_), Value::String(given)) => self.check_text(path, given),
            (known, given) => {
                self.problem_at(path, &format!("must be {}, got {}", kind_words(known), value_words(&given)));
                None
            }
        }
    }

    /// A text is free, or one of a few words: tried on the real structs, so that no list of words is kept twice.
    fn check_text(&mut self, path: &str, given: String) -> Option<Value> {
        let value = Value::String(given);
        let mut trial = self.full.clone();
        *segments(path).and_then(|path| schema_at_mut(&mut trial, &path))? = value.clone();
        match serde_json::from_value::<Config>(trial) {
            Ok(_) => Some(value),
            Err(error) => {
                let message = error.to_string();
                let expected = message.split_once("expected ").map_or(message.as_str(), |(_, words)| words);
                self.problem_at(path, &format!("must be {expected}, got {}", value_words(&value)));
                None
            }
        }
    }

    /// Keys without a default that an element of a list lacks.
    fn missing_keys(&mut self, path: &str, full: &Value, given: &Value) {
        let (Value::Object(known), Value::Object(given)) = (full, given) else { return };
        for key in known.keys().filter(|key| !given.contains_key(*key)) {
            let mut trial = self.full.clone();
            // The user's own names may hold dots; the example knows only one.
            let place = match path.strip_prefix("prices.") {
                Some(_) => format!("prices.{ANY_KEY}"),
                None => path.to_owned(),
            };
            let element = segments(&place).and_then(|path| schema_at_mut(&mut trial, &path));
            if let Some(Value::Object(element)) = element {
                element.shift_remove(key);
            }
            if serde_json::from_value::<Config>(trial).is_err() {
                let place =
                    self.places.get(path).map(|place| format!(" {}", place.words())).unwrap_or_default();
                self.problem(&join(path, key), format!("`{path}`{place} has no `{key}`"));
            }
        }
    }

    fn unknown_key(&mut self, path: &str, key: &str, known: &Map<String, Value>) {
        let place = self.places.get(path).map(|place| format!(" {}", place.words())).unwrap_or_default();
        let hint = match nearest(key, known.keys()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => match self.full.as_object().and_then(|sections| section_with(key, sections)) {
                Some(section) => format!("it is a key of `[{section}]`"),
                None => {
                    let names: Vec<_> = known.keys().map(|key| format!("`{key}`")).collect();
                    format!("the keys here are {}", names.join(", "))
                }
            },
        };
        self.problem(path, format!("unknown key `{path}`{place}; {hint}"));
    }

    /// Adds what `validate()` finds. Beside earlier problems only what concerns a given key counts: the rest may be
    /// nothing but their consequence.
    fn validate(&mut self, config: &Config) {
        let earlier = !self.problems.is_empty();
        for problem in config.validate() {
            if earlier && !self.places.contains_key(&problem.key) {
                continue;
            }
            self.problem(&problem.key, format!("{}{}", problem.message, self.place_of(&problem.key)));
        }
    }

    fn origins(&self, config: &Config) -> BTreeMap<String, Origin> {
        let mut origins = BTreeMap::new();
        toml_out::each_leaf("", &json(config), &mut |key, _| {
            let origin = match self.places.get(key) {
                Some(Place::Line(_)) => Origin::File,
                Some(Place::Env(name)) => Origin::Env(name.clone()),
                Some(Place::Flag) => Origin::Flag,
                None => Origin::Default,
            };
            origins.insert(key.to_owned(), origin);
        });
        origins
    }
}

/// One step into the config.
enum Segment {
    Key(String),
    Index(usize),
}

/// `label.judges[0].model`, or the same as `label.judges.0.model`.
fn segments(key: &str) -> Option<Vec<Segment>> {
    let mut path = Vec::new();
    for part in key.split('.') {
        let (name, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        match name.parse() {
            Ok(index) if !path.is_empty() => path.push(Segment::Index(index)),
            _ if name.is_empty() => return None,
            _ => path.push(Segment::Key(name.to_owned())),
        }
        let mut rest = indices;
        while !rest.is_empty() {
            let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
            path.push(Segment::Index(index.parse().ok()?));
            rest = after;
        }
    }
    Some(path)
}

/// The example's value at a key; every index means its only element.
fn schema_at<'a>(full: &'a Value, path: &[Segment]) -> Option<&'a Value> {
    path.iter().try_fold(full, |value, segment| match segment {
        Segment::Key(name) => value.get(name),
        Segment::Index(_) => value.get(0),
    })
}

fn schema_at_mut<'a>(full: &'a mut Value, path: &[Segment]) -> Option<&'a mut Value> {
    path.iter().try_fold(full, |value, segment| match segment {
        Segment::Key(name) => value.get_mut(name),
        Segment::Index(_) => value.get_mut(0),
    })
}

/// Every key that one variable can set: leaves and optional tables, nothing inside lists of tables.
fn settable_keys(path: &str, full: &Value, optional: &BTreeSet<String>, keys: &mut Vec<String>) {
    match full {
        Value::Object(object) => {
            if optional.contains(path) {
                keys.push(path.to_owned());
            }
            for (key, value) in object {
                settable_keys(&join(path, key), value, optional, keys);
            }
        }
        Value::Array(items)
            if items.iter().any(Value::is_object) && !has_short_form(&format!("{path}[0]")) => {}
        _ => keys.push(path.to_owned()),
    }
}

/// A remote judge that names no protocol is asked pairwise: it has no other.
fn default_protocols(given: &mut Value) {
    for section in ["label", "evaluate"] {
        let judges = given.get_mut(section).and_then(|section| section.get_mut("judges"));
        for judge in judges.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(judge) = judge
                && judge.get("kind").is_some_and(|kind| kind != "local")
            {
                judge.entry("protocol").or_insert_with(|| "pairwise".into());
            }
        }
    }
}

fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(old) => merge(old, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// The nearest known key, if one is near enough to have been meant (half of its letters).
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let close = |known: &&String| strsim::normalized_damerau_levenshtein(key, known);
    let best = known.max_by(|a, b| close(a).total_cmp(&close(b)))?;
    (close(&best) >= 0.5).then_some(best)
}

/// The first section that has this key, for keys that stand in the wrong one.
fn section_with<'a>(key: &str, sections: &'a Map<String, Value>) -> Option<&'a String> {
    sections.iter().find(|(_, section)| section.get(key).is_some()).map(|(name, _)| name)
}

fn kind_words(known: &Value) -> &'static str {
    match known {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "a whole number",
        Value::String(_) => "text in quotes",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn value_words(given: &Value) -> String {
    match given {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a table".into(),
        Value::Null => "nothing".into(),
        Value::String(text) if text.chars().count() > 60 => "a long text".into(),
        scalar => scalar.to_string(),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn is_below(known: &str, key: &str) -> bool {
    known.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

fn json(config: &Config) -> Value {
    serde_json::to_value(config).expect("a config has only texts, numbers and lists of them")
}

/// Whether an element of a list may be given as its name alone.
fn has_short_form(path: &str) -> bool {
    with_index_0(path) == "label.criteria[0]"
}

/// `label.judges[3].model` as `label.judges[0].model`: the examples' lists have one element.
fn with_index_0(path: &str) -> String {
    let mut parts = path.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + "[0" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}
