//! The uplink: how a device hands its readings to a server over TCP.
//!
//! A frame is its length, a kind, and a body; numbers are in network order. Each reading has a sequence number. The
//! server acknowledges what it has taken, so a reading whose acknowledgement got lost arrives twice, and the number
//! tells that it is the same one.

use core::time::Duration;

/// The most readings in one request.
pub const BATCH: usize = 16;
/// The most readings in one run: what a [`Set`] has room for.
pub const READINGS: u32 = 1_024;

/// After so many failed attempts in a row the device leaves the server alone...
pub const FAILURES: u32 = 4;
/// ...at least for so long at a time, and then tries once.
pub const LEFT_ALONE: Duration = Duration::from_millis(500);

/// Before a frame: the length of what follows.
pub const LENGTH: usize = 2;
/// The length of the longest frame, without its own.
pub const LONGEST: usize = 1 + Books::LEN;

const READINGS_KIND: u8 = 1;
const CLOSING_KIND: u8 = 2;
const ACKNOWLEDGED_KIND: u8 = 0x81;
const CLOSED_KIND: u8 = 0x82;

/// A set of readings, by their sequence numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Set([u8; Self::LEN]);

impl Set {
    const LEN: usize = (READINGS / 8) as usize;

    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self([0; Self::LEN])
    }

    /// Adds a reading. Returns whether it was not in there yet; one beyond [`READINGS`] never is.
    pub fn insert(&mut self, reading: u32) -> bool {
        let bit = 1 << (reading % 8);
        let Some(byte) = self.0.get_mut((reading / 8) as usize) else { return true };
        let is_new = *byte & bit == 0;
        *byte |= bit;
        is_new
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all of these are in `other` too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).all(|(own, others)| own & !others == 0)
    }
}

impl Default for Set {
    fn default() -> Self {
        Self::new()
    }
}

/// What one side believes at the end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Books {
    /// The readings that there were, as far as this side knows.
    pub taken: u32,
    /// Those of them that the server has acknowledged.
    pub acknowledged: Set,
}

impl Books {
    const LEN: usize = 4 + Set::LEN;

    fn encode(&self, frame: &mut Frame) {
        frame.put(&self.taken.to_be_bytes());
        frame.put(&self.acknowledged.0);
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (taken, set) = body.split_first_chunk()?;
        Some(Self { taken: u32::from_be_bytes(*taken), acknowledged: Set(set.try_into().ok()?) })
    }
}

/// What the device sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request<'a> {
    /// Consecutive readings; none at all only asks whether the server is there.
    Readings {
        /// How many steps below full service the device is.
        level: u8,
        /// The sequence number of the first one.
        first: u32,
        /// Two bytes for each.
        values: &'a [[u8; 2]],
    },
    /// The last request: all that is to be sent has been sent.
    Closing(Books),
}

impl<'a> Request<'a> {
    /// The frame to send; only the first [`BATCH`] values find a place in it.
    #[must_use]
    pub fn encode(&self) -> Frame {
        match self {
            Self::Readings { level, first, values } => {
                let mut frame = Frame::new(READINGS_KIND);
                frame.put(&[*level]);
                frame.put(&first.to_be_bytes());
                for value in values.iter().take(BATCH) {
                    frame.put(value);
                }
                frame
            }
            Self::Closing(books) => {
                let mut frame = Frame::new(CLOSING_KIND);
                books.encode(&mut frame);
                frame
            }
        }
    }

    /// The request in a received frame, without its length.
    #[must_use]
    pub fn decode(frame: &'a [u8]) -> Option<Self> {
        match frame {
            [READINGS_KIND, level, body @ ..] => {
                let (first, values) = body.split_first_chunk()?;
                let (values, []) = values.as_chunks() else { return None };
                let first = u32::from_be_bytes(*first);
                (values.len() <= BATCH).then_some(Self::Readings { level: *level, first, values })
            }
            [CLOSING_KIND, body @ ..] => Books::decode(body).map(Self::Closing),
            _ => None,
        }
    }
}

/// What the server answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    /// These are safe: the request's own.
    Acknowledged {
        /// The sequence number of the first one.
        first: u32,
        /// How many.
        count: u8,
        /// The server has played its whole script: the device is to close.
        over: bool,
    },
    /// To the last request.
    Closed(Books),
}

