//! Metrics, as Prometheus reads them.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may end with a panic")]

use core::future::pending;
use core::panic::AssertUnwindSafe;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Waker};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::catch_unwind;
use std::sync::Arc;

use failsoft_core::pipeline::Call;
use failsoft_tokio::adaptive::Aimd;
use failsoft_tokio::budget::{ConcurrentConfig, QuotaConfig, RetryThrottleConfig, TokenConfig};
use failsoft_tokio::chaos::{Fault, Latency};
use failsoft_tokio::circuit_breaker::{ConsecutiveFailures, StateKind};
use failsoft_tokio::degradation::{Criticality, DegradationLevel, Service};
use failsoft_tokio::hedge::FixedDelay;
use failsoft_tokio::metrics::{Measure, Sheet, describe};
use failsoft_tokio::supervisor::Task;
use failsoft_tokio::{
    AdaptiveLimit, AdaptiveRate, Bulkhead, Chaos, CircuitBreaker, Coalesce, ConcurrentBudget, Degradation, Gauges,
    Hedge, Idempotent, Instant, LastGood, Metered, Metrics, Pipeline, QuotaBudget, RateLimiter, Ratio, RetryPolicy,
    RetryThrottle, Supervisor, Threads, Throttle, Timeout, TokenBudget, Tokio, Verdict, adaptive, adaptive_rate,
    block_on as run, bulkhead, chaos, circuit_breaker, degradation, last_good, rate_limiter, retry, supervisor,
    throttle, valid,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

/// What is rendered for Prometheus once `f` has run.
fn rendered(f: impl FnOnce()) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, f);
    render(&recorder)
}

fn render(recorder: &PrometheusRecorder) -> String {
    recorder.handle().render()
}

/// The series of a rendered text, with their values.
fn series(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, value)| (name, value.parse().unwrap())).collect()
}

