//! Stellaris LM3S6965 evaluation board: Cortex-M3, or whatever core the emulator is told to put there.

use crate::register::Register;

/// A whole number of cycles per microsecond: see [`start`].
pub(crate) const CORE_HZ: u32 = 20_000_000;

/// Of the last PWM generator, which nothing here uses.
pub(crate) const SPARE_INTERRUPT: u16 = 12;

const RUN_MODE_CLOCK: Register = Register::at(0x400F_E060);
const DIVISOR: u32 = 0xF << 23;
const USE_DIVISOR: u32 = 1 << 22;

/// Divides the PLL's 200 MHz by ten. At reset it is sixteen, and 12.5 MHz can't count microseconds.
pub(crate) fn start() {
    RUN_MODE_CLOCK.write(RUN_MODE_CLOCK.read() & !DIVISOR | (10 - 1) << 23 | USE_DIVISOR);
}

/// The watchdog timer: it interrupts when it has counted down, which nobody listens to, and resets the chip when it has done so again.
pub(crate) mod watchdog {
    use embassy_time::Duration;

    use super::CORE_HZ;
    use crate::register::Register;

    pub(crate) const IS_HARDWARE: bool = true;

    const LOAD: Register = Register::at(0x4000_0000);
    const CONTROL: Register = Register::at(0x4000_0008);
    const INTERRUPT_CLEAR: Register = Register::at(0x4000_000C);
    const LOCK: Register = Register::at(0x4000_0C00);

    const UNLOCKED: u32 = 0x1ACC_E551;
    const INTERRUPTS_AND_RESETS: u32 = 1 | 1 << 1;

    /// In virtual time it may bite after half of the period by the core's timer: whenever the core sleeps, QEMU can go on to the timer's
    /// second wrap, and that one is not counted.
    pub(crate) fn start(period: Duration) {
        let cycles = period.as_micros() * u64::from(CORE_HZ / 1_000_000);
        LOCK.write(UNLOCKED);
        LOAD.write(u32::try_from(cycles / 2).unwrap_or(u32::MAX));
        CONTROL.write(INTERRUPTS_AND_RESETS);
    }

    /// Counts down from the start again.
    pub(crate) fn feed(_period: Duration) {
        INTERRUPT_CLEAR.write(1);
    }
}

/// The watchdog timer once more, as a counter, in images in which it is no watchdog.
pub(crate) mod reference {
    use crate::register::Register;

    pub(crate) const HZ: u32 = super::CORE_HZ;

    const LOAD: Register = Register::at(0x4000_0000);
    const VALUE: Register = Register::at(0x4000_0004);
    const CONTROL: Register = Register::at(0x4000_0008);

    const ENABLED: u32 = 1;

    pub(crate) fn start() {
        LOAD.write(u32::MAX);
        CONTROL.write(ENABLED);
    }

    pub(crate) fn read() -> u32 {
        u32::MAX - VALUE.read()
    }
}

/// The PL011 UART. Without its FIFOs there is one interrupt per byte, sent or received.
pub(crate) mod uart {
    use crate::register::Register;

    pub(crate) const INTERRUPT: u16 = 5;

    const DATA: Register = Register::at(0x4000_C000);
    const FLAGS: Register = Register::at(0x4000_C018);
    const LINE: Register = Register::at(0x4000_C02C);
    const CONTROL: Register = Register::at(0x4000_C030);
    const INTERRUPT_MASK: Register = Register::at(0x4000_C038);
    const INTERRUPT_RAW: Register = Register::at(0x4000_C03C);
    const INTERRUPT_CLEAR: Register = Register::at(0x4000_C044);

    const RX_EMPTY: u32 = 1 << 4;
    const EIGHT_BITS: u32 = 3 << 5;
    const ENABLED: u32 = 1 | 1 << 8 | 1 << 9;
    const RECEIVED: u32 = 1 << 4;
    const SENT: u32 = 1 << 5;

    pub(crate) fn start() {
        LINE.write(EIGHT_BITS);
        CONTROL.write(ENABLED);
        INTERRUPT_MASK.write(RECEIVED | SENT);
    }

    /// The next received byte.
    pub(crate) fn receive() -> Option<u8> {
        INTERRUPT_CLEAR.write(RECEIVED);
        (FLAGS.read() & RX_EMPTY == 0).then(|| DATA.read().to_le_bytes()[0])
    }

