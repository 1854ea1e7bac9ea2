//! Calls that share one execution.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use std::sync::Arc;

use failsoft_tokio::Coalesce;

use crate::model::{Inside, block_on, check, check_many, poll_once, thread};

type Rig = Arc<(Coalesce<u8, u8>, Inside)>;

fn rig() -> Rig {
    Arc::new((Coalesce::new(), Inside::default()))
}

/// One execution: it waits once, for a wake-up that comes at once.
fn execution(rig: &Rig) -> impl Future<Output = u8> + Send + 'static {
    let rig = rig.clone();
    let mut waited = false;
    poll_fn(move |cx| {
        if waited {
            rig.1.leave();
            return Poll::Ready(7);
        }
        waited = true;
        rig.1.enter(1);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

fn call(rig: &Rig) -> u8 {
    block_on(rig.0.call(1, || execution(rig)))
}

#[test]
fn all_who_call_get_the_answer_of_one_execution_at_a_time() {
    check_many("coalesce, two callers", || {
        let rig = rig();
        let other = {
            let rig = rig.clone();
            thread::spawn(move || call(&rig))
        };
        assert_eq!((call(&rig), other.join().expect("it doesn't panic")), (7, 7));
        assert_eq!(rig.0.in_flight(), 0);
    });
}

#[test]
fn one_that_gives_up_leaves_the_execution_to_the_others() {
    check("coalesce, one gives up", || {
        let rig = rig();
        let other = {
            let rig = rig.clone();
            thread::spawn(move || {
                let mut waiting = pin!(rig.0.call(1, || forgiving(&rig)));
                let _ = poll_once(waiting.as_mut());
            })
        };
        assert_eq!(block_on(rig.0.call(1, || forgiving(&rig))), 7);
        other.join().expect("it doesn't panic");
        assert_eq!(rig.0.in_flight(), 0);
    });
}

/// An execution that may be dropped half-way.
fn forgiving(rig: &Rig) -> impl Future<Output = u8> + Send + 'static {
    struct Within(Rig);
    impl Drop for Within {
        fn drop(&mut self) {
            self.0.1.leave();
        }
    }
    let rig = rig.clone();
    let mut within = None;
    poll_fn(move |cx| {
        if within.is_some() {
            within = None;
            return Poll::Ready(7);
        }
        rig.1.enter(1);
        within = Some(Within(rig.clone()));
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}
