//! Values as people write them: durations, percentages, factors, names; all of it exact, in integers.

use core::time::Duration;

use failsoft_core::Ratio;
use failsoft_core::backoff::Jitter;

/// The units of time in nanoseconds, the longest first.
const UNITS: [(&str, u64); 9] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000), // the Greek letter
    ("ns", 1),
];

/// A duration: `250ms`, `1.5s`, `1h 30m`; each unit once, the longest first.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (mut rest, mut nanos, mut before) = (text.trim(), 0_u64, u64::MAX);
    if rest.is_empty() {
        return Err("is empty".into());
    }
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split(after.trim_start(), char::is_alphabetic);
        if number.is_empty() {
            return Err("is no duration".into());
        }
        let Some((_, size)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(if unit.is_empty() { "has no unit".into() } else { format!("has no unit `{}`", cut(unit)) });
        };
        if *size >= before {
            return Err("has its units not each once and the longest first".into());
        }
        let part = scaled(number, *size, "a nanosecond")?;
        nanos = nanos.checked_add(part).ok_or(TOO_LARGE)?;
        (rest, before) = (after.trim_start(), *size);
    }
    Ok(Duration::from_nanos(nanos))
}

/// A percentage: `50%`, `12.5 %`.
pub(super) fn percentage(text: &str) -> Result<Ratio, String> {
    let number = text.trim().strip_suffix('%').ok_or("is no percentage")?.trim_end();
    ratio(scaled(number, 100, "a hundredth of a percent")?)
}

/// A factor: `2`, `1.5`, `150%`.
pub(super) fn factor(text: &str) -> Result<Ratio, String> {
    if text.trim().ends_with('%') {
        return percentage(text);
    }
    ratio(scaled(text.trim(), Ratio::ONE.as_basis_points().into(), "a ten-thousandth")?)
}

fn ratio(points: u64) -> Result<Ratio, String> {
    u32::try_from(points).map(Ratio::basis_points).map_err(|_| TOO_LARGE.into())
}

/// A jitter: by its name, or a percentage.
pub(super) fn jitter(text: &str) -> Result<Jitter, String> {
    match text.trim() {
        "none" => Ok(Jitter::None),
        "full" => Ok(Jitter::Full),
        "equal" => Ok(Jitter::Equal),
        "decorrelated" => Ok(Jitter::Decorrelated),
        other => percentage(other).map(Jitter::Proportional).map_err(|_| "is no jitter".into()),
    }
}

const TOO_LARGE: &str = "is too large";

/// So many units of this size, exactly: nothing is rounded.
fn scaled(number: &str, size: u64, finest: &str) -> Result<u64, String> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err("is no number".into());
    }
    let too_fine = || format!("is finer than {finest}");
    let fraction = fraction.trim_end_matches('0');
    // Finer than 19 places is nothing that there is, and so much fits.
    let places = u32::try_from(fraction.len()).ok().filter(|places| *places <= 19).ok_or_else(too_fine)?;
    let (part, scale) = (fraction.parse().unwrap_or(0_u128) * u128::from(size), 10_u128.pow(places));
    if part % scale != 0 {
        return Err(too_fine());
    }
    let whole = whole.parse::<u64>().map_err(|_| TOO_LARGE)?;
    u64::try_from(u128::from(whole) * u128::from(size) + part / scale).map_err(|_| TOO_LARGE.into())
}

/// The longest beginning of such characters, and the rest.
fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// The name that this one is most like, if it is like any.
pub(super) fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // What is as long as no name is like none.
    if name.len() > 64 {
        return None;
    }
    let name = name.to_lowercase();
    let near = names.into_iter().map(|known| (distance(&name, &known.to_lowercase()), known)).min();
    near.filter(|(distance, known)| *distance <= known.chars().count().div_ceil(3)).map(|(_, known)| known)
}

