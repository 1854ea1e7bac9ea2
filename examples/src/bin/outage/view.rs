//! The run as it happens: timelines updated in place on a terminal, plain lines elsewhere.

use core::fmt::Write as _;
use core::time::Duration;
use std::io::{self, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Color, Style};

use crate::bands::Bands;
use crate::record::{BUCKETS, Tally};
use crate::run::{SideStory, Story};
use crate::script::Condition;
use crate::side::{Breaker, Level, SideName};
use crate::summary::Row;

/// Width of the timelines' names.
const MARGIN: usize = 11;

/// Columns when the terminal doesn't tell.
const COLUMNS: usize = 80;

/// How progress is shown.
#[derive(Debug)]
pub(crate) enum View {
    /// On a terminal.
    Live(Live),
    /// Into a file or a pipe.
    Plain(Plain),
}

impl View {
    /// The view that fits standard output.
    pub(crate) fn fitting() -> Self {
        if io::stdout().is_terminal() { Self::Live(Live::default()) } else { Self::Plain(Plain::default()) }
    }

    /// Shows how far the run is.
    pub(crate) fn draw(&mut self, story: &Story) -> io::Result<()> {
        match self {
            Self::Live(live) => live.draw(story),
            Self::Plain(plain) => plain.draw(story),
        }
    }

    /// Shows the last state of the run.
    pub(crate) fn finish(&mut self, story: &Story) -> io::Result<()> {
        match self {
            Self::Live(live) => live.draw(story),
            Self::Plain(_) => Ok(()),
        }
    }
}

/// One line a phase and one a second.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    phase: Option<Condition>,
    next: Duration,
}

impl Plain {
    fn draw(&mut self, story: &Story) -> io::Result<()> {
        let Some(phase) = story.upstream.last() else {
            return Ok(());
        };
        if Some(phase) == self.phase && story.elapsed < self.next {
            return Ok(());
        }
        if story.elapsed >= self.next {
            self.next += Duration::from_secs(1);
        }
        self.phase = Some(phase);
        let mut out = io::stdout().lock();
        write!(out, "{:>5.1} s  {:<9}", story.elapsed.as_secs_f64(), phase.label())?;
        for side in &story.sides {
            write!(out, "  | {}", progress(side))?;
        }
        writeln!(out)?;
        out.flush()
    }
}

/// A block of lines that is drawn over and over.
#[derive(Debug, Default)]
pub(crate) struct Live {
    lines: usize,
}

