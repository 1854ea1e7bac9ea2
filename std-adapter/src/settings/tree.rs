//! Both formats, and the environment, as trees of one kind, in which everything knows where it is written.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_core::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::error::{Place, ProblemKind, Problems};
use super::text::cut;

/// A table by its keys.
pub(super) type Table = BTreeMap<String, Node>;

/// A value, and where it is written.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value. Nothing here has a fraction: where people write one, it is in a text.
#[derive(Debug)]
pub(super) enum Value {
    Table(Table),
    Text(String),
    Number(i64),
    Flag(bool),
    /// What no key takes, in words.
    Other(&'static str),
}

const FRACTION: &str = "a number with a fraction: write it as a text, in quotes";
const TOO_LARGE: &str = "a number that is too large";

impl Value {
    /// What it is, in words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Table(_) => "a table".into(),
            Self::Text(text) => format!("the text \"{}\"", cut(text)),
            Self::Number(number) => format!("the number {number}"),
            Self::Flag(flag) => flag.to_string(),
            Self::Other(words) => (*words).into(),
        }
    }

    /// A value of an environment variable, which says by its looks what it is.
    pub(super) fn of_text(text: &str) -> Self {
        match text.trim() {
            "true" => Self::Flag(true),
            "false" => Self::Flag(false),
            text => text.parse().map_or_else(|_| Self::Text(text.into()), Self::Number),
        }
    }
}

/// The tree of a text in TOML. What is wrong is added to the problems, and leaves an empty tree.
pub(super) fn of_toml(text: &str, source: &Arc<str>, problems: &mut Problems) -> Table {
    let ends = text.bytes().enumerate().filter_map(|(at, byte)| (byte == b'\n').then_some(at)).collect();
    let lines = Lines { source, ends };
    match DeTable::parse(text) {
        Ok(table) => lines.table(table.get_ref()),
        Err(error) => {
            let place = lines.place(error.span().map_or(0, |span| span.start));
            let reason = format!("is no TOML: {}", error.message());
            problems.add(ProblemKind::Syntax, &place, "", reason, "");
            Table::new()
        }
    }
}

/// The lines of a text, by where they end.
struct Lines<'s> {
    source: &'s Arc<str>,
    ends: Vec<usize>,
}

impl Lines<'_> {
    fn place(&self, at: usize) -> Place {
        let line = self.ends.partition_point(|end| *end < at) + 1;
        Place { source: self.source.clone(), line: Some(line) }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let nodes = table.iter().map(|(key, value)| (key.get_ref().to_string(), self.node(key.span().start, value)));
        nodes.collect()
    }

    fn node(&self, at: usize, value: &Spanned<DeValue<'_>>) -> Node {
        let value = match value.get_ref() {
            DeValue::Table(table) => Value::Table(self.table(table)),
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => integer(number),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Float(_) => Value::Other(FRACTION),
            DeValue::Array(_) => Value::Other("a list"),
            DeValue::Datetime(_) => Value::Other("a date"),
        };
        Node { place: self.place(at), value }
    }
}

fn integer(number: &DeInteger<'_>) -> Value {
    i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Other(TOO_LARGE), Value::Number)
}

/// The tree of a text in JSON, as [`of_toml`].
pub(super) fn of_json(text: &str, source: &Arc<str>, problems: &mut Problems) -> Table {
    let mut reader = serde_json::Deserializer::from_str(text);
    let place = |line| Place { source: source.clone(), line };
    match Json(source).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value)) {
        Ok(Value::Table(table)) => return table,
        Ok(other) => {
            let reason = format!("is {}", other.describe());
            problems.add(ProblemKind::Syntax, &place(None), "", reason, "an object of `default` and `policies`");
        }
        Err(error) => {
            problems.add(ProblemKind::Syntax, &place(Some(error.line())), "", format!("is no JSON: {error}"), "");
        }
    }
    Table::new()
}

/// Reads a value of JSON. `serde_json`'s own would take the last of two equal keys and say nothing.
#[derive(Clone, Copy)]
struct Json<'s>(&'s Arc<str>);

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Other(TOO_LARGE), Value::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other(FRACTION))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.into()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut table = Table::new();
        while let Some(key) = map.next_key::<String>()? {
            if table.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate key `{}`", cut(&key))));
            }
            let value = map.next_value_seed(self)?;
            table.insert(key, Node { place: Place { source: self.0.clone(), line: None }, value });
        }
        Ok(Value::Table(table))
    }
}
