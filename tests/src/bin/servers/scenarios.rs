//! The scenarios, by name.

use core::time::Duration;
use std::path::Path;

use failsoft_tokio::circuit_breaker::Abandoned;

use crate::Result;
use crate::guard::{OPEN_FOR, PERMITS, Settings};
use crate::lab::{Lab, beside};
use crate::load::Load;
use crate::nginx::{Mode, Nginx, posts_again};
use crate::outage::{Fault, MARGIN, Plan};
use crate::postgres::{Extent, Postgres};
use crate::proxy::{Answers, Proxied};
use crate::redis::Redis;
use crate::table::Criterion;
use crate::verdict::{Limits, longest};
use crate::{limited, unavailable};

/// A scenario.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Lab) -> Result<Vec<Criterion>>,
}

/// All of them.
pub(crate) const ALL: [Scenario; 12] = {
    const fn of(name: &'static str, about: &'static str, run: fn(&Lab) -> Result<Vec<Criterion>>) -> Scenario {
        Scenario { name, about, run }
    }
    [
        // In an order in which those with PostgreSQL, whose connections are processes, are hardly run at the same time.
        of("backends", "PostgreSQL is stopped with all connections that it has", backends),
        of("limited", "nginx says 429 beyond a rate that the client has to find", limited::run),
        of("dripping", "answers come at a byte a second, and only the total timeout ends them", dripping),
        of("killed", "Redis is killed in a burst of calls, refuses connections, and is started again", killed),
        of("newcomers", "PostgreSQL takes no new connections, and the client keeps none", newcomers),
        of("stopped", "Redis is stopped: it accepts connections, and never answers", stopped),
        of("unanswered", "Redis is stopped, and whoever connects to it hears nothing: packets are lost", unanswered),
        of("unavailable", "nginx says 503, and when to come back", unavailable::all),
        of("retries", "the same, and the breaker doesn't open: retries come when nginx says", unavailable::retries),
        of("postmaster", "PostgreSQL takes no new connections, and those in the client's pool go on", postmaster),
        of("closing", "nginx closes connections without a byte", closing),
        of("truncated", "answers end in their middle", truncated),
    ]
};

/// For a fault that each attempt notices at once.
const NOTICED: Limits = Limits {
    open_within: Duration::from_millis(300),
    closed_within: OPEN_FOR.saturating_add(MARGIN),
    // One at each half-open, and what was let in as the breaker opened.
    probes: 16,
    longest: longest(Settings::DEFAULT),
};

/// For one that the attempt's timeout has to notice.
const fn mute(settings: Settings) -> Limits {
    Limits {
        open_within: NOTICED.open_within.saturating_add(settings.attempt),
        closed_within: NOTICED.closed_within.saturating_add(settings.attempt),
        longest: longest(settings),
        ..NOTICED
    }
}

fn killed(lab: &Lab) -> Result<Vec<Criterion>> {
    let plan = Plan::new(lab.seed);
    // As it is killed, so many calls come at once.
    let plan = Plan { load: Load { burst: (40, plan.begin), ..plan.load }, ..plan };
    let start = async |folder: &Path| Redis::start(&lab.programs, folder, Fault::Killed).await;
    let [guarded, control] = lab.both("killed", start, plan, Settings::DEFAULT, stories)?;
    Ok(with(guarded.0.judge(&NOTICED), [control.0.amplifies()]))
}

fn stopped(lab: &Lab) -> Result<Vec<Criterion>> {
    let start = async |folder: &Path| Redis::start(&lab.programs, folder, Fault::Stopped).await;
    let [guarded, control] = lab.both("stopped", start, Plan::new(lab.seed), Settings::DEFAULT, stories)?;
    Ok(with(guarded.0.judge(&mute(Settings::DEFAULT)), control.0.piles_up()))
}

fn unanswered(lab: &Lab) -> Result<Vec<Criterion>> {
    let start = async |folder: &Path| Redis::start(&lab.programs, folder, Fault::Unanswered).await;
    let [guarded, control] = lab.both("unanswered", start, Plan::new(lab.seed), Settings::DEFAULT, stories)?;
    Ok(with(guarded.0.judge(&mute(Settings::DEFAULT)), control.0.piles_up()))
}

/// A breaker that opens so late that there are retries before.
const LATER: Settings = Settings { threshold: 20, ..Settings::DEFAULT };