    /// Starts to send a byte; the one before it must have left.
    pub(crate) fn send(byte: u8) {
        DATA.write(byte.into());
    }

    /// Whether a byte has left since the last call.
    pub(crate) fn take_sent() -> bool {
        let sent = INTERRUPT_RAW.read() & SENT != 0;
        INTERRUPT_CLEAR.write(SENT);
        sent
    }
}

/// The Ethernet controller. Its FIFOs hold whole frames, which pass a word at a time.
pub(crate) mod ethernet {
    use crate::register::Register;

    pub(crate) const INTERRUPT: u16 = 42;
    /// The length of the longest frame, without its checksum.
    pub(crate) const LONGEST: usize = 1_514;

    /// Reading it tells which interrupts are pending, writing it ends them.
    const PENDING: Register = Register::at(0x4004_8000);
    const INTERRUPT_MASK: Register = Register::at(0x4004_8004);
    const RECEIVE_CONTROL: Register = Register::at(0x4004_8008);
    const TRANSMIT_CONTROL: Register = Register::at(0x4004_800C);
    const DATA: Register = Register::at(0x4004_8010);
    const ADDRESS: [Register; 2] = [Register::at(0x4004_8014), Register::at(0x4004_8018)];
    const RECEIVED_FRAMES: Register = Register::at(0x4004_8034);
    const TRANSMIT: Register = Register::at(0x4004_8038);

    const RECEIVED: u32 = 1;
    const SENT: u32 = 1 << 2;
    const ENABLED: u32 = 1;
    const EMPTY_RECEIVE_FIFO: u32 = 1 << 4;
    const PAD: u32 = 1 << 1;
    const CHECKSUM: u32 = 1 << 2;
    const COUNT: u32 = 0x3F;

    /// What a received frame's length counts besides the frame: itself and the checksum.
    const AROUND: usize = 2 + 4;
    /// What the length of a frame to send doesn't count: two addresses and the type.
    const HEADER: usize = 14;

    pub(crate) fn start([a, b, c, d, e, f]: [u8; 6]) {
        ADDRESS[0].write(u32::from_le_bytes([a, b, c, d]));
        ADDRESS[1].write(u32::from_le_bytes([e, f, 0, 0]));
        RECEIVE_CONTROL.write(EMPTY_RECEIVE_FIFO);
        RECEIVE_CONTROL.write(ENABLED);
        TRANSMIT_CONTROL.write(ENABLED | PAD | CHECKSUM);
        INTERRUPT_MASK.write(RECEIVED | SENT);
    }

    pub(crate) fn acknowledge_interrupts() {
        PENDING.write(PENDING.read());
    }

    pub(crate) fn has_received() -> bool {
        RECEIVED_FRAMES.read() & COUNT != 0
    }

    /// Takes the next frame, of which there must be one, and returns its length. What is longer than `frame` is cut.
    pub(crate) fn receive(frame: &mut [u8; LONGEST]) -> usize {
        let [low, high, first @ ..] = DATA.read().to_le_bytes();
        let len = usize::from(u16::from_le_bytes([low, high]));
        let words = len.div_ceil(4).saturating_sub(1);
        let bytes = first.into_iter().chain((0..words).flat_map(|_| DATA.read().to_le_bytes()));
        let mut places = frame.iter_mut();
        // All of it, so that the next word begins the next frame.
        bytes.for_each(|byte| {
            if let Some(place) = places.next() {
                *place = byte;
            }
        });
        len.saturating_sub(AROUND).min(LONGEST)
    }

    /// Whether a frame is on its way out.
    pub(crate) fn is_sending() -> bool {
        TRANSMIT.read() & 1 != 0
    }

    /// Starts to send a frame; the one before it must have left.
    pub(crate) fn send(frame: &[u8]) {
        let len = u16::try_from(frame.len().saturating_sub(HEADER)).unwrap_or(u16::MAX);
        let mut bytes = len.to_le_bytes().into_iter().chain(frame.iter().copied());
        while let Some(byte) = bytes.next() {
            let mut next = || bytes.next().unwrap_or_default();
            DATA.write(u32::from_le_bytes([byte, next(), next(), next()]));
        }
        TRANSMIT.write(1);
    }
}
