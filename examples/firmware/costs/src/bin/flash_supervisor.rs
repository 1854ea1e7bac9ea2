//! A supervisor: a task that checks in, and whether the watchdog may be fed.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::time::Duration;

use failsoft_embassy::supervisor::{Config, Task};
use failsoft_embassy::{Instant, Supervisor, valid};

static TASKS: Supervisor<3> = Supervisor::new(valid!(Config::new().validate()));

fn supervise(tasks: &'static Supervisor<3>, now: Instant) {
    let deadline = black_box(Duration::from_millis(100));
    let Ok(alive) = tasks.register("control", Task::critical(deadline), &now) else { return };
    alive.check_in(&now);
    tasks.handle_timeout(&now);
    black_box(tasks.is_alive());
    black_box(tasks.poll_timeout());
}

costs::flash_image!(supervise(black_box(&TASKS), black_box(Instant::START)));
