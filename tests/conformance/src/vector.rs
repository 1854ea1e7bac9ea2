//! A vector: its configuration and its steps, with typed errors for what a pattern doesn't know.

use core::fmt;
use core::time::Duration;

use failsoft_core::{ConfigError, Instant, Ratio};

use crate::number::Decimal;
use crate::tape::{List, Object, Value};

/// Why a vector can't be run, or a step can't be taken or judged: a failure with a clear message, never a silent omission.
#[derive(Clone, Copy, Debug)]
pub enum Unsupported<'a> {
    /// No module runs this pattern.
    Pattern(&'a str),
    /// The pattern has no mapping of this dialect.
    Dialect(&'a str),
    /// The pattern does not know this member of the configuration.
    Config(&'a str),
    /// The pattern does not know this operation.
    Op(&'a str),
    /// The operation does not know this member of its argument.
    Arg(&'a str),
    /// The pattern can't tell this.
    Expect(&'a str),
    /// A value that is not what it should be, or that the library can't take.
    Value {
        /// Whose.
        key: &'a str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The library refuses the configuration.
    Refused(ConfigError),
    /// The runner, which has no heap, has no room for it.
    Room(&'static str),
}

impl Unsupported<'_> {
    /// A name for the rules: what it is about.
    #[must_use]
    pub const fn key(&self) -> &str {
        match self {
            Self::Pattern(name) | Self::Dialect(name) => name,
            Self::Config(key) | Self::Op(key) | Self::Arg(key) | Self::Expect(key) | Self::Value { key, .. } => key,
            Self::Refused(error) => error.field(),
            Self::Room(what) => what,
        }
    }
}

impl fmt::Display for Unsupported<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(name) => write!(f, "unknown pattern `{name}`"),
            Self::Dialect(name) => write!(f, "unknown dialect `{name}`"),
            Self::Config(key) => write!(f, "unknown configuration `{key}`"),
            Self::Op(op) => write!(f, "unknown operation `{op}`"),
            Self::Arg(key) => write!(f, "unknown argument `{key}`"),
            Self::Expect(key) => write!(f, "unknown expectation `{key}`"),
            Self::Value { key, problem } => write!(f, "`{key}` {problem}"),
            Self::Refused(error) => write!(f, "the library refuses the configuration: {error}"),
            Self::Room(what) => write!(f, "the runner has no room for {what}"),
        }
    }
}

impl From<ConfigError> for Unsupported<'_> {
    fn from(error: ConfigError) -> Self {
        Self::Refused(error)
    }
}

/// What an operation on a vector gives.
pub type Result<'a, T> = core::result::Result<T, Unsupported<'a>>;

/// One vector.
#[derive(Clone, Copy, Debug)]
pub struct Vector<'a> {
    /// Its name.
    pub id: &'a str,
    /// What it is about.
    pub pattern: &'a str,
    /// The configuration.
    pub config: Object<'a>,
    steps: List<'a>,
}

impl<'a> Vector<'a> {
    /// The vector that a tape's value is.
    #[must_use]
    pub fn of(value: Value<'a>) -> Self {
        let object = value.object().unwrap_or(Object::EMPTY);
        let text = |key| object.get(key).and_then(Value::text).unwrap_or("?");
        Self {
            id: text("id"),
            pattern: text("pattern"),
            config: object.get("config").and_then(Value::object).unwrap_or(Object::EMPTY),
            steps: object.get("steps").and_then(Value::list).unwrap_or(List::EMPTY),
        }
    }

    /// Whose rules apply; empty where that does not matter.
    #[must_use]
    pub fn dialect(&self) -> &'a str {
        self.config.get("dialect").and_then(Value::text).unwrap_or("")
    }

    /// The steps in order.
    pub fn steps(&self) -> impl Iterator<Item = Step<'a>> + use<'a> {
        self.steps.iter().zip(1..).map(|(value, number)| Step::of(value, number))
    }

    /// Whether any step has this operation.
    #[must_use]
    pub fn has_op(&self, op: &str) -> bool {
        self.steps().any(|step| step.op == op)
    }
}

