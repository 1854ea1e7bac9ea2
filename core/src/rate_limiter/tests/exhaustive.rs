//! Every state that a small rate limiter can reach, with its reservations, and the quota in every window of time.
//!
//! Time counts from now, in ticks. What was longer ago than [`REMEMBERED`] is forgotten: it takes less for a burst to come back, and
//! the quota is looked after in all windows up to that. Of a reservation that was taken so long ago that it can't be the last one
//! any more, it no longer matters when.

use super::*;
use crate::explore::{System, explore};

const TICK: u64 = 1_000;
/// Now, before each step.
const NOW: u64 = 1_000 * TICK;
/// In ticks.
const REMEMBERED: u64 = 6;

const fn ticks(ticks: u64) -> Duration {
    Duration::from_nanos(ticks * TICK)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Move {
    Take(u32),
    /// So many permits within so many ticks.
    Reserve(u32, u64),
    Commit(usize),
    Drop(usize),
    Wait,
    Reconfigure(usize),
}

struct InUse {
    /// Where there are several, they replace each other.
    settings: &'static [Valid<Config>],
    steps: &'static [Move],
    reservations: usize,
}

#[derive(Clone)]
struct Moment {
    arrival: Arrival,
    settings: usize,
    now: u64,
    reserved: Vec<(u32, Taken)>,
    /// Each permit that was used, and when.
    used: Vec<u64>,
}

type Limiter = RateLimiter<Live<Local>>;

impl InUse {
    fn limiter(&self, moment: &Moment) -> Limiter {
        let limiter = Limiter::new(self.settings[moment.settings]);
        limiter.arrival.set(moment.arrival);
        limiter
    }

    /// Counts time from now again.
    fn canonical(&self, mut moment: Moment) -> Moment {
        let (by, config) = (moment.now - NOW, self.settings[moment.settings].get());
        moment.arrival.0 = moment.arrival.0.max(moment.now - REMEMBERED * TICK) - by;
        for (permits, taken) in &mut moment.reserved {
            let worthless = moment.now - config.times(*permits).as_nanos();
            taken.next = taken.next.max(worthless) - by;
            taken.at = nanos(taken.at.as_nanos().max(moment.now - REMEMBERED * TICK) - by);
        }
        moment.used.retain(|at| *at + REMEMBERED * TICK > moment.now);
        for at in &mut moment.used {
            *at -= by;
        }
        moment.used.sort_unstable();
        moment.reserved.sort_by_key(|(permits, taken)| (taken.next, taken.at, *permits));
        moment.now = NOW;
        moment
    }
}

impl System for InUse {
    type State = Moment;
    type Key = (u64, usize, Vec<(u32, u64, Instant)>, Vec<u64>);
    type Step = Move;

    fn start(&self) -> Moment {
        let fresh = Moment { arrival: Arrival::FRESH, settings: 0, now: NOW, reserved: Vec::new(), used: Vec::new() };
        self.canonical(fresh)
    }

    fn key(&self, moment: &Moment) -> Self::Key {
        let reserved = moment.reserved.iter().map(|(permits, taken)| (*permits, taken.next, taken.at)).collect();
        (moment.arrival.0, moment.settings, reserved, moment.used.clone())
    }

    fn steps(&self, moment: &Moment) -> Vec<Move> {
        let mut steps = self.steps.to_vec();
        if moment.reserved.len() >= self.reservations {
            steps.retain(|step| !matches!(step, Move::Reserve(..)));
        }
        steps.extend((0..moment.reserved.len()).flat_map(|place| [Move::Commit(place), Move::Drop(place)]));
        if moment.reserved.is_empty() {
            let others = (0..self.settings.len()).filter(|&other| other != moment.settings);
            steps.extend(others.map(Move::Reconfigure));
        }
        steps
    }

    fn step(&self, before: &Moment, step: Move) -> Moment {
        let (limiter, now, mut after) = (self.limiter(before), nanos(before.now), before.clone());
        let (config, had) = (limiter.config(), limiter.available(&now));
        let mut taken = None;
        match step {
            Move::Take(permits) => {
                let result = limiter.try_acquire_many(permits, &now);
                assert_eq!(result.is_ok(), had >= i64::from(permits.max(1)), "{had} are there");
                match result {
                    Ok(()) => {
                        taken = Some(permits);
                        after.used.extend((0..permits).map(|_| before.now));
                    }
                    Err(rejected) => self.check_retry_at(before, permits, rejected),
                }
            }
            Move::Reserve(permits, wait) => match limiter.reserve(permits, ticks(wait), &now) {
                Ok(reservation) => {
                    taken = Some(permits);
                    let left = reservation.at().as_nanos() - before.now;
                    assert!(left <= (wait * TICK).min(config.patience.as_nanos()), "{left} to wait");
                    after.reserved.push((permits, reservation.taken));
                    reservation.commit();
                }
                Err(rejected) => {
                    let left = rejected.retry_at().expect("a time").as_nanos() - before.now;
                    assert!(left > (wait * TICK).min(config.patience.as_nanos()), "rejected, and {left} to wait");
                }
            },
            Move::Commit(place) => {
                let (permits, taken) = after.reserved.remove(place);
                after.used.extend((0..permits).map(|_| taken.at.as_nanos()));
            }
            Move::Drop(place) => {
                let (permits, taken) = after.reserved.remove(place);
                drop(Reservation { limiter: &limiter, permits, taken });
                // The last in line gives all back, others nothing.
                let back = if before.arrival.0 == taken.next { i64::from(permits) } else { 0 };
                let has = i64::from(config.burst()).min(had + back);
                assert_eq!(limiter.available(&now), has, "{back} come back");
            }
            Move::Wait => after.now += TICK,
            Move::Reconfigure(to) => {
                limiter.reconfigure(self.settings[to], &now);
                after.settings = to;
                after.used.clear();
                let out = |limiter: &Limiter, had: i64| i64::from(limiter.config().burst()) - had;
                let was = i64::from(config.burst()) - had;
                assert_eq!(out(&limiter, limiter.available(&now)), was, "what is taken stays taken");
            }
        }
        after.arrival = limiter.arrival.get();
        if let Some(permits) = taken {
            assert_eq!(limiter.available(&now), had - i64::from(permits), "what was taken");
        } else if !matches!(step, Move::Drop(_) | Move::Reconfigure(_)) {
            assert_eq!(after.arrival, before.arrival, "nothing was taken");
        }
        self.canonical(after)
    }

    fn check(&self, moment: &Moment) {
        let (limiter, config) = (self.limiter(moment), self.settings[moment.settings].get());
        let (burst, queue) = (i64::from(config.burst()), i64::from(config.queue));
        let available = |after: Span| limiter.available(&nanos(moment.now).after(after));
        let now = available(Span::ZERO);
        assert!((-queue..=burst).contains(&now), "{now} are there");
        assert_eq!(available(config.interval), burst.min(now + 1), "one comes back in each interval");
        assert_eq!(Arrival::unpack(moment.arrival.pack().0, 0), moment.arrival, "packed and unpacked");
        for permits in 1..=config.burst() {
            let at = limiter.available_at(permits, &nanos(moment.now)).expect("there are so many");
            assert_eq!(at.as_nanos() == moment.now, now >= i64::from(permits), "{permits} at {at:?}");
        }
        // In each window that begins and ends with a permit, whether it was used or will be.
        let reserved = moment.reserved.iter().flat_map(|(permits, taken)| (0..*permits).map(|_| taken.at.as_nanos()));
        let mut used: Vec<u64> = moment.used.iter().copied().chain(reserved).collect();
        used.retain(|at| *at + REMEMBERED * TICK > moment.now);
        used.sort_unstable();
        for (place, first) in used.iter().enumerate() {
            for (more, last) in used[place..].iter().enumerate() {
                let most = u64::from(config.burst()) + (last - first) / config.interval.as_nanos();
                assert!((more as u64) < most, "{} within {} ns", more + 1, last - first);
            }
        }
    }

    fn is_home(&self, moment: &Moment) -> bool {
        moment.arrival.0 <= NOW && moment.reserved.is_empty() && moment.used.is_empty()
    }

    fn leads_home(&self, step: Move) -> bool {
        matches!(step, Move::Wait | Move::Commit(_))
    }
}

impl InUse {
    /// The same call passes at the instant that the rejection names, and not before.
    fn check_retry_at(&self, moment: &Moment, permits: u32, rejected: Rejected) {
        let config = self.settings[moment.settings].get();
        let Some(at) = rejected.retry_at() else {
            assert!(permits > config.burst(), "it never passes");
            return;
        };
        let passes = |at: u64| self.limiter(moment).try_acquire_many(permits, &nanos(at)).is_ok();
        assert!(!passes(at.as_nanos() - 1), "a nanosecond before its time");
        assert!(passes(at.as_nanos()), "at its time");
    }
}

/// One in 2 ticks, 2 at once.
const fn base() -> Config {
    Config::new(1, ticks(2)).with_burst(2)
}

#[test]
fn without_a_queue() {
    let settings = const { &[valid!(base().with_burst(3).validate())] };
    let steps = &[Move::Take(0), Move::Take(1), Move::Take(2), Move::Take(4), Move::Wait];
    explore("rate limiter", 590, &InUse { settings, steps, reservations: 0 });
}

#[test]
fn reservations() {
    let settings = const { &[valid!(base().with_queue(2, ticks(3)).validate())] };
    let steps =
        &[Move::Take(1), Move::Take(2), Move::Reserve(1, 9), Move::Reserve(2, 9), Move::Reserve(1, 1), Move::Wait];
    explore("rate limiter, reservations", 26_000, &InUse { settings, steps, reservations: 3 });
}

#[test]
fn other_settings() {
    let settings = const {
        &[
            valid!(base().with_queue(2, ticks(4)).validate()),
            valid!(Config::new(1, ticks(1)).with_burst(3).with_queue(1, ticks(4)).validate()),
        ]
    };
    let steps = &[Move::Take(1), Move::Take(2), Move::Reserve(1, 9), Move::Wait];
    explore("rate limiter, other settings", 20_000, &InUse { settings, steps, reservations: 1 });
}
