//! Delays that follow the latencies.

use super::*;
use crate::rng::Rng;
use crate::testing::VirtualExecutor;

fn average<const W: usize>(config: AveragePlus<W>) -> Hedge<Local, 1, AveragePlus<W>> {
    Hedge::new(config.validate().expect("it makes sense"), Idempotent)
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let field = |quantile: Quantile| quantile.validate().err().map(|error| error.field());
    let p95 = Quantile::new(Ratio::percent(95), ms(1));
    assert_eq!(field(p95), None);
    assert_eq!(field(p95.with_window(40)), None);
    assert_eq!(field(p95.with_window(39)), Some("window"));
    assert_eq!(field(p95.with_minimum(251)), Some("window"));
    assert_eq!(field(p95.with_minimum(0)), Some("minimum"));
    for refused in [Ratio::ZERO, Ratio::ONE, Ratio::percent(101)] {
        assert_eq!(field(Quantile::new(refused, ms(1))), Some("quantile"));
    }
    assert!(AveragePlus::<0>::new(ms(1)).validate().is_err());
    assert!(AveragePlus::<0x1_0000>::new(ms(1)).validate().is_err());
    assert!(AveragePlus::<0xFFFF>::new(ms(1)).validate().is_ok());
}

// resilience4j, AveragePlusResponseTimeCutoffTest: shouldComputeProperlyFromSuccesses.
#[test]
fn the_average_is_taken_times_its_percentage() {
    let hedge = average(AveragePlus::<100>::new(ms(0)).with_percent(Ratio::percent(200)));
    hedge.record(Ended::Success, ms(1_000));
    hedge.record(Ended::Success, ms(100));
    assert_eq!(hedge.delay(), ms(1_100));
}

// resilience4j, AveragePlusResponseTimeCutoffTest: shouldComputeFromErrorsIfConfigured, shouldNotComputeFromErrors.
#[test]
fn failures_count_on_request_and_other_tries_do_not() {
    let hedge = average(AveragePlus::<100>::new(ms(0)).with_failures());
    hedge.record(Ended::Success, ms(100));
    hedge.record(Ended::Failure, ms(1_000));
    assert_eq!(hedge.delay(), ms(550));
    let hedge = average(AveragePlus::<100>::new(ms(0)));
    hedge.record(Ended::Failure, ms(1_000));
    assert_eq!(hedge.delay(), ms(0));
    hedge.record(Ended::Overtaken, ms(1_000));
    assert_eq!(hedge.delay(), ms(0));
}

#[test]
fn the_average_is_that_of_the_last_ones_plus_the_constant() {
    let hedge = average(AveragePlus::<3>::new(ms(5)));
    assert_eq!(hedge.delay(), ms(5));
    for (latency, mean) in [(10, 10), (20, 15), (30, 20), (40, 30), (100, 170 / 3)] {
        hedge.record(Ended::Success, ms(latency));
        assert_eq!(hedge.delay().as_millis(), 5 + mean);
    }
    let hedge = average(AveragePlus::<3>::new(ms(5)).with_initial(ms(70)));
    assert_eq!(hedge.delay(), ms(70));
    hedge.record(Ended::Success, ms(10));
    assert_eq!(hedge.delay(), ms(15));
}

#[test]
fn the_average_is_exact_for_random_latencies_and_saturates() {
    let mut rng = Rng::new(7);
    let config = AveragePlus::<13>::new(ms(0));
    let (mut latest, mut kept) = (Latest::<13>::FRESH, Vec::new());
    for _ in 0..2_000 {
        let nanos = (u64::from(rng.next()) << 28) >> (rng.next() % 60);
        config.record(&mut latest, Span::from_nanos(nanos));
        kept.push(nanos);
        let window = &kept[kept.len().saturating_sub(13)..];
        let mean = window.iter().sum::<u64>() / window.len() as u64;
        assert_eq!(config.delay(&latest), Span::from_nanos(mean));
    }
    for _ in 0..13 {
        config.record(&mut latest, Span::MAX);
    }
    assert_eq!(config.delay(&latest), Span::from_nanos(u64::MAX / 13));
    for _ in 0..13 {
        config.record(&mut latest, Span::from_nanos(1));
    }
    assert_eq!(config.delay(&latest), Span::from_nanos(1));
    let config = AveragePlus::<13>::new(Duration::MAX).with_percent(Ratio::percent(u32::MAX));
    assert_eq!(config.delay(&latest), Span::MAX);
}

#[test]
fn the_quantile_is_used_once_enough_latencies_are_known() {
    let hedge = quantile(90, ms(70));
    for _ in 0..MINIMUM {
        assert_eq!(hedge.delay(), ms(70));
        hedge.record(Ended::Success, ms(10));
    }
    let delay = hedge.delay();
    assert!(delay.abs_diff(ms(10)) < ms(1), "{delay:?}");
}

#[test]
fn failures_do_not_count_for_the_quantile_and_those_overtaken_do() {
    let hedge = quantile(90, ms(70));
    for _ in 0..100 {
        hedge.record(Ended::Failure, ms(10));
    }
    assert_eq!(hedge.delay(), ms(70));
    for _ in 0..100 {
        hedge.record(Ended::Overtaken, ms(10));
    }
    assert!(hedge.delay() < ms(11));
}