/// How many letters have to be put in, taken out or exchanged to make one of the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().enumerate() {
        let (mut corner, mut left) = (above, above + 1);
        let mut next = vec![left];
        for (known, &up) in to.iter().zip(row.iter().skip(1)) {
            left = (corner + usize::from(*known != letter)).min(left.min(up) + 1);
            corner = up;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// So much of a text as is worth showing.
pub(super) fn cut(text: &str) -> String {
    const MOST: usize = 40;
    let shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() { shown + "…" } else { shown }
}

/// A key as a part of a path, in quotes where TOML would want it so.
pub(super) fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { cut(name) } else { format!("\"{}\"", cut(name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact_and_each_unit_comes_once() {
        let nanos = |text| duration(text).map(|span| span.as_nanos());
        for (text, expected) in [
            ("0s", 0),
            ("1ns", 1),
            ("1.5us", 1_500),
            ("2µs", 2_000),
            ("2μs", 2_000),
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            ("0.000000001s", 1),
            ("1.250 s", 1_250_000_000),
            ("2m", 120_000_000_000),
            ("1h30m", 5_400_000_000_000),
            (" 1h 30m 15s ", 5_415_000_000_000),
            ("0.5d", 43_200_000_000_000),
            ("213503d", 213_503 * 86_400_000_000_000),
            ("18446744073709551615ns", u64::MAX.into()),
        ] {
            assert_eq!(nanos(text), Ok(expected), "{text}");
        }
        for (text, reason) in [
            ("", "is empty"),
            (" ", "is empty"),
            ("10", "has no unit"),
            ("10 s 5", "has no unit"),
            ("s", "is no duration"),
            ("-1s", "is no duration"),
            ("1e3s", "has no unit `e`"),
            ("10sec", "has no unit `sec`"),
            ("1.s", "is no number"),
            (".5s", "is no number"),
            ("1.2.3s", "is no number"),
            ("1s1s", "has its units not each once and the longest first"),
            ("1us1µs", "has its units not each once and the longest first"),
            ("30m1h", "has its units not each once and the longest first"),
            ("0.5ns", "is finer than a nanosecond"),
            ("1.0000000001s", "is finer than a nanosecond"),
            ("0.00000000000000000000000000001d", "is finer than a nanosecond"),
            ("213504d", "is too large"),
            ("18446744073709551616ns", "is too large"),
            ("18446744073709551615ns1ns", "has its units not each once and the longest first"),
            ("213503d 86400s", "is too large"),
        ] {
            assert_eq!(nanos(text), Err(reason.into()), "{text}");
        }
    }

    #[test]
    fn percentages_and_factors_are_exact() {
        let points = |ratio: Result<Ratio, String>| ratio.map(Ratio::as_basis_points);
        for (text, expected) in [("0%", 0), ("50%", 5_000), ("12.5 %", 1_250), (" 0.01% ", 1), ("100.000%", 10_000)] {
            assert_eq!(points(percentage(text)), Ok(expected), "{text}");
        }
        for (text, reason) in [
            ("50", "is no percentage"),
            ("", "is no percentage"),
            ("%", "is no number"),
            ("-5%", "is no number"),
            ("0.001%", "is finer than a hundredth of a percent"),
            ("42949672.96%", "is too large"),
        ] {
            assert_eq!(points(percentage(text)), Err(reason.into()), "{text}");
        }
        for (text, expected) in [("2", 20_000), ("1.5", 15_000), ("150%", 15_000), ("1.0001", 10_001)] {
            assert_eq!(points(factor(text)), Ok(expected), "{text}");
        }
        assert_eq!(points(factor("1.00001")), Err("is finer than a ten-thousandth".into()));
    }

    #[test]
    fn a_name_is_like_another_when_few_letters_differ() {
        let names = ["attempts", "delay", "factor", "max_delay"];
        for (name, like) in [
            ("atempts", Some("attempts")),
            ("Attempts", Some("attempts")),
            ("max-delay", Some("max_delay")),
            ("dealy", Some("delay")),
            ("facto", Some("factor")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, names), like, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), names), None);
        assert_eq!([distance("", "abc"), distance("abc", ""), distance("kitten", "sitting")], [3, 3, 3]);
    }

    #[test]
    fn what_is_shown_is_short_and_in_one_line() {
        assert_eq!((cut("a\nb"), cut(&"é".repeat(41))), ("a\\nb".into(), "é".repeat(40) + "…"));
        assert_eq!([key("max-wait_1"), key("a.b"), key("")], ["max-wait_1", "\"a.b\"", "\"\""]);
    }
}
