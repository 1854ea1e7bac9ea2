//! The run in numbers.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::record::Sample;
use crate::run::{SideStory, Story};
use crate::script::Condition;
use crate::side::{Served, SideName};

/// One side in numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    requests: usize,
    fresh: usize,
    substitutes: BTreeMap<String, usize>,
    failures: BTreeMap<String, usize>,
    reached_while_down: u64,
    connections_while_down: u64,
    answer: Latency,
    outcome: Latency,
    /// From the upstream's recovery on; nothing if the run did not see it.
    pub(crate) full_service_after: Option<Duration>,
    rejected: Option<u64>,
    retries: Option<u64>,
    openings: Option<u64>,
}

/// How long people had to wait.
#[derive(Clone, Copy, Debug, Default)]
struct Latency {
    p50: Option<Duration>,
    p99: Option<Duration>,
}

impl Latency {
    fn of<'a>(samples: impl Iterator<Item = &'a Sample> + Clone) -> Self {
        let percentile = |percent| percentile(samples.clone().map(Sample::latency), percent);
        Self { p50: percentile(50), p99: percentile(99) }
    }
}

impl Summary {
    /// Sums a side up.
    pub(crate) fn of(story: &Story, side: &SideStory) -> Self {
        let samples = side.record.samples();
        let sent = samples.iter().filter(|sample| sample.was_sent());
        let answered = sent.clone().filter(|sample| !matches!(sample.served, Served::Failed(_)));
        let mut summary = Self {
            requests: samples.len(),
            answer: Latency::of(answered),
            outcome: Latency::of(sent),
            full_service_after: full_service(story, &samples),
            rejected: side.vitals.map(|vitals| vitals.rejected),
            retries: side.vitals.map(|vitals| vitals.retries),
            openings: side.vitals.map(|vitals| vitals.openings),
            ..Self::default()
        };
        for sample in &samples {
            match sample.served {
                Served::Fresh => summary.fresh += 1,
                Served::Degraded(kind) => count(&mut summary.substitutes, &kind),
                Served::Failed(reason) => count(&mut summary.failures, &reason),
            }
        }
        summary.count_what_reached_it_while_down(story, side);
        summary
    }

    fn count_what_reached_it_while_down(&mut self, story: &Story, side: &SideStory) {
        for (phase, seen) in story.pace.phases().iter().zip(&side.seen) {
            if phase.condition.is_down() {
                self.reached_while_down += seen.requests;
                self.connections_while_down += seen.connections;
            }
        }
        self.reached_while_down += side.refused;
        self.connections_while_down += side.refused;
    }
}

fn count(counts: &mut BTreeMap<String, usize>, kind: &impl ToString) {
    *counts.entry(kind.to_string()).or_default() += 1;
}

/// One row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What it says.
    pub(crate) label: String,
    /// A cell for each side.
    pub(crate) cells: [String; SideName::ALL.len()],
    /// Whether it is a part of the row above.
    pub(crate) is_detail: bool,
}

/// The table, for the terminal and for the picture.
pub(crate) fn table(summaries: &[Summary; SideName::ALL.len()]) -> Vec<Row> {
    let row = |label: &str, cell: &dyn Fn(&Summary) -> String| Row {
        label: label.to_owned(),
        cells: summaries.each_ref().map(cell),
        is_detail: false,
    };
    let mut rows = vec![
        row("requests", &|s| s.requests.to_string()),
        row("served fresh", &|s| share(s.fresh, s.requests)),
        row("served degraded", &|s| share(sum(&s.substitutes), s.requests)),
    ];
    rows.extend(details(summaries, |s| &s.substitutes));
    rows.push(row("failed", &|s| share(sum(&s.failures), s.requests)));
    rows.extend(details(summaries, |s| &s.failures));
    rows.extend([
        row("calls that reached the upstream while it was down", &|s| s.reached_while_down.to_string()),
        row("connections it was asked for while it was down", &|s| s.connections_while_down.to_string()),
        row("kept from the upstream by a policy", &|s| known(s.rejected)),
        row("retries", &|s| known(s.retries)),
        row("openings of the breaker", &|s| known(s.openings)),
        row("latency of answers, p50", &|s| latency(s.answer.p50)),
        row("latency of answers, p99", &|s| latency(s.answer.p99)),
        row("latency of answers and errors, p50", &|s| latency(s.outcome.p50)),
        row("latency of answers and errors, p99", &|s| latency(s.outcome.p99)),
        row("full service after the upstream's recovery", &|s| {
            s.full_service_after.map_or_else(|| "not seen".to_owned(), span)
        }),
    ]);
    rows
}

