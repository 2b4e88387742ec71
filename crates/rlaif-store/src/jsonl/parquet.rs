//! Rows of a Parquet file as JSON objects, by the record API of Apache's `parquet` (no Arrow).
//!
//! The file is untrusted: it is read a row group at a time, what the reader cannot follow is an error or, where the reader itself breaks
//! on it, one too; a row that is larger than a line of JSONL may be is a bad row.

use super::BadRow;
use super::lines::MAX_LINE_BYTES;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, List, Map as Pairs, Row};
use serde_json::{Map, Number, Value};
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes of all columns of a row group, unpacked; files of the Hub have 100 MB or less in one.
const MAX_ROW_GROUP_BYTES: i64 = 8 << 30;

/// Whether a file begins as Parquet does.
pub(super) fn is_parquet(head: &[u8]) -> bool {
    head.starts_with(b"PAR1")
}

/// Calls `row` with the number, from 1, and the object of each row, as [`for_each_object`](super::lines::for_each_object) does for lines.
///
/// # Errors
/// If the file is damaged, encrypted, or packed in a way that this program does not read; what was read before it is lost with it.
pub(super) fn for_each_row(
    file: File,
    mut row: impl FnMut(u64, Map<String, Value>) -> std::result::Result<(), String>,
) -> Result<Vec<BadRow>> {
    let mut read = || -> Result<Vec<BadRow>> {
        let reader = SerializedFileReader::new(file.try_clone()?).map_err(damaged)?;
        let groups = reader.metadata().row_groups();
        if let Some(group) =
            groups.iter().find(|group| !(0..=MAX_ROW_GROUP_BYTES).contains(&group.total_byte_size()))
        {
            let message = format!(
                "a row group of the Parquet file has {} bytes, more than {MAX_ROW_GROUP_BYTES}; write it in smaller ones (`row_group_size`)",
                group.total_byte_size()
            );
            return Err(Error::new(ErrorKind::InvalidData, message));
        }
        let mut bad = Vec::new();
        for (number, read) in (1..).zip(reader.get_row_iter(None).map_err(damaged)?) {
            let read = read.map_err(damaged)?;
            let object = object(&read);
            let outcome = match size(&object) {
                bytes if bytes > MAX_LINE_BYTES => {
                    Err(format!("the row has {bytes} bytes, more than {MAX_LINE_BYTES}"))
                }
                _ => row(number, object),
            };
            if let Err(reason) = outcome {
                bad.push(BadRow::new(
                    number,
                    reason,
                    Value::Object(self::object(&read)).to_string().as_bytes(),
                ));
            }
        }
        Ok(bad)
    };
    // The reader checks much, but not everything that a file can claim of itself, and panics on the rest.
    catch_unwind(AssertUnwindSafe(&mut read)).unwrap_or_else(|_| Err(damaged("the reader broke off")))
}

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::InvalidData,
        format!("the Parquet file cannot be read: {why}; write it anew, or as JSONL"),
    )
}

fn object(row: &Row) -> Map<String, Value> {
    row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

/// A field as JSON: bytes as text where they are UTF-8, else null, as are numbers that are not finite; times as their numbers.
fn value(field: &Field) -> Value {
    let real = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) | Field::Date(value) | Field::TimeMillis(value) => (*value).into(),
        Field::Long(value)
        | Field::TimeMicros(value)
        | Field::TimestampMillis(value)
        | Field::TimestampMicros(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float16(value) => real(value.to_f64()),
        Field::Float(value) => real(f64::from(*value)),
        Field::Double(value) => real(*value),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => bytes.as_utf8().map_or(Value::Null, Value::from),
        Field::Group(row) => Value::Object(object(row)),
        Field::ListInternal(list) => array(list),
        Field::MapInternal(pairs) => map(pairs),
        other => Value::String(other.to_string()),
    }
}

fn array(list: &List) -> Value {
    list.elements().iter().map(value).collect()
}

fn map(pairs: &Pairs) -> Value {
    let key = |field: &Field| match value(field) {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Value::Object(pairs.entries().iter().map(|(name, field)| (key(name), value(field))).collect())
}

/// About as many bytes as the row would have as a line of JSONL.
fn size(object: &Map<String, Value>) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len() + 2,
            Value::Array(items) => items.iter().map(of).sum::<usize>() + 2,
            Value::Object(object) => size(object),
            _ => 8,
        }
    }
    object.iter().map(|(name, value)| name.len() + 4 + of(value)).sum::<usize>() + 2
}
