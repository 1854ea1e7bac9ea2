//! The keys there are, and what each takes. The module page's table is held to this by a test.

use core::time::Duration;

use failsoft_core::backoff::Jitter;
use failsoft_core::{Ratio, bulkhead};

use super::text;
use super::tree::Value;

/// What a key takes.
#[derive(Debug)]
pub(super) enum Takes {
    Duration,
    /// A duration above zero.
    Period,
    /// A whole number from the first to the second.
    Number(u32, u32),
    /// A percentage up to 100.
    Percentage,
    /// A percentage above 0 and up to 100.
    Share,
    /// A factor of 1 or more.
    Factor,
    Jitter,
    Flag,
    /// The name of another policy.
    Name,
}

/// A value of a key.
#[derive(Clone, Debug)]
pub(super) enum Leaf {
    /// `false`, where that switches something off.
    Off,
    Duration(Duration),
    Number(u32),
    Ratio(Ratio),
    Jitter(Jitter),
    Flag(bool),
    Name(String),
}

/// A key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    takes: Takes,
    /// Whether `false` is a value too.
    off: bool,
    /// The keys that can't be said beside this one: whoever says this one inherits none of them.
    pub(super) excludes: &'static [&'static str],
}

const fn key(name: &'static str, takes: Takes) -> Key {
    Key { name, takes, off: false, excludes: &[] }
}

impl Key {
    const fn or_off(mut self) -> Self {
        self.off = true;
        self
    }

    const fn instead_of(mut self, others: &'static [&'static str]) -> Self {
        self.excludes = others;
        self
    }
}

/// The keys of one policy, under the name of a table; without a name, those that stand in the section itself.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) keys: &'static [Key],
}

/// What keeps a window of calls: 256 bytes for each breaker.
pub(super) const WORDS: usize = 32;
/// The calls that it holds.
const WINDOW: u32 = 1_024;

pub(super) const TOP: usize = 0;
pub(super) const RETRY: usize = 1;
pub(super) const RATE_LIMIT: usize = 2;
pub(super) const BULKHEAD: usize = 3;
pub(super) const BREAKER: usize = 4;

/// All groups, at the places of the constants above.
pub(super) const GROUPS: [Group; 5] = [
    Group {
        name: "",
        keys: &[
            key("inherits", Takes::Name),
            key("timeout", Takes::Duration).or_off(),
            key("attempt_timeout", Takes::Duration).or_off(),
        ],
    },
    Group {
        name: "retry",
        keys: &[
            key("attempts", Takes::Number(1, u32::MAX)),
            key("delay", Takes::Duration),
            key("factor", Takes::Factor),
            key("max_delay", Takes::Duration),
            key("jitter", Takes::Jitter),
            key("total_time", Takes::Period).or_off(),
            key("budget", Takes::Percentage).or_off(),
            key("min_retries_per_second", Takes::Number(0, 1_000_000)),
        ],
    },
    Group {
        name: "rate_limit",
        keys: &[
            key("calls", Takes::Number(1, u32::MAX)),
            key("per", Takes::Period),
            key("burst", Takes::Number(1, u32::MAX)),
            key("queue", Takes::Number(0, u32::MAX)),
            key("max_wait", Takes::Duration),
        ],
    },
    Group {
        name: "bulkhead",
        keys: &[
            key("permits", Takes::Number(1, bulkhead::MOST)),
            key("queue", Takes::Number(0, bulkhead::MOST)),
            key("max_wait", Takes::Duration),
            key("newest_first", Takes::Flag),
        ],
    },
    Group {
        name: "circuit_breaker",
        keys: &[
            key("failures", Takes::Number(1, 65_535)).instead_of(&RATES),
            key("failure_rate", Takes::Share).instead_of(&["failures"]),
            key("slow_rate", Takes::Share).instead_of(&["failures"]),
            key("slow_call", Takes::Duration).instead_of(&["failures"]),
            key("calls", Takes::Number(1, WINDOW)).instead_of(&["window", "failures"]),
            key("window", Takes::Period).instead_of(&["calls", "failures"]),
            key("min_calls", Takes::Number(1, u32::MAX)).instead_of(&["failures"]),
            key("open_for", Takes::Period),
            key("half_open_for", Takes::Period),
            key("probes", Takes::Number(1, 255)),
        ],
    },
];

