//! Alone in its process, because it is about the first reading of the clock.

use core::future::pending;
use core::time::Duration;

use failsoft_tokio::{Clock, Instant, Pipeline, Timeout, Tokio};

#[test]
fn a_paused_runtime_older_than_the_clocks_first_reading_has_its_time_all_the_same() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    // The paused clock has stopped; the process's goes on, and is read for the first time later than that.
    std::thread::sleep(Duration::from_millis(20));
    runtime.block_on(async {
        let first = Tokio.now();
        assert!(first > Instant::START, "cut off at the clock's start");
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(Tokio.now().saturating_duration_since(first), Duration::from_millis(5));

        let pipeline = Pipeline::new(Tokio).layer(Timeout::new(Duration::from_millis(7)));
        assert!(pipeline.call(|_| pending::<Result<(), ()>>()).await.is_err_and(|failure| failure.is_timed_out()));
        assert_eq!(Tokio.now().saturating_duration_since(first), Duration::from_millis(12));
    });
}
