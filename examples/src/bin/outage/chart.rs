//! The picture: both sides' timelines over the upstream's phases.

use core::time::Duration;

use crate::bands::{Band, Bands};
use crate::record::{BUCKETS, Sample, Tally, bucket_of, bucket_span};
use crate::run::{SideStory, Story};
use crate::script::Condition;
use crate::side::{Breaker, Level, SideName};
use crate::summary::{Summary, percentile, span};
use crate::svg::{Frame, Svg};

const WIDTH: f64 = 1160.0;
const LEFT: f64 = 88.0;
const RIGHT: f64 = 16.0;
const PHASES_HEIGHT: f64 = 26.0;
const TITLE_HEIGHT: f64 = 34.0;
const RATE_HEIGHT: f64 = 150.0;
const LATENCY_HEIGHT: f64 = 96.0;
const STRIP_HEIGHT: f64 = 18.0;
const GAP: f64 = 14.0;
const AXIS_HEIGHT: f64 = 40.0;

/// Width of a letter of the labels, about.
const LETTER: f64 = 7.2;

/// The latency axis, logarithmic: its decades in seconds, from 10^-3 on.
const DECADES: [(&str, i32); 5] = [("1 ms", -3), ("10 ms", -2), ("100 ms", -1), ("1 s", 0), ("10 s", 1)];

/// Draws the run.
pub(crate) fn draw(story: &Story, summaries: &[Summary; SideName::ALL.len()]) -> String {
    let mut chart = Chart::new(story);
    chart.phases();
    for (side, summary) in story.sides.iter().zip(summaries) {
        chart.side(side, summary);
    }
    chart.time_axis();
    chart.finish()
}

/// A band's class and label.
type Look = (&'static str, &'static str);

struct Chart<'a> {
    story: &'a Story,
    total: Duration,
    svg: Svg,
    /// The next free row.
    y: f64,
    /// The highest rate of any bucket of any side: both share the scale.
    peak: f64,
}

impl<'a> Chart<'a> {
    fn new(story: &'a Story) -> Self {
        let total = story.pace.total();
        let buckets = story.sides.iter().flat_map(|side| side.record.buckets());
        let peak = buckets.map(|tally| tally.all()).max().unwrap_or_default();
        Self {
            story,
            total,
            svg: Svg::default(),
            y: 0.0,
            peak: f64::from(peak.max(1)) / bucket_span(total).as_secs_f64(),
        }
    }

    /// The next row.
    fn row(&mut self, height: f64) -> Frame {
        let frame = Frame { x: LEFT, y: self.y, width: WIDTH - LEFT - RIGHT, height };
        self.y += height;
        frame
    }

    fn x(&self, at: Duration) -> f64 {
        let part = at.as_secs_f64() / self.total.as_secs_f64();
        LEFT + (WIDTH - LEFT - RIGHT) * part.min(1.0)
    }

    fn over<T>(&self, row: Frame, band: &Band<T>) -> Frame {
        let x = self.x(band.from);
        row.across(x, self.x(band.to) - x)
    }

    fn phases(&mut self) {
        let row = self.row(PHASES_HEIGHT);
        self.svg.text("name", LEFT - 8.0, row.y + 17.0, "upstream");
        self.strip(row, &self.story.upstream, |condition| (condition_class(condition), condition.label()));
    }

    /// A row of bands, labelled where the label fits.
    fn strip<T: Copy + PartialEq>(&mut self, row: Frame, bands: &Bands<T>, look: impl Fn(T) -> Look) {
        for band in bands.iter() {
            let (class, label) = look(band.value);
            let frame = self.over(row, band);
            let title = format!("{label}, {} to {}", seconds(band.from), seconds(band.to));
            self.svg.rect(class, frame, &title);
            if label.len() as f64 * LETTER + 6.0 < frame.width {
                let (x, y) = (frame.x + frame.width / 2.0, row.y + row.height / 2.0 + 4.5);
                self.svg.text("in-band", x, y, label);
            }
        }
    }

