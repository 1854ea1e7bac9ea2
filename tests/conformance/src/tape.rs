//! A tape: vectors in a compact binary form that a chip reads where it lies, without a heap.
//!
//! ```text
//! tape    "FSC1"  length of the strings  strings  value ...      one object per vector
//! string  length  bytes of UTF-8
//! value   0                             null
//!         1, 2                          false, true
//!         3  mantissa  exponent         a number: a signed varint and a byte
//!         4  string                     its place among the strings
//!         5  length  value ...          a list
//!         6  length  (string value)...  an object
//! ```
//!
//! Lengths and places are in bytes, as varints: seven bits a byte, lowest first, the eighth bit set on all but the last. A signed one
//! has its sign in the lowest bit.

use core::fmt;

use crate::number::Decimal;

/// What every tape begins with.
pub const MAGIC: [u8; 4] = *b"FSC1";
/// How deep values may nest.
pub const DEPTH: u32 = 8;

/// Why bytes are not a tape.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TapeError {
    /// It does not begin like one.
    NotATape,
    /// It ends within a value.
    Truncated,
    /// No value begins with this byte.
    Tag(u8),
    /// A string that is not UTF-8, or not where it should be.
    Text,
    /// A number of more than 64 bits.
    Number,
    /// Values nest too deep.
    Depth,
}

impl fmt::Display for TapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATape => f.write_str("this is not a tape"),
            Self::Truncated => f.write_str("the tape ends within a value"),
            Self::Tag(tag) => write!(f, "no value begins with {tag}"),
            Self::Text => f.write_str("a string is not where it should be, or not UTF-8"),
            Self::Number => f.write_str("a number has more than 64 bits"),
            Self::Depth => f.write_str("values nest too deep"),
        }
    }
}

impl core::error::Error for TapeError {}

/// A tape that has been read once from end to end and found to be right.
#[derive(Clone, Copy, Debug)]
pub struct Tape<'a> {
    vectors: List<'a>,
}

impl<'a> Tape<'a> {
    /// Checks all of a tape.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn open(bytes: &'a [u8]) -> Result<Self, TapeError> {
        let mut cursor = Cursor { bytes: bytes.strip_prefix(&MAGIC).ok_or(TapeError::NotATape)?, strings: &[] };
        let strings = cursor.block()?;
        let vectors = List { body: cursor.bytes, strings };
        vectors.check(DEPTH)?;
        Ok(Self { vectors })
    }

    /// Its values, one per vector.
    #[must_use]
    pub const fn values(&self) -> List<'a> {
        self.vectors
    }
}

/// One value on a tape.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(Decimal),
    /// A string.
    Text(&'a str),
    /// Values in order.
    List(List<'a>),
    /// Values by name.
    Object(Object<'a>),
}

impl<'a> Value<'a> {
    /// Whether it is nothing.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The string, if it is one.
    #[must_use]
    pub const fn text(self) -> Option<&'a str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The number, if it is one.
    #[must_use]
    pub const fn number(self) -> Option<Decimal> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    /// The object, if it is one.
    #[must_use]
    pub const fn object(self) -> Option<Object<'a>> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// The list, if it is one.
    #[must_use]
    pub const fn list(self) -> Option<List<'a>> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    fn check(self, depth: u32) -> Result<(), TapeError> {
        let within = depth.checked_sub(1).ok_or(TapeError::Depth)?;
        match self {
            Self::List(list) => list.check(within),
            Self::Object(object) => object.check(within),
            _ => Ok(()),
        }
    }
}

/// As JSON, near enough for a message.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::List(list) => {
                f.write_str("[")?;
                for (index, value) in list.iter().enumerate() {
                    write!(f, "{}{value}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Object(object) => {
                f.write_str("{")?;
                for (index, (key, value)) in object.iter().enumerate() {
                    write!(f, "{}\"{key}\": {value}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// Values in order.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    body: &'a [u8],
    strings: &'a [u8],
}

impl<'a> List<'a> {
    /// A list of nothing.
    pub const EMPTY: Self = Self { body: &[], strings: &[] };

    /// The values.
    pub fn iter(self) -> impl Iterator<Item = Value<'a>> {
        let mut cursor = self.cursor();
        // It has been checked: that it ends is the only thing that can happen.
        core::iter::from_fn(move || cursor.value().ok())
    }

    /// The value at a place.
    #[must_use]
    pub fn get(self, index: usize) -> Option<Value<'a>> {
        self.iter().nth(index)
    }

    const fn cursor(self) -> Cursor<'a> {
        Cursor { bytes: self.body, strings: self.strings }
    }

    fn check(self, depth: u32) -> Result<(), TapeError> {
        let mut cursor = self.cursor();
        while !cursor.bytes.is_empty() {
            cursor.value()?.check(depth)?;
        }
        Ok(())
    }
}

/// Values by name.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    body: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Object<'a> {
    /// An object without members.
    pub const EMPTY: Self = Self { body: &[], strings: &[] };

    /// Its members.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        let mut cursor = self.cursor();
        core::iter::from_fn(move || cursor.member().ok())
    }

    /// The member of this name; one that is null is as good as none.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value).filter(|value| !value.is_null())
    }

    const fn cursor(self) -> Cursor<'a> {
        Cursor { bytes: self.body, strings: self.strings }
    }

    fn check(self, depth: u32) -> Result<(), TapeError> {
        let mut cursor = self.cursor();
        while !cursor.bytes.is_empty() {
            cursor.member()?.1.check(depth)?;
        }
        Ok(())
    }
}