/// The series of these metrics that are not zero.
fn above_zero<'t>(text: &'t str, metric: &str) -> Vec<(&'t str, f64)> {
    let all = series(text).into_iter().filter_map(|(name, value)| Some((name.strip_prefix(metric)?, value)));
    all.filter(|(_, value)| *value != 0.0).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

const fn at(secs: u64) -> Instant {
    Instant::from_millis(secs * 1_000)
}

const SECOND: Duration = Duration::from_secs(1);

fn breaker<O>(observer: O) -> CircuitBreaker<ConsecutiveFailures, O> {
    let trip = valid!(ConsecutiveFailures::new(2));
    let config = circuit_breaker::Config::new().with_trip(trip).with_open_for(10 * SECOND).with_probes(1);
    CircuitBreaker::with_observer(config.validate().unwrap(), observer)
}

fn polled_and_dropped(call: impl Future) {
    let mut call = pin!(call);
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn every_call_is_counted_once_by_what_became_of_it() {
    let text = rendered(|| {
        let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
        let judge = |result: Result<&u32, &&str>| match result {
            Ok(_) => Verdict::SUCCESS,
            Err(&"mine") => Verdict::IGNORED,
            Err(_) => Verdict::TRANSIENT,
        };
        let pipeline = Pipeline::new(Tokio)
            .layer(Metered::calls("web"))
            .layer(Timeout::new(SECOND))
            .layer(&bulkhead)
            .classify(judge);
        assert_eq!(block_on(pipeline.call(async |_| Ok(1))), Ok(1));
        assert!(block_on(pipeline.call(async |_| Err("mine"))).is_err());
        assert!(block_on(pipeline.call(async |_| Err("down"))).is_err());
        assert!(block_on(pipeline.call(async |_| pending().await)).unwrap_err().is_timed_out());
        {
            let _taken = bulkhead.try_acquire().unwrap();
            for _ in 0..2 {
                assert!(block_on(pipeline.call(async |_| Ok(1))).unwrap_err().is_rejected());
            }
        }
        block_on(async {
            polled_and_dropped(pipeline.call(async |_| pending().await));
            // One that was never polled is none.
            drop(pipeline.call(async |_| pending().await));
        });
        let panics = || block_on(pipeline.call(async |_| panic!("out of order")));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    });
    let expected = [
        ("{name=\"web\",outcome=\"abandoned\"}", 2.0),
        ("{name=\"web\",outcome=\"failure\"}", 1.0),
        ("{name=\"web\",outcome=\"ignored\"}", 1.0),
        ("{name=\"web\",outcome=\"rejected\"}", 2.0),
        ("{name=\"web\",outcome=\"success\"}", 1.0),
        ("{name=\"web\",outcome=\"timed_out\"}", 1.0),
    ];
    assert_eq!(above_zero(&text, "failsoft_calls_total"), expected);
    let full = ("{name=\"web\",policy=\"bulkhead\",reason=\"full\"}", 2.0);
    assert_eq!(above_zero(&text, "failsoft_call_rejections_total"), [full]);
    assert_eq!(series(&text)["failsoft_calls_in_flight{name=\"web\"}"], 0.0);
    assert!(!text.contains("seconds"), "nobody has asked for durations");
}

#[test]
fn attempts_are_counted_apart_from_their_call() {
    let text = rendered(|| {
        let pipeline = Pipeline::new(Tokio)
            .layer(Metered::calls("web"))
            .layer(RetryPolicy::with_observer(valid!(retry::Config::new().validate()), Metrics::new("web")))
            .layer(Metered::attempts("web"));
        block_on(pipeline.call(async |it| if it.number() < 3 { Err("busy") } else { Ok(()) })).unwrap();
    });
    assert_eq!(above_zero(&text, "failsoft_calls_total"), [("{name=\"web\",outcome=\"success\"}", 1.0)]);
    let attempts = [("{name=\"web\",outcome=\"failure\"}", 2.0), ("{name=\"web\",outcome=\"success\"}", 1.0)];
    assert_eq!(above_zero(&text, "failsoft_attempts_total"), attempts);
    assert_eq!(above_zero(&text, "failsoft_retries_total"), [("{name=\"web\"}", 2.0)]);
}

#[test]
fn calls_in_flight_are_those_between_their_first_poll_and_their_end() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let in_flight = || series(&render(&recorder)).get("failsoft_calls_in_flight{name=\"web\"}").copied();
    metrics::with_local_recorder(&recorder, || {
        block_on(async {
            let pipeline = Pipeline::new(Tokio).layer(Metered::calls("web"));
            let mut call = pin!(pipeline.call(async |_| {
                tokio::time::sleep(SECOND).await;
                Ok::<_, ()>(())
            }));
            assert_eq!(in_flight(), None);
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(in_flight(), Some(1.0));
            call.await.unwrap();
            assert_eq!(in_flight(), Some(0.0));
        });
    });
}

#[test]
fn durations_are_seconds_by_the_pipelines_clock() {
    let text = rendered(|| {
        let pipeline = Pipeline::new(Tokio).layer(Metered::calls("web").with_durations());
        let work = async |_| {
            tokio::time::sleep(SECOND * 3 / 2).await;
            Ok::<_, ()>(())
        };
        block_on(async {
            pipeline.call(work).await.unwrap();
            pipeline.call(work).await.unwrap();
        });
    });
    let all = series(&text);
    assert_eq!(all["failsoft_call_duration_seconds_count{name=\"web\",outcome=\"success\"}"], 2.0);
    assert_eq!(all["failsoft_call_duration_seconds_sum{name=\"web\",outcome=\"success\"}"], 3.0);
}

#[test]
fn a_breakers_calls_are_counted_by_their_end_and_its_changes_by_where_they_lead() {
    let text = rendered(|| {
        let breaker = breaker(Metrics::new("payments"));
        breaker.try_acquire(at(0)).unwrap().success();
        drop(breaker.try_acquire(at(0)).unwrap());
        breaker.try_acquire(at(0)).unwrap().ignore();
        let late = breaker.try_acquire(at(0)).unwrap();
        breaker.try_acquire(at(0)).unwrap().failure();
        breaker.try_acquire(at(0)).unwrap().failure();
        assert!(breaker.try_acquire(at(1)).is_err());
        late.failure();
        breaker.try_acquire(at(11)).unwrap().success();
        breaker.observe_only();
        breaker.try_acquire(at(12)).unwrap().failure();
        breaker.try_acquire(at(12)).unwrap().failure();
    });
    let calls = [
        ("{name=\"payments\",result=\"abandoned\"}", 1.0),
        ("{name=\"payments\",result=\"failure\"}", 4.0),
        ("{name=\"payments\",result=\"ignored\"}", 1.0),
        ("{name=\"payments\",result=\"late\"}", 1.0),
        ("{name=\"payments\",result=\"rejected\"}", 1.0),
        ("{name=\"payments\",result=\"success\"}", 2.0),
    ];
    assert_eq!(above_zero(&text, "failsoft_circuit_breaker_calls_total"), calls);
    let to =
        ["closed", "half_open", "metrics_only", "open"].map(|state| format!("{{name=\"payments\",to=\"{state}\"}}"));
    let changes = above_zero(&text, "failsoft_circuit_breaker_transitions_total");
    assert_eq!(changes, to.each_ref().map(|labels| (labels.as_str(), 1.0)), "not to open, which it only would have");
    assert_eq!(above_zero(&text, "failsoft_circuit_breaker_would_open_total"), [("{name=\"payments\"}", 1.0)]);
}

#[test]
fn a_breakers_state_is_one_of_several_and_a_number() {
    let gauges = Gauges::new();
    let breaker = Arc::new(breaker(()));
    gauges.register("payments", breaker.clone());
    let states = [
        (StateKind::Closed, 0.0),
        (StateKind::Open, 1.0),
        (StateKind::HalfOpen, 2.0),
        (StateKind::Isolated, 3.0),
        (StateKind::Disabled, 4.0),
        (StateKind::MetricsOnly, 5.0),
    ];
    let enter = |state| match state {
        StateKind::Closed => breaker.reset(),
        StateKind::Open => breaker.open_until(at(9)),
        StateKind::HalfOpen => breaker.half_open(&at(0)),
        StateKind::Isolated => breaker.isolate(),
        StateKind::Disabled => breaker.disable(),
        StateKind::MetricsOnly => breaker.observe_only(),
    };
    let recorder = PrometheusBuilder::new().build_recorder();
    for (state, number) in states {
        metrics::with_local_recorder(&recorder, || {
            enter(state);
            gauges.collect(&at(1));
        });
        let text = render(&recorder);
        let labels = format!("{{name=\"payments\",state=\"{}\"}}", state.as_str());
        assert_eq!(above_zero(&text, "failsoft_circuit_breaker_state{"), [(&labels[1..], 1.0)]);
        assert_eq!(series(&text)["failsoft_circuit_breaker_state_number{name=\"payments\"}"], number);
    }
}

#[test]
fn gauges_show_what_their_policies_are_doing() {
    static BULKHEAD: Bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(4).validate()));
    let text = rendered(|| {
        let gauges = Gauges::new();
        gauges.register("mail", &BULKHEAD);
        let _busy = (BULKHEAD.try_acquire().unwrap(), BULKHEAD.try_acquire_many(2).unwrap());
        let limiter = Arc::new(RateLimiter::new(valid!(rate_limiter::Config::new(10, SECOND).validate())));
        limiter.try_acquire_many(3, &at(1)).unwrap();
        gauges.register("mail".to_owned(), limiter);
        let throttle = Throttle::new(valid!(throttle::Config::new().validate()));
        gauges.register("mail", throttle);
        gauges.register("mail", Arc::new(QuotaBudget::new(valid!(QuotaConfig::new().with_capacity(70).validate()))));
        let rate: AdaptiveRate = AdaptiveRate::new(valid!(adaptive_rate::Config::new().validate()));
        gauges.register("mail", rate);
        gauges.collect(&at(1));
    });
    let all = series(&text);
    let value = |metric: &str| all[format!("failsoft_{metric}{{name=\"mail\"}}").as_str()];
    assert_eq!(
        ["permits", "in_use", "queued", "high_water"].map(|it| value(&format!("bulkhead_{it}"))),
        [4.0, 3.0, 0.0, 3.0]
    );
    assert_eq!(value("rate_limiter_available"), 7.0);
    assert_eq!(value("throttle_rejection_ratio"), 0.0);
    assert_eq!(value("retry_budget_balance"), 70.0);
    assert_eq!(value("adaptive_rate_per_second"), f64::INFINITY);
}

