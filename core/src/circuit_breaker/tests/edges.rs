//! What only shows at the edge of a counter, or where another caller was faster.

use super::*;

#[test]
fn more_trials_than_the_settings_hold_are_not_taken_for_a_few() {
    for trials in [256, 65_535, 65_536, 65_537, 65_536 + 255, u32::MAX] {
        let refused = Config::new().with_trials(1, trials).validate().err().map(|error| error.field());
        assert_eq!(refused, Some("trials"), "{trials}");
    }
    assert!(Config::new().with_trials(255, 255).validate().is_ok());
}

#[test]
fn a_breaker_that_is_held_open_rejects_in_every_generation() {
    let breaker = breaker(touchy());
    for change in 0..GENERATIONS {
        // Three changes a round, of a number of generations that three doesn't divide: each is met in turn.
        breaker.open_until(at(10));
        breaker.isolate();
        let reason = breaker.try_acquire(at(0)).err().map(|rejected| rejected.reason());
        assert_eq!(reason, Some(Reason::Isolated), "round {change}");
        breaker.reset();
    }
}

/// The settings, and the state in this phase and generation.
fn machine(phase: Phase, generation: u16) -> (Config, State<Consecutive>) {
    (touchy(), State { stamp: Stamp::new(phase, generation), ..State::FRESH })
}

#[test]
fn a_call_that_found_the_breaker_open_is_rejected_when_it_has_been_isolated_meanwhile() {
    let (config, mut state) = machine(Phase::ISOLATED, 7);
    let mut entry = Entry { at: at(0), stamp: state.stamp(), rejected: None };
    assert!(!state.admit(&config, at(0), &mut entry, false, None));
    assert_eq!(entry.rejected, Some(Reason::Isolated));
}

#[test]
fn a_report_that_turns_out_to_trip_nothing_leaves_the_breaker_closed() {
    let (config, mut state) = machine(Phase::CLOSED, 7);
    let trip = ConsecutiveFailures::new(2).expect("a threshold of two");
    let config = config.with_trip(trip);
    let report = Report { stamp: state.stamp(), verdict: &Verdict::TRANSIENT, took: Span::ZERO, now: Some(at(0)) };
    assert_eq!(state.settle(&config, &report, None), Some(Settled::Done));
    assert_eq!(state.stamp(), report.stamp, "the first of two in a row");
    assert_eq!(state.settle(&config, &report, None), Some(Settled::Done));
    assert_eq!(state.stamp().phase(), Phase::OPEN);
}

#[test]
fn what_is_said_twice_holds_as_if_said_once() {
    assert_eq!(Config::new().with_full_trial().with_full_trial(), Config::new().with_full_trial());
    assert_ne!(Config::new().with_full_trial(), Config::new());
}

#[test]
fn a_success_that_completes_a_window_opens_for_as_long_as_its_hint_says() {
    let trip = FailureRate::new(Ratio::percent(50), 2).expect("a good rate");
    let breaker = CircuitBreaker::<Local, _>::new(Config::new().with_trip(trip).validate().expect("it makes sense"));
    breaker.try_acquire(at(0)).expect("closed").failure();
    let hint = Duration::from_secs(3_600);
    breaker.try_acquire(at(0)).expect("closed").record(Verdict::SUCCESS.with_retry_after(hint));
    assert_eq!(breaker.poll_timeout(), Some(Instant::START.saturating_add(hint)));
}
