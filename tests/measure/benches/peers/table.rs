//! The figures as tables, in Markdown.

use core::fmt::Write as _;

use crate::harness::ONE;
use crate::memory::Weight;

/// Who is measured.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// The subject of failsoft that does the same work: the ratios are against it.
    pub(crate) like: &'static str,
}

enum Cell {
    Nanos(f64),
    Unfit(&'static str),
}

struct Row {
    subject: Subject,
    cells: Vec<(&'static str, Cell)>,
    weight: Option<Weight>,
}

impl Row {
    fn cell(&self, column: &str) -> Option<&Cell> {
        self.cells.iter().find_map(|(of, cell)| (*of == column).then_some(cell))
    }
}

/// One kind of work, and who did it.
pub(crate) struct Section {
    title: &'static str,
    floor: &'static str,
    rows: Vec<Row>,
}

impl Section {
    pub(crate) const fn new(title: &'static str, floor: &'static str) -> Self {
        Self { title, floor, rows: vec![] }
    }

    pub(crate) const fn title(&self) -> &'static str {
        self.title
    }

    pub(crate) fn figure(&mut self, column: &'static str, subject: Subject, nanos: f64) {
        self.row(subject).cells.push((column, Cell::Nanos(nanos)));
    }

    pub(crate) fn unfit(&mut self, column: &'static str, subject: Subject, reason: &'static str) {
        self.row(subject).cells.push((column, Cell::Unfit(reason)));
    }

    /// Takes a figure back.
    pub(crate) fn spoil(&mut self, column: &'static str, subject: Subject, reason: &'static str) {
        self.row(subject).cells.retain(|(of, _)| *of != column);
        self.unfit(column, subject, reason);
    }

    pub(crate) fn weight(&mut self, subject: Subject, weight: Weight) {
        self.row(subject).weight = Some(weight);
    }

    fn row(&mut self, subject: Subject) -> &mut Row {
        let at = self.rows.iter().position(|row| row.subject.name == subject.name).unwrap_or_else(|| {
            self.rows.push(Row { subject, cells: vec![], weight: None });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// How many figures there are.
    pub(crate) fn figures(&self) -> usize {
        let cells = self.rows.iter().flat_map(|row| &row.cells);
        cells.filter(|(_, cell)| matches!(cell, Cell::Nanos(_))).count()
    }

    /// What a subject takes.
    pub(crate) fn nanos(&self, name: &str, column: &str) -> Option<f64> {
        match self.rows.iter().find(|row| row.subject.name == name)?.cell(column)? {
            Cell::Nanos(nanos) => Some(*nanos),
            Cell::Unfit(_) => None,
        }
    }

    /// The table, and below it why some have no figure. `floors` has what the floors take.
    pub(crate) fn markdown(&self, floors: &Self) -> String {
        let mut columns: Vec<&str> = vec![];
        for (column, _) in self.rows.iter().flat_map(|row| &row.cells) {
            if !columns.contains(column) {
                columns.push(column);
            }
        }
        let floor = floors.nanos(self.floor, ONE);
        let mut head = vec![String::new()];
        for column in &columns {
            head.extend([(*column).to_owned(), String::from("×")]);
        }
        head.push(format!("× {}", self.floor));
        let mut lines = vec![head];
        for row in &self.rows {
            let mut line = vec![row.subject.name.to_owned()];
            for column in &columns {
                line.extend(match row.cell(column) {
                    None => [String::new(), String::new()],
                    Some(Cell::Unfit(_)) => [String::from("not measured"), String::new()],
                    Some(Cell::Nanos(nanos)) => [span(*nanos), ratio(*nanos, self.nanos(row.subject.like, column))],
                });
            }
            line.push(self.nanos(row.subject.name, ONE).map_or_else(String::new, |nanos| ratio(nanos, floor)));
            lines.push(line);
        }
        let mut text = format!("## {}\n\n{}", self.title, grid(1, &lines));
        for (at, (reason, whom)) in self.reasons().iter().enumerate() {
            let _ = writeln!(text, "{}* not measured: {reason}: {}", if at == 0 { "\n" } else { "" }, whom.join("; "));
        }
        text
    }

    /// Why some have no figure, and who they are.
    fn reasons(&self) -> Vec<(&'static str, Vec<String>)> {
        let mut reasons: Vec<(&str, Vec<String>)> = vec![];
        for row in &self.rows {
            let some = row.cells.iter().any(|(_, cell)| matches!(cell, Cell::Nanos(_)));
            for (column, cell) in &row.cells {
                let Cell::Unfit(reason) = cell else { continue };
                let name = row.subject.name;
                let who = if some { format!("{name} ({column})") } else { name.to_owned() };
                match reasons.iter_mut().find(|(of, _)| of == reason) {
                    Some((_, whom)) if whom.contains(&who) => {}
                    Some((_, whom)) => whom.push(who),
                    None => reasons.push((reason, vec![who])),
                }
            }
        }
        reasons
    }
}

/// Nanoseconds, or what is easier to read.
fn span(nanos: f64) -> String {
    if nanos < 1e3 { format!("{nanos:.2} ns") } else { format!("{:.2} µs", nanos / 1e3) }
}

/// What the subjects of some tables take in memory.
pub(crate) fn memory(sections: &[Section]) -> String {
    let head = ["", "", "bytes in place", "on the heap", "in allocations", "allocations a call", "bytes a call"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for section in sections {
        for row in &section.rows {
            if let Some(weight) = &row.weight {
                let mut line = vec![section.title.to_owned(), row.subject.name.to_owned()];
                line.extend(weight.cells());
                lines.push(line);
            }
        }
    }
    if lines.len() == 1 { String::new() } else { format!("## memory\n\n{}", grid(2, &lines)) }
}

fn ratio(nanos: f64, against: Option<f64>) -> String {
    let Some(against) = against else { return String::new() };
    let (ratio, places) = (nanos / against, if nanos < 10.0 * against { 2 } else { 0 });
    format!("{ratio:.places$}")
}

/// Rows, of which the first is the head, as a table: names to the left, figures to the right.
fn grid(names: usize, rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0).max(2)).collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column < names { write!(text, "| {cell:width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if at == 0 {
            for (column, width) in widths.iter().enumerate() {
                let (side, width) = if column < names { ("", *width) } else { (":", width.saturating_sub(1)) };
                let _ = write!(text, "| {:-<width$}{side} ", "");
            }
            text.push_str("|\n");
        }
    }
    text
}