#[test]
fn what_is_removed_is_asked_no_more_and_ones_own_may_be_measured_too() {
    struct Own(AtomicBool);
    impl Measure for Own {
        fn measure(&self, _: Instant, sheet: &Sheet<'_>) {
            self.0.store(true, Ordering::Relaxed);
            sheet.set("own", 7_u8);
            sheet.set_of("own_kinds", ("kind", "odd"), 1.5_f32);
        }
    }
    let own = Arc::new(Own(AtomicBool::new(false)));
    let gauges = Gauges::new();
    gauges.register("mine", own.clone());
    gauges.register("other", own.clone());
    assert_eq!(format!("{gauges:?}"), "[\"mine\", \"other\"]");
    let text = rendered(|| {
        gauges.remove("other");
        gauges.collect(&at(0));
    });
    let expected = [("own_kinds{name=\"mine\",kind=\"odd\"}", 1.5), ("own{name=\"mine\"}", 7.0)];
    assert_eq!(series(&text), BTreeMap::from(expected));
    gauges.remove("mine");
    assert_eq!(Arc::strong_count(&own), 1, "let go");
}

/// Makes everything happen that is counted, under one name.
fn everything(gauges: &Gauges) {
    let metrics = || Metrics::new("all");
    let limited = Arc::new(breaker(metrics()));
    limited.observe_only();
    gauges.register("all", limited.clone());
    drop(limited.try_acquire(at(0)));

    let retry = RetryPolicy::with_observer(valid!(retry::Config::new().validate()), metrics());
    let hedge: Hedge<1, _, _> = Hedge::with_observer(FixedDelay::new(SECOND), Idempotent, metrics());
    let calls = Metered::calls("all").with_durations();
    let attempts = Metered::attempts("all").with_durations();
    let full = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    let pipeline = Pipeline::new(Tokio).layer(calls).layer(retry).layer(hedge).layer(attempts).layer(&full);
    let _taken = full.try_acquire().unwrap();
    assert!(block_on(pipeline.call(async |_| Ok::<_, ()>(()))).is_err());
    drop(_taken);
    full.resize(2).unwrap();
    let busy = async |it: failsoft_tokio::pipeline::Attempt| match (it.number(), it.hedge()) {
        (1, _) => Err("busy"),
        (_, 0) => pending().await,
        _ => Ok(()),
    };
    assert!(block_on(pipeline.call(busy)).is_ok());
    gauges.register("all", Arc::new(full));

    let always = chaos::Config::new(1).with_rate(Ratio::ONE).validate().unwrap();
    let faulty = Pipeline::new(Tokio)
        .layer(Chaos::with_observer(always, Latency::new(SECOND), metrics()))
        .layer(Chaos::with_observer(always, Fault::new(|_| "injected"), metrics()));
    assert!(block_on(faulty.call(async |_| Ok(()))).is_err());

    let rates: LastGood<u32, _> = LastGood::with_observer(last_good::Config::new().validate().unwrap(), metrics());
    let remembered = Pipeline::new(Tokio).layer(&rates);
    block_on(async {
        remembered.call(async |_| Ok::<_, &str>(1)).await.unwrap();
        remembered.call(async |_| Err("down")).await.unwrap();
    });

    let shop = Degradation::<1, DegradationLevel, (), _>::with_observer(
        degradation::Config::new().validate().unwrap(),
        metrics(),
    );
    shop.register("stock", Service::new(Criticality::Important)).unwrap();
    shop.report("stock", false, &at(1)).unwrap();
    gauges.register("all", shop);

    let tasks = Supervisor::<1, (), _>::with_observer(supervisor::Config::new().validate().unwrap(), (), metrics());
    tasks.register("mail", Task::optional(SECOND), &at(0)).unwrap();
    tasks.handle_timeout(&at(6));

    let aimd = Aimd::new().validate().unwrap();
    let limit: AdaptiveLimit<Aimd, _> =
        AdaptiveLimit::with_observer(adaptive::Config::new(aimd).validate().unwrap(), metrics());
    limit.try_acquire(at(1)).unwrap().dropped();
    gauges.register("all", limit);

    let rate = AdaptiveRate::with_observer(adaptive_rate::Config::new().validate().unwrap(), metrics());
    rate.try_acquire(&at(1)).unwrap();
    rate.record(true, &at(2));
    gauges.register("all", rate);

    gauges.register("all", RateLimiter::new(valid!(rate_limiter::Config::new(10, SECOND).validate())));
    gauges.register("all", Throttle::new(valid!(throttle::Config::new().validate())));
    gauges.register("all", TokenBudget::new(valid!(TokenConfig::new().validate())));
    gauges.register("all", QuotaBudget::new(valid!(QuotaConfig::new().validate())));
    gauges.register("all", RetryThrottle::new(valid!(RetryThrottleConfig::new().validate())));
    gauges.register("all", ConcurrentBudget::new(valid!(ConcurrentConfig::new().validate())));
    gauges.register("all", Coalesce::<u32, u32>::new());
    gauges.collect(&at(10));
}

