//! Criteria, and the table of them.

use core::fmt::Write as _;
use core::time::Duration;

/// What a figure is of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    /// A number of things.
    None,
    Ms,
    Percent,
}

/// What must hold of a figure.
#[derive(Clone, Debug)]
pub(crate) struct Criterion {
    what: &'static str,
    figure: f64,
    limit: f64,
    unit: Unit,
    /// Whether the limit is the most that it may be, or the least.
    most: bool,
}

impl Criterion {
    /// So many, and no more.
    pub(crate) fn no_more(what: &'static str, figure: usize, limit: usize) -> Self {
        Self { what, figure: number(figure), limit: number(limit), unit: Unit::None, most: true }
    }

    /// So long at most; never is longer.
    pub(crate) fn within(what: &'static str, span: Option<Duration>, limit: Duration) -> Self {
        let ms = |span: Duration| span.as_secs_f64() * 1_000.0;
        Self { what, figure: span.map_or(f64::INFINITY, ms), limit: ms(limit), unit: Unit::Ms, most: true }
    }

    /// At least this share, of one.
    pub(crate) fn share(what: &'static str, share: f64, limit: f64) -> Self {
        Self { what, figure: 100.0 * share, limit: 100.0 * limit, unit: Unit::Percent, most: false }
    }

    pub(crate) const fn at_most(what: &'static str, figure: f64, limit: f64) -> Self {
        Self { what, figure, limit, unit: Unit::None, most: true }
    }

    pub(crate) const fn at_least(what: &'static str, figure: f64, limit: f64) -> Self {
        Self { what, figure, limit, unit: Unit::None, most: false }
    }

    pub(crate) fn passed(&self) -> bool {
        if self.most { self.figure <= self.limit } else { self.figure >= self.limit }
    }

    fn show(&self, number: f64) -> String {
        match self.unit {
            _ if number.is_infinite() => "never".to_owned(),
            Unit::None if number.fract() == 0.0 => format!("{number:.0}"),
            Unit::None => format!("{number:.2}"),
            Unit::Ms => format!("{number:.1} ms"),
            Unit::Percent => format!("{number:.1} %"),
        }
    }

    /// The cells of its row.
    fn cells(&self, scenario: &str) -> [String; 5] {
        let limit = format!("{} {}", if self.most { "≤" } else { "≥" }, self.show(self.limit));
        let passed = if self.passed() { "yes" } else { "NO" };
        [scenario.to_owned(), self.what.to_owned(), self.show(self.figure), limit, passed.to_owned()]
    }
}

/// A count as a figure.
pub(crate) fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// So many of so many; none of none.
pub(crate) fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { number(part) / number(whole) }
}

/// The table of all criteria, by scenario.
pub(crate) fn table(criteria: &[(&'static str, Criterion)]) -> String {
    let header = ["scenario", "criterion", "figure", "limit", "passed"].map(str::to_owned);
    let rows: Vec<_> = core::iter::once(header).chain(criteria.iter().map(|(name, row)| row.cells(name))).collect();
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let [a, b, c, d, _] = widths;
    rows.iter().fold(String::new(), |mut text, [scenario, what, figure, limit, passed]| {
        let _ = writeln!(text, "{scenario:a$}  {what:b$}  {figure:>c$}  {limit:<d$}  {passed}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_passes_on_its_limit_and_not_beyond_it() {
        let passes = |figure| [Criterion::at_most, Criterion::at_least].map(|of| of("", figure, 2.0).passed());
        assert_eq!(passes(2.0), [true, true]);
        assert_eq!(passes(2.1), [false, true]);
        assert_eq!(passes(1.9), [true, false]);
        assert_eq!(passes(f64::NAN), [false, false]);
        assert!(!Criterion::within("", None, Duration::MAX).passed());
    }

    #[test]
    fn a_table_says_what_was_wanted_and_what_came() {
        let rows = [
            ("killed", Criterion::within("open", Some(Duration::from_micros(12_340)), Duration::from_millis(300))),
            ("killed", Criterion::share("served", 0.9925, 0.995)),
            ("killed", Criterion::no_more("tasks", usize::MAX, 0)),
        ];
        let expected = "\
scenario  criterion   figure  limit       passed
killed    open       12.3 ms  ≤ 300.0 ms  yes
killed    served      99.2 %  ≥ 99.5 %    NO
killed    tasks        never  ≤ 0         NO
";
        assert_eq!(table(&rows), expected);
    }
}