/// One step of a vector.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Its place; the first is 1.
    pub number: u32,
    at: Option<Decimal>,
    /// What to do.
    pub op: &'a str,
    /// With what.
    pub arg: Value<'a>,
    /// What to find then.
    pub expect: Value<'a>,
    repeat: Option<Decimal>,
}

impl<'a> Step<'a> {
    fn of(value: Value<'a>, number: u32) -> Self {
        let object = value.object().unwrap_or(Object::EMPTY);
        let get = |key| object.get(key).unwrap_or(Value::Null);
        Self {
            number,
            at: get("at_ms").number(),
            op: get("op").text().unwrap_or("?"),
            arg: get("arg"),
            expect: get("expect"),
            repeat: get("repeat").number(),
        }
    }

    /// When it happens; `None` where time does not matter.
    ///
    /// # Errors
    /// A time that no clock shows.
    pub fn at(&self) -> Result<'a, Option<Instant>> {
        match self.at {
            None => Ok(None),
            Some(at) => match at.nanos() {
                Some(nanos) => Ok(Some(Instant::from_nanos(nanos))),
                None => Err(Unsupported::Value { key: "at_ms", problem: "is no time on a clock" }),
            },
        }
    }

    /// How often it is taken, and judged.
    ///
    /// # Errors
    /// Not a whole number, or one that takes too long.
    pub fn repeat(&self) -> Result<'a, u32> {
        const MOST: u32 = 10_000_000;
        let Some(times) = self.repeat else { return Ok(1) };
        let whole = times.whole().and_then(|times| u32::try_from(times).ok()).filter(|times| *times <= MOST);
        whole.ok_or(Unsupported::Value { key: "repeat", problem: "is not a number of 0 to 10,000,000" })
    }

    /// The argument's members; none where there is no argument.
    ///
    /// # Errors
    /// An argument that is no object.
    pub fn args(&self) -> Result<'a, Object<'a>> {
        match self.arg {
            Value::Null => Ok(Object::EMPTY),
            Value::Object(object) => Ok(object),
            _ => Err(Unsupported::Value { key: self.op, problem: "takes an object" }),
        }
    }

    /// How much, where that is the argument itself, or a member of it beside others that are known.
    ///
    /// # Errors
    /// An argument of another type, or another member.
    pub fn amount(&self, key: &'a str, known: &[&str]) -> Result<'a, Option<Decimal>> {
        match self.arg {
            Value::Number(number) => Ok(Some(number)),
            _ => {
                let args = self.args()?;
                match args.iter().find(|(other, _)| *other != key && !known.contains(other)) {
                    Some((other, _)) => Err(Unsupported::Arg(other)),
                    None => args.number(key),
                }
            }
        }
    }

    /// The argument as a whole number.
    ///
    /// # Errors
    /// It is none.
    pub fn count(&self) -> Result<'a, u32> {
        count(self.op, self.arg)
    }

    /// The argument as a string.
    ///
    /// # Errors
    /// It is none.
    pub fn text(&self) -> Result<'a, &'a str> {
        self.arg.text().ok_or(Unsupported::Value { key: self.op, problem: "takes a string" })
    }

    /// An operation that takes nothing.
    ///
    /// # Errors
    /// An argument all the same.
    pub fn no_args(&self) -> Result<'a, ()> {
        if self.arg.is_null() { Ok(()) } else { Err(Unsupported::Value { key: self.op, problem: "takes no argument" }) }
    }
}

const fn wrong<'a, T>(key: &'a str, problem: &'static str) -> Result<'a, T> {
    Err(Unsupported::Value { key, problem })
}

fn count<'a>(key: &'a str, value: Value<'a>) -> Result<'a, u32> {
    let whole = value.number().and_then(Decimal::whole).and_then(|number| u32::try_from(number).ok());
    whole.ok_or(Unsupported::Value { key, problem: "is not a number of 0 to 4,294,967,295" })
}

