//! What was measured, in figures and in words.

use core::fmt;

use failsoft_measure::measure::growth_exponent;

/// A part of the page: a table or a plot, and its reading.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// What was done.
    pub(crate) about: String,
    pub(crate) content: Content,
    /// What the figures say.
    pub(crate) reading: Vec<Reading>,
}

/// What is said, and of what.
pub(crate) struct Reading {
    pub(crate) of: String,
    pub(crate) text: String,
}

impl Reading {
    pub(crate) fn new(of: impl Into<String>, text: String) -> Self {
        Self { of: of.into(), text }
    }
}

pub(crate) enum Content {
    Plot(Plot),
    Table { head: Vec<String>, rows: Vec<Vec<String>> },
}

/// Curves over one axis, in nanoseconds.
pub(crate) struct Plot {
    /// What grows.
    pub(crate) x: &'static str,
    /// Of what the nanoseconds are.
    pub(crate) y: &'static str,
    pub(crate) curves: Vec<Curve>,
}

pub(crate) struct Curve {
    pub(crate) name: String,
    /// Something else to compare with.
    pub(crate) is_floor: bool,
    pub(crate) points: Vec<Point>,
}

#[derive(Clone, Copy)]
pub(crate) struct Point {
    pub(crate) x: u32,
    pub(crate) nanos: f64,
}

impl Curve {
    pub(crate) fn ours(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_floor: false, points: Vec::new() }
    }

    pub(crate) fn floor(name: impl Into<String>) -> Self {
        Self { is_floor: true, ..Self::ours(name) }
    }

    pub(crate) fn push(&mut self, x: u32, nanos: f64) {
        self.points.push(Point { x, nanos });
    }

    pub(crate) fn first(&self) -> f64 {
        self.points.first().map_or(f64::NAN, |point| point.nanos)
    }

    pub(crate) fn last(&self) -> f64 {
        self.points.last().map_or(f64::NAN, |point| point.nanos)
    }

    /// How many times the first figure the last one is.
    pub(crate) fn growth(&self) -> f64 {
        self.last() / self.first()
    }

    /// The exponent of growth: 0 is flat, 1 in proportion.
    pub(crate) fn slope(&self) -> f64 {
        exponent_of(&self.points)
    }

    /// The same of the last two points: what is in proportion at the end starts flat where something constant covers it.
    fn slope_at_end(&self) -> f64 {
        exponent_of(&self.points[self.points.len().saturating_sub(2)..])
    }

    /// How it goes from end to end, in words.
    pub(crate) fn course(&self) -> String {
        let (first, last) = (ns(self.first()), ns(self.last()));
        let (growth, slope, end) = (self.growth(), self.slope(), exponent(self.slope_at_end()));
        let way = way(slope, growth);
        format!("{way} (from {first} to {last}, {}; slope {}, at the end {end})", times(growth), exponent(slope))
    }
}

fn exponent_of(points: &[Point]) -> f64 {
    let points: Vec<_> = points.iter().map(|point| (f64::from(point.x), point.nanos)).collect();
    growth_exponent(&points)
}

fn exponent(slope: f64) -> String {
    // Without the minus of a zero.
    format!("{:.2}", (slope * 100.0).round() / 100.0 + 0.0)
}

/// What a slope means, and a growth from end to end: over six decades a small slope is a large growth.
const fn way(slope: f64, growth: f64) -> &'static str {
    match (slope, growth) {
        (-0.1..0.1, 0.8..1.25) => "stays flat",
        (_, ..1.0) => "falls",
        (..0.3, _) => "grows slowly",
        (0.3..0.8, _) => "grows less than in proportion",
        (0.8..1.2, _) => "grows in proportion",
        (1.2.., _) => "grows more than in proportion",
        _ => "could not be fitted",
    }
}

/// Nanoseconds, or microseconds, with three digits or so.
pub(crate) fn ns(nanos: f64) -> String {
    let digits = |figure: f64| match figure {
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    };
    if nanos >= 1e3 { format!("{} µs", digits(nanos / 1e3)) } else { format!("{} ns", digits(nanos)) }
}

/// A ratio.
pub(crate) fn times(ratio: f64) -> String {
    if ratio >= 9.95 { format!("{ratio:.0} ×") } else { format!("{ratio:.1} ×") }
}

/// As it begins a sentence.
pub(crate) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// With a comma between the thousands.
pub(crate) fn grouped(number: u64) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", grouped(number / 1_000), number % 1_000) }
}

impl Plot {
    /// A row for each figure on the x axis, and one for the slopes.
    pub(crate) fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let head = core::iter::once(self.x).chain(self.curves.iter().map(|curve| curve.name.as_str()));
        let mut rows: Vec<Vec<String>> = Vec::new();
        for (index, x) in self.xs().into_iter().enumerate() {
            let figures =
                self.curves.iter().map(|curve| curve.points.get(index).map_or_else(String::new, |p| ns(p.nanos)));
            rows.push(core::iter::once(grouped(x.into())).chain(figures).collect());
        }
        let slopes = self.curves.iter().map(|curve| exponent(curve.slope()));
        rows.push(core::iter::once(String::from("slope")).chain(slopes).collect());
        (head.map(String::from).collect(), rows)
    }

    /// Where it was measured.
    pub(crate) fn xs(&self) -> Vec<u32> {
        self.curves.first().map(|curve| curve.points.iter().map(|point| point.x).collect()).unwrap_or_default()
    }
}

impl Content {
    pub(crate) fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        match self {
            Self::Plot(plot) => plot.table(),
            Self::Table { head, rows } => (head.clone(), rows.clone()),
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "==== {}\n{}\n", self.title, self.about)?;
        let (head, rows) = self.content.table();
        // Turned round: the curves have the long names.
        let columns: Vec<Vec<&String>> = (0..head.len())
            .map(|index| core::iter::once(&head).chain(&rows).filter_map(|row| row.get(index)).collect())
            .collect();
        let lines = if matches!(self.content, Content::Plot(_)) {
            columns
        } else {
            core::iter::once(&head).chain(&rows).map(|row| row.iter().collect()).collect()
        };
        let width =
            |index: usize| lines.iter().filter_map(|line| line.get(index)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..).map_while(width).collect();
        for line in &lines {
            for (index, (cell, width)) in line.iter().zip(&widths).enumerate() {
                if index == 0 { write!(f, "{cell:width$}")? } else { write!(f, "  {cell:>width$}")? }
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        self.reading.iter().try_for_each(|Reading { of, text }| writeln!(f, "* {of}: {text}"))
    }
}