/// Of a line of a table, what its cells hold: all that is between backquotes, for the first and the fourth.
fn cells(line: &str) -> Vec<&str> {
    line.trim_start_matches("//! |").split('|').map(str::trim).collect()
}

fn quoted(cell: &str) -> BTreeSet<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_table_of_metrics_is_what_is_recorded_no_more_and_no_less() {
    let page = include_str!("../src/metrics.rs");
    let mut table = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("//! | `failsoft_")) {
        let cells = cells(line);
        let labels = quoted(cells[3]).into_iter().chain(["name"]).collect();
        let known: Option<(&str, BTreeSet<&str>)> =
            table.insert(*quoted(cells[0]).first().unwrap(), (cells[1], labels));
        assert!(known.is_none(), "{line}");
    }

    let text = rendered(|| {
        describe();
        everything(&Gauges::new());
    });
    let mut found = BTreeMap::new();
    let words = |line: &'_ str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for kind in text.lines().filter(|line| line.starts_with("# TYPE ")).map(words) {
        let metric = kind[2].as_str();
        // The exporter makes quantiles where it is told of no buckets.
        let of = if kind[3] == "summary" { "histogram" } else { &kind[3] };
        assert!(text.contains(&format!("# HELP {metric} ")), "{metric} is not described");
        let mut labels = BTreeSet::new();
        for line in text.lines() {
            let Some((name, rest)) = line.split_once('{') else { continue };
            if name == metric {
                let all = rest.split_once('}').unwrap().0.split("\",").map(|pair| pair.split_once('=').unwrap().0);
                labels.extend(all.filter(|&label| label != "quantile").map(str::to_owned));
            }
        }
        found.insert(metric.to_owned(), (of.to_owned(), labels));
    }
    let table: BTreeMap<_, _> = table
        .into_iter()
        .map(|(metric, (kind, labels))| {
            (metric.to_owned(), (kind.to_owned(), labels.into_iter().map(str::to_owned).collect::<BTreeSet<_>>()))
        })
        .collect();
    assert_eq!(found, table);
}