/// What a breaker has that goes by rates.
const RATES: [&str; 6] = ["failure_rate", "slow_rate", "slow_call", "calls", "window", "min_calls"];

impl Key {
    /// The value, or why it is none.
    pub(super) fn read(&self, value: &Value) -> Result<Leaf, String> {
        if self.off && matches!(value, Value::Flag(false)) {
            return Ok(Leaf::Off);
        }
        let leaf = match (&self.takes, value) {
            (Takes::Duration | Takes::Period, Value::Number(_)) => Err("has no unit".into()),
            (Takes::Duration | Takes::Period, Value::Text(text)) => text::duration(text).map(Leaf::Duration),
            (Takes::Number(..), Value::Number(number)) => {
                u32::try_from(*number).map(Leaf::Number).map_err(|_| "is out of range".into())
            }
            (Takes::Percentage | Takes::Share, Value::Text(text)) => text::percentage(text).map(Leaf::Ratio),
            (Takes::Factor, Value::Text(text)) => text::factor(text).map(Leaf::Ratio),
            (Takes::Factor, Value::Number(number)) => text::factor(&number.to_string()).map(Leaf::Ratio),
            (Takes::Jitter, Value::Text(text)) => text::jitter(text).map(Leaf::Jitter),
            (Takes::Flag, Value::Flag(flag)) => Ok(Leaf::Flag(*flag)),
            (Takes::Name, Value::Text(name)) => Ok(Leaf::Name(name.clone())),
            // The environment's values don't say what they are.
            (Takes::Name, Value::Number(number)) => Ok(Leaf::Name(number.to_string())),
            (_, other) => return Err(format!("is {}", other.describe())),
        };
        leaf.and_then(|leaf| self.in_range(leaf)).map_err(|reason| match value {
            Value::Text(text) => format!("\"{}\" {reason}", text::cut(text)),
            Value::Number(number) => format!("{number} {reason}"),
            Value::Table(_) | Value::Flag(_) | Value::Other(_) => reason,
        })
    }

    fn in_range(&self, leaf: Leaf) -> Result<Leaf, String> {
        let share = |ratio: &Ratio| *ratio <= Ratio::ONE;
        let fits = match (&self.takes, &leaf) {
            (Takes::Period, Leaf::Duration(span)) => !span.is_zero(),
            (Takes::Number(least, most), Leaf::Number(number)) => (least..=most).contains(&number),
            (Takes::Percentage, Leaf::Ratio(ratio)) => share(ratio),
            (Takes::Share, Leaf::Ratio(ratio)) => share(ratio) && *ratio > Ratio::ZERO,
            (Takes::Factor, Leaf::Ratio(ratio)) => *ratio >= Ratio::ONE,
            (_, Leaf::Jitter(Jitter::Proportional(ratio))) => share(ratio),
            _ => true,
        };
        if fits { Ok(leaf) } else { Err("is out of range".into()) }
    }

    /// What would be valid, in words.
    pub(super) fn valid(&self) -> String {
        let words = match self.takes {
            Takes::Duration => "a duration such as \"250ms\", \"1.5s\" or \"1h30m\"".into(),
            Takes::Period => "a duration above zero such as \"250ms\", \"1.5s\" or \"1h30m\"".into(),
            Takes::Number(least, most) => format!("a whole number, {least} to {}", grouped(most)),
            Takes::Percentage => "a percentage from 0 to 100 such as \"50%\" or \"12.5%\"".into(),
            Takes::Share => "a percentage above 0 and up to 100 such as \"50%\" or \"12.5%\"".into(),
            Takes::Factor => "a factor of 1 or more such as 2 or \"1.5\"".into(),
            Takes::Jitter => {
                "\"none\", \"full\", \"equal\", \"decorrelated\", or a percentage up to 100 such as \"10%\"".into()
            }
            Takes::Flag => "true or false".into(),
            Takes::Name => String::from("the name of another policy"),
        };
        if self.off { words + ", or false" } else { words }
    }
}

/// With a comma between thousands.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
