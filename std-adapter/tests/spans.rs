//! Spans of calls and attempts, as a subscriber sees them.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may end with a panic")]

use core::fmt::{self, Write};
use core::future::pending;
use core::panic::AssertUnwindSafe;
use core::pin::pin;
use core::task::{Context, Waker};
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex};

use failsoft_tokio::hedge::FixedDelay;
use failsoft_tokio::{
    Bulkhead, Hedge, Idempotent, Pipeline, RetryPolicy, Timeout, Tokio, Traced, Verdict, bulkhead, retry, valid,
};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

/// One span: its name within those around it, its fields, and how often it was entered and left.
#[derive(Default)]
struct Seen {
    path: String,
    fields: String,
    entered: u32,
    left: u32,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.fields, " {}={value:?}", field.name()).unwrap();
    }
}

#[derive(Default)]
struct State {
    spans: Vec<Seen>,
    stack: Vec<u64>,
    ended: Vec<String>,
}

/// Writes spans down as they end, and wants them or not.
#[derive(Clone)]
struct Notes {
    wanted: bool,
    state: Arc<Mutex<State>>,
}

fn place(id: &span::Id) -> usize {
    usize::try_from(id.into_u64() - 1).unwrap()
}

impl Subscriber for Notes {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        self.wanted
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let mut state = self.state.lock().unwrap();
        let around = state.stack.last().map(|&id| format!("{} > ", state.spans[place(&span::Id::from_u64(id))].path));
        let path = around.unwrap_or_default() + span.metadata().name();
        let mut seen = Seen { path, ..Seen::default() };
        span.record(&mut seen);
        state.spans.push(seen);
        span::Id::from_u64(state.spans.len() as u64)
    }

    fn record(&self, id: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.state.lock().unwrap().spans[place(id)]);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, id: &span::Id) {
        let mut state = self.state.lock().unwrap();
        state.spans[place(id)].entered += 1;
        state.stack.push(id.into_u64());
    }

    fn exit(&self, id: &span::Id) {
        let mut state = self.state.lock().unwrap();
        state.spans[place(id)].left += 1;
        assert_eq!(state.stack.pop(), Some(id.into_u64()), "spans are left in the order in which they were entered");
    }

    fn try_close(&self, id: span::Id) -> bool {
        let mut state = self.state.lock().unwrap();
        let Seen { path, fields, entered, left } = &state.spans[place(&id)];
        assert_eq!(entered, left, "{path}");
        let line = format!("{path}:{fields}");
        state.ended.push(line);
        true
    }
}

/// The spans that end while `f` runs; none is left open.
fn spans(f: impl FnOnce()) -> Vec<String> {
    noted(true, f)
}

