//! A server that says 503, and when to come back.

use core::time::Duration;
use std::path::Path;

use crate::Result;
use crate::guard::{OPEN_FOR, Settings};
use crate::lab::Lab;
use crate::nginx::{Line, Mode, Nginx, posts_again, tries};
use crate::outage::{MARGIN, Plan, Story};
use crate::table::{Criterion, number, share};
use crate::verdict::{Limits, longest};

/// When it wants us back, in seconds.
const RETRY_AFTER: u32 = 1;
/// Time for two attempts, and a third.
const TOTAL: Duration = Duration::from_millis(2_500);
const SETTINGS: Settings = Settings { total: TOTAL, ..Settings::DEFAULT };
/// A breaker that nothing opens, so that the retries are all that heeds the server.
const PATIENT: Settings = Settings { threshold: 60_000, ..SETTINGS };
/// The breaker heeds it, too: it is half-open when the server wants us back, and that may have been said again just before its end.
const LIMITS: Limits = Limits {
    open_within: Duration::from_millis(300),
    closed_within: Duration::from_secs(RETRY_AFTER as u64).saturating_add(OPEN_FOR).saturating_add(MARGIN),
    // One a second, those that close it, and what was let in as it opened.
    probes: 5,
    longest: longest(SETTINGS),
};

type Lived = (Story, Vec<Line>);

fn lives(lab: &Lab, name: &str, settings: Settings) -> Result<[Lived; 2]> {
    let start = async |folder: &Path| Nginx::start(&lab.programs, folder, Mode::Unavailable(RETRY_AFTER)).await;
    lab.both(name, start, Plan::new(lab.seed), settings, Nginx::log)
}

/// What the server must not see, with policies, and sees without them.
fn heeds([(_, log), (control, _)]: &[Lived; 2]) -> [Criterion; 3] {
    [
        Criterion::no_more("requests sent again before Retry-After", tries(log).values().map(too_early).sum(), 0),
        Criterion::no_more("POSTs sent again", posts_again(log), 0),
        control.amplifies(),
    ]
}

/// With all policies.
pub(crate) fn all(lab: &Lab) -> Result<Vec<Criterion>> {
    let lived = lives(lab, "unavailable", SETTINGS)?;
    let mut criteria = lived[0].0.judge(&LIMITS);
    criteria.extend(heeds(&lived));
    Ok(criteria)
}

/// With a breaker that does not open.
pub(crate) fn retries(lab: &Lab) -> Result<Vec<Criterion>> {
    let lived = lives(lab, "retries", PATIENT)?;
    let [(story, log), (_, control)] = &lived;
    let is_mended = |tries: &&Vec<&Line>| tries[0].status == 503 && tries.last().is_some_and(|last| last.status == 200);
    let mended = tries(log).values().filter(is_mended).count();
    let rate = Plan::new(lab.seed).load.rate;
    let mut criteria = vec![
        Criterion::at_least("calls served after Retry-After", number(mended), 5.0),
        // A tenth, and two a second.
        Criterion::at_most("requests for a call", share(log.len(), story.calls.len()), 1.15),
        Criterion::at_most("most requests in 250 ms, of the usual", peak(rate, log), 2.2),
        Criterion::at_least("CONTROL: most requests in 250 ms, of the usual", peak(rate, control), 2.2),
    ];
    criteria.extend(story.nothing_is_left());
    criteria.extend(heeds(&lived));
    Ok(criteria)
}

/// Those that came after a 503 before they were to. The server's clock has whole milliseconds, and says when it answered.
fn too_early(tries: &Vec<&Line>) -> usize {
    let wait = f64::from(RETRY_AFTER) * 1_000.0 - 2.0;
    tries.windows(2).filter(|pair| pair[0].status == 503 && pair[1].at - pair[0].at < wait).count()
}

/// The most requests in a quarter of a second, as many times what it is in good times.
fn peak(rate: u32, log: &[Line]) -> f64 {
    let times: Vec<_> = log.iter().map(|line| line.at).collect();
    let most = times.iter().map(|from| times.iter().filter(|at| (*from..from + 250.0).contains(at)).count()).max();
    number(most.unwrap_or(0)) / (f64::from(rate) / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: f64, status: u16, method: &str, call: u32) -> Line {
        Line { at, status, method: method.to_owned(), call }
    }

    #[test]
    fn what_is_sent_again_too_early_or_should_not_be_is_found() {
        let log = [
            line(0.0, 503, "GET", 1),
            line(999.0, 200, "GET", 1),
            line(0.0, 503, "GET", 2),
            line(990.0, 503, "GET", 2),
            line(1_500.0, 200, "GET", 2),
            line(0.0, 503, "POST", 3),
            line(2_000.0, 200, "POST", 3),
            line(0.0, 200, "GET", 4),
        ];
        let early: Vec<_> = tries(&log).values().map(too_early).collect();
        assert_eq!(early, [0, 2, 0, 0]);
        assert_eq!(posts_again(&log), 1);
    }

    #[test]
    fn the_peak_is_that_of_the_fullest_quarter_of_a_second() {
        let log: Vec<_> = (0..30).map(|call| line(f64::from(call) * 10.0, 200, "GET", call)).collect();
        assert_eq!(peak(100, &log), 1.0);
        assert_eq!(peak(100, &log[..5]), 0.2);
    }
}
