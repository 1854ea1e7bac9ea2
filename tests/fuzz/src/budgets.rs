//! Budgets of retries, and the client-side throttle.

use failsoft_core::budget::{
    ConcurrentBudget, ConcurrentConfig, QuotaBudget, QuotaConfig, RetryBudget, RetryThrottle, RetryThrottleConfig,
    TokenBudget, TokenConfig,
};
use failsoft_core::testing::ManualClock;
use failsoft_core::throttle::{self, Throttle};
use failsoft_core::{ConfigError, Instant, Outcome, Policy, Ratio, Reason, Rejected, Valid, Verdict};

use crate::bytes::{Bytes, accepted};
use crate::cells::{any_cell, word_cell};

/// Calls that overlap, at the most.
const CALLS: usize = 6;

/// Decodes and plays one input.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match bytes.below(5) {
        0 => tokens(&mut bytes),
        1 => quota(&mut bytes),
        2 => retry_throttle(&mut bytes),
        3 => concurrent(&mut bytes),
        _ => client(&mut bytes),
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Begin(usize),
    Join(usize),
    Retry(usize, Verdict),
    End(usize, Outcome),
    /// By hand, where a budget can do that: positive is a deposit.
    Direct(bool, u32),
}

fn op(bytes: &mut Bytes<'_>) -> Op {
    match bytes.byte() {
        0..=79 => Op::Begin(bytes.place::<CALLS>()),
        80..=99 => Op::Join(bytes.place::<CALLS>()),
        100..=179 => Op::Retry(bytes.place::<CALLS>(), bytes.verdict()),
        180..=199 => Op::End(bytes.place::<CALLS>(), Outcome::Success),
        200..=219 => Op::End(bytes.place::<CALLS>(), Outcome::Failure),
        220..=229 => Op::End(bytes.place::<CALLS>(), Outcome::Ignored),
        byte => Op::Direct(byte & 1 == 1, bytes.count()),
    }
}

type Steps = Vec<(Instant, Option<Op>)>;

/// Whether a retry was allowed, what a direct call answered, and the balance afterwards.
type Answer = (Option<bool>, u32);

/// Plays a script, and ends what is under way.
fn play<B: RetryBudget>(
    budget: &B,
    steps: &Steps,
    direct: impl Fn(bool, u32, &ManualClock) -> bool,
    balance: impl Fn(&ManualClock) -> u32,
) -> Vec<Answer> {
    let clock = ManualClock::new();
    let mut open: [Option<B::Spent>; CALLS] = [const { None }; CALLS];
    let play = |(now, op): &(Instant, Option<Op>)| {
        clock.set(*now);
        let mut answer = None;
        match *op {
            Some(Op::Begin(place)) if open[place].is_none() => open[place] = Some(budget.begin(&&clock)),
            Some(Op::Join(place)) if open[place].is_none() => open[place] = Some(budget.join(&&clock)),
            Some(Op::Retry(place, verdict)) => {
                let spent = open[place].as_mut();
                answer = spent.map(|spent| budget.try_retry(spent, verdict, &&clock));
            }
            Some(Op::End(place, outcome)) => {
                if let Some(spent) = open[place].take() {
                    budget.end(spent, outcome);
                }
            }
            Some(Op::Direct(deposit, amount)) => answer = Some(direct(deposit, amount, &clock)),
            Some(Op::Begin(_) | Op::Join(_)) | None => {}
        }
        (answer, balance(&clock))
    };
    let answers = steps.iter().map(play).collect();
    for spent in open.into_iter().flatten() {
        budget.end(spent, Outcome::Ignored);
    }
    answers
}

fn steps<C>(bytes: &mut Bytes<'_>, config: Result<C, ConfigError>) -> Option<(C, Steps)> {
    Some((accepted(config)?, bytes.script(false, op)))
}

fn tokens(bytes: &mut Bytes<'_>) {
    let config = TokenConfig::new().with_deposit(bytes.ratio()).with_minimum_per_second(bytes.count());
    let config = if bytes.flag() { config.with_ttl(bytes.span()) } else { config };
    let Some((config, steps)) = steps(bytes, config.validate()) else { return };
    let answers = any_cell!(Kind => {
        let budget = TokenBudget::<Kind>::new(config);
        let direct = |deposit, amount, clock: &ManualClock| {
            if deposit {
                budget.deposit(amount, &clock);
            }
            !deposit && budget.try_withdraw(amount, &clock)
        };
        play(&budget, &steps, direct, |clock| budget.balance(&clock))
    });
    let mut before = 0;
    for ((_, op), (allowed, balance)) in steps.iter().zip(answers) {
        if let (Some(Op::Retry(..)), Some(allowed)) = (op, allowed) {
            assert_eq!(allowed, before > 0, "a retry is there when the balance says so: {before}");
            // Not always one less: the largest number also stands for balances above it.
            let paid = u32::from(allowed);
            assert!(balance <= before && balance >= before - paid, "{before} before, {balance} after");
        }
        before = balance;
    }
}

