//! From JSON, a vector a line, to a [tape](crate::tape). For the host: it has a heap.

extern crate std;

use core::fmt;
use std::borrow::ToOwned;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec::Vec;

use serde_json::value::RawValue;

use crate::number::Decimal;
use crate::tape::{DEPTH, MAGIC};

/// A value as JSON has it, with numbers as they were written.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// Nothing.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(Decimal),
    /// A string.
    Text(String),
    /// Values in order.
    List(Vec<Self>),
    /// Values by name.
    Object(BTreeMap<String, Self>),
}

impl Json {
    /// A vector's pattern; empty where this is none.
    #[must_use]
    pub fn pattern(&self) -> &str {
        match self {
            Self::Object(members) => match members.get("pattern") {
                Some(Self::Text(pattern)) => pattern,
                _ => "",
            },
            _ => "",
        }
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Malformed {}

/// Reads a line: one vector.
///
/// # Errors
/// What is wrong with it.
pub fn vector(line: &str) -> Result<Json, Malformed> {
    // Two passes: the first one finds syntax errors with their columns.
    let raw: &RawValue = serde_json::from_str(line).map_err(syntax)?;
    let vector = value(raw, DEPTH)?;
    let Json::Object(members) = &vector else {
        return Err(Malformed("not an object".to_owned()));
    };
    only(members, &["id", "kind", "source", "pattern", "config", "steps", "note"], "the vector")?;
    for key in ["id", "pattern"] {
        match members.get(key) {
            Some(Json::Text(text)) if !text.is_empty() => {}
            _ => return Err(Malformed(format!("`{key}` is missing, or not a string"))),
        }
    }
    let Some(Json::Object(_)) = members.get("config") else {
        return Err(Malformed("`config` is missing, or not an object".to_owned()));
    };
    let Some(Json::List(steps)) = members.get("steps") else {
        return Err(Malformed("`steps` is missing, or not a list".to_owned()));
    };
    for (number, step) in (1..).zip(steps) {
        step_shape(step).map_err(|error| Malformed(format!("step {number}: {error}")))?;
    }
    Ok(vector)
}

fn step_shape(step: &Json) -> Result<(), Malformed> {
    let Json::Object(members) = step else {
        return Err(Malformed("not an object".to_owned()));
    };
    only(members, &["at_ms", "op", "arg", "expect", "repeat", "note"], "a step")?;
    let has = |key, fits: fn(&Json) -> bool, kind| match members.get(key) {
        Some(value) if !fits(value) => Err(Malformed(format!("`{key}` is not {kind}"))),
        _ => Ok(()),
    };
    has("at_ms", |value| matches!(value, Json::Null | Json::Number(_)), "a number")?;
    has("repeat", |value| matches!(value, Json::Null | Json::Number(_)), "a number")?;
    has("expect", |value| matches!(value, Json::Null | Json::Object(_)), "an object")?;
    match members.get("op") {
        Some(Json::Text(_)) => Ok(()),
        _ => Err(Malformed("`op` is missing, or not a string".to_owned())),
    }
}

fn only(members: &BTreeMap<String, Json>, known: &[&str], what: &str) -> Result<(), Malformed> {
    match members.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(Malformed(format!("{what} has an unknown member `{key}`"))),
        None => Ok(()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn syntax(error: serde_json::Error) -> Malformed {
    let text = format!("{error}");
    // It counts lines, of which there is one.
    match text.rsplit_once(" at line 1 column ") {
        Some((what, column)) => Malformed(format!("{what} at column {column}")),
        None => Malformed(text),
    }
}

fn value(raw: &RawValue, depth: u32) -> Result<Json, Malformed> {
    let text = raw.get();
    let within = depth.checked_sub(1).ok_or_else(|| Malformed(format!("nested deeper than {DEPTH} levels")))?;
    // What a value is shows in its first byte: it is right as JSON already.
    Ok(match text.as_bytes().first() {
        Some(b'n') => Json::Null,
        Some(b't') => Json::Bool(true),
        Some(b'f') => Json::Bool(false),
        Some(b'"') => Json::Text(serde_json::from_str(text).map_err(syntax)?),
        Some(b'[') => {
            let items: Vec<Box<RawValue>> = serde_json::from_str(text).map_err(syntax)?;
            Json::List(items.iter().map(|item| value(item, within)).collect::<Result<_, _>>()?)
        }
        Some(b'{') => {
            let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).map_err(syntax)?;
            let members = members.into_iter().map(|(key, member)| Ok((key, value(&member, within)?)));
            Json::Object(members.collect::<Result<_, Malformed>>()?)
        }
        _ => Json::Number(decimal(text).ok_or_else(|| Malformed(format!("{text} has too many digits")))?),
    })
}

/// A JSON number, exactly.
fn decimal(text: &str) -> Option<Decimal> {
    let (digits, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let mut mantissa: i128 = format!("{whole}{part}").parse().ok()?;
    let mut exponent = power.parse::<i64>().ok()?.checked_sub(i64::try_from(part.len()).ok()?)?;
    // One form for each number: `15.0` is `15`, and a long row of zeros is no digits.
    while mantissa != 0 && mantissa % 10 == 0 {
        (mantissa, exponent) = (mantissa / 10, exponent.checked_add(1)?);
    }
    let mantissa = i64::try_from(mantissa).ok()?;
    let exponent = if mantissa == 0 { 0 } else { i8::try_from(exponent).ok()? };
    Some(Decimal { mantissa, exponent })
}

/// Writes vectors as a tape: only what the runner reads, without sources and notes.
#[must_use]
pub fn tape<'v>(vectors: impl IntoIterator<Item = &'v Json> + Clone) -> Vec<u8> {
    let mut strings = Strings::default();
    for vector in vectors.clone() {
        strings.count(vector);
    }
    let table = strings.place();
    let mut tape = MAGIC.to_vec();
    block(&table, &mut tape);
    for vector in vectors {
        strings.write(vector, &mut tape);
    }
    tape
}

/// Members of vectors and steps that the runner does not read.
const UNREAD: [&str; 3] = ["kind", "source", "note"];

/// The strings of a tape: how often each is there, then where it is.
#[derive(Default)]
struct Strings(BTreeMap<String, usize>);

impl Strings {
    fn count(&mut self, value: &Json) {
        match value {
            Json::Text(text) => *self.0.entry(text.clone()).or_default() += 1,
            Json::List(items) => items.iter().for_each(|item| self.count(item)),
            Json::Object(members) => {
                for (key, member) in read(members) {
                    *self.0.entry(key.clone()).or_default() += 1;
                    self.count(member);
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }

    /// Frequent ones first: a place below 128 takes one byte.
    fn place(&mut self) -> Vec<u8> {
        let mut order: Vec<_> = self.0.iter_mut().collect();
        order.sort_by_key(|(text, count)| (usize::MAX - **count, (*text).clone()));
        let mut table = Vec::new();
        for (text, place) in order {
            *place = table.len();
            block(text.as_bytes(), &mut table);
        }
        table
    }

    fn text(&self, text: &str, out: &mut Vec<u8>) {
        varint(self.0.get(text).map_or(0, |place| *place as u64), out);
    }

    fn write(&self, value: &Json, out: &mut Vec<u8>) {
        match value {
            Json::Null => out.push(0),
            Json::Bool(value) => out.push(1 + u8::from(*value)),
            Json::Number(Decimal { mantissa, exponent }) => {
                out.push(3);
                // The sign goes into the lowest bit.
                varint((mantissa << 1 ^ (mantissa >> 63)).cast_unsigned(), out);
                out.push(exponent.cast_unsigned());
            }
            Json::Text(text) => {
                out.push(4);
                self.text(text, out);
            }
            Json::List(items) => {
                let mut body = Vec::new();
                items.iter().for_each(|item| self.write(item, &mut body));
                out.push(5);
                block(&body, out);
            }
            Json::Object(members) => {
                let mut body = Vec::new();
                for (key, member) in read(members) {
                    self.text(key, &mut body);
                    self.write(member, &mut body);
                }
                out.push(6);
                block(&body, out);
            }
        }
    }
}

/// The members of an object that the runner reads.
fn read(members: &BTreeMap<String, Json>) -> impl Iterator<Item = (&String, &Json)> {
    let is_ours = members.contains_key("op") || members.contains_key("steps");
    members.iter().filter(move |(key, _)| !is_ours || !UNREAD.contains(&key.as_str()))
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low & 0x7F);
        }
        out.push(low | 0x80);
    }
}

fn block(bytes: &[u8], out: &mut Vec<u8>) {
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::tape::{Tape, Value};

    /// A tape's value as the JSON it came from.
    fn back(value: Value<'_>) -> Json {
        match value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(value),
            Value::Number(number) => Json::Number(number),
            Value::Text(text) => Json::Text(text.to_owned()),
            Value::List(list) => Json::List(list.iter().map(back).collect()),
            Value::Object(object) => {
                Json::Object(object.iter().map(|(key, member)| (key.to_owned(), back(member))).collect())
            }
        }
    }

    const LINES: [&str; 2] = [
        r#"{"id": "a", "pattern": "p", "config": {"x": [1, -2.5, 1e-06, true, false, null, "ü\n\"é\""], "e": {}}, "steps": []}"#,
        r#"{"id": "b", "pattern": "p", "config": {}, "steps": [{"at_ms": 120000.000001, "op": "o", "arg": -9223372036854775808,
            "expect": {"y": 9223372036854775807, "z": [], "deep": [[["p"]]]}, "repeat": 3}]}"#,
    ];

    #[test]
    fn what_goes_on_a_tape_comes_back() {
        let vectors: Vec<_> = LINES.iter().map(|line| vector(line).expect("a vector")).collect();
        let bytes = tape(&vectors);
        let read: Vec<_> = Tape::open(&bytes).expect("a tape").values().iter().map(back).collect();
        assert_eq!(read, vectors);
        for end in 0..bytes.len() {
            // Whole again only between two vectors.
            if let Ok(shorter) = Tape::open(bytes.get(..end).expect("shorter")) {
                assert!(
                    shorter.values().iter().map(back).eq(vectors.iter().take(shorter.values().iter().count()).cloned())
                );
            }
        }
    }

    #[test]
    fn sources_and_notes_stay_behind_but_not_where_they_are_data() {
        let line = r#"{"id": "a", "pattern": "p", "kind": "test", "source": "s", "note": "n",
            "config": {"kind": "k"}, "steps": [{"at_ms": 0, "op": "o", "note": "n", "arg": {"kind": "k"}}]}"#;
        let bytes = tape(&[vector(line).expect("a vector")]);
        let text = Tape::open(&bytes).expect("a tape").values().get(0).expect("a vector").to_string();
        assert_eq!(
            text,
            r#"{"config": {"kind": "k"}, "id": "a", "pattern": "p", "steps": [{"arg": {"kind": "k"}, "at_ms": 0, "op": "o"}]}"#
        );
    }

    #[test]
    fn numbers_are_exact() {
        for (text, mantissa, exponent) in [
            ("0", 0, 0),
            ("-0.0", 0, 0),
            ("15.0", 15, 0),
            ("1e-06", 1, -6),
            ("120000.000001", 120_000_000_001, -6),
            ("652.4779401948106", 6_524_779_401_948_106, -13),
            ("1E+3", 1, 3),
            ("-12.50", -125, -1),
            ("10000000000000000000000", 1, 22),
        ] {
            assert_eq!(decimal(text), Some(Decimal { mantissa, exponent }), "{text}");
        }
        assert_eq!(decimal("9223372036854775809"), None);
        assert_eq!(decimal("1e999"), None);
    }

    #[test]
    fn a_malformed_line_says_what_is_wrong() {
        for (line, message) in [
            (r#"{"id": "a""#, "EOF while parsing an object at column 10"),
            ("[]", "not an object"),
            (r#"{"pattern": "p", "config": {}, "steps": []}"#, "`id` is missing, or not a string"),
            (r#"{"id": "a", "pattern": "p", "steps": []}"#, "`config` is missing, or not an object"),
            (r#"{"id": "a", "pattern": "p", "config": {}, "steps": {}}"#, "`steps` is missing, or not a list"),
            (
                r#"{"id": "a", "pattern": "p", "config": {}, "steps": [], "setup": 1}"#,
                "the vector has an unknown member `setup`",
            ),
            (
                r#"{"id": "a", "pattern": "p", "config": {}, "steps": [{"at_ms": 0}]}"#,
                "step 1: `op` is missing, or not a string",
            ),
            (
                r#"{"id": "a", "pattern": "p", "config": {}, "steps": [{"op": "o", "at_ms": "0"}]}"#,
                "step 1: `at_ms` is not a number",
            ),
            (
                r#"{"id": "a", "pattern": "p", "config": {"x": 123456789012345678901}, "steps": []}"#,
                "123456789012345678901 has too many digits",
            ),
            (
                r#"{"id": "a", "pattern": "p", "config": {"x": [[[[[[[1]]]]]]]}, "steps": []}"#,
                "nested deeper than 8 levels",
            ),
        ] {
            assert_eq!(vector(line).expect_err(line).to_string(), message);
        }
    }
}
