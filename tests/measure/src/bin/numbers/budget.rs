//! What hot paths may cost, as committed: exact counts, so that what makes one slower is seen on any machine.

use std::collections::BTreeMap;
use std::fs;

use crate::{chip, instructions};

/// The committed figures: a name and a number a line.
const BUDGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instruction-budget");

/// What a figure may exceed its budget by, in percent: another compiler's choice.
const SLACK: u64 = 2;

/// Where no figure could be had, the problem.
type Measured<T> = Result<T, String>;

/// Instructions of a call, on the host and on the chips; for these also bytes of stack and memory.
fn measure() -> Measured<BTreeMap<String, u64>> {
    let nothing = instructions::per_call("nothing")?;
    let mut figures = BTreeMap::new();
    for name in instructions::LOOPS {
        eprintln!("numbers: counting {name}");
        figures.insert(format!("host.{name}"), instructions::per_call(name)?.saturating_sub(nothing));
    }
    for chip in chip::all()? {
        figures.extend(chip::costs(&chip)?.into_iter().map(|(name, figure)| (format!("{chip}.{name}"), figure)));
    }
    Ok(figures)
}

/// Writes down what everything costs now.
pub(crate) fn bless() -> Measured<String> {
    let figures = measure()?;
    let lines: String = figures.iter().map(|(name, figure)| format!("{name} {figure}\n")).collect();
    fs::write(BUDGET, lines).map_err(|error| format!("{BUDGET}: {error}"))?;
    Ok(format!("{} figures written to {BUDGET}", figures.len()))
}

/// Compares what everything costs with the budget.
pub(crate) fn check() -> Measured<String> {
    let text = fs::read_to_string(BUDGET).map_err(|error| format!("{BUDGET}: {error}"))?;
    let budget = parsed(&text)?;
    let (figures, mut wrong) = (measure()?, Vec::new());
    for (name, figure) in &figures {
        match budget.get(name) {
            None => wrong.push(format!("{name} is not in the budget; see --bless")),
            Some(most) if exceeds(*figure, *most) => wrong.push(format!("{name} takes {figure}, not {most}")),
            Some(_) => {}
        }
    }
    let gone = budget.keys().filter(|name| !figures.contains_key(*name));
    wrong.extend(gone.map(|name| format!("{name} is in the budget, and nothing counts it; see --bless")));
    if wrong.is_empty() {
        Ok(format!("{} figures, none above its budget", figures.len()))
    } else {
        Err(wrong.join("\n"))
    }
}

fn exceeds(figure: u64, most: u64) -> bool {
    u128::from(figure) * 100 > u128::from(most) * u128::from(100 + SLACK)
}

fn parsed(text: &str) -> Measured<BTreeMap<String, u64>> {
    let line = |line: &str| {
        let (name, figure) = line.split_once(' ')?;
        Some((name.to_owned(), figure.parse().ok()?))
    };
    text.lines().map(|text| line(text).ok_or_else(|| format!("{BUDGET}: no figure in `{text}`"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_percent_more_is_right_and_more_than_that_is_not() {
        assert!(!exceeds(102, 100));
        assert!(exceeds(103, 100));
        assert!(exceeds(1, 0));
    }

    #[test]
    fn a_line_without_a_number_is_refused() {
        assert_eq!(parsed("a 1\nb 2\n").expect("right").get("b"), Some(&2));
        assert!(parsed("a\n").is_err() && parsed("a x\n").is_err());
    }
}
