//! The flaky sensor: what it measures, and what becomes of a request on the line to it and back.

use core::fmt;
use core::time::Duration;

use fastrand::Rng;
use heapless::Vec;

use crate::modbus::{ReadRequest, Reply};
use crate::{DEVICE, PLAUSIBLE, TEMPERATURE};

/// Modbus: the device failed while it served the request.
const DEVICE_FAILURE: u8 = 4;
/// Modbus: no such register.
const ILLEGAL_ADDRESS: u8 = 2;

/// Those of the longest reply, twice.
pub const MOST_BYTES: usize = 2 * Reply::MAX_LEN;

/// The sensor's reply to its request of this number: a temperature that goes up and down.
#[must_use]
pub fn measure(request: ReadRequest, number: u32) -> Reply {
    if request.register != TEMPERATURE {
        return Reply::Exception(ILLEGAL_ADDRESS);
    }
    let span = PLAUSIBLE.end() - PLAUSIBLE.start();
    let step = u16::try_from(number % u32::from(2 * span)).unwrap_or_default();
    Reply::Value(PLAUSIBLE.start() + if step < span { step } else { 2 * span - step })
}

/// How good the line is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Line {
    /// That many of a hundred requests meet a fault.
    Faults(u8),
    /// No request is answered.
    Dead,
}

impl Line {
    /// What happens to the next request.
    pub fn fate(self, rng: &mut Rng) -> Fate {
        match self {
            Self::Dead => Fate::Withhold,
            Self::Faults(percent) if rng.u8(..100) < percent => Fate::fault(rng),
            Self::Faults(_) => Fate::Answer,
        }
    }
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It is answered.
    Answer,
    /// The request gets lost.
    Drop,
    /// The reply comes late.
    Delay(Duration),
    /// These bits of this byte of the reply are flipped.
    Corrupt {
        /// The byte's place.
        place: usize,
        /// The bits.
        mask: u8,
    },
    /// Only that many bytes of the reply arrive.
    Truncate(usize),
    /// The sensor answers that it failed.
    Exception,
    /// The byte at this place of the reply arrives twice.
    Stutter(usize),
    /// The reply arrives twice.
    Repeat,
    /// The sensor is off.
    Withhold,
}

impl Fate {
    fn fault(rng: &mut Rng) -> Self {
        match rng.u8(..7) {
            0 => Self::Drop,
            1 => Self::Delay(Duration::from_millis(rng.u64(40..200))),
            2 => Self::Corrupt { place: below(rng, Reply::MAX_LEN), mask: rng.u8(1..) },
            3 => Self::Truncate(1 + below(rng, Reply::MAX_LEN - 1)),
            4 => Self::Exception,
            5 => Self::Stutter(below(rng, Reply::MAX_LEN)),
            _ => Self::Repeat,
        }
    }

    /// How long the sensor takes over it beyond its usual time.
    #[must_use]
    pub fn delay(self) -> Duration {
        if let Self::Delay(delay) = self { delay } else { Duration::ZERO }
    }

    /// What arrives of the reply.
    #[must_use]
    pub fn bytes(self, reply: Reply) -> Vec<u8, MOST_BYTES> {
        let mut buffer = [0; Reply::MAX_LEN];
        let frame = match self {
            Self::Exception => Reply::Exception(DEVICE_FAILURE),
            _ => reply,
        }
        .encode(DEVICE, &mut buffer);
        match self {
            Self::Drop | Self::Withhold => Vec::new(),
            Self::Answer | Self::Delay(_) | Self::Exception => frame.iter().copied().collect(),
            Self::Corrupt { place, mask } => {
                let place = place % frame.len();
                (0..).zip(frame).map(|(at, byte)| if at == place { byte ^ mask } else { *byte }).collect()
            }
            Self::Truncate(len) => frame.iter().copied().take(len.min(frame.len() - 1)).collect(),
            Self::Stutter(place) => {
                let (before, from) = frame.split_at(place % frame.len());
                before.iter().chain(&from[..1]).chain(from).copied().collect()
            }
            Self::Repeat => frame.iter().chain(frame).copied().collect(),
        }
    }
}

