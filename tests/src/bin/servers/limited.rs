//! A server that says 429 beyond its limit, and a client that finds out what the limit is.

use core::time::Duration;
use std::path::Path;
use std::sync::Arc;

use failsoft_tokio::http::{HttpRequests, HttpStatus};
use failsoft_tokio::pipeline::{Bare, Stack};
use failsoft_tokio::{AdaptiveRate, Pipeline, PipelineLayer, Ratio, Timeout, Tokio, adaptive_rate, valid};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::Result;
use crate::guard::{Guard, Settings};
use crate::http::{HttpClient, ending};
use crate::lab::Lab;
use crate::load::{Attempts, Client, Ending, Load};
use crate::nginx::{Line, Mode, Nginx};
use crate::outage::{Plan, Story, Subject};
use crate::server::Programs;
use crate::table::{Criterion, number, share};

/// What the server takes in a second, of the four times as many that come.
const LIMIT: u32 = 50;
/// When it begins to limit, when the client has had time to find out, and when it is over.
const TIMES: [Duration; 3] = [Duration::from_millis(1_000), Duration::from_millis(4_000), Duration::from_millis(8_000)];

type Paces = Pipeline<Tokio, Stack<Stack<Bare, AdaptiveRate>, Timeout>, HttpStatus>;

/// A client whose rate adapts.
pub(crate) struct Paced {
    http: HttpClient,
    pipeline: Arc<Paces>,
}

impl Paced {
    fn new(http: HttpClient) -> Self {
        // Steeper than by default, so that it has found its level after seconds and not after a quarter of a minute.
        let rate = AdaptiveRate::new(valid!(
            adaptive_rate::Config::new()
                .with_beta(Ratio::percent(85))
                .with_scale(Ratio::percent(1_000))
                .with_settling(Duration::from_millis(100))
                .with_longest_wait(Duration::ZERO)
                .validate()
        ));
        let timeout = Timeout::new(Settings::DEFAULT.attempt);
        Self { http, pipeline: Arc::new(Pipeline::new(Tokio).layer(rate).layer(timeout).classify(HttpStatus)) }
    }
}

impl Client for Paced {
    async fn guarded(&self, _: &'static Guard, number: u32) -> Ending {
        let layer = PipelineLayer::with_requests(Arc::clone(&self.pipeline), HttpRequests);
        let Ok(request) = self.http.request(number) else { return Ending::Failed };
        let service = layer.layer(service_fn(|request| self.http.fetch(request)));
        service.oneshot(request).await.map_or_else(|failure| Ending::from(&failure), |answer| ending(&answer))
    }

    async fn bare(&self, number: u32) -> Ending {
        self.http.bare(number).await
    }

    fn attempts(&self) -> &Attempts {
        self.http.attempts()
    }
}

/// An nginx that limits, with such a client.
struct Limiting(Nginx);

impl Subject for Limiting {
    type Client = Paced;

    fn client(&self) -> Result<Paced> {
        Ok(Paced::new(self.0.client()?))
    }

    async fn begin(&mut self) -> Result<()> {
        self.0.begin().await
    }

    async fn end(&mut self) -> Result<()> {
        self.0.end().await
    }

    async fn connections(&mut self) -> Result<usize> {
        self.0.connections().await
    }

    async fn requests(&mut self) -> Result<Option<usize>> {
        self.0.requests().await
    }
}

async fn start(programs: &Programs, folder: &Path) -> Result<Limiting> {
    Nginx::start(programs, folder, Mode::Limited(LIMIT)).await.map(Limiting)
}

type Lived = (Story, Vec<Line>);

pub(crate) fn run(lab: &Lab) -> Result<Vec<Criterion>> {
    let [begin, _, end] = TIMES;
    let plan = Plan { load: Load { lasts: end, ..Plan::new(lab.seed).load }, begin, end };
    let start = async |folder: &Path| start(&lab.programs, folder).await;
    let [paced, control] = lab.both("limited", start, plan, Settings::DEFAULT, |server: &Limiting| server.0.log())?;
    Ok(judge(&paced, &control))
}

fn judge(paced: &Lived, control: &Lived) -> Vec<Criterion> {
    let (story, log) = paced;
    let per_second = |status| number(found(log, status)) / (TIMES[2] - TIMES[1]).as_secs_f64();
    let throttled = |log| share(found(log, 429), found(log, 429) + found(log, 200));
    let differ = story.attempts.len().abs_diff(log.len());
    vec![
        Criterion::at_least("requests served in a second, of 50 that may be", per_second(200), 30.0),
        Criterion::at_most("requests that came in a second", per_second(200) + per_second(429), 60.0),
        Criterion::at_most("answers 429, of all, once the rate is found", throttled(log), 0.15),
        Criterion::no_more("requests, the client's count against the server's", differ, log.len() / 100),
        Criterion::no_more("connections left", story.connections[2], 0),
        Criterion::no_more("tasks left", story.tasks, 0),
        Criterion::at_least("CONTROL: answers 429, of all", throttled(&control.1), 0.6),
    ]
}

/// Answers with this status once the rate is found, by the server's log.
fn found(log: &[Line], status: u16) -> usize {
    let start = log.first().map_or(0.0, |line| line.at);
    let [_, from, until] = TIMES.map(|time| start + time.as_secs_f64() * 1_000.0);
    log.iter().filter(|line| line.status == status && (from..until).contains(&line.at)).count()
}