fn closing(lab: &Lab) -> Result<Vec<Criterion>> {
    let start = async |folder: &Path| Nginx::start(&lab.programs, folder, Mode::Closing).await;
    let [guarded, control] = lab.both("closing", start, Plan::new(lab.seed), LATER, Nginx::log)?;
    let posts = Criterion::no_more("POSTs sent again", posts_again(&guarded.1), 0);
    Ok(with(guarded.0.judge(&NOTICED), [posts, control.0.amplifies()]))
}

fn truncated(lab: &Lab) -> Result<Vec<Criterion>> {
    let start = async |folder: &Path| Proxied::start(&lab.programs, folder, Answers::Cut(HALF)).await;
    let [guarded, control] = lab.both("truncated", start, Plan::new(lab.seed), LATER, Proxied::log)?;
    let posts = Criterion::no_more("POSTs sent again", posts_again(&guarded.1), 0);
    Ok(with(guarded.0.judge(&NOTICED), [posts, control.0.amplifies()]))
}

fn dripping(lab: &Lab) -> Result<Vec<Criterion>> {
    // Without a timeout of its own an attempt is given up by the total one, which counts where the settings say so.
    let abandoned = Abandoned::FailureAfter(Duration::from_millis(200));
    let settings = Settings { attempt: Duration::from_secs(60), abandoned, ..Settings::DEFAULT };
    let limits = Limits {
        open_within: NOTICED.open_within + settings.total,
        closed_within: NOTICED.closed_within + settings.total,
        ..NOTICED
    };
    let start = async |folder: &Path| Proxied::start(&lab.programs, folder, Answers::Dripping(HALF)).await;
    let [guarded, control] = lab.both("dripping", start, Plan::new(lab.seed), settings, stories)?;
    Ok(with(guarded.0.judge(&limits), control.0.piles_up()))
}

fn backends(lab: &Lab) -> Result<Vec<Criterion>> {
    let start = async |folder: &Path| Postgres::start(&lab.programs, folder, Extent::All, true).await;
    let [guarded, control] = lab.both("backends", start, sparse(lab), POSTGRES, stories)?;
    Ok(with(guarded.0.judge(&mute(POSTGRES)), control.0.piles_up()))
}

fn newcomers(lab: &Lab) -> Result<Vec<Criterion>> {
    let start = async |folder: &Path| Postgres::start(&lab.programs, folder, Extent::Postmaster, false).await;
    let [guarded, control] = lab.both("newcomers", start, sparse(lab), POSTGRES, stories)?;
    Ok(with(guarded.0.judge(&mute(POSTGRES)), control.0.piles_up()))
}

fn postmaster(lab: &Lab) -> Result<Vec<Criterion>> {
    let lives = |name, keeps, settings| {
        let start = async |folder: &Path| Postgres::start(&lab.programs, folder, Extent::Postmaster, keeps).await;
        lab.lives(name, start, sparse(lab), settings, stories)
    };
    // What the pool is worth shows where there is none.
    let [(guarded, ()), (control, ())] =
        beside(|| lives("postmaster-guarded", true, Some(POSTGRES)), || lives("postmaster-control", false, None))?;
    let mut criteria = vec![
        Criterion::share("calls served while it was stopped", guarded.served_while_down(), 0.99),
        Criterion::no_more("changes of the breaker", guarded.changes.len(), 0),
    ];
    criteria.extend(guarded.nothing_is_left());
    Ok(with(criteria, control.piles_up()))
}

/// So much of an answer that its head and a part of its body are in it.
const HALF: usize = 600;

/// A new connection is a new process: it takes its time.
const POSTGRES: Settings =
    Settings { total: Duration::from_millis(1_000), attempt: Duration::from_millis(300), ..Settings::DEFAULT };

/// So that the connections that pile up don't keep the machine busy, fewer calls come; but so many at once at the beginning that those who
/// keep connections have some to spare.
fn sparse(lab: &Lab) -> Plan {
    let plan = Plan::new(lab.seed);
    Plan { load: Load { rate: 50, burst: (PERMITS, Duration::from_millis(200)), ..plan.load }, ..plan }
}

/// Nothing is to be read but what a run is always about.
#[expect(clippy::unnecessary_wraps, reason = "other scenarios read files")]
fn stories<S>(_: &S) -> Result<()> {
    Ok(())
}

fn with<const N: usize>(mut criteria: Vec<Criterion>, control: [Criterion; N]) -> Vec<Criterion> {
    criteria.extend(control);
    criteria
}
