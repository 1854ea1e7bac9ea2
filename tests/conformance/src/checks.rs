//! What a vector expects against what came.

use core::cmp::Ordering;
use core::fmt::{self, Write};

use crate::number::{Decimal, Quantity};
use crate::tape::Value;
use crate::vector::{Result, Step, Unsupported};

/// What came, for one key of an expectation.
#[derive(Clone, Copy, Debug)]
pub enum Actual<'a> {
    /// Nothing: expected as null.
    Nothing,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(Quantity),
    /// A name.
    Text(&'a str),
    /// Names in order.
    Texts(&'a [&'a str]),
    /// Numbers in order.
    Numbers(&'a [Quantity]),
}

impl<'a> Actual<'a> {
    /// A whole number.
    pub fn whole(number: impl Into<i128>) -> Self {
        Self::Number(Quantity::whole(number))
    }

    /// A number, or nothing.
    #[must_use]
    pub fn maybe(number: Option<Quantity>) -> Self {
        number.map_or(Self::Nothing, Self::Number)
    }

    /// Whether it is what was expected.
    fn meets(self, expected: Value<'_>, bound: Bound, tolerance: Decimal) -> bool {
        match (self, expected) {
            (Self::Nothing, Value::Null) => true,
            (Self::Bool(actual), Value::Bool(expected)) => actual == expected,
            (Self::Number(actual), Value::Number(expected)) => {
                actual.compare(expected, tolerance).is_some_and(|ordering| bound.admits(ordering))
            }
            (Self::Text(actual), Value::Text(expected)) => actual == expected,
            (Self::Texts(actual), Value::List(expected)) => {
                expected.iter().count() == actual.len()
                    && expected.iter().zip(actual).all(|(expected, actual)| expected.text() == Some(*actual))
            }
            (Self::Numbers(actual), Value::List(expected)) => {
                expected.iter().count() == actual.len()
                    && expected
                        .iter()
                        .zip(actual)
                        .all(|(expected, actual)| Self::Number(*actual).meets(expected, bound, tolerance))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Actual<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Texts(texts) => write!(f, "{texts:?}"),
            Self::Numbers(numbers) => {
                f.write_str("[")?;
                for (index, number) in numbers.iter().enumerate() {
                    write!(f, "{}{number}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
        }
    }
}

/// How a number is expected to compare.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Bound {
    Equal,
    AtLeast,
    Above,
    AtMost,
    Below,
}

impl Bound {
    /// What a key is about, and the bound it names.
    fn of(key: &str) -> (&str, Self) {
        for (suffix, bound) in
            [("_ge", Self::AtLeast), ("_gt", Self::Above), ("_le", Self::AtMost), ("_lt", Self::Below)]
        {
            if let Some(name) = key.strip_suffix(suffix) {
                return (name, bound);
            }
        }
        (key, Self::Equal)
    }

    const fn admits(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::AtLeast => ordering.is_ge(),
            Self::Above => ordering.is_gt(),
            Self::AtMost => ordering.is_le(),
            Self::Below => ordering.is_lt(),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "",
            Self::AtLeast => "at least ",
            Self::Above => "more than ",
            Self::AtMost => "at most ",
            Self::Below => "less than ",
        })
    }
}

/// A text of limited length: what does not fit is left out, and three dots say so.
#[derive(Clone, Debug, Default)]
pub struct Text<const N: usize> {
    text: heapless::String<N>,
    full: bool,
}

impl<const N: usize> Text<N> {
    const fn new() -> Self {
        Self { text: heapless::String::new(), full: false }
    }

    /// What fitted.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            self.full = self.full || self.text.push(char).is_err();
        }
        Ok(())
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.full { "…" } else { "" })
    }
}

/// The first difference, and how many there were.
#[derive(Clone, Debug)]
pub struct Difference {
    /// What the first one is about: the key of the expectation without its bound, or what was not supported.
    pub key: Text<40>,
    /// Which step, what was expected, what came.
    pub message: Text<400>,
    /// Differences in all.
    pub count: u32,
}