impl Live {
    fn draw(&mut self, story: &Story) -> io::Result<()> {
        let columns = terminal_size::terminal_size().map_or(COLUMNS, |(width, _)| width.0.into());
        let frame = frame(story, columns);
        let mut text = String::new();
        if self.lines > 0 {
            let _ = write!(text, "\x1b[{}A", self.lines);
        }
        for line in &frame {
            // Clears the rest of the line: the terminal may have become wider.
            let _ = writeln!(text, "\r{line}\x1b[K");
        }
        self.lines = frame.len();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

fn frame(story: &Story, columns: usize) -> Vec<String> {
    let cells = cells(columns);
    let mut lines = vec![timeline("upstream", &phases(story, cells))];
    for side in &story.sides {
        lines.push(timeline(side.name.label(), &outcomes(side, cells)));
        if side.name == SideName::Protected {
            lines.push(timeline("  breaker", &strip(story, cells, &story.breaker, breaker_cell)));
            lines.push(timeline("  level", &strip(story, cells, &story.level, level_cell)));
        }
    }
    let texts = [now(story)].into_iter().chain(story.sides.iter().map(progress));
    // A wrapped line would break the drawing in place.
    lines.extend(texts.map(|text| text.chars().take(columns.saturating_sub(1)).collect()));
    lines.push(LEGEND.chars().take(columns.saturating_sub(1)).collect());
    lines
}

const LEGEND: &str = "█ fresh or healthy  ▒ degraded, slow or half-open  ╳ failed, down or open  · waiting";

/// As many cells as fit, so that each holds the same number of buckets.
fn cells(columns: usize) -> usize {
    let fits = |cells: &usize| BUCKETS.is_multiple_of(*cells) && MARGIN + cells < columns;
    (1..=BUCKETS).rev().find(fits).unwrap_or(1)
}

fn timeline(name: &str, cells: &str) -> String {
    format!("{name:<MARGIN$}{cells}")
}

fn now(story: &Story) -> String {
    let elapsed = story.elapsed.as_secs_f64();
    let total = story.pace.total().as_secs_f64();
    let phase = story.upstream.last().unwrap_or(Condition::Healthy);
    let (label, explanation) = (phase.label(), phase.explanation());
    format!("{elapsed:>5.1} of {total:.1} s  upstream {label}: {explanation}")
}

fn progress(side: &SideStory) -> String {
    let sum = side.record.buckets().into_iter().fold(Tally::default(), Tally::plus);
    let mut text = format!(
        "{:<9} {:>5} fresh {:>5} degraded {:>5} failed {:>4} waiting",
        side.name.label(),
        sum.fresh,
        sum.degraded,
        sum.failed,
        sum.waiting
    );
    if let Some(vitals) = side.vitals {
        let (breaker, level) = (vitals.breaker.label(), vitals.level.label());
        let _ = write!(text, ", breaker {breaker}, level {level}");
    }
    text
}

fn cell(glyph: char, color: AnsiColor) -> String {
    // https://no-color.org; the glyphs alone tell the states apart.
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return glyph.to_string();
    }
    let style = Style::new().fg_color(Some(Color::Ansi(color)));
    format!("{style}{glyph}{style:#}")
}

fn good() -> String {
    cell('█', AnsiColor::Green)
}

fn lesser() -> String {
    cell('▒', AnsiColor::Yellow)
}

fn bad() -> String {
    cell('╳', AnsiColor::Red)
}

fn waiting() -> String {
    cell('·', AnsiColor::BrightBlack)
}

fn outcomes(side: &SideStory, cells: usize) -> String {
    let buckets = side.record.buckets();
    let merged = buckets.chunks(BUCKETS / cells);
    merged.map(|chunk| outcome_cell(chunk.iter().copied().fold(Tally::default(), Tally::plus))).collect()
}

/// What most of those who asked were given; those who failed count first, since they were let down.
fn outcome_cell(tally: Tally) -> String {
    let most = tally.waiting.max(tally.fresh).max(tally.degraded).max(tally.failed);
    match most {
        0 => " ".to_owned(),
        _ if tally.failed == most => bad(),
        _ if tally.waiting == most => waiting(),
        _ if tally.degraded == most => lesser(),
        _ => good(),
    }
}

fn strip<T: Copy + PartialEq>(story: &Story, cells: usize, bands: &Bands<T>, cell: impl Fn(T) -> String) -> String {
    let total = story.pace.total();
    let middle = |index| total.mul_f64((index as f64 + 0.5) / cells as f64);
    (0..cells).map(|index| bands.at(middle(index)).map_or_else(|| " ".to_owned(), &cell)).collect()
}

fn phases(story: &Story, cells: usize) -> String {
    strip(story, cells, &story.upstream, |condition| match condition {
        Condition::Healthy | Condition::Recovered => good(),
        Condition::Slow => lesser(),
        Condition::Unavailable => cell('5', AnsiColor::Red),
        Condition::Resetting => cell('r', AnsiColor::Red),
        Condition::Refusing => bad(),
        Condition::Mute => cell('m', AnsiColor::Red),
    })
}

fn breaker_cell(state: Breaker) -> String {
    match state {
        Breaker::Closed => good(),
        Breaker::HalfOpen => lesser(),
        Breaker::Open => bad(),
    }
}

fn level_cell(level: Level) -> String {
    match level {
        Level::Full => good(),
        Level::Degraded => lesser(),
        Level::Minimal => bad(),
    }
}

/// One line. Unlike `println!`, it leaves a closed pipe to the caller.
pub(crate) fn print_line(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// The table at the end.
pub(crate) fn print_table(rows: &[Row], notes: &[&str]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let [naked, protected] = SideName::ALL.map(SideName::label);
    writeln!(out, "\n{:<50}{naked:>15}{protected:>15}", "")?;
    for row in rows {
        let indent = if row.is_detail { "  " } else { "" };
        let label = format!("{indent}{}", row.label);
        writeln!(out, "{label:<50}{:>15}{:>15}", row.cells[0], row.cells[1])?;
    }
    writeln!(out)?;
    for note in notes {
        writeln!(out, "{}", wrapped(note))?;
    }
    out.flush()
}

/// The text in lines that fit a terminal of the usual width.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut room = COLUMNS;
    for word in text.split_whitespace() {
        let length = word.chars().count() + 1;
        let (gap, left) = if length > room { ("\n", COLUMNS) } else { (" ", room) };
        lines.push_str(if lines.is_empty() { "" } else { gap });
        lines.push_str(word);
        room = left.saturating_sub(length);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_text_keeps_its_words_and_the_width() {
        let text = "a few words of several lengths ".repeat(9);
        let wrapped = wrapped(&text);
        assert!(wrapped.lines().all(|line| line.chars().count() <= COLUMNS), "{wrapped}");
        assert!(wrapped.split_whitespace().eq(text.split_whitespace()));
    }

    #[test]
    fn every_width_has_a_number_of_cells_that_fits() {
        assert_eq!([500, 108, 107, 80, 40, 0].map(cells), [96, 96, 48, 48, 24, 1]);
    }
}
