//! JSON as servers really send it. A reply was paid for, so that what is merely untidy is read all the same: half a surrogate
//! pair, bytes that are no UTF-8, Python's `NaN` and `Infinity`, numbers beyond a double. What has two meanings is refused.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;

/// Why bytes are no JSON value with one meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BadJson {
    /// An object gives this key twice.
    Duplicate(String),
    /// It ends in the middle.
    CutOff,
    /// It is something else.
    NotJson,
}

/// Reads a value, mending what can be mended.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, BadJson> {
    match strict(bytes) {
        Err(BadJson::NotJson) => {}
        other => return other,
    }
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    strict(mend(text).as_bytes())
}

fn strict(bytes: &[u8]) -> Result<Value, BadJson> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = OneMeaning::deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value.0)
    });
    value.map_err(|error| {
        let message = error.to_string();
        match message.split_once(DUPLICATE).map(|(_, rest)| rest) {
            Some(rest) => BadJson::Duplicate(rest.split('`').next().unwrap_or_default().to_owned()),
            None if error.is_eof() => BadJson::CutOff,
            None => BadJson::NotJson,
        }
    })
}

const DUPLICATE: &str = "the key twice: `";

/// A value whose objects have each key once.
struct OneMeaning(Value);

impl<'de> Deserialize<'de> for OneMeaning {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneMeaningVisitor).map(Self)
    }
}

struct OneMeaningVisitor;

impl<'de> Visitor<'de> for OneMeaningVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(OneMeaning(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, OneMeaning(value))) = entries.next_entry::<String, OneMeaning>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("{DUPLICATE}{key}`")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// The text with lone surrogates as U+FFFD, and with numbers that JSON does not have as `null`.
fn mend(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let (mut from, mut at, mut in_string) = (0, 0, false);
    while at < bytes.len() {
        let (length, replacement) = match bytes[at] {
            b'"' => {
                in_string = !in_string;
                (1, None)
            }
            b'\\' if in_string => escape(&bytes[at..]),
            _ if in_string => (1, None),
            b'-' | b'+' | b'0'..=b'9' | b'N' | b'I' | b'i' | b'n' => number(&text[at..]),
            _ => (1, None),
        };
        if let Some(replacement) = replacement {
            out.push_str(&text[from..at]);
            out.push_str(replacement);
            from = at + length;
        }
        at += length;
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[from..]);
    Cow::Owned(out)
}

/// Length of the escape at the start, and what to put in its place.
fn escape(bytes: &[u8]) -> (usize, Option<&'static str>) {
    let unit = |at: usize| -> Option<u16> {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match unit(0) {
        Some(0xD800..=0xDBFF) if matches!(unit(6), Some(0xDC00..=0xDFFF)) => (12, None),
        Some(0xD800..=0xDFFF) => (6, Some("\\ufffd")),
        Some(_) => (6, None),
        None => (2.min(bytes.len()), None),
    }
}

/// Length of the word or number at the start, and `null` in its place if JSON has no such number.
fn number(text: &str) -> (usize, Option<&'static str>) {
    let length = text
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.'))
        .count()
        .max(1);
    let word = &text[..length];
    let odd = match word.trim_start_matches(['-', '+']).to_ascii_lowercase().as_str() {
        "nan" | "infinity" | "inf" => true,
        "null" => false,
        _ => word.parse::<f64>().is_ok_and(f64::is_infinite),
    };
    (length, odd.then_some("null"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_is_untidy_is_mended_and_nothing_else_changes() {
        assert_eq!(parse(br#"{"a":"x\ud83d"}"#), Ok(json!({"a": "x\u{fffd}"})));
        assert_eq!(parse(br#"{"a":"\ude00\ud83d\ude00"}"#), Ok(json!({"a": "\u{fffd}😀"})));
        assert_eq!(parse(br#"{"a":"\\ud83d"}"#), Ok(json!({"a": "\\ud83d"})), "an escaped backslash");
        assert_eq!(
            parse(br#"{"a":[NaN,-Infinity,1e999,-1e999,null,2e3]}"#),
            Ok(json!({"a": [null, null, null, null, null, 2000.0]}))
        );
        assert_eq!(parse(br#"{"a":"NaN 1e999","b":NaN}"#), Ok(json!({"a": "NaN 1e999", "b": null})));
        assert_eq!(parse(b"{\"a\":\"\xff\"}"), Ok(json!({"a": "\u{fffd}"})));
        assert_eq!(parse("\u{feff}{\"a\":1}".as_bytes()), Ok(json!({"a": 1})));
    }

    #[test]
    fn what_has_two_meanings_or_none_is_refused() {
        assert_eq!(parse(br#"{"a":{"b":1,"b":2}}"#), Err(BadJson::Duplicate("b".into())));
        assert_eq!(parse(br#"[{"c":NaN,"c":2}]"#), Err(BadJson::Duplicate("c".into())));
        assert_eq!(parse(br#"{"a":"#), Err(BadJson::CutOff));
        assert_eq!(parse(br#"{"a":1} x"#), Err(BadJson::NotJson));
        assert_eq!(parse(b"<html>"), Err(BadJson::NotJson));
        assert_eq!(parse("[".repeat(100_000).as_bytes()), Err(BadJson::NotJson), "no stack overflow");
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn never_panics_on_what_is_nearly_json(text in r#"[\[\]{}",:\\uNaIinfDd8c0-9eE.+-]{0,40}"#) {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn good_json_is_read_as_serde_reads_it(text in "\\PC{0,20}", number in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
            let value = json!({"text": text, "list": [number, null, true, -3]});
            let text = value.to_string();
            prop_assert_eq!(parse(text.as_bytes()), Ok(serde_json::from_str(&text).unwrap()));
        }
    }
}