#[test]
fn names_are_as_prometheus_wants_them() {
    let text = rendered(|| everything(&Gauges::new()));
    for kind in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (metric, kind) = kind.split_once(' ').unwrap();
        assert_eq!(metric.ends_with("_total"), kind == "counter", "{metric}");
        assert_eq!(metric.ends_with("_seconds"), kind == "summary", "{metric}");
        assert!(metric.starts_with("failsoft_") && metric.chars().all(|it| it.is_ascii_lowercase() || it == '_'));
    }
}

#[test]
fn ten_thousand_calls_with_as_many_errors_and_keys_leave_as_many_series_as_a_few() {
    let of = |calls: u32| {
        rendered(|| {
            let breaker = Arc::new(breaker(Metrics::new("web")));
            let gauges = Gauges::new();
            gauges.register("web", breaker.clone());
            let pipeline = Pipeline::new(Threads)
                .layer(Metered::calls("web").with_durations())
                .layer(Metered::attempts("web"))
                .layer(&*breaker);
            for key in 0..calls {
                if key % 3 == 0 {
                    breaker.reset();
                }
                assert!(run(pipeline.call(async |_| Err::<(), _>(format!("no {key}")))).is_err());
                gauges.collect(&Threads);
            }
        })
    };
    let names = |text: &str| series(text).into_keys().map(str::to_owned).collect::<BTreeSet<_>>();
    let (few, many) = (of(6), of(10_000));
    assert_eq!(names(&few), names(&many));
    let of = |metric: &str| names(&many).iter().filter(|name| name.starts_with(metric)).count();
    assert_eq!((of("failsoft_calls_total"), of("failsoft_call_rejections_total")), (6, 1));
}

