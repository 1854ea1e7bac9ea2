//! The page: the plots and their reading in one file, without anything from elsewhere.

use core::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::chart;
use crate::plot::{Content, Reading, Section};
use crate::svg::escaped;

const STYLE: &str = include_str!("page.css");

/// What it was measured on.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or_else(|error| error.to_string(), |cores| cores.to_string());
    let model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let model = model.unwrap_or_else(|| String::from(std::env::consts::ARCH));
    let load = load().map_or_else(|| String::from("unknown"), |load| load.to_string());
    let caches = (0..4).filter_map(|index| {
        let of = |what| fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{what}")).ok();
        let (level, kind, size) = (of("level")?, of("type")?, of("size")?);
        (kind.trim() != "Instruction").then(|| format!("L{} {}", level.trim(), size.trim()))
    });
    let caches = caches.collect::<Vec<_>>().join(", ");
    let caches = if caches.is_empty() { String::from("unknown") } else { caches };
    format!("{model}, {cores} cores; caches: {caches}; {}; load before the run: {load}", compiler())
}

/// How many threads wanted to run in the last minute, on average.
fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Said where the machine has something else to do.
pub(crate) fn busy() -> Option<String> {
    let (load, cores) = (load()?, std::thread::available_parallelism().ok()?);
    (load > 0.5).then(|| {
        format!(
            "The machine was busy in the last minute (load {load} on {cores} cores), be it with building this. Where it still is, single \
             figures may stand out by that, and the figures of several tasks say little."
        )
    })
}

fn compiler() -> String {
    match Command::new("rustc").arg("--version").output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(output) => format!("rustc --version failed, {}", output.status),
        Err(error) => format!("rustc does not start: {error}"),
    }
}

/// The whole page.
pub(crate) fn page(machine: &str, warning: Option<&str>, is_quick: bool, sections: &[Section]) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>How the cost of a call grows</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>How the cost of a call grows</h1>\n<p>{}</p>\n",
        escaped(machine)
    );
    html.push_str(if is_quick {
        "<p class=\"warning\">A quick run: it shows that it runs. Its figures are rough.</p>\n"
    } else {
        "<p>The fastest of many batches, or where several tasks run the middle one; dashed lines are what to compare with. Slope: the \
         exponent of growth, fitted to all points; 0 is flat, 1 in proportion.</p>\n"
    });
    if let Some(warning) = warning {
        let _ = writeln!(html, "<p class=\"warning\">{}</p>", escaped(warning));
    }
    for section in sections {
        let _ = write!(html, "<section>\n<h2>{}</h2>\n<p>{}</p>\n", escaped(section.title), escaped(&section.about));
        match &section.content {
            Content::Plot(plot) => {
                let picture = chart::draw(plot, section.title);
                let _ = write!(html, "<div class=\"picture\">\n{picture}</div>\n");
                reading(&mut html, section);
                let _ =
                    write!(html, "<details><summary>all figures</summary>\n{}</details>\n", table(&section.content));
            }
            Content::Table { .. } => {
                html.push_str(&table(&section.content));
                reading(&mut html, section);
            }
        }
        html.push_str("</section>\n");
    }
    html.push_str("<p class=\"repeat\"><code>cargo bench -p failsoft-measure --bench growth</code></p>\n</main>\n</body>\n</html>\n");
    html
}

fn reading(html: &mut String, section: &Section) {
    html.push_str("<ul>\n");
    for Reading { of, text } in &section.reading {
        // No line begins with the sign.
        let text = escaped(text).replace(" ×", "&nbsp;×");
        let _ = writeln!(html, "<li><b>{}</b>: {text}</li>", escaped(of));
    }
    html.push_str("</ul>\n");
}

fn table(content: &Content) -> String {
    let (head, rows) = content.table();
    let cells = |tag: &str, row: &[String]| {
        row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect::<String>()
    };
    let mut html = format!("<div class=\"wide\"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n", cells("th", &head));
    for row in &rows {
        let _ = writeln!(html, "<tr>{}</tr>", cells("td", row));
    }
    html.push_str("</tbody>\n</table></div>\n");
    html
}