/// Not by `Rng::usize`, which draws other numbers where an address has 32 bits.
fn below(rng: &mut Rng, end: usize) -> usize {
    usize::try_from(rng.u64(..end as u64)).unwrap_or_default()
}

/// The requests of a run, by what happened to them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(missing_docs, reason = "the fates' names")]
pub struct Counts {
    pub requests: u32,
    pub dropped: u32,
    pub delayed: u32,
    pub corrupted: u32,
    pub truncated: u32,
    pub exceptions: u32,
    pub stuttered: u32,
    pub repeated: u32,
    pub withheld: u32,
}

impl Counts {
    /// Counts one more request.
    pub fn count(&mut self, fate: Fate) {
        self.requests += 1;
        match fate {
            Fate::Answer => {}
            Fate::Drop => self.dropped += 1,
            Fate::Delay(_) => self.delayed += 1,
            Fate::Corrupt { .. } => self.corrupted += 1,
            Fate::Truncate(_) => self.truncated += 1,
            Fate::Exception => self.exceptions += 1,
            Fate::Stutter(_) => self.stuttered += 1,
            Fate::Repeat => self.repeated += 1,
            Fate::Withhold => self.withheld += 1,
        }
    }

    /// The requests that met a fault.
    #[must_use]
    pub fn faults(&self) -> u32 {
        let Self { requests: _, dropped, delayed, corrupted, truncated, exceptions, stuttered, repeated, withheld } =
            self;
        dropped + delayed + corrupted + truncated + exceptions + stuttered + repeated + withheld
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, dropped, delayed, corrupted, truncated, exceptions, stuttered, repeated, withheld } = self;
        write!(f, "{requests} requests; {dropped} dropped, {delayed} delayed, {corrupted} corrupted, ")?;
        write!(f, "{truncated} truncated, {exceptions} exceptions, ")?;
        if stuttered + repeated > 0 {
            write!(f, "{stuttered} stuttered, {repeated} repeated, ")?;
        }
        write!(f, "{withheld} withheld")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What arrives of a reply, from its first byte on, and what it is taken for.
    fn arrives(fate: Fate) -> (usize, Option<Reply>) {
        let bytes = fate.bytes(Reply::Value(0x0123));
        let frame = bytes.get(..Reply::expected_len(&bytes));
        (bytes.len(), frame.and_then(|frame| Reply::decode(DEVICE, frame).ok()))
    }

    #[test]
    fn each_fate_does_to_the_reply_what_its_name_says() {
        let value = Some(Reply::Value(0x0123));
        assert_eq!(arrives(Fate::Answer), (7, value));
        assert_eq!(arrives(Fate::Drop), (0, None));
        assert_eq!(arrives(Fate::Withhold), (0, None));
        assert_eq!(arrives(Fate::Delay(Duration::from_millis(40))), (7, value));
        assert_eq!(arrives(Fate::Exception), (5, Some(Reply::Exception(DEVICE_FAILURE))));
        assert_eq!(arrives(Fate::Repeat), (14, value));
        for place in 0..Reply::MAX_LEN {
            assert_eq!(arrives(Fate::Corrupt { place, mask: 0x10 }), (7, None));
            assert_eq!(arrives(Fate::Truncate(place)), (place, None));
            // Once more at the end: a whole reply, and a byte that is left over.
            assert_eq!(arrives(Fate::Stutter(place)), (8, if place == 6 { value } else { None }));
        }
    }

    #[test]
    fn every_kind_of_fault_is_drawn_and_counted() {
        let mut rng = Rng::with_seed(7);
        let mut counts = Counts::default();
        for _ in 0..7_000 {
            counts.count(Line::Faults(100).fate(&mut rng));
        }
        assert_eq!((counts.faults(), counts.requests, counts.withheld), (7_000, 7_000, 0));
        let Counts { dropped, delayed, corrupted, truncated, exceptions, stuttered, repeated, .. } = counts;
        for kind in [dropped, delayed, corrupted, truncated, exceptions, stuttered, repeated] {
            assert!((850..1_150).contains(&kind), "{counts}");
        }
    }
}