/// Compares what comes with what is expected, step by step.
#[derive(Debug)]
pub struct Checks {
    // The step under way, and its time and operation in words.
    step: Text<60>,
    difference: Option<Difference>,
}

impl Default for Checks {
    fn default() -> Self {
        Self::new()
    }
}

impl Checks {
    /// Nothing compared yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { step: Text::new(), difference: None }
    }

    /// The differences so far.
    #[must_use]
    pub const fn difference(&self) -> Option<&Difference> {
        self.difference.as_ref()
    }

    /// Begins a step: every message from here on names it.
    pub fn begin(&mut self, step: &Step<'_>) {
        self.step = Text::new();
        let _ = write!(self.step, "step {} ({}): ", step.number, step.op);
    }

    /// Compares all that a step expects. `actual` is asked by name, with `_ge` and the like cut off, for members of members as
    /// `outer.inner`; it answers `None` to a name it doesn't know.
    ///
    /// Numbers are compared exactly, or with the step's own `tolerance`.
    ///
    /// # Errors
    /// An expectation that nobody knows.
    pub fn expect<'a, 'x>(
        &mut self,
        step: &Step<'a>,
        actual: &mut dyn FnMut(&str) -> Option<Actual<'x>>,
    ) -> Result<'a, ()> {
        self.expect_within(step, Decimal::ZERO, actual)
    }

    /// The same for numbers that come from a random one, which is a multiple of 2^−32 here: 1 µs more or less is the same.
    ///
    /// # Errors
    /// An expectation that nobody knows.
    pub fn expect_random<'a, 'x>(
        &mut self,
        step: &Step<'a>,
        actual: &mut dyn FnMut(&str) -> Option<Actual<'x>>,
    ) -> Result<'a, ()> {
        self.expect_within(step, Decimal::MICROSECOND, actual)
    }

    fn expect_within<'a, 'x>(
        &mut self,
        step: &Step<'a>,
        tolerance: Decimal,
        actual: &mut dyn FnMut(&str) -> Option<Actual<'x>>,
    ) -> Result<'a, ()> {
        let expected = match step.expect {
            Value::Null => return Ok(()),
            Value::Object(object) => object,
            _ => return Err(Unsupported::Value { key: "expect", problem: "is not an object" }),
        };
        let tolerance = expected.number("tolerance")?.unwrap_or(tolerance);
        for (key, value) in expected.iter().filter(|(key, _)| *key != "tolerance") {
            let Value::Object(inner) = value else {
                self.compare(key, key, value, tolerance, actual)?;
                continue;
            };
            for (part, value) in inner.iter() {
                let mut path = Text::<60>::new();
                let _ = write!(path, "{key}.{part}");
                self.compare(part, path.as_str(), value, tolerance, actual)?;
            }
        }
        Ok(())
    }

    fn compare<'a, 'x>(
        &mut self,
        key: &'a str,
        path: &str,
        expected: Value<'a>,
        tolerance: Decimal,
        actual: &mut dyn FnMut(&str) -> Option<Actual<'x>>,
    ) -> Result<'a, ()> {
        let (name, bound) = Bound::of(path);
        let came = actual(name).ok_or(Unsupported::Expect(key))?;
        if !came.meets(expected, bound, tolerance) {
            self.differ(name, format_args!("`{name}` should be {bound}{expected}, came {came}"));
        }
        Ok(())
    }

    /// Notes a difference.
    pub fn differ(&mut self, key: &str, message: fmt::Arguments<'_>) {
        if let Some(first) = &mut self.difference {
            first.count = first.count.saturating_add(1);
            return;
        }
        let mut first = Difference { key: Text::new(), message: Text::new(), count: 1 };
        let _ = write!(first.key, "{key}");
        let _ = write!(first.message, "{}{message}", self.step);
        self.difference = Some(first);
    }
}
