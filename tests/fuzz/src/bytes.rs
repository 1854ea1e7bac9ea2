//! What an input is decoded with: values that are mostly small, now and then as large as their type.

use core::time::Duration;

use failsoft_core::backoff::{Backoff, Jitter};
use failsoft_core::bulkhead::Priority;
use failsoft_core::{ConfigError, Instant, Ratio, Verdict};

/// The most steps of a script: fewer than a breaker has generations.
const STEPS: usize = 400;

/// An input that is read from its front; past its end there are zeroes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'d>(&'d [u8]);

impl<'d> Bytes<'d> {
    pub(crate) const fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn long(&mut self, bytes: u32) -> u64 {
        (0..bytes).fold(0, |value, _| value << 8 | u64::from(self.byte()))
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.long(8)
    }

    pub(crate) fn random(&mut self) -> u32 {
        u32::try_from(self.long(4)).unwrap_or(0)
    }

    pub(crate) fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    /// A place in an array.
    pub(crate) fn place<const N: usize>(&mut self) -> usize {
        usize::from(self.byte()) % N
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Mostly below sixteen.
    pub(crate) fn count(&mut self) -> u32 {
        match self.byte() {
            byte @ 0..=199 => u32::from(byte) % 16,
            200..=229 => self.byte().into(),
            230..=239 => u32::try_from(self.long(2)).unwrap_or(0),
            240..=244 => self.random(),
            245 => u32::MAX,
            246 => u32::MAX - 1,
            247 => 1 << 31,
            // What the library's own counters hold, and one more.
            248 => (1 << 21) - 1,
            249 => 1 << 21,
            250 => 65_535,
            251 => 65_536,
            252 => 255,
            253 => 256,
            _ => 100,
        }
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::try_from(self.count()).unwrap_or(u16::MAX)
    }

    pub(crate) fn span(&mut self) -> Duration {
        match self.byte() % 16 {
            0 => Duration::ZERO,
            1..=5 => Duration::from_millis(self.long(1)),
            6 | 7 => Duration::from_secs(self.long(1)),
            8 => Duration::from_micros(self.long(2)),
            9 => Duration::from_nanos(self.long(4)),
            10 => Duration::from_nanos(self.long(1)),
            11 => Duration::from_nanos(self.word()),
            12 => Duration::from_nanos(u64::MAX - self.long(1)),
            // Halves, where signs change.
            13 => Duration::from_nanos((1_u64 << 63).wrapping_sub(self.long(1))),
            14 => Duration::from_secs(self.long(4)),
            _ => Duration::MAX,
        }
    }

    /// Milliseconds, so that settings and steps are of an order.
    pub(crate) fn pause(&mut self) -> Duration {
        match self.byte() {
            byte @ 0..=219 => Duration::from_millis(u64::from(byte) * 4),
            _ => self.span(),
        }
    }

    pub(crate) fn ratio(&mut self) -> Ratio {
        match self.byte() {
            byte @ 0..=219 => Ratio::percent(u32::from(byte) / 2),
            220..=239 => Ratio::basis_points(u32::try_from(self.long(2)).unwrap_or(0)),
            240..=244 => Ratio::basis_points(self.random()),
            245 => Ratio::ZERO,
            246 => Ratio::ONE,
            247 => Ratio::basis_points(10_001),
            248 => Ratio::basis_points(9_999),
            249 => Ratio::basis_points(1),
            250 => Ratio::basis_points(u32::MAX),
            _ => Ratio::percent(u32::from(self.byte()) * 8),
        }
    }

    pub(crate) fn verdict(&mut self) -> Verdict {
        let verdict = match self.below(4) {
            0 => Verdict::SUCCESS,
            1 => Verdict::TRANSIENT,
            2 => Verdict::PERMANENT,
            _ => Verdict::IGNORED,
        };
        let flags = self.byte();
        let set = |bit: u8| flags >> bit & 1 == 1;
        let verdict = if set(0) && set(5) { verdict.with_slow() } else { verdict };
        let verdict = if set(1) && set(6) { verdict.with_opening() } else { verdict };
        let verdict = if set(2) && set(7) { verdict.with_throttled() } else { verdict };
        let verdict = if set(3) && set(5) { verdict.with_retryable(set(0)) } else { verdict };
        match flags & 0xB0 {
            0xA0 => verdict.with_retry_after(self.pause()),
            0x90 => verdict.with_delay(self.pause()),
            0xB0 => verdict.with_cost(self.short()),
            _ => verdict,
        }
    }

    pub(crate) fn priority(&mut self) -> Priority {
        match self.byte() {
            0..=127 => Priority::CRITICAL,
            128..=159 => Priority::HIGH,
            160..=191 => Priority::NORMAL,
            192..=223 => Priority::LOW,
            _ => Priority::new(self.ratio()).unwrap_or(Priority::CRITICAL),
        }
    }

    /// Any backoff, of settings that make no sense too.
    pub(crate) fn backoff(&mut self) -> Backoff {
        const TABLES: [&[Duration]; 4] =
            [&[], &[Duration::ZERO], &[Duration::from_millis(5), Duration::MAX], &[Duration::from_secs(1); 3]];
        let backoff = match self.below(7) {
            0 => Backoff::none(),
            1 => Backoff::constant(self.span()),
            2 => Backoff::linear(self.span()),
            3 => Backoff::linear(self.span()).with_step(self.span()),
            4 => Backoff::exponential(self.span()),
            5 => Backoff::fibonacci(self.span()),
            _ => Backoff::table(TABLES[self.place::<4>()]),
        };
        let backoff = if self.below(4) == 0 { backoff.with_factor(self.ratio()) } else { backoff };
        let backoff = if self.flag() { backoff.with_cap(self.span()) } else { backoff };
        match self.below(6) {
            0 => backoff.with_jitter(Jitter::None),
            1 => backoff.with_jitter(Jitter::Proportional(self.ratio())),
            2 => backoff.with_jitter(Jitter::Full),
            3 => backoff.with_jitter(Jitter::Equal),
            4 => backoff.with_jitter(Jitter::Decorrelated),
            _ => backoff,
        }
    }

    /// The rest of the input as a script. Only ticks move the clock; a steady one never goes back.
    pub(crate) fn script<Op>(
        &mut self,
        steady: bool,
        mut op: impl FnMut(&mut Self) -> Op,
    ) -> Vec<(Instant, Option<Op>)> {
        let mut now = Instant::START;
        let mut steps = Vec::new();
        while !self.is_empty() && steps.len() < STEPS {
            let tick = self.byte();
            let step = match tick {
                0..=159 => Some(op(self)),
                160..=229 => {
                    now = now.saturating_add(self.pause());
                    None
                }
                230..=244 => {
                    now = now.saturating_add(self.span());
                    None
                }
                // The clock was set.
                _ if steady => None,
                245..=251 => {
                    let nanos = u64::try_from(self.pause().as_nanos()).unwrap_or(u64::MAX);
                    now = Instant::from_nanos(now.as_nanos().saturating_sub(nanos));
                    None
                }
                252 => {
                    now = Instant::START;
                    None
                }
                253 => {
                    now = Instant::MAX;
                    None
                }
                _ => {
                    now = Instant::from_nanos(self.word());
                    None
                }
            };
            steps.push((now, step));
        }
        steps
    }
}

/// Settings that make no sense: the error must say something.
pub(crate) fn refused(error: &ConfigError) {
    assert!(!error.field().is_empty() && !error.problem().is_empty(), "an error that says nothing: {error:?}");
    assert!(error.to_string().contains(error.problem()), "the message leaves out the problem: {error}");
}

/// The settings, if they make sense.
pub(crate) fn accepted<T>(settings: Result<T, ConfigError>) -> Option<T> {
    settings.inspect_err(refused).ok()
}
