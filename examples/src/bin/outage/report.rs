//! The page: the picture and the table in one file, without anything from elsewhere.

use core::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use crate::args::Args;
use crate::chart;
use crate::run::Story;
use crate::script::Condition;
use crate::side::{Breaker, Level, SideName};
use crate::summary::{NOTES, Row, Summary};
use crate::svg::escaped;

const STYLE: &str = include_str!("report.css");

/// Makes sure that the file can be written, before half a minute is spent on what goes in there.
pub(crate) fn prepare(file: &Path) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let is_new = !file.exists();
    // An earlier report stays as it is, until there is a new one.
    OpenOptions::new().append(true).create(true).open(file)?;
    if is_new {
        fs::remove_file(file)?;
    }
    Ok(())
}

/// Writes the page.
pub(crate) fn write(
    file: &Path,
    args: &Args,
    story: &Story,
    summaries: &[Summary; SideName::ALL.len()],
    rows: &[Row],
) -> io::Result<()> {
    let chart = chart::draw(story, summaries);
    fs::write(file, page(args, story, &chart, rows))
}

fn page(args: &Args, story: &Story, chart: &str, rows: &[Row]) -> String {
    let state = if story.interrupted {
        "The run was interrupted: this is what it saw until then."
    } else {
        "The same load on the same failing upstream, twice at once."
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>An outage, naked and protected</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>An outage, naked and protected</h1>\n<p>{state}</p>\n{legend}\
         <div class=\"picture\">\n{chart}</div>\n{table}{notes}\
         <p class=\"repeat\">seed {seed} · <code>{command}</code></p>\n</main>\n</body>\n</html>\n",
        legend = legend(),
        table = table(rows),
        notes = notes(),
        seed = args.seed,
        command = escaped(&args.to_repeat()),
    )
}

fn legend() -> String {
    let keys = [
        ("fresh", "served fresh"),
        ("degraded", "served degraded"),
        ("failed", "failed"),
        ("p50 stroke", "latency p50"),
        ("p99 stroke", "latency p99"),
        ("back slow", "upstream slow"),
        ("back down", "upstream down"),
    ];
    let mut html = String::from("<ul class=\"legend\">\n");
    for (class, text) in keys {
        let _ = writeln!(html, "<li><i class=\"{class}\"></i>{text}</li>");
    }
    html.push_str("</ul>\n");
    html
}

fn table(rows: &[Row]) -> String {
    let [naked, protected] = SideName::ALL.map(SideName::label);
    let mut html = format!(
        "<table>\n<thead><tr><td></td><th scope=\"col\">{naked}</th><th scope=\"col\">{protected}</th></tr></thead>\n<tbody>\n"
    );
    for row in rows {
        let class = if row.is_detail { " class=\"detail\"" } else { "" };
        let label = escaped(&row.label);
        let [naked, protected] = &row.cells;
        let _ = writeln!(html, "<tr{class}><th scope=\"row\">{label}</th><td>{naked}</td><td>{protected}</td></tr>");
    }
    html.push_str("</tbody>\n</table>\n");
    html
}

fn notes() -> String {
    let mut html = String::from("<ul class=\"notes\">\n");
    for note in NOTES {
        let _ = writeln!(html, "<li>{}</li>", escaped(note));
    }
    let conditions = [
        Condition::Slow,
        Condition::Unavailable,
        Condition::Resetting,
        Condition::Refusing,
        Condition::Mute,
        Condition::Recovered,
    ];
    let explained = conditions.map(|c| format!("<b>{}</b> {}", c.label(), escaped(c.explanation())));
    let _ = writeln!(html, "<li>The upstream: {}.</li>", explained.join("; "));
    let breaker = Breaker::ALL.map(Breaker::label).join(", ");
    let level = Level::ALL.map(Level::label).join(", ");
    let _ = writeln!(html, "<li>Bands in green, amber and red: breaker {breaker}; level {level}.</li>\n</ul>");
    html
}
