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