#[test]
fn while_many_threads_call_and_others_render_nothing_is_lost() {
    const THREADS: u32 = 8;
    const CALLS: u32 = 20_000;
    let recorder = PrometheusBuilder::new().build_recorder();
    let breaker = breaker(Metrics::new("web"));
    metrics::with_local_recorder(&recorder, || breaker.observe_only());
    let pipeline =
        Pipeline::new(Threads).layer(Metered::calls("web")).layer(Metered::attempts("web")).layer(&breaker).classify(
            |result: Result<&u32, &u32>| match result {
                Ok(_) => Verdict::SUCCESS,
                Err(n) if n % 4 == 1 => Verdict::TRANSIENT,
                Err(_) => Verdict::IGNORED,
            },
        );
    let done = AtomicBool::new(false);
    let renders = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    metrics::with_local_recorder(&recorder, || {
                        for n in 0..CALLS {
                            match n % 4 {
                                0 => assert!(run(pipeline.call(async |_| Ok(n))).is_ok()),
                                3 => polled_and_dropped(Call::new(&pipeline, async |_| pending().await)),
                                _ => assert!(run(pipeline.call(async |_| Err(n))).is_err()),
                            }
                        }
                    });
                })
            })
            .collect();
        let rendering = scope.spawn(|| {
            let (mut renders, mut most) = (0_u32, 0.0);
            while !done.load(Ordering::Relaxed) {
                let text = render(&recorder);
                let seen: f64 = above_zero(&text, "failsoft_calls_total").iter().map(|(_, count)| count).sum();
                assert!(seen >= most, "no counter goes back");
                (renders, most) = (renders + 1, seen);
            }
            renders
        });
        for thread in threads {
            thread.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        rendering.join().unwrap()
    });
    assert!(renders > 0);
    let text = render(&recorder);
    let quarter = f64::from(THREADS * CALLS / 4);
    for (metric, label) in [
        ("failsoft_calls_total", "outcome"),
        ("failsoft_attempts_total", "outcome"),
        ("failsoft_circuit_breaker_calls_total", "result"),
    ] {
        let of = |value: &str| series(&text)[format!("{metric}{{name=\"web\",{label}=\"{value}\"}}").as_str()];
        assert_eq!(["success", "failure", "ignored", "abandoned"].map(of), [quarter; 4], "{metric}");
        assert_eq!(above_zero(&text, metric).len(), 4, "{metric}");
    }
    for in_flight in ["failsoft_calls_in_flight", "failsoft_attempts_in_flight"] {
        assert_eq!(above_zero(&text, in_flight), [], "{in_flight}");
    }
}

