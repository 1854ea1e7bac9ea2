//! Circuit breakers of all dialects: each one's configuration becomes a [`Plan`], and one walk over the steps serves them all.

use core::time::Duration;

use failsoft_core::circuit_breaker::StateKind;
use failsoft_core::testing::ManualClock;
use failsoft_core::{Clock, Instant, Rejected, Verdict};

use crate::checks::{Actual, Checks};
use crate::number::Quantity;
use crate::tape::{Object, Value};
use crate::vector::{Result, Step, Unsupported, Vector};

pub(crate) mod any;
pub(crate) mod plan;
pub(crate) mod rig;

use plan::{Dialect, Plan};
use rig::{Hand, Rig};

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let plan = Plan::of(vector)?;
    let clock = ManualClock::new();
    rig::with(&plan, &clock, &mut |rig| {
        if vector.pattern == "breaker_metrics" {
            // Only counts, and says what it thinks of that.
            rig.by_hand(Hand::ObserveOnly);
        }
        Walk { plan: &plan, clock: &clock, rig, checks }.all(vector)
    })
}

struct Walk<'a, 'w, 'c> {
    plan: &'w Plan<'a>,
    clock: &'w ManualClock,
    rig: &'w mut Rig<'a, 'c>,
    checks: &'w mut Checks,
}

/// What a step brought about, beside what the breaker itself tells.
#[derive(Default)]
struct Found {
    permit: Option<core::result::Result<(), Rejected>>,
}

/// A call's outcome.
struct Outcome {
    verdict: Verdict,
    took: Duration,
}