/// What the table's words mean.
pub(crate) const NOTES: [&str; 4] = [
    "Down: answering 503, resetting, refusing or mute. Requests are counted at the upstream, refused ones at the client.",
    "No room to ask: as many requests under way as allowed; a mute upstream keeps each of them until its timeout.",
    "Latency: since the request was due; answers are fresh or degraded; what was dropped for lack of room doesn't count.",
    "Full service: from then on, all who asked within half a second (scaled with the run) got a fresh answer.",
];

fn details(
    summaries: &[Summary; SideName::ALL.len()],
    counts: impl Fn(&Summary) -> &BTreeMap<String, usize>,
) -> Vec<Row> {
    let mut labels: Vec<&String> = summaries.iter().flat_map(|s| counts(s).keys()).collect();
    labels.sort();
    labels.dedup();
    let detail = |label: &String| Row {
        label: label.clone(),
        cells: summaries.each_ref().map(|s| counts(s).get(label).copied().unwrap_or_default().to_string()),
        is_detail: true,
    };
    labels.into_iter().map(detail).collect()
}

fn sum(counts: &BTreeMap<String, usize>) -> usize {
    counts.values().sum()
}

fn share(part: usize, whole: usize) -> String {
    let percent = 100.0 * part as f64 / whole.max(1) as f64;
    format!("{part} ({percent:.1} %)")
}

fn known(count: Option<u64>) -> String {
    count.map_or_else(|| "–".to_owned(), |count| count.to_string())
}

fn latency(latency: Option<Duration>) -> String {
    latency.map_or_else(|| "–".to_owned(), span)
}

/// A span for people: three digits are enough.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.1 => format!("{:.0} ms", s * 1e3),
        s => format!("{:.1} ms", s * 1e3),
    }
}

/// The smallest value that at least so many percent of all values don't exceed.
pub(crate) fn percentile(values: impl Iterator<Item = Duration>, percent: usize) -> Option<Duration> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.saturating_sub(1)).copied()
}

/// When the upstream recovered, if the run got so far.
fn recovery(story: &Story) -> Option<Duration> {
    let mut bands = story.upstream.iter();
    let band = bands.find(|band| band.value == Condition::Recovered)?;
    Some(band.from)
}

/// The first moment from which all who ask are served fresh, for as long as the proof takes.
fn full_service(story: &Story, samples: &[Sample]) -> Option<Duration> {
    let recovered = recovery(story)?;
    let proof = story.pace.proof_of_service();
    let asked = samples.iter().filter(|sample| sample.due >= recovered);
    let lacking = asked.clone().filter(|sample| sample.served != Served::Fresh);
    let mut since = recovered;
    for sample in lacking {
        if sample.due >= since + proof {
            break;
        }
        since = sample.due;
    }
    let proven = since + proof <= story.elapsed && asked.clone().any(|sample| sample.due > since);
    proven.then(|| since - recovered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let values = || (1..=100).map(Duration::from_millis);
        assert_eq!(percentile(values(), 50), Some(Duration::from_millis(50)));
        assert_eq!(percentile(values(), 99), Some(Duration::from_millis(99)));
        assert_eq!(percentile(core::iter::empty(), 99), None);
        assert_eq!(percentile(values().take(1), 50), Some(Duration::from_millis(1)));
    }

    #[test]
    fn spans_have_three_digits() {
        let spans = [5_300, 734_000, 9_876_000].map(|us| span(Duration::from_micros(us)));
        assert_eq!(spans, ["5.3 ms", "734 ms", "9.88 s"]);
    }
}