fn noted(wanted: bool, f: impl FnOnce()) -> Vec<String> {
    let notes = Notes { wanted, state: Arc::default() };
    tracing::subscriber::with_default(notes.clone(), f);
    let state = core::mem::take(&mut *notes.state.lock().unwrap());
    assert_eq!(state.ended.len(), state.spans.len(), "each ended once");
    assert!(state.stack.is_empty());
    state.ended
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

fn twice() -> RetryPolicy {
    RetryPolicy::new(valid!(retry::Config::new().with_max_attempts(2).validate()))
}

#[test]
fn each_attempt_is_a_span_within_that_of_its_call_and_says_what_became_of_it() {
    let pipeline =
        Pipeline::new(Tokio).layer(Traced::calls("mail")).layer(twice()).layer(Traced::attempts("mail".to_owned()));
    let seen = spans(|| {
        block_on(pipeline.call(async |it| if it.number() == 1 { Err("busy") } else { Ok(()) })).unwrap();
        block_on(pipeline.call(async |_| Err::<(), _>("down"))).unwrap_err();
    });
    let failed = " failsoft.outcome=\"failure\" error.type=\"&str\" otel.status_code=\"ERROR\"";
    let gave_up = " failsoft.outcome=\"failure\" failsoft.attempts=2 error.type=\"&str\" otel.status_code=\"ERROR\"";
    let expected = [
        format!("call > attempt: failsoft.name=\"mail\"{failed}"),
        "call > attempt: failsoft.name=\"mail\" http.request.resend_count=1 failsoft.outcome=\"success\"".into(),
        "call: failsoft.name=\"mail\" otel.name=\"mail\" failsoft.outcome=\"success\"".into(),
        format!("call > attempt: failsoft.name=\"mail\"{failed}"),
        format!("call > attempt: failsoft.name=\"mail\" http.request.resend_count=1{failed}"),
        format!("call: failsoft.name=\"mail\" otel.name=\"mail\"{gave_up}"),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_rejection_says_who_rejected_and_why_and_a_timeout_that_it_was_one() {
    let bulkhead = Bulkhead::new(valid!(bulkhead::Config::new(1).validate()));
    let _taken = bulkhead.try_acquire().unwrap();
    let full = Pipeline::new(Tokio).layer(Traced::calls("full")).layer(&bulkhead);
    let slow = Pipeline::new(Tokio).layer(Traced::calls("slow")).layer(Timeout::new(Duration::from_secs(1)));
    let seen = spans(|| {
        block_on(full.call(async |_| Ok::<_, ()>(()))).unwrap_err();
        block_on(slow.call(async |_| pending::<Result<(), ()>>().await)).unwrap_err();
    });
    let expected = [
        "call: failsoft.name=\"full\" otel.name=\"full\" failsoft.outcome=\"rejected\" failsoft.policy=\"bulkhead\" \
         failsoft.reason=\"full\" error.type=\"rejected\" otel.status_code=\"ERROR\"",
        "call: failsoft.name=\"slow\" otel.name=\"slow\" failsoft.outcome=\"timed_out\" error.type=\"timeout\" \
         otel.status_code=\"ERROR\"",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn an_answer_that_is_a_failure_is_an_error_and_a_result_that_is_ignored_is_none() {
    let judge = |result: Result<&u16, &()>| match result {
        Ok(_) => Verdict::PERMANENT,
        Err(()) => Verdict::IGNORED,
    };
    let pipeline = Pipeline::new(Tokio).layer(Traced::calls("web")).classify(judge);
    let seen = spans(|| {
        block_on(pipeline.call(async |_| Ok(503))).unwrap();
        block_on(pipeline.call(async |_| Err(()))).unwrap_err();
    });
    let expected = [
        "call: failsoft.name=\"web\" otel.name=\"web\" failsoft.outcome=\"failure\" error.type=\"_OTHER\" \
         otel.status_code=\"ERROR\"",
        "call: failsoft.name=\"web\" otel.name=\"web\" failsoft.outcome=\"ignored\"",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn whoever_is_dropped_or_panics_has_abandoned_the_call_and_its_span_ends() {
    let pipeline = Pipeline::new(Tokio).layer(Traced::calls("web")).layer(Traced::attempts("web"));
    let seen = spans(|| {
        {
            let mut call = pin!(pipeline.call(async |_| pending::<Result<(), ()>>().await));
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let panics = || block_on(pipeline.call(async |_| -> Result<(), ()> { panic!("out of order") }));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        // One that was never polled is none.
        drop(pipeline.call(async |_| Ok::<_, ()>(())));
    });
    let (call, attempt) = (
        "call: failsoft.name=\"web\" otel.name=\"web\" failsoft.outcome=\"abandoned\"",
        "call > attempt: failsoft.name=\"web\" failsoft.outcome=\"abandoned\"",
    );
    assert_eq!(seen, [attempt, call, attempt, call]);
}

#[test]
fn a_hedge_is_a_span_beside_the_first_try_which_it_leaves_abandoned() {
    let hedge: Hedge = Hedge::new(FixedDelay::new(Duration::from_secs(1)), Idempotent);
    let pipeline = Pipeline::new(Tokio).layer(Traced::calls("web")).layer(&hedge).layer(Traced::attempts("web"));
    let mut seen = spans(|| {
        let call = pipeline.call(async |it| if it.hedge() == 0 { pending().await } else { Ok::<_, ()>(()) });
        block_on(call).unwrap();
    });
    seen.sort();
    let expected = [
        "call > attempt: failsoft.name=\"web\" failsoft.hedge=1 failsoft.outcome=\"success\"",
        "call > attempt: failsoft.name=\"web\" failsoft.outcome=\"abandoned\"",
        "call: failsoft.name=\"web\" otel.name=\"web\" failsoft.outcome=\"success\"",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn what_the_operation_does_is_within_the_span_of_its_attempt() {
    let pipeline = Pipeline::new(Tokio).layer(Traced::calls("web")).layer(Traced::attempts("web"));
    let seen = spans(|| {
        let work = async |_| {
            drop(tracing::info_span!("before"));
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(tracing::info_span!("after"));
            Ok::<_, ()>(())
        };
        block_on(pipeline.call(work)).unwrap();
    });
    let names: Vec<_> = seen.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(names, ["call > attempt > before", "call > attempt > after", "call > attempt", "call"]);
}

#[test]
fn where_nobody_wants_spans_there_are_none_and_calls_go_on() {
    let pipeline = Pipeline::new(Tokio).layer(Traced::calls("web")).layer(twice()).layer(Traced::attempts("web"));
    let mut answer = None;
    let seen = noted(false, || {
        let call = pipeline.call(async |it| if it.number() == 1 { Err("busy") } else { Ok(it.number()) });
        answer = block_on(call).ok();
    });
    assert_eq!((seen.len(), answer), (0, Some(2)));
}

#[test]
fn a_call_of_which_nobody_wants_a_span_allocates_nothing() {
    let pipeline = Pipeline::new(Tokio).layer(Traced::calls("web".to_owned())).layer(Traced::attempts("web"));
    let seen = noted(false, || {
        let call = || {
            let mut call = pin!(pipeline.call(async |_| Err::<(), _>("down")));
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        };
        // The subscriber is asked once whether it wants them.
        call();
        assert_eq!(allocation_counter::measure(call).count_total, 0);
    });
    assert!(seen.is_empty());
}

#[test]
fn it_is_printed_as_a_part_of_its_pipeline() {
    let pipeline = Pipeline::new(Tokio).layer(Traced::calls("web")).layer(Traced::attempts("web".to_owned()));
    assert_eq!(pipeline.to_string(), "spans: calls of web\nspans: attempts of web");
}