impl<'a> Walk<'a, '_, '_> {
    fn all(&mut self, vector: &Vector<'a>) -> Result<'a, ()> {
        for step in vector.steps() {
            self.checks.begin(&step);
            if let Some(at) = step.at()? {
                self.clock.set(at);
            }
            for _ in 0..step.repeat()? {
                let found = self.take(&step)?;
                self.judge(&step, &found)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, step: &Step<'a>) -> Result<'a, Found> {
        let mut found = Found::default();
        // A machine that changes by itself does so when it is looked at.
        if self.plan.dialect.changes_by_itself() {
            self.rig.handle_timeout();
        }
        match step.op {
            "acquire" => {
                let token = step.args()?.only_args(&["token"])?.text("token")?;
                found.permit = Some(self.rig.acquire(token.unwrap_or(""))?);
            }
            "begin" => {
                let args = step.args()?.only_args(&["token"])?;
                found.permit = Some(self.rig.acquire(args.needed("token", args.text("token"))?)?);
            }
            "end" => {
                let args = step.args()?;
                args.only_args(&["token", "outcome", "duration_ms", "treated_as", "value", "kind", "ban_ms"])?;
                let token = args.needed("token", args.text("token"))?;
                let outcome = self.outcome(args, args.needed("outcome", args.text("outcome"))?)?;
                self.rig.end(token, outcome.verdict);
            }
            "call" => found.permit = Some(self.call(step)?),
            "success" | "failure" | "slow_success" | "slow_failure" | "excluded" | "ignored" => self.record(step)?,
            "release" => {
                let token = step.args()?.only_args(&["token"])?.text("token")?;
                self.rig.release(token.unwrap_or(""));
            }
            "not_permitted" => {
                step.no_args()?;
                self.rig.log().reject();
            }
            "force" => self.force(step.text()?)?,
            "trip" => self.trip(step)?,
            "open_for" => {
                let args = step.args()?.only_args(&["ms"])?;
                let until = self.clock.now().saturating_add(args.needed("ms", args.span("ms"))?);
                self.rig.by_hand(Hand::OpenUntil(until));
            }
            "reset" | "clear_counts" => {
                step.no_args()?;
                self.rig.by_hand(Hand::Close);
            }
            "tick" | "timer_fired" => {
                step.no_args()?;
                self.rig.handle_timeout();
            }
            "snapshot" => step.no_args()?,
            op => return Err(Unsupported::Op(op)),
        }
        Ok(found)
    }

    /// Asks, and reports at once, or after the time that the call takes where the clock shows it.
    fn call(&mut self, step: &Step<'a>) -> Result<'a, core::result::Result<(), Rejected>> {
        const CALL: &str = "\0call";
        let outcome = match step.arg {
            Value::Text(outcome) => self.outcome(Object::EMPTY, outcome)?,
            _ => {
                let args =
                    step.args()?.only_args(&["outcome", "duration_ms", "treated_as", "value", "kind", "ban_ms"])?;
                self.outcome(args, args.needed("outcome", args.text("outcome"))?)?
            }
        };
        let asked = self.rig.acquire(CALL)?;
        if asked.is_ok() {
            if self.plan.dialect == Dialect::Sentinel {
                self.clock.advance(outcome.took);
            }
            self.rig.end(CALL, outcome.verdict);
        }
        Ok(asked)
    }

    /// Reports an outcome: of the call that has been out for longest, or of one that is asked for at once, if it is let through.
    fn record(&mut self, step: &Step<'a>) -> Result<'a, ()> {
        let args = step.args()?.only_args(&["duration_ms", "started_at_ms", "token"])?;
        let outcome = self.outcome(args, step.op)?;
        if let Some(token) = args.text("token")? {
            self.rig.end(token, outcome.verdict);
            return Ok(());
        }
        let started = args.number("started_at_ms")?.and_then(crate::number::Decimal::nanos).map(Instant::from_nanos);
        let Some(started) = started else { return self.rig.record(outcome.verdict) };
        // It has begun then, and ends now.
        let now = self.clock.now();
        self.clock.set(started);
        let asked = self.rig.acquire("\0started")?;
        self.clock.set(now);
        if asked.is_ok() {
            self.rig.end("\0started", outcome.verdict);
        }
        Ok(())
    }

    fn outcome(&self, args: Object<'a>, outcome: &'a str) -> Result<'a, Outcome> {
        let took = args.span("duration_ms")?.unwrap_or(Duration::ZERO);
        let verdict = match args.text("treated_as")?.unwrap_or(outcome) {
            "success" => Verdict::SUCCESS,
            "failure" => Verdict::TRANSIENT,
            "slow_success" => Verdict::SUCCESS.with_slow(),
            "slow_failure" => Verdict::TRANSIENT.with_slow(),
            "excluded" | "ignored" => Verdict::IGNORED,
            "result" => self.plan.result(args.needed("value", args.text("value"))?)?,
            "error" => self.plan.error(args.needed("kind", args.text("kind"))?, args)?,
            _ => return Err(Unsupported::Value { key: "outcome", problem: "is not known" }),
        };
        let slow = self.plan.slow_after.is_some_and(|limit| took > limit);
        Ok(Outcome { verdict: if slow { verdict.with_slow() } else { verdict }, took })
    }

    fn force(&mut self, state: &'a str) -> Result<'a, ()> {
        let hand = match state {
            "closed" => Hand::Close,
            "open" => Hand::Open,
            "half_open" => Hand::HalfOpen,
            "forced_open" | "isolated" => Hand::Isolate,
            "disabled" => Hand::Disable,
            "metrics_only" => Hand::ObserveOnly,
            _ => return Err(Unsupported::Value { key: "force", problem: "is not a state" }),
        };
        self.rig.by_hand(hand);
        Ok(())
    }

    /// Calls that fail until the breaker opens; in half-open, the probe that does. An argument says how many calls there are to be, and
    /// how many of them fail.
    fn trip(&mut self, step: &Step<'a>) -> Result<'a, ()> {
        /// More than any condition here takes.
        const MOST: u32 = 1_000;
        let args = step.args()?.only_args(&["failure_count", "failure_ratio"])?;
        if let (Some(failures), Some(ratio)) = (args.count("failure_count")?, args.share("failure_ratio")?) {
            let calls = failures.saturating_mul(10_000).checked_div(ratio.as_basis_points()).unwrap_or(failures);
            for _ in 0..calls.saturating_sub(failures) {
                self.rig.record(Verdict::SUCCESS)?;
            }
            for _ in 0..failures {
                self.rig.record(Verdict::TRANSIENT)?;
            }
            return Ok(());
        }
        for _ in 0..MOST {
            self.rig.record(Verdict::TRANSIENT)?;
            if self.rig.snapshot().state == StateKind::Open {
                return Ok(());
            }
        }
        Err(Unsupported::Value { key: "trip", problem: "does not open the breaker" })
    }

    fn judge(&mut self, step: &Step<'a>, found: &Found) -> Result<'a, ()> {
        if self.plan.dialect.changes_by_itself() {
            self.rig.handle_timeout();
        }
        let (plan, rig, now) = (self.plan, &*self.rig, self.clock.now());
        let totals = rig.log().totals();
        let (snapshot, log) = (rig.snapshot(), rig.log());
        let last = log.last();
        // An open breaker counts nothing: what counts is what opened it.
        let (counts, minimum) = match (snapshot.state, last) {
            (StateKind::Open, Some(last)) => (last.counts, plan.minimum(last.from)),
            (state, _) => (snapshot.counts, plan.minimum(state)),
        };
        let successes_counted = counts.calls.saturating_sub(counts.failures);
        // Where rates are rounded, there is one of nothing, too: none.
        let rate = |part| match plan.decimals {
            Some(decimals) => Quantity::percent(part, counts.calls.max(1)).rounded(decimals.saturating_sub(2)),
            None => Quantity::percent(part, if counts.calls >= minimum { counts.calls } else { 0 }),
        };
        let ratio = |part| {
            let exact = Quantity::fraction(part, counts.calls.max(1).into());
            Actual::maybe(exact.map(|ratio| plan.decimals.map_or(ratio, |decimals| ratio.rounded(decimals))))
        };
        let open_until = snapshot.until.filter(|_| snapshot.state == StateKind::Open);
        // There, a probe that stays out holds up others for as long as an open period.
        let blocked_until = if plan.dialect == Dialect::Polly { snapshot.until } else { open_until };
        let (tally, (successes, failures)) = (log.tally(), log.in_a_row());
        let transition = last.map(|last| [plan.dialect.name(last.from), plan.dialect.name(last.to)]);
        let closed_after = |to| last.filter(|last| last.to == to).map(|last| last.counts);
        self.checks.expect(step, &mut |key| {
            Some(match key {
                "state" => Actual::Text(plan.dialect.name(snapshot.state)),
                "permit" => Actual::Bool(found.permit.is_some_and(|permit| permit.is_ok())),
                "error" => Actual::Nothing,
                "retry_after_ms" => Actual::maybe(
                    found
                        .permit
                        .and_then(core::result::Result::err)
                        .and_then(|rejected| rejected.retry_at())
                        .map(|at| Quantity::until(now, at)),
                ),
                "remaining_delay_ms" => Actual::Number(Quantity::until(now, open_until.unwrap_or(now))),
                "blocked_until_ms" => Actual::maybe(blocked_until.map(|until| Quantity::nanos(until.as_nanos()))),
                "timer_ms" => Actual::maybe(rig.poll_timeout().map(|until| Quantity::until(now, until))),
                "timer_cancelled" => Actual::Bool(rig.poll_timeout().is_none()),
                "transition" => match &transition {
                    Some(states) => Actual::Texts(states),
                    None => Actual::Nothing,
                },
                "buffered" | "total" => Actual::whole(counts.calls),
                "failed" => Actual::whole(counts.failures),
                "succeeded" => Actual::whole(successes_counted),
                "slow" => Actual::whole(counts.slow),
                "verdict" => Actual::Text(plan.opinion(counts)),
                "failure_rate" => Actual::Number(rate(counts.failures)),
                "success_rate" => Actual::Number(rate(successes_counted)),
                "slow_rate" => Actual::Number(rate(counts.slow)),
                "failure_ratio" => ratio(counts.failures),
                "success_ratio" => ratio(successes_counted),
                "not_permitted" => Actual::whole(log.rejected()),
                "half_open_attempts" => Actual::whole(u32::from(snapshot.reopened)),
                "counts.requests" => Actual::whole(tally.requests),
                "counts.successes" => Actual::whole(tally.successes),
                "counts.failures" => Actual::whole(tally.failures),
                "counts.exclusions" => Actual::whole(tally.exclusions),
                "counts.consecutive_successes" => Actual::whole(successes),
                "counts.consecutive_failures" => Actual::whole(failures),
                "events.failure_rate_exceeded" => Actual::whole(log.exceeded().0),
                "events.slow_rate_exceeded" => Actual::whole(log.exceeded().1),
                "events.state_transition" => Actual::whole(log.changes()),
                "events.success" => Actual::whole(totals.successes()),
                "events.error" => Actual::whole(totals.failures()),
                "events.ignored" => Actual::whole(totals.ignored()),
                "events.not_permitted" => Actual::whole(totals.rejected()),
                "event_on_open.failed" => {
                    Actual::maybe(closed_after(StateKind::Open).map(|counts| Quantity::whole(counts.failures)))
                }
                "event_on_open.succeeded" => Actual::maybe(
                    closed_after(StateKind::Open)
                        .map(|counts| Quantity::whole(counts.calls.saturating_sub(counts.failures))),
                ),
                "event_on_close.failed" => {
                    Actual::maybe(closed_after(StateKind::Closed).map(|counts| Quantity::whole(counts.failures)))
                }
                "event_on_close.succeeded" => Actual::maybe(
                    closed_after(StateKind::Closed)
                        .map(|counts| Quantity::whole(counts.calls.saturating_sub(counts.failures))),
                ),
                _ => return None,
            })
        })
    }
}
