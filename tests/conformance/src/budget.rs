//! Budgets of retries, and the buckets that they are made of.

use failsoft_core::budget::{
    ConcurrentBudget, ConcurrentConfig, QuotaBudget, QuotaConfig, RetryBudget, RetryThrottle, RetryThrottleConfig,
    SpentRetries, TokenBudget, TokenConfig,
};
use failsoft_core::cell::Local;
use failsoft_core::testing::ManualClock;
use failsoft_core::{Outcome, Ratio, Verdict};

use crate::checks::{Actual, Checks};
use crate::number::Quantity;
use crate::tape::Object;
use crate::vector::{Result, Step, Unsupported, Vector};

/// Calls at once.
const CALLS: usize = 128;

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    match vector.dialect() {
        "aws" | "aws2026" => quota(vector, checks),
        "envoy" | "failsafe" => concurrent(vector, checks),
        "finagle" => tokens(vector, checks),
        "grpc" => throttle(vector, checks),
        dialect => Err(Unsupported::Dialect(dialect)),
    }
}

fn cost<'a>(config: Object<'a>, key: &'static str) -> Result<'a, Option<u16>> {
    let cost = |count: u32| u16::try_from(count).map_err(|_| Unsupported::Value { key, problem: "is above 65,535" });
    config.count(key)?.map(cost).transpose()
}

/// The quota of the AWS SDKs, whose retries differ in what they cost.
fn quota<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let known = ["dialect", "quota", "retry_cost", "timeout_retry_cost", "throttling_retry_cost", "no_retry_increment"];
    let config = vector.config.only(&known)?;
    // What a retry costs after an error, a timeout, and because of throttling.
    let (error, timeout, throttling) = if vector.dialect() == "aws" { (5, 10, 5) } else { (14, 14, 5) };
    let mut settings = QuotaConfig::new().with_retry_cost(error);
    if let Some(tokens) = config.count("quota")? {
        settings = settings.with_capacity(tokens);
    }
    if let Some(cost) = cost(config, "retry_cost")? {
        settings = settings.with_retry_cost(cost);
    }
    if let Some(refund) = cost(config, "no_retry_increment")? {
        settings = settings.with_no_retry_refund(refund);
    }
    let timeout = cost(config, "timeout_retry_cost")?.unwrap_or(timeout);
    let throttling = cost(config, "throttling_retry_cost")?.unwrap_or(throttling);
    let (budget, clock) = (QuotaBudget::<Local>::new(settings.validate()?), ManualClock::new());
    for step in vector.steps() {
        checks.begin(&step);
        for _ in 0..step.repeat()? {
            let mut ok = true;
            let mut call = budget.begin(&&clock);
            match step.op {
                "withdraw" => ok = budget.try_withdraw(step.count()?),
                "deposit" => budget.deposit(step.count()?),
                "retry" => {
                    let args = step.args()?.only_args(&["kind"])?;
                    let cost = match args.text("kind")? {
                        None | Some("error") => None,
                        Some("timeout") => Some(timeout),
                        Some("throttling") => Some(throttling),
                        Some(_) => return Err(Unsupported::Value { key: "kind", problem: "is not known" }),
                    };
                    let verdict = cost.map_or(Verdict::TRANSIENT, |cost| Verdict::TRANSIENT.with_cost(cost));
                    ok = budget.try_retry(&mut call, verdict, &&clock);
                }
                "request_succeeded" | "request_failed" => {
                    // With which status does not matter: what the last retry cost says enough.
                    let args = step.args()?.only_args(&["last_cost", "status"])?;
                    if let Some(cost) = optional(args, "last_cost")? {
                        // A call whose last retry cost so much: taken, so that it has it to bring back.
                        budget.deposit(cost.into());
                        ok = budget.try_retry(&mut call, Verdict::TRANSIENT.with_cost(cost), &&clock);
                    }
                    let failed = step.op == "request_failed";
                    budget.end(call, if failed { Outcome::Failure } else { Outcome::Success });
                }
                "snapshot" | "tick" => step.no_args()?,
                op => return Err(Unsupported::Op(op)),
            }
            checks.expect(&step, &mut |key| {
                Some(match key {
                    "ok" | "allowed" => Actual::Bool(ok),
                    "balance" => Actual::whole(budget.balance()),
                    _ => return None,
                })
            })?;
        }
    }
    Ok(())
}

