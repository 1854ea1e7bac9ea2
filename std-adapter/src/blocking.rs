//! Policies for plain threads, without a runtime.

use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;
use std::thread::{self, Thread};

use failsoft_core::pipeline::{Attempt, Layer};
use failsoft_core::{Classify, Clock, Executor, Failure, Instant, Pipeline};

use crate::executor::{from_origin, random, since_origin};

/// The executor for plain threads: the system's monotonic clock; a sleep parks the thread. For use within [`block_on`] and
/// [`call_blocking`].
///
/// The clock stands still while the machine is suspended, where the standard library's does, as on Linux: what is left of a time limit
/// then is left afterwards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

impl Clock for Threads {
    #[inline]
    fn now(&self) -> Instant {
        since_origin(std::time::Instant::now())
    }
}

impl Executor for Threads {
    type Sleep = ThreadSleep;

    fn sleep_until(&self, at: Instant) -> ThreadSleep {
        ThreadSleep { at }
    }

    fn random(&self) -> u32 {
        random()
    }
}

thread_local! {
    /// Who sleeps on this thread, and until when.
    static SLEEPERS: RefCell<Vec<(Instant, Waker)>> = const { RefCell::new(Vec::new()) };
}

/// Sleeps by telling [`block_on`] when to wake whom.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ThreadSleep {
    at: Instant,
}

impl Future for ThreadSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Threads.now() >= self.at {
            return Poll::Ready(());
        }
        SLEEPERS.with_borrow_mut(|sleepers| {
            // Polled again before its time, it is there already.
            if !sleepers.iter().any(|(at, waker)| *at == self.at && waker.will_wake(cx.waker())) {
                sleepers.push((self.at, cx.waker().clone()));
            }
        });
        Poll::Pending
    }
}

/// Parks the thread until somebody unparks it or the next sleeper is due, and wakes those who are.
fn park() {
    let next = SLEEPERS.with_borrow(|sleepers| sleepers.iter().map(|(at, _)| *at).min());
    match next {
        None => thread::park(),
        Some(at) => thread::park_timeout(from_origin(at).saturating_duration_since(std::time::Instant::now())),
    }
    let now = Threads.now();
    let due: Vec<_> = SLEEPERS.with_borrow_mut(|sleepers| sleepers.extract_if(.., |(at, _)| *at <= now).collect());
    for (_, waker) in due {
        waker.wake();
    }
}

/// Wakes the future that a [`block_on`] runs. The flag is its own: a `block_on` within it, or a channel, may take the thread's
/// one token to be unparked.
struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Runs a future on the current thread until it is done, sleeping in between.
///
/// For futures that wait for [`Threads`] or for other threads; tokio's own timers and sockets need their runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let unpark = Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&unpark));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        while !unpark.woken.swap(false, Ordering::Acquire) {
            park();
        }
    }
}

/// Runs a blocking operation through a pipeline on the current thread.
///
/// A timeout can't cut a blocking operation short: it shows when the operation returns, in place of the late result. Delays, queues
/// and the time between attempts are cut as usual.
///
/// ```
/// use failsoft_tokio::{Pipeline, RetryPolicy, Threads, call_blocking, backoff::Backoff, retry};
///
/// let retry = RetryPolicy::new(retry::Config::new().with_backoff(Backoff::none()).validate()?);
/// let pipeline = Pipeline::new(Threads).layer(retry);
/// let answer = call_blocking(&pipeline, |attempt| if attempt.number() < 3 { Err("not yet") } else { Ok(42) });
/// assert_eq!(answer, Ok(42));
/// # Ok::<(), failsoft_tokio::ConfigError>(())
/// ```
///
/// # Errors
/// The operation's own error, or the policy that ended the call; see [`Failure`].
pub fn call_blocking<T, E, L, C>(
    pipeline: &Pipeline<Threads, L, C>,
    operation: impl FnMut(Attempt) -> Result<T, E>,
) -> Result<T, Failure<E>>
where
    L: Layer<T, E, Threads>,
    C: Classify<T, E>,
{
    let operation = RefCell::new(operation);
    block_on(pipeline.call(|attempt| {
        let operation = &operation;
        async move {
            // Pending before, so that the deadlines around it start now; pending after, so that they can end it.
            yield_once().await;
            let result = operation.borrow_mut()(attempt);
            yield_once().await;
            result
        }
    }))
}

/// Pending once.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
