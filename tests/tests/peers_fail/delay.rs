//! Delays between attempts.

use core::time::Duration;

use backoff::backoff::Backoff;
use backon::BackoffBuilder;
use tower_resilience_retry::{ExponentialRandomBackoff, IntervalFunction};

use crate::{panics, still_shows};

const SECOND: Duration = Duration::from_secs(1);
/// Draws of a jitter: half of them would have to stay below, all by chance.
const DRAWS: usize = 1_000;

// 19: without the standard library, as this package has it.
#[test]
fn two_devices_share_their_jitter_in_backon() {
    let device = || backon::ExponentialBuilder::new().with_jitter().with_max_times(8).build().collect::<Vec<_>>();
    still_shows(device() == device(), "device A has the delays of device B");
}

// 20
#[test]
fn a_longest_delay_is_exceeded_by_backon_backoff_and_tower_resilience_retry() {
    let builder = backon::ExponentialBuilder::new().with_jitter().with_max_delay(SECOND).with_max_times(DRAWS);
    still_shows(builder.build().any(|delay| delay > SECOND), "backon adds its jitter to what it has capped");

    let mut backoff =
        backoff::ExponentialBackoff { max_interval: SECOND, max_elapsed_time: None, ..Default::default() };
    let longest = (0..DRAWS).filter_map(|_| backoff.next_backoff()).max();
    still_shows(longest > Some(SECOND), "backoff adds its jitter to what it has capped");

    let backoff = ExponentialRandomBackoff::new(SECOND, 0.5).expect("valid").max_interval(SECOND);
    let longest = (0..DRAWS).map(|attempt| backoff.next_interval(attempt)).max();
    still_shows(longest > Some(SECOND), "tower-resilience-retry adds its jitter to what it has capped");
}

// 21
#[test]
fn exponential_backoff_takes_what_it_panics_over() {
    let mut tiny = exponential_backoff::Backoff::new(5, SECOND, None);
    tiny.set_jitter(0.005);
    still_shows(
        panics(|| {
            let _ = tiny.iter().next();
        }),
        "a jitter of half a percent",
    );
    let crossed = exponential_backoff::Backoff::new(5, SECOND * 10, SECOND);
    still_shows(
        panics(|| {
            let _ = crossed.iter().next();
        }),
        "a longest delay below the shortest",
    );
}

// 22
#[test]
fn high_attempts_overflow_in_backon() {
    let fibonacci = backon::FibonacciBuilder::new().with_jitter().with_min_delay(SECOND).without_max_delay();
    let mut delays = fibonacci.without_max_times().build();
    still_shows(
        panics(|| {
            let _ = delays.nth(200);
        }),
        "the delays of Fibonacci, within 200 attempts",
    );
    let huge = backon::ExponentialBuilder::new().with_jitter().with_factor(1e30).without_max_delay();
    let mut delays = huge.with_total_delay(Some(Duration::MAX)).build();
    still_shows(
        panics(|| {
            let _ = delays.nth(2);
        }),
        "a large factor and a limit on the total, within 3 attempts",
    );
}

// 23
#[test]
fn tokio_retry_raises_its_base_to_the_power_of_the_attempt() {
    let delays = |base| tokio_retry::strategy::ExponentialBackoff::from_millis(base).take(3).collect::<Vec<_>>();
    still_shows(delays(1_000) == [1, 1_000, 1_000_000].map(Duration::from_secs), "1 s, 1,000 s, 1,000,000 s");
    still_shows(delays(1) == [Duration::from_millis(1); 3], "a millisecond never grows");
}