impl Reply {
    /// The frame to send.
    #[must_use]
    pub fn encode(&self) -> Frame {
        match self {
            Self::Acknowledged { first, count, over } => {
                let mut frame = Frame::new(ACKNOWLEDGED_KIND);
                frame.put(&first.to_be_bytes());
                frame.put(&[*count, u8::from(*over)]);
                frame
            }
            Self::Closed(books) => {
                let mut frame = Frame::new(CLOSED_KIND);
                books.encode(&mut frame);
                frame
            }
        }
    }

    /// The reply in a received frame, without its length.
    #[must_use]
    pub fn decode(frame: &[u8]) -> Option<Self> {
        match frame {
            [ACKNOWLEDGED_KIND, body @ ..] => {
                let (first, [count, over @ (0 | 1)]) = body.split_first_chunk()? else { return None };
                Some(Self::Acknowledged { first: u32::from_be_bytes(*first), count: *count, over: *over == 1 })
            }
            [CLOSED_KIND, body @ ..] => Books::decode(body).map(Self::Closed),
            _ => None,
        }
    }
}

/// A frame to send, with its length before it.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    bytes: [u8; LENGTH + LONGEST],
    len: usize,
}

impl Frame {
    fn new(kind: u8) -> Self {
        let mut frame = Self { bytes: [0; LENGTH + LONGEST], len: LENGTH };
        frame.put(&[kind]);
        frame
    }

    /// Every body is one that fits.
    fn put(&mut self, part: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(self.len).zip(part) {
            *place = *byte;
            self.len += 1;
        }
        let length = u16::try_from(self.len - LENGTH).unwrap_or(u16::MAX);
        if let Some(place) = self.bytes.first_chunk_mut() {
            *place = length.to_be_bytes();
        }
    }

    /// All its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// The length of a frame as it stands before it, if there can be such a frame.
#[must_use]
pub fn length(before: [u8; LENGTH]) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes(before));
    (1..=LONGEST).contains(&length).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows the length, once that is right.
    fn body(frame: &Frame) -> &[u8] {
        let (before, body) = frame.as_bytes().split_first_chunk().expect("its length comes first");
        assert_eq!(length(*before), Some(body.len()));
        body
    }

    fn books() -> Books {
        let mut acknowledged = Set::new();
        for reading in [0, 7, 8, READINGS - 1] {
            assert!(acknowledged.insert(reading));
        }
        Books { taken: READINGS, acknowledged }
    }

    #[test]
    fn a_request_survives_the_line() {
        for count in [0, 1, BATCH] {
            let values = &[[1, 2]; BATCH][..count];
            let request = Request::Readings { level: 2, first: 0x0102_0304, values };
            assert_eq!(Request::decode(body(&request.encode())), Some(request));
        }
        let request = Request::Closing(books());
        assert_eq!(Request::decode(body(&request.encode())), Some(request));
    }

    #[test]
    fn a_reply_survives_the_line() {
        for over in [false, true] {
            let reply = Reply::Acknowledged { first: 0x0102_0304, count: 16, over };
            assert_eq!(Reply::decode(body(&reply.encode())), Some(reply));
        }
        let reply = Reply::Closed(books());
        assert_eq!(Reply::decode(body(&reply.encode())), Some(reply));
    }

    #[test]
    fn no_cut_frame_passes_for_a_whole_one() {
        for reply in [Reply::Acknowledged { first: 1, count: 1, over: true }, Reply::Closed(books())] {
            let frame = reply.encode();
            for len in 0..body(&frame).len() {
                assert_eq!(Reply::decode(&body(&frame)[..len]), None);
            }
        }
    }

    #[test]
    fn a_length_that_no_frame_has_is_refused() {
        assert_eq!(length([0, 0]), None);
        assert_eq!(length([0, 1]), Some(1));
        assert_eq!(length([0xFF, 0xFF]), None);
    }

    #[test]
    fn a_reading_is_new_once() {
        let mut set = books().acknowledged;
        assert_eq!(set.len(), 4);
        assert!(!set.insert(8));
        assert!(set.is_subset(&set));
        let before = set;
        assert!(set.insert(9));
        assert!(before.is_subset(&set) && !set.is_subset(&before));
    }
}