/// Typed looks into a configuration or an argument. What is absent or null is `None`; what has another type is an error.
impl<'a> Object<'a> {
    /// Only these members: a configuration's.
    ///
    /// # Errors
    /// The first other one.
    pub fn only(self, known: &[&str]) -> Result<'a, Self> {
        match self.iter().find(|(key, _)| !known.contains(key)) {
            Some((key, _)) => Err(Unsupported::Config(key)),
            None => Ok(self),
        }
    }

    /// Only these members: an argument's.
    ///
    /// # Errors
    /// The first other one.
    pub fn only_args(self, known: &[&str]) -> Result<'a, Self> {
        match self.iter().find(|(key, _)| !known.contains(key)) {
            Some((key, _)) => Err(Unsupported::Arg(key)),
            None => Ok(self),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// Something else.
    pub fn number(self, key: &'a str) -> Result<'a, Option<Decimal>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number)),
            Some(_) => wrong(key, "is not a number"),
        }
    }

    /// A whole number that is not negative.
    ///
    /// # Errors
    /// Something else.
    pub fn count(self, key: &'a str) -> Result<'a, Option<u32>> {
        self.get(key).map(|value| count(key, value)).transpose()
    }

    /// Milliseconds.
    ///
    /// # Errors
    /// Something else, or less than none.
    pub fn span(self, key: &'a str) -> Result<'a, Option<Duration>> {
        match self.number(key)? {
            None => Ok(None),
            Some(number) => match number.nanos() {
                Some(nanos) => Ok(Some(Duration::from_nanos(nanos))),
                None => wrong(key, "is no span of time"),
            },
        }
    }

    /// A share of one.
    ///
    /// # Errors
    /// Something else, or finer than a hundredth of a percent.
    pub fn share(self, key: &'a str) -> Result<'a, Option<Ratio>> {
        match self.number(key)? {
            None => Ok(None),
            Some(number) => match number.share() {
                Some(ratio) => Ok(Some(ratio)),
                None => wrong(key, "is negative, or not a whole number of hundredths of a percent"),
            },
        }
    }

    /// A percentage.
    ///
    /// # Errors
    /// Something else, or finer than a hundredth of a percent.
    pub fn percent(self, key: &'a str) -> Result<'a, Option<Ratio>> {
        match self.number(key)? {
            None => Ok(None),
            Some(number) => match number.percent() {
                Some(ratio) => Ok(Some(ratio)),
                None => wrong(key, "is negative, or not a whole number of hundredths of a percent"),
            },
        }
    }

    /// A random number of 0 to 1, as the library takes them.
    ///
    /// # Errors
    /// Something else.
    pub fn random(self, key: &'a str) -> Result<'a, Option<u32>> {
        match self.number(key)? {
            None => Ok(None),
            Some(number) => match number.random() {
                Some(random) => Ok(Some(random)),
                None => wrong(key, "is not between 0 and 1"),
            },
        }
    }

    /// A string.
    ///
    /// # Errors
    /// Something else.
    pub fn text(self, key: &'a str) -> Result<'a, Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => wrong(key, "is not a string"),
        }
    }

    /// Yes or no; absent is no.
    ///
    /// # Errors
    /// Something else.
    pub fn flag(self, key: &'a str) -> Result<'a, bool> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => wrong(key, "is neither true nor false"),
        }
    }

    /// An object.
    ///
    /// # Errors
    /// Something else.
    pub fn object(self, key: &'a str) -> Result<'a, Option<Self>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => wrong(key, "is not an object"),
        }
    }

    /// A list; absent is empty.
    ///
    /// # Errors
    /// Something else.
    pub fn list(self, key: &'a str) -> Result<'a, List<'a>> {
        match self.get(key) {
            None => Ok(List::EMPTY),
            Some(Value::List(list)) => Ok(list),
            Some(_) => wrong(key, "is not a list"),
        }
    }

    /// What must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn needed<T>(self, key: &'a str, found: Result<'a, Option<T>>) -> Result<'a, T> {
        found?.ok_or(Unsupported::Value { key, problem: "is missing" })
    }
}