    fn side(&mut self, side: &SideStory, summary: &Summary) {
        let title = self.row(TITLE_HEIGHT);
        self.svg.text("title", LEFT, title.bottom() - 8.0, side_title(side.name));
        let top = title.bottom();
        self.rates(side);
        if side.vitals.is_some() {
            self.vitals();
        }
        self.y += GAP;
        self.latencies(side);
        self.full_service(title, top, summary);
    }

    fn backdrop(&mut self, row: Frame) {
        for band in self.story.upstream.iter() {
            let class = match band.value {
                Condition::Healthy | Condition::Recovered => continue,
                Condition::Slow => "back slow",
                _ => "back down",
            };
            let frame = self.over(row, band);
            self.svg.rect(class, frame, "");
        }
    }

    fn rates(&mut self, side: &SideStory) {
        let row = self.row(RATE_HEIGHT);
        self.backdrop(row);
        self.caption(row, "requests");
        let step = nice_step(self.peak / 3.0);
        for index in 0..=3 {
            let rate = step * f64::from(index);
            let y = row.bottom() - row.height * rate / (self.peak * 1.05);
            if y >= row.y {
                self.tick(row, y, &format!("{rate:.0}/s"));
            }
        }
        for (index, tally) in side.record.buckets().into_iter().enumerate() {
            self.bar(row, index, tally);
        }
    }

    /// What a row's axis shows, along its left edge.
    fn caption(&mut self, row: Frame, text: &str) {
        self.svg.upright("caption", 14.0, row.y + row.height / 2.0, text);
    }

    fn tick(&mut self, row: Frame, y: f64, label: &str) {
        self.svg.line("grid", (row.x, y), (row.right(), y));
        self.svg.text("name", LEFT - 8.0, y + 4.0, label);
    }

    /// One bucket, stacked: what failed lies at the bottom, where its height is read best.
    fn bar(&mut self, row: Frame, index: usize, tally: Tally) {
        let bucket = bucket_span(self.total);
        let width = row.width / BUCKETS as f64;
        let x = row.x + width * index as f64;
        let scale = row.height / (self.peak * 1.05) / bucket.as_secs_f64();
        let title = format!(
            "asked at {}: {} fresh, {} degraded, {} failed",
            seconds(bucket.mul_f64(index as f64)),
            tally.fresh,
            tally.degraded,
            tally.failed
        );
        let mut y = row.bottom();
        for (class, count) in [("failed", tally.failed), ("degraded", tally.degraded), ("fresh", tally.fresh)] {
            let height = f64::from(count) * scale;
            y -= height;
            if count > 0 {
                // A hair between the bars keeps single buckets apart.
                let frame = Frame { x, y, width: width - 0.8, height };
                self.svg.rect(class, frame, &title);
            }
        }
    }

    fn vitals(&mut self) {
        self.y += 9.0;
        let row = self.row(STRIP_HEIGHT);
        self.svg.text("name", LEFT - 8.0, row.y + 13.0, "breaker");
        self.strip(row, &self.story.breaker, |state| (breaker_class(state), state.label()));
        self.y += 3.0;
        let row = self.row(STRIP_HEIGHT);
        self.svg.text("name", LEFT - 8.0, row.y + 13.0, "level");
        self.strip(row, &self.story.level, |level| (level_class(level), level.label()));
    }

    fn latencies(&mut self, side: &SideStory) {
        let row = self.row(LATENCY_HEIGHT);
        self.backdrop(row);
        self.caption(row, "latency");
        for (label, exponent) in DECADES {
            let y = latency_y(row, 10f64.powi(exponent));
            self.tick(row, y, label);
        }
        let buckets = latencies_by_bucket(side.record.samples(), self.total);
        for (class, percent) in [("p99", 99), ("p50", 50)] {
            let width = row.width / BUCKETS as f64;
            let points = buckets.iter().enumerate().map(|(index, latencies)| {
                let latency = percentile(latencies.iter().copied(), percent)?;
                let x = row.x + width * (index as f64 + 0.5);
                Some((x, latency_y(row, latency.as_secs_f64())))
            });
            self.svg.curve(class, points);
        }
    }

