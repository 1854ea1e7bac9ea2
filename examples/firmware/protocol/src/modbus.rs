//! Modbus RTU, as much of it as reads one holding register.
//!
//! A frame is the device's address, a function code, data, and a CRC-16 over all of them, low byte first. See the *MODBUS Application
//! Protocol Specification* V1.1b3 and *MODBUS over Serial Line* V1.02.

const READ_HOLDING_REGISTERS: u8 = 3;
/// Set in the function code of an exception.
const EXCEPTION: u8 = 0x80;
const CRC_LEN: usize = 2;

/// The CRC-16 of Modbus: polynomial 0x8005, reflected, preset with ones.
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    // Bit by bit: a table would take 512 bytes of flash, and frames are short.
    bytes.iter().fold(0xFFFF, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 })
    })
}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FrameError {
    /// The checksum doesn't match: damaged on the line, or bytes are missing.
    Crc,
    /// Intact, but from or for somebody else, or another function.
    Unexpected,
}

/// Asks a device for one holding register.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReadRequest {
    /// The device's address.
    pub device: u8,
    /// The register's number.
    pub register: u16,
}

impl ReadRequest {
    /// The length of its frame.
    pub const LEN: usize = 8;

    /// The frame to send.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LEN] {
        let [high, low] = self.register.to_be_bytes();
        let mut frame = [self.device, READ_HOLDING_REGISTERS, high, low, 0, 1, 0, 0];
        seal(&mut frame);
        frame
    }

    /// The request in a received frame.
    ///
    /// # Errors
    ///
    /// When the frame is damaged, or asks for something else than one register.
    pub fn decode(frame: &[u8; Self::LEN]) -> Result<Self, FrameError> {
        match *open(frame)? {
            [device, READ_HOLDING_REGISTERS, high, low, 0, 1] => {
                Ok(Self { device, register: u16::from_be_bytes([high, low]) })
            }
            _ => Err(FrameError::Unexpected),
        }
    }
}

/// What a device answers to a [`ReadRequest`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    /// The register's value.
    Value(u16),
    /// The device can't answer; the code says why.
    Exception(u8),
}

impl Reply {
    /// The length of the longest frame.
    pub const MAX_LEN: usize = 7;
    const EXCEPTION_LEN: usize = 5;

    /// Writes the frame to send into `buffer`, and returns the part in use.
    pub fn encode(self, device: u8, buffer: &mut [u8; Self::MAX_LEN]) -> &[u8] {
        match self {
            Self::Value(value) => {
                let [high, low] = value.to_be_bytes();
                *buffer = [device, READ_HOLDING_REGISTERS, 2, high, low, 0, 0];
                seal(buffer);
                buffer
            }
            Self::Exception(code) => {
                *buffer = [device, READ_HOLDING_REGISTERS | EXCEPTION, code, 0, 0, 0, 0];
                let (frame, _) = buffer.split_at_mut(Self::EXCEPTION_LEN);
                seal(frame);
                frame
            }
        }
    }

    /// How long the frame is that begins with `received`, as far as one can tell.
    ///
    /// The shortest there is, until the function code tells more: so nobody waits for bytes that don't come.
    #[must_use]
    pub fn expected_len(received: &[u8]) -> usize {
        match received {
            [_, function, ..] if function & EXCEPTION == 0 => Self::MAX_LEN,
            _ => Self::EXCEPTION_LEN,
        }
    }

    /// The reply of `device` in a received frame.
    ///
    /// # Errors
    ///
    /// When the frame is damaged, or not this device's reply.
    pub fn decode(device: u8, frame: &[u8]) -> Result<Self, FrameError> {
        match *open(frame)? {
            [from, READ_HOLDING_REGISTERS, 2, high, low] if from == device => {
                Ok(Self::Value(u16::from_be_bytes([high, low])))
            }
            [from, function, code] if from == device && function == READ_HOLDING_REGISTERS | EXCEPTION => {
                Ok(Self::Exception(code))
            }
            _ => Err(FrameError::Unexpected),
        }
    }
}

/// Puts the checksum into the last two bytes.
fn seal(frame: &mut [u8]) {
    if let Some((body, crc)) = frame.split_last_chunk_mut::<CRC_LEN>() {
        *crc = crc16(body).to_le_bytes();
    }
}

/// What the checksum protects, if it matches.
fn open(frame: &[u8]) -> Result<&[u8], FrameError> {
    match frame.split_last_chunk::<CRC_LEN>() {
        Some((body, crc)) if crc16(body).to_le_bytes() == *crc => Ok(body),
        _ => Err(FrameError::Crc),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_catalogue() {
        assert_eq!(crc16(b"123456789"), 0x4B37);
    }

    #[test]
    fn a_request_asks_for_one_register_with_the_checksum_last() {
        let request = ReadRequest { device: 17, register: 0x006B };
        assert_eq!(request.encode(), [0x11, 0x03, 0x00, 0x6B, 0x00, 0x01, 0xF7, 0x46]);
        assert_eq!(ReadRequest::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn a_reply_survives_the_line() {
        for reply in [Reply::Value(0), Reply::Value(0x0123), Reply::Value(0xFFFF), Reply::Exception(4)] {
            let mut buffer = [0; Reply::MAX_LEN];
            let frame = reply.encode(17, &mut buffer);
            assert_eq!(Reply::expected_len(frame), frame.len());
            assert_eq!(Reply::decode(17, frame), Ok(reply));
            assert_eq!(Reply::decode(18, frame), Err(FrameError::Unexpected));
        }
    }

    #[test]
    fn no_damaged_byte_passes() {
        let mut buffer = [0; Reply::MAX_LEN];
        Reply::Value(0x0123).encode(17, &mut buffer);
        for place in 0..buffer.len() {
            for damage in 1..=u8::MAX {
                let mut frame = buffer;
                frame[place] ^= damage;
                assert_eq!(Reply::decode(17, &frame), Err(FrameError::Crc));
            }
        }
    }

    #[test]
    fn no_cut_frame_passes() {
        let mut buffer = [0; Reply::MAX_LEN];
        let frame = Reply::Value(0x0123).encode(17, &mut buffer);
        for len in 0..frame.len() {
            assert_eq!(Reply::decode(17, &frame[..len]), Err(FrameError::Crc));
        }
    }
}