/// Reads on from a place.
struct Cursor<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Result<u8, TapeError> {
        let (first, rest) = self.bytes.split_first().ok_or(TapeError::Truncated)?;
        self.bytes = rest;
        Ok(*first)
    }

    fn varint(&mut self) -> Result<u64, TapeError> {
        let (mut value, mut shift) = (0_u64, 0_u32);
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            value |= bits.checked_shl(shift).filter(|part| part >> shift == bits).ok_or(TapeError::Number)?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift = shift.saturating_add(7);
        }
    }

    fn size(&mut self) -> Result<usize, TapeError> {
        usize::try_from(self.varint()?).map_err(|_| TapeError::Truncated)
    }

    /// A length and so many bytes.
    fn block(&mut self) -> Result<&'a [u8], TapeError> {
        let length = self.size()?;
        let (block, rest) = self.bytes.split_at_checked(length).ok_or(TapeError::Truncated)?;
        self.bytes = rest;
        Ok(block)
    }

    fn text(&mut self) -> Result<&'a str, TapeError> {
        let place = self.size()?;
        let mut there = Cursor { bytes: self.strings.get(place..).ok_or(TapeError::Text)?, strings: &[] };
        core::str::from_utf8(there.block().map_err(|_| TapeError::Text)?).map_err(|_| TapeError::Text)
    }

    fn member(&mut self) -> Result<(&'a str, Value<'a>), TapeError> {
        Ok((self.text()?, self.value()?))
    }

    fn value(&mut self) -> Result<Value<'a>, TapeError> {
        let strings = self.strings;
        Ok(match self.byte()? {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => {
                let zigzag = self.varint()?;
                let half = i64::try_from(zigzag >> 1).map_err(|_| TapeError::Number)?;
                let mantissa = if zigzag & 1 == 0 { half } else { !half };
                Value::Number(Decimal { mantissa, exponent: self.byte()?.cast_signed() })
            }
            4 => Value::Text(self.text()?),
            5 => Value::List(List { body: self.block()?, strings }),
            6 => Value::Object(Object { body: self.block()?, strings }),
            tag => return Err(TapeError::Tag(tag)),
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    /// `{"a": [null, true, -1.5], "b": {"a": "b"}}`, by hand.
    const SMALL: &[u8] = &[
        b'F', b'S', b'C', b'1', 4, 1, b'a', 1, b'b', // the strings: "a" at 0, "b" at 2
        6, 14, 0, 5, 5, 0, 2, 3, 29, 0xFF, 2, 6, 3, 0, 4, 2,
    ];

    #[test]
    fn a_tape_is_read_as_it_was_written() {
        let tape = Tape::open(SMALL).expect("a tape");
        let values: Vec<_> = tape.values().iter().map(|value| value.to_string()).collect();
        assert_eq!(values, ["{\"a\": [null, true, -1.5], \"b\": {\"a\": \"b\"}}"]);
        let object = tape.values().get(0).and_then(Value::object).expect("an object");
        assert_eq!(object.get("b").and_then(Value::object).and_then(|b| b.get("a")).and_then(Value::text), Some("b"));
        assert!(object.get("c").is_none());
    }

    #[test]
    fn a_truncated_tape_gives_an_error_wherever_it_ends() {
        for end in 0..SMALL.len() {
            let cut = SMALL.get(..end).expect("shorter");
            // Between two values it is whole again, with fewer of them.
            if end == 9 {
                assert_eq!(Tape::open(cut).expect("no vectors").values().iter().count(), 0);
            } else {
                assert!(Tape::open(cut).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn any_other_byte_anywhere_gives_an_error_or_another_tape_but_no_panic() {
        for place in 0..SMALL.len() {
            for byte in 0..=u8::MAX {
                let mut bytes = SMALL.to_vec();
                if let Some(found) = bytes.get_mut(place) {
                    *found = byte;
                }
                if let Ok(tape) = Tape::open(&bytes) {
                    let printed: usize = tape.values().iter().map(|value| value.to_string().len()).sum();
                    assert!(printed < 1_000, "{place}: {byte}");
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |bytes: &[u8]| Tape::open(&[&MAGIC, bytes].concat()).expect_err("no tape");
        assert_eq!(Tape::open(b"{\"id\": 1}").expect_err("no tape"), TapeError::NotATape);
        assert_eq!(error(&[0, 9]), TapeError::Tag(9));
        assert_eq!(error(&[0, 4, 0]), TapeError::Text);
        assert_eq!(error(&[2, 1, 0xFF, 4, 0]), TapeError::Text);
        assert_eq!(error(&[0, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2, 0]), TapeError::Number);
        assert_eq!(error(&[0, 5, 16, 5, 14, 5, 12, 5, 10, 5, 8, 5, 6, 5, 4, 5, 2, 5, 0]), TapeError::Depth);
    }
}
