//! Breakers as layers of tower's, around a service that answers at once.

use core::ops::Deref;
use std::sync::Arc;

use failsoft_tokio::circuit_breaker::{ConsecutiveFailures, FailureRate, TimeBased};
use failsoft_tokio::pipeline::Layer;
use failsoft_tokio::{Pipeline, PipelineLayer, Tokio};
use tower::Layer as _;

use super::ours::Ours;
use super::theirs::{Seatbelt, TowerResilience};
use super::{Breaker as _, Made};
use crate::floor;
use crate::harness::Bench;
use crate::service::{Backend, Why};
use crate::table::Subject;

const CONSECUTIVE: &str = "failsoft, consecutive";
const CALLS: &str = "failsoft, window of calls";
const TIME: &str = "failsoft, window of time";

/// Its pipeline is behind a pointer `H`.
fn ours<H, L>(bench: &mut Bench, name: &'static str, like: &'static str, pipeline: impl Fn() -> H)
where
    H: Deref<Target = Pipeline<Tokio, L>> + Clone + Send + Sync,
    L: Layer<(), Why, Tokio>,
{
    bench.service(Subject { name, like }, || PipelineLayer::once(pipeline()).layer(Backend));
}

/// As it would be in a `static`.
fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

pub(super) fn measure(bench: &mut Bench) {
    bench.section("breaker as a tower layer, success", floor::LOAD);
    bench.service(Subject { name: "the service without a layer", like: CONSECUTIVE }, || Backend);
    ours(bench, CONSECUTIVE, CONSECUTIVE, || leaked(Ours::<ConsecutiveFailures>::pipeline()));
    ours(bench, "failsoft, consecutive, in an Arc", CONSECUTIVE, || Arc::new(Ours::<ConsecutiveFailures>::pipeline()));
    ours(bench, CALLS, CALLS, || leaked(Ours::<FailureRate>::pipeline()));
    let name = TowerResilience::NAME;
    bench.service(Subject { name, like: CALLS }, || TowerResilience::make(Made::Steady));
    ours(bench, TIME, TIME, || leaked(Ours::<TimeBased<10>>::pipeline()));
    bench.service(Subject { name: Seatbelt::NAME, like: TIME }, || Seatbelt::make(Made::Steady));
}