#[test]
fn without_a_recorder_calls_go_on() {
    let pipeline = Pipeline::new(Threads).layer(Metered::calls("web").with_durations());
    assert_eq!(run(pipeline.call(async |_| Ok::<_, ()>(7))), Ok(7));
}

#[test]
fn it_is_printed_as_a_part_of_its_pipeline() {
    let attempts = Metered::attempts("web".to_owned()).with_durations();
    assert_eq!(format!("{attempts:?}"), "Metered { name: \"web\", unit: \"attempts\", durations: true, .. }");
    let pipeline = Pipeline::new(Tokio).layer(Metered::calls("web")).layer(attempts);
    assert_eq!(pipeline.to_string(), "metrics: calls of web\nmetrics: attempts of web, with durations");
    assert_eq!(format!("{:?}", Metrics::new("web")), "Metrics { name: \"web\", .. }");
}

#[cfg(feature = "settings")]
#[test]
fn policies_from_settings_have_their_gauges_and_events_before_and_after_a_reload() {
    use failsoft_tokio::settings::{Policies, Settings};
    let settings = |failures| {
        let text = "policies.p = { bulkhead.permits = 9, retry.budget = '5%', rate_limit.calls = 7, circuit_breaker.failures = N }";
        Settings::from_toml(&text.replace('N', failures), "settings").unwrap()
    };
    let text = rendered(|| {
        let policies = Policies::with_observers(&settings("9"), |name| Metrics::new(name.to_owned()));
        let gauges = Gauges::new();
        gauges.register("p", policies.get("p").unwrap());
        policies.reload(&settings("1"), &at(0));
        let pipeline = Pipeline::new(Tokio).layer(policies.get("p").unwrap());
        assert!(block_on(pipeline.call(async |_| Err::<(), _>("down"))).is_err());
        gauges.collect(&Tokio);
    });
    let series = series(&text);
    let of = |metric: &str| {
        let found: Vec<_> = series.iter().filter(|(name, value)| name.contains(metric) && **value != 0.0).collect();
        assert!(found.iter().all(|(name, _)| name.contains("name=\"p\"")), "{found:?}");
        found.len()
    };
    for metric in ["state{", "permits", "balance", "available"] {
        assert!(of(metric) > 0, "{metric}: {text}");
    }
    assert!(text.lines().any(|line| line.contains("state=\"open\"") && line.ends_with(" 1")), "{text}");
}

#[cfg(feature = "settings")]
#[test]
fn a_breaker_that_is_switched_off_by_a_file_is_in_no_state() {
    use failsoft_tokio::settings::{Policies, Settings};
    let settings = |breaker: &str| {
        Settings::from_toml(&format!("policies.p = {{ timeout = '1s', circuit_breaker = {breaker} }}"), "settings")
            .unwrap()
    };
    let states = |off: bool| {
        let text = rendered(|| {
            let policies = Policies::new(&settings("{ failures = 1 }"));
            let gauges = Gauges::new();
            gauges.register("p", policies.get("p").unwrap());
            policies.get("p").unwrap().circuit_breaker().unwrap().isolate();
            gauges.collect(&at(0));
            if off {
                policies.reload(&settings("false"), &at(0));
                gauges.collect(&at(0));
            }
        });
        let lines = text.lines().filter(|line| line.starts_with("failsoft_circuit_breaker_state{"));
        lines.map(|line| line.ends_with(" 1")).fold((0, 0), |(all, on), is| (all + 1, on + u32::from(is)))
    };
    assert_eq!([states(false), states(true)], [(6, 1), (6, 0)]);
}