fn optional<'a>(args: Object<'a>, key: &'static str) -> Result<'a, Option<u16>> {
    if args.get(key).is_some_and(|value| value.is_null()) { Ok(None) } else { cost(args, key) }
}

/// gRPC's throttle.
fn throttle<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let config = vector.config.only(&["dialect", "max_tokens", "token_ratio", "allow_when"])?;
    let throttle = RetryThrottle::<Local>::new(throttle_settings(config)?.validate()?);
    for step in vector.steps() {
        checks.begin(&step);
        for _ in 0..step.repeat()? {
            match step.op {
                "failure" | "success" => {
                    step.no_args()?;
                    if step.op == "failure" { throttle.failure() } else { throttle.success() }
                }
                "snapshot" | "tick" => step.no_args()?,
                op => return Err(Unsupported::Op(op)),
            }
            checks.expect(&step, &mut |key| {
                Some(match key {
                    "allowed" => Actual::Bool(throttle.allows()),
                    "tokens" => Actual::maybe(Quantity::fraction(throttle.thousandths(), 1_000)),
                    _ => return None,
                })
            })?;
        }
    }
    Ok(())
}

pub(crate) fn throttle_settings(config: Object<'_>) -> Result<'_, RetryThrottleConfig> {
    let tokens = config.needed("max_tokens", config.count("max_tokens"))?;
    let ratio = config.needed("token_ratio", config.number("token_ratio"))?;
    // More decimals are left aside: gRFC A6.
    let thousandths = ratio.thousandths().and_then(|ratio| u32::try_from(ratio).ok());
    let ratio = thousandths.ok_or(Unsupported::Value { key: "token_ratio", problem: "is negative" })?;
    Ok(RetryThrottleConfig::new().with_max_tokens(tokens).with_token_ratio(ratio))
}

/// Budgets by what is in flight.
fn concurrent<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let config = vector.config.only(&["dialect", "percent", "max_rate", "min_concurrency"])?;
    let mut settings = ConcurrentConfig::new();
    if let Some(share) = config.percent("percent")?.or(config.share("max_rate")?) {
        settings = settings.with_share(share);
    }
    if let Some(minimum) = config.count("min_concurrency")? {
        settings = settings.with_minimum_concurrency(minimum);
    }
    let (budget, clock) = (ConcurrentBudget::<Local>::new(settings.validate()?), ManualClock::new());
    let mut calls = heapless::Vec::<SpentRetries, CALLS>::new();
    for step in vector.steps() {
        checks.begin(&step);
        for _ in 0..step.repeat()? {
            let mut ok = true;
            match step.op {
                "set" => {
                    let args = step.args()?.only_args(&["active", "pending", "executions", "in_flight_retries"])?;
                    let under_way = |key: &'static str| Ok::<u32, Unsupported<'a>>(args.count(key)?.unwrap_or(0));
                    let wanted = under_way("active")? + under_way("pending")? + under_way("executions")?;
                    set(&budget, &mut calls, &clock, wanted, under_way("in_flight_retries")?)?;
                }
                "execution_started" => {
                    step.no_args()?;
                    enter(&mut calls, budget.begin(&&clock))?;
                }
                "withdraw" | "retry_started" => {
                    step.no_args()?;
                    let mut call = budget.join(&&clock);
                    ok = budget.try_retry(&mut call, Verdict::IGNORED, &&clock);
                    enter(&mut calls, call)?;
                }
                "snapshot" | "tick" => step.no_args()?,
                op => return Err(Unsupported::Op(op)),
            }
            checks.expect(&step, &mut |key| {
                Some(match key {
                    "ok" => Actual::Bool(ok),
                    "max" => Actual::whole(budget.limit()),
                    "in_flight_retries" => Actual::whole(budget.in_flight().retries),
                    _ => return None,
                })
            })?;
        }
    }
    Ok(())
}

