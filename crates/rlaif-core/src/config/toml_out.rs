//! A config as TOML with every key, and a comment behind each.

use super::Config;
use serde_json::{Map, Value};
use std::fmt::Write;

/// Writes every key of the config; `comment` says what stands behind it.
pub(super) fn write(config: &Config, comment: impl Fn(&str) -> String) -> String {
    let value = serde_json::to_value(config).expect("a config has only texts, numbers and lists of them");
    let mut out = String::new();
    if let Value::Object(sections) = &value {
        write_table(&mut out, "", "", sections, &comment);
    }
    out
}

/// Calls `visit` with each key that has a value of its own: scalars, lists of scalars, empty lists and nulls.
pub(super) fn each_leaf(path: &str, value: &Value, visit: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                each_leaf(&path, value, visit);
            }
        }
        Value::Array(items) if is_tables(items) => {
            for (index, item) in items.iter().enumerate() {
                each_leaf(&format!("{path}[{index}]"), item, visit);
            }
        }
        leaf => visit(path, leaf),
    }
}

/// `header` is the table's name in TOML, `path` its key with indices.
fn write_table(
    out: &mut String,
    header: &str,
    path: &str,
    table: &Map<String, Value>,
    comment: &impl Fn(&str) -> String,
) {
    let below = |parent: &str, key: &str| {
        if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
    };
    // TOML wants a table's own keys before its sub-tables.
    for (key, value) in table {
        match value {
            Value::Object(_) => {}
            Value::Array(items) if is_tables(items) => {}
            leaf => {
                let comment = comment(&below(path, key));
                let key = toml_key(key);
                let _ = writeln!(out, "{key} = {}  # {comment}", toml_value(leaf));
            }
        }
    }
    for (key, value) in table {
        let (header, path) = (below(header, &toml_key(key)), below(path, key));
        match value {
            Value::Object(inner) if inner.is_empty() => {}
            Value::Object(inner) => {
                open(out, &format!("[{header}]"));
                write_table(out, &header, &path, inner, comment);
            }
            Value::Array(items) if is_tables(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Value::Object(inner) = item {
                        open(out, &format!("[[{header}]]"));
                        write_table(out, &header, &format!("{path}[{index}]"), inner, comment);
                    }
                }
            }
            _ => {}
        }
    }
}

fn open(out: &mut String, header: &str) {
    let gap = if out.is_empty() { "" } else { "\n" };
    let _ = writeln!(out, "{gap}{header}");
}

/// A key as it is, or in quotes where TOML wants them: `gpt-4.1` is two keys otherwise.
fn toml_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { toml::Value::String(key.to_owned()).to_string() }
}

/// A list of nothing but tables; one that mixes names and tables is written in one line.
fn is_tables(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(Value::is_object)
}

fn toml_value(value: &Value) -> String {
    match value {
        Value::Null => "\"none\"".into(),
        Value::Bool(bool) => bool.to_string(),
        Value::Number(number) if number.is_f64() => {
            toml::Value::Float(number.as_f64().expect("is_f64 said so")).to_string()
        }
        Value::Number(number) => number.to_string(),
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", "))
        }
        // Inside a list of mixed kinds; elsewhere tables stand under their own headers.
        Value::Object(inner) => {
            let fields: Vec<String> = inner
                .iter()
                .map(|(key, value)| format!("{} = {}", toml_key(key), toml_value(value)))
                .collect();
            format!("{{ {} }}", fields.join(", "))
        }
    }
}
