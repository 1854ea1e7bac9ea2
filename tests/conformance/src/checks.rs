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

    /// The same for numbers that come from a root, and rates: they are kept in nanoseconds and in millionths, and 0.000001 more or less is the same.
    ///
    /// # Errors
    /// An expectation that nobody knows.
    pub fn expect_root<'a, 'x>(
        &mut self,
        step: &Step<'a>,
        actual: &mut dyn FnMut(&str) -> Option<Actual<'x>>,
    ) -> Result<'a, ()> {
        self.expect_within(step, Decimal::MILLIONTH, actual)
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

#[cfg(all(test, feature = "encode"))]
mod tests {
    extern crate std;

    use std::format;
    use std::string::{String, ToString};

    use super::*;
    use crate::encode;
    use crate::tape::Tape;
    use crate::vector::Vector;

    /// What comes of an expectation, when these things are there.
    fn judged(expect: &str) -> String {
        let line =
            format!(r#"{{"id": "x", "pattern": "p", "config": {{}}, "steps": [{{"op": "o", "expect": {expect}}}]}}"#);
        let bytes = encode::tape(&[encode::vector(&line).expect("a vector")]);
        let vector = Vector::of(Tape::open(&bytes).expect("a tape").values().get(0).expect("one vector"));
        let step = vector.steps().next().expect("one step");
        let mut checks = Checks::new();
        checks.begin(&step);
        let result = checks.expect(&step, &mut |key| {
            Some(match key {
                "third" => Actual::maybe(Quantity::fraction(1, 3)),
                "two" => Actual::whole(2),
                "state" => Actual::Text("open"),
                "permit" => Actual::Bool(true),
                "nothing" => Actual::Nothing,
                "names" => Actual::Texts(&["a", "b"]),
                "counts.failed" => Actual::whole(7),
                _ => return None,
            })
        });
        match (result, checks.difference()) {
            (Err(error), _) => error.to_string(),
            (_, Some(difference)) => difference.message.to_string(),
            (Ok(()), None) => String::new(),
        }
    }

    #[test]
    fn what_comes_as_expected_passes() {
        for expect in [
            "null",
            "{}",
            r#"{"two": 2, "state": "open", "permit": true, "nothing": null, "names": ["a", "b"], "counts": {"failed": 7}}"#,
            r#"{"two": 2.0, "two_ge": 2, "two_le": 2, "two_gt": 1.999999, "two_lt": 2000000000}"#,
            r#"{"third": 0.33, "two": 1.99, "tolerance": 0.01}"#,
            r#"{"third_gt": 0.333, "third_lt": 0.3334}"#,
        ] {
            assert_eq!(judged(expect), "", "{expect}");
        }
    }

    #[test]
    fn what_does_not_says_what_was_expected_and_what_came() {
        for (expect, told) in [
            (r#"{"two": 3}"#, "`two` should be 3, came 2"),
            (r#"{"two_gt": 2}"#, "`two` should be more than 2, came 2"),
            (r#"{"two_lt": 2}"#, "`two` should be less than 2, came 2"),
            (r#"{"two_ge": 2.5}"#, "`two` should be at least 2.5, came 2"),
            (r#"{"two_le": 1e-06}"#, "`two` should be at most 0.000001, came 2"),
            (r#"{"third": 0.33}"#, "`third` should be 0.33, came 0.333333333…"),
            (r#"{"third": 0.33, "tolerance": 0.001}"#, "`third` should be 0.33, came 0.333333333…"),
            (r#"{"state": "closed"}"#, "`state` should be \"closed\", came \"open\""),
            (r#"{"permit": false}"#, "`permit` should be false, came true"),
            (r#"{"permit": 1}"#, "`permit` should be 1, came true"),
            (r#"{"nothing": 0}"#, "`nothing` should be 0, came nothing"),
            (r#"{"two": null}"#, "`two` should be null, came 2"),
            (r#"{"names": ["b", "a"]}"#, "`names` should be [\"b\", \"a\"], came [\"a\", \"b\"]"),
            (r#"{"names": ["a"]}"#, "`names` should be [\"a\"], came [\"a\", \"b\"]"),
            (r#"{"counts": {"failed": 8}}"#, "`counts.failed` should be 8, came 7"),
        ] {
            assert_eq!(judged(expect), format!("step 1 (o): {told}"), "{expect}");
        }
    }

    #[test]
    fn what_nobody_knows_is_an_error() {
        assert_eq!(judged(r#"{"two": 2, "three": 3}"#), "unknown expectation `three`");
        assert_eq!(judged(r#"{"counts": {"seen": 3}}"#), "unknown expectation `seen`");
        assert_eq!(judged(r#"{"two": 2, "tolerance": "much"}"#), "`tolerance` is not a number");
    }

    #[test]
    fn a_long_message_is_cut_and_says_so() {
        let mut text = Text::<8>::new();
        assert!(write!(text, "über alles").is_ok());
        assert_eq!((text.as_str(), text.to_string().as_str()), ("über al", "über al…"));
    }
}