fn enter<'a>(calls: &mut heapless::Vec<SpentRetries, CALLS>, call: SpentRetries) -> Result<'a, ()> {
    calls.push(call).map_err(|_| Unsupported::Room("so many calls"))
}

/// So many calls and retries under way. The retries began when there were more calls, if need be.
fn set<'a>(
    budget: &ConcurrentBudget<Local>,
    calls: &mut heapless::Vec<SpentRetries, CALLS>,
    clock: &ManualClock,
    wanted: u32,
    retries: u32,
) -> Result<'a, ()> {
    while let Some(call) = calls.pop() {
        budget.end(call, Outcome::Ignored);
    }
    for _ in 0..wanted {
        enter(calls, budget.begin(&clock))?;
    }
    let mut more = heapless::Vec::<SpentRetries, CALLS>::new();
    for _ in 0..retries {
        let mut retry = budget.join(&clock);
        while !budget.try_retry(&mut retry, Verdict::IGNORED, &clock) {
            enter(&mut more, budget.begin(&clock))?;
        }
        enter(calls, retry)?;
    }
    while let Some(call) = more.pop() {
        budget.end(call, Outcome::Ignored);
    }
    Ok(())
}

/// Finagle's budget.
fn tokens<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let config = vector.config.only(&["dialect", "ttl_ms", "min_per_s", "percent", "frozen_clock"])?;
    let clock = ManualClock::new();
    let mut budget = TokenBudget::<Local>::new(token_settings(TokenConfig::new(), config)?.validate()?);
    for step in vector.steps() {
        checks.begin(&step);
        if let Some(at) = step.at()? {
            clock.set(at);
        }
        for _ in 0..step.repeat()? {
            let (mut ok, mut error, mut initial, mut withdrawn) = (true, false, 0, 0);
            match step.op {
                "build" | "deposit_then_try_withdraw" => {
                    let known = ["ttl_ms", "min_per_s", "percent", "requests"];
                    let args = step.args()?.only_args(&known)?;
                    let settings = token_settings(TokenConfig::new(), config)?;
                    match token_settings(settings, args).and_then(|settings| Ok(settings.validate()?)) {
                        Ok(settings) => budget = TokenBudget::new(settings),
                        Err(_) => error = true,
                    }
                    initial = budget.balance(&&clock);
                    for _ in 0..args.count("requests")?.unwrap_or(0) {
                        budget.deposit(1, &&clock);
                        withdrawn += u32::from(budget.try_withdraw(1, &&clock));
                    }
                }
                "deposit" => budget.deposit(requests(&step)?, &&clock),
                "withdraw" => ok = budget.try_withdraw(requests(&step)?, &&clock),
                "snapshot" | "tick" => step.no_args()?,
                op => return Err(Unsupported::Op(op)),
            }
            checks.expect(&step, &mut |key| {
                Some(match key {
                    "ok" => Actual::Bool(ok),
                    "error" => Actual::Bool(error),
                    "initial_balance" => Actual::whole(initial),
                    "withdrawn" => Actual::whole(withdrawn),
                    "balance" => Actual::whole(budget.balance(&&clock)),
                    "always_refuses" => Actual::Bool(!budget.try_withdraw(1, &&clock)),
                    _ => return None,
                })
            })?;
        }
    }
    Ok(())
}

/// How many; one, unless said otherwise.
fn requests<'a>(step: &Step<'a>) -> Result<'a, u32> {
    if step.arg.is_null() { Ok(1) } else { step.count() }
}