#[test]
fn the_first_tries_latency_is_what_the_driver_takes_into_account() {
    let (rig, hedge) = (Rig::new(), average(AveragePlus::<8>::new(ms(20))));
    let pipeline = Pipeline::new(&rig).layer(&hedge);
    let call = |first, second| {
        let steps = [first, second];
        let service = Script::new(&steps);
        let _ = rig.run(pipeline.call(|_| service.call(&rig)));
        hedge.delay() - ms(20)
    };
    assert_eq!(call(Step::SucceedAfter(ms(10)), Step::Hang), ms(10));
    // Too late for the hedge that started meanwhile: it wins all the same.
    assert_eq!(call(Step::SucceedAfter(ms(40)), Step::Hang), ms(25));
    // Overtaken, failed, rejected: not counted.
    assert_eq!(call(Step::Hang, Step::Succeed), ms(25));
    assert_eq!(call(Step::FailAfter(ms(1)), Step::SucceedAfter(ms(500))), ms(25));
    assert_eq!(rig.live(), 0);
}

#[test]
fn where_failures_count_only_the_first_tries_do_and_no_rejection_does() {
    let (rig, bulkhead) = (Rig::new(), Bulkhead::<Local>::new(valid!(bulkhead::Config::new(2).validate())));
    let hedge = average(AveragePlus::<8>::new(ms(20)).with_initial(ms(20)).with_failures());
    let pipeline = Pipeline::new(&rig).layer(&hedge).layer(&bulkhead);
    let steps = [Step::FailAfter(ms(30)), Step::FailAfter(ms(50))];
    let service = Script::new(&steps);
    assert!(rig.run(pipeline.call(|_| service.call(&rig))).is_err());
    assert_eq!((service.calls(), hedge.delay()), (2, ms(30 + 20)), "the hedge's 70 ms are not the first try's");
    let _held = bulkhead.try_acquire_many(2);
    assert!(rig.run(pipeline.call(|_| service.call(&rig))).is_err_and(|failure| failure.is_rejected()));
    assert_eq!((service.calls(), hedge.delay()), (2, ms(30 + 20)));
}

#[test]
fn a_quantile_stays_where_it_is_although_the_slow_ones_are_cut_off() {
    // A long tail: 1,000 ms divided by 1 to 100. If those that are overtaken didn't count, the quantile would creep down to
    // where every call is hedged.
    let (rig, hedge, rng) = (Rig::new(), quantile(90, ms(200)), Cell::new(Rng::new(3)));
    let pipeline = Pipeline::new(&rig).layer(&hedge);
    let draw = || {
        let mut now = rng.get();
        let latency = ms(1_000 / u64::from(1 + now.next() % 100));
        rng.set(now);
        latency
    };
    let hedged = Cell::new(0);
    for call in 0..20_000 {
        if call == 1_000 {
            hedged.set(0);
        }
        let result = rig.run(pipeline.call(|attempt: Attempt| {
            hedged.set(hedged.get() + attempt.hedge());
            rig.sleep_then_ok(draw())
        }));
        assert!(result.is_ok());
    }
    // One in ten is above 90 ms or 100 ms.
    let delay = hedge.delay();
    assert!(delay > ms(70) && delay < ms(130), "{delay:?}");
    let share = hedged.get() * 100 / 19_000;
    assert!((8..=12).contains(&share), "{share} % are hedged");
}

impl Rig {
    async fn sleep_then_ok(&self, span: Duration) -> Result<(), ()> {
        self.sleep_until(self.now().saturating_add(span)).await;
        Ok(())
    }
}

#[test]
fn hedging_cuts_the_tail_of_a_service_with_two_faces() {
    /// 1,000 calls, of which about one in forty takes 400 ms and the others 8 to 12; how long the slowest but nine takes, and how
    /// many calls reach the service.
    fn run(layer: impl for<'x> Layer<(), (), &'x VirtualExecutor>) -> (Duration, u32) {
        let executor = VirtualExecutor::new();
        let (rng, calls) = (Cell::new(Rng::new(11)), Cell::new(0));
        let pipeline = Pipeline::new(&executor).layer(layer);
        let mut took: Vec<_> = (0..1_000)
            .map(|_| {
                let began = executor.elapsed();
                let result = executor.run(pipeline.call(|_| {
                    let mut now = rng.get();
                    let slow = now.next().is_multiple_of(40);
                    let latency = if slow { 400 } else { 8 + u64::from(now.next() % 5) };
                    rng.set(now);
                    calls.set(calls.get() + 1);
                    let executor = &executor;
                    async move {
                        executor.sleep_until(executor.now().saturating_add(ms(latency))).await;
                        Ok(())
                    }
                }));
                assert_eq!(result, Ok(Ok(())));
                executor.elapsed() - began
            })
            .collect();
        took.sort();
        (took[990], calls.get())
    }
    let never = run(after::<1>(Duration::MAX));
    assert_eq!(never, (ms(400), 1_000));
    let (p99, calls) = run(quantile(95, ms(50)));
    assert!(p99 < ms(30), "{p99:?}");
    assert!((1_010..=1_100).contains(&calls), "{calls}");
    let (p99, calls) = run(after::<1>(ms(15)));
    assert!(p99 <= ms(15 + 12), "{p99:?}");
    assert!(calls < 1_050, "{calls}");
}