    /// Marks the moment of full service, over everything that this side has drawn.
    fn full_service(&mut self, title: Frame, top: f64, summary: &Summary) {
        let recovered = self.story.upstream.iter().find(|band| band.value == Condition::Recovered);
        let (Some(band), Some(after)) = (recovered, summary.full_service_after) else {
            return;
        };
        let x = self.x(band.from + after);
        let y = self.y;
        self.svg.line("mark", (x, top - 4.0), (x, y));
        let text = format!("full service after {}", span(after));
        // Late marks have their text to the left, where there is room.
        let class = if x > WIDTH - 220.0 { "mark-left" } else { "mark-right" };
        self.svg.text(class, x, title.bottom() - 8.0, &text);
    }

    fn time_axis(&mut self) {
        let row = self.row(AXIS_HEIGHT);
        let total = self.total.as_secs_f64();
        let step = nice_step(total / 12.0);
        let ticks = (0..).map(|index| f64::from(index) * step);
        for at in ticks.take_while(|at| *at <= total + 1e-9) {
            let x = self.x(Duration::from_secs_f64(at));
            self.svg.line("axis", (x, row.y + 4.0), (x, row.y + 9.0));
            self.svg.text("time", x, row.y + 23.0, &trimmed(at));
        }
        let middle = row.x + row.width / 2.0;
        self.svg.text("time", middle, row.y + 38.0, "when the request was due, in seconds");
    }

    fn finish(self) -> String {
        let label = "Timelines of the naked and the protected side during the outage";
        self.svg.finish(label, WIDTH, self.y + 4.0)
    }
}

const fn side_title(side: SideName) -> &'static str {
    match side {
        SideName::Naked => "naked: the HTTP client and its timeout",
        SideName::Protected => "protected: the same client behind failsoft",
    }
}

fn latencies_by_bucket(samples: Vec<Sample>, total: Duration) -> Vec<Vec<Duration>> {
    let mut buckets = vec![Vec::new(); BUCKETS];
    for sample in samples.iter().filter(|sample| sample.was_sent()) {
        buckets[bucket_of(sample.due, bucket_span(total))].push(sample.latency());
    }
    buckets
}

/// Half a decade of room above and below the labelled ones.
fn latency_y(row: Frame, seconds: f64) -> f64 {
    let part = (seconds.max(1e-9).log10() + 3.2) / 4.6;
    row.bottom() - row.height * part.clamp(0.0, 1.0)
}

/// The next larger of 1, 2, 5, 10, 20, 50, ...
fn nice_step(at_least: f64) -> f64 {
    let power = 10f64.powf(at_least.max(1e-9).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| *step >= at_least).unwrap_or(at_least)
}

fn trimmed(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn seconds(at: Duration) -> String {
    format!("{:.2} s", at.as_secs_f64())
}

const fn condition_class(condition: Condition) -> &'static str {
    match condition {
        Condition::Healthy | Condition::Recovered => "band good",
        Condition::Slow => "band lesser",
        _ => "band bad",
    }
}

const fn breaker_class(state: Breaker) -> &'static str {
    match state {
        Breaker::Closed => "band good",
        Breaker::HalfOpen => "band lesser",
        Breaker::Open => "band bad",
    }
}

const fn level_class(level: Level) -> &'static str {
    match level {
        Level::Full => "band good",
        Level::Degraded => "band lesser",
        Level::Minimal => "band bad",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_numbers() {
        let steps = [0.3, 1.0, 2.1, 60.0].map(nice_step);
        assert_eq!(steps, [0.5, 1.0, 5.0, 100.0]);
    }
}