fn token_settings<'a>(mut settings: TokenConfig, config: Object<'a>) -> Result<'a, TokenConfig> {
    if let Some(share) = config.share("percent")? {
        settings = settings.with_deposit(share);
    }
    if let Some(ttl) = config.span("ttl_ms")? {
        settings = settings.with_ttl(ttl);
    }
    if let Some(retries) = config.count("min_per_s")? {
        settings = settings.with_minimum_per_second(retries);
    }
    Ok(settings)
}

/// The buckets of tokens that Finagle's budgets are made of: one whose tokens end with time, and one that holds so many.
pub(crate) fn bucket<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    let config = vector.config;
    match config.needed("kind", config.text("kind"))? {
        "leaky_bucket" => {
            let config = config.only(&["dialect", "kind", "ttl_ms", "reserve"])?;
            let ttl = config.needed("ttl_ms", config.span("ttl_ms"))?;
            // What is always there is said per second here: as many parts of a token as a second is of the time to live.
            let parts = if ttl.subsec_nanos() == 0 { u32::try_from(ttl.as_secs()).unwrap_or(1).max(1) } else { 1 };
            let settings = TokenConfig::new().with_deposit(Ratio::ONE).with_ttl(ttl);
            let settings = settings.with_minimum_per_second(config.count("reserve")?.unwrap_or(0)).validate()?;
            let (budget, clock) = (TokenBudget::<Local>::new(settings), ManualClock::new());
            walk(vector, checks, &mut |step, tokens| {
                if let Some(at) = step.at()? {
                    clock.set(at);
                }
                Ok(match tokens {
                    Move::Put(tokens) => {
                        budget.deposit(tokens.saturating_mul(parts), &&clock);
                        (true, budget.balance(&&clock) / parts)
                    }
                    Move::Take(tokens) => {
                        let taken = budget.try_withdraw(tokens.saturating_mul(parts), &&clock);
                        (taken, budget.balance(&&clock) / parts)
                    }
                })
            })
        }
        "bounded_bucket" => {
            let config = config.only(&["dialect", "kind", "capacity"])?;
            let capacity = config.needed("capacity", config.count("capacity"))?;
            let budget = QuotaBudget::<Local>::new(QuotaConfig::new().with_capacity(capacity).validate()?);
            // It begins empty there.
            budget.try_withdraw(capacity);
            walk(vector, checks, &mut |_, tokens| {
                Ok(match tokens {
                    Move::Put(tokens) => {
                        budget.deposit(tokens);
                        (true, budget.balance())
                    }
                    Move::Take(tokens) => (budget.try_withdraw(tokens), budget.balance()),
                })
            })
        }
        _ => Err(Unsupported::Value { key: "kind", problem: "is not known" }),
    }
}

/// What a step does to a bucket.
enum Move {
    Put(u32),
    Take(u32),
}

/// How a bucket moves: whether it could, and what is in it then.
type Moving<'m, 'a> = &'m mut dyn FnMut(&Step<'a>, Move) -> Result<'a, (bool, u32)>;

fn walk<'a>(vector: &Vector<'a>, checks: &mut Checks, moving: Moving<'_, 'a>) -> Result<'a, ()> {
    for step in vector.steps() {
        checks.begin(&step);
        for _ in 0..step.repeat()? {
            let tokens = match step.op {
                "put" => Move::Put(step.count()?),
                "take" => Move::Take(step.count()?),
                "snapshot" | "tick" => {
                    step.no_args()?;
                    Move::Put(0)
                }
                op => return Err(Unsupported::Op(op)),
            };
            let (ok, balance) = moving(&step, tokens)?;
            checks.expect(&step, &mut |key| {
                Some(match key {
                    "ok" => Actual::Bool(ok),
                    "balance" => Actual::whole(balance),
                    _ => return None,
                })
            })?;
        }
    }
    Ok(())
}