fn quota(bytes: &mut Bytes<'_>) {
    let capacity = bytes.count();
    let config = QuotaConfig::new().with_capacity(capacity).with_retry_cost(bytes.short());
    let config = config.with_no_retry_refund(bytes.short());
    let Some((config, steps)) = steps(bytes, config.validate()) else { return };
    let answers = word_cell!(Kind => {
        let budget = QuotaBudget::<Kind>::new(config);
        let direct = |deposit, amount, _: &ManualClock| {
            if deposit {
                budget.deposit(amount);
            }
            !deposit && budget.try_withdraw(amount)
        };
        play(&budget, &steps, direct, |_| budget.balance())
    });
    let mut before = capacity;
    for ((_, op), (allowed, balance)) in steps.iter().zip(answers) {
        assert!(balance <= capacity, "{balance} of {capacity}");
        match (op, allowed) {
            (Some(Op::Direct(true, amount)), _) => {
                assert_eq!(balance, before.saturating_add(*amount).min(capacity), "{before} and {amount}");
            }
            (Some(Op::Direct(false, amount)), Some(true)) => assert_eq!(balance, before - amount),
            (_, Some(false)) => assert_eq!(balance, before, "what is refused costs nothing"),
            _ => {}
        }
        before = balance;
    }
}

fn retry_throttle(bytes: &mut Bytes<'_>) {
    let tokens = bytes.count();
    let config = RetryThrottleConfig::new().with_max_tokens(tokens);
    let config = if bytes.flag() { config.with_token_ratio(bytes.count()) } else { config };
    let Some((config, steps)) = steps(bytes, config.validate()) else { return };
    let answers = word_cell!(Kind => {
        let budget = RetryThrottle::<Kind>::new(config);
        let direct = |success, _, _: &ManualClock| {
            if success { budget.success() } else { budget.failure() }
            budget.allows()
        };
        play(&budget, &steps, direct, |_| budget.thousandths())
    });
    for (allowed, thousandths) in answers {
        assert!(thousandths <= tokens * 1_000, "{thousandths} of {tokens} tokens");
        assert!(allowed.is_none_or(|allowed| allowed == (thousandths > tokens * 500)), "{allowed:?} at {thousandths}");
    }
}

fn concurrent(bytes: &mut Bytes<'_>) {
    let (share, minimum) = (bytes.ratio(), bytes.count());
    let config = ConcurrentConfig::new().with_share(share).with_minimum_concurrency(minimum);
    let Some((config, steps)) = steps(bytes, config.validate()) else { return };
    let answers = word_cell!(Kind => {
        let budget = ConcurrentBudget::<Kind>::new(config);
        let answers = play(&budget, &steps, |_, _, _| true, |_| budget.in_flight().retries);
        let left = budget.in_flight();
        assert_eq!((left.calls, left.retries), (0, 0), "all calls have ended");
        answers
    });
    // All of the calls at once, at their share of retries.
    let most = minimum.max(u32::try_from(CALLS).unwrap_or(0));
    for ((_, op), (allowed, retries)) in steps.iter().zip(answers) {
        if let (Some(Op::Retry(..)), Some(true)) = (op, allowed) {
            assert!(retries <= most, "{retries} retries in flight");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Sent {
    Acquire(u32),
    Record(bool),
}

fn client(bytes: &mut Bytes<'_>) {
    let most = bytes.ratio();
    let config = throttle::Config::new().with_minimum_requests(bytes.count()).with_aggression(bytes.count());
    let config = if bytes.flag() { config.with_multiplier(bytes.ratio()) } else { config };
    let config = if bytes.flag() { config.with_period(bytes.span()) } else { config };
    let Some(config) = accepted(config.with_most_rejected(most).validate()) else { return };
    let config: Valid<throttle::Config> = config;
    let steps = bytes.script(false, |bytes| match bytes.byte() {
        0..=99 => Sent::Acquire(bytes.random()),
        byte => Sent::Record(byte > 180),
    });
    type Answer = (Option<Result<(), Rejected>>, Ratio, throttle::Requests);
    let answers = any_cell!(Kind => {
        let (clock, throttle) = (ManualClock::new(), Throttle::<Kind>::new(config));
        let play = |(now, sent): &(Instant, Option<Sent>)| {
            clock.set(*now);
            let mut answer = None;
            match *sent {
                Some(Sent::Acquire(random)) => answer = Some(throttle.try_acquire(&clock, random)),
                Some(Sent::Record(accepted)) => throttle.record(accepted, &clock),
                None => {}
            }
            (answer, throttle.probability(&clock), throttle.requests(&clock))
        };
        steps.iter().map(play).collect::<Vec<Answer>>()
    });
    for (answer, probability, requests) in answers {
        assert!(probability <= most, "{probability} is above {most}");
        assert!(requests.accepts <= requests.requests, "{requests:?}");
        if let Some(Err(rejected)) = answer {
            assert_eq!((rejected.policy(), rejected.reason()), (Policy::Throttle, Reason::Throttled));
            assert!(requests.requests > 0);
        }
    }
    let (sent, accepted) = (bytes.random(), bytes.random());
    assert!(config.get().probability(sent, accepted) <= most);
}
