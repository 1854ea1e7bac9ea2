//! Graceful degradation: three services, their health, and the level that follows from it.

#![no_std]
#![no_main]

use core::hint::black_box;

use failsoft_embassy::degradation::{Config, Criticality, DegradationLevel, Service};
use failsoft_embassy::{Degradation, Instant, valid};

static HEALTH: Degradation<3> = Degradation::new(valid!(Config::new().validate()));

fn degrade(health: &'static Degradation<3>, now: Instant) {
    let _ = black_box(health.register("sensor", Service::new(black_box(Criticality::Critical))));
    let _ = black_box(health.report(black_box("sensor"), black_box(false), &now));
    let _ = black_box(health.check(black_box(DegradationLevel::Full), &now));
    black_box(health.level(&now));
}

costs::flash_image!(degrade(black_box(&HEALTH), black_box(Instant::START)));
