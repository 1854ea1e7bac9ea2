//! Random tries against a table of what must come of them.

use super::*;
use crate::rng::Rng;

/// What one try does: after so many milliseconds it answers so, or it hangs.
#[derive(Clone, Copy, Debug)]
enum Try {
    Hangs,
    Answers(u64, Result<u32, Fails>),
}

impl Try {
    fn random(rng: &mut Rng, hedge: u32) -> Self {
        let answer = match rng.next() % 8 {
            0 => return Self::Hangs,
            1 | 2 => Ok(hedge),
            3 => Err(Fails::Fatal(hedge)),
            _ => Err(Fails::Transient(hedge)),
        };
        Self::Answers(u64::from(rng.next() % 60), answer)
    }
}

/// What must come of it: when, what, and how many tries there have been. `None`: it hangs.
fn expected(delay: u64, all: u32, tries: &[Try]) -> Option<(Duration, Result<u32, Failure<Fails>>, u32)> {
    let ends = tries.iter().zip(0_u32..).filter_map(|(what, hedge)| match *what {
        Try::Hangs => None,
        Try::Answers(after, answer) => Some((u64::from(hedge) * delay + after, hedge, answer)),
    });
    let fails = |cause, attempts, stop| Failure { cause: Cause::Inner(cause), attempts, stop: Some(stop) };
    // The first of those that decide, in time; of several at the same time, the earliest try.
    let decides = |answer: &Result<u32, Fails>| !matches!(answer, Err(Fails::Transient(_)));
    if let Some((end, hedge, answer)) =
        ends.clone().filter(|(.., answer)| decides(answer)).min_by_key(|end| (end.0, end.1))
    {
        // Those that were due before, or that had to start for this one.
        let started = (0..all).filter(|other| u64::from(*other) * delay < end || *other <= hedge).map(|_| 1).sum();
        return Some((ms(end), answer.map_err(|error| fails(error, started, Stop::NotRetryable)), started));
    }
    // Else the last failure, and only if nobody hangs.
    let (end, _, answer) = ends.clone().max_by_key(|end| (end.0, end.1))?;
    (ends.count() == tries.len()).then(|| (ms(end), answer.map_err(|error| fails(error, all, Stop::Attempts)), all))
}

fn check<const N: usize>(seed: u64)
where
    Hedges<N>: Room,
{
    let mut rng = Rng::new(seed);
    let delay = u64::from(rng.next() % 4) * 10;
    let all = Hedges::<N>::HEDGES + 1;
    let tries: Vec<_> = (0..all).map(|hedge| Try::random(&mut rng, hedge)).collect();
    let (rig, started) = (Rig::new(), Cell::new(0));
    let pipeline = Pipeline::new(&rig).layer(after::<N>(ms(delay))).classify(verdict);
    let mut call = pin!(pipeline.call(|attempt| {
        started.set(started.get() + 1);
        let (rig, what) = (&rig, tries[attempt.hedge() as usize]);
        async move {
            match what {
                Try::Hangs => crate::testing::never().await,
                Try::Answers(0, answer) => answer,
                Try::Answers(after, answer) => {
                    rig.sleep_until(rig.now().saturating_add(ms(after))).await;
                    answer
                }
            }
        }
    }));
    let came = loop {
        if let Poll::Ready(result) = poll_once(call.as_mut()) {
            break Some((rig.elapsed(), result, started.get()));
        }
        if !rig.jump() {
            break None;
        }
    };
    assert_eq!(came, expected(delay, all, &tries), "seed {seed}: {N} hedges after {delay} ms each of {tries:?}");
    assert_eq!(rig.live(), 0, "seed {seed}");
}

#[test]
fn random_tries_come_to_what_a_table_says() {
    for seed in 0..3_000 {
        check::<1>(seed);
        check::<2>(seed);
        check::<3>(seed);
        check::<7>(seed);
    }
}
