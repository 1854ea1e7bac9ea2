//! BBC micro:bit: nRF51822, Cortex-M0.

/// The chip runs at its crystal's speed.
pub(crate) const CORE_HZ: u32 = 16_000_000;

/// The first of those that only software pends.
pub(crate) const SPARE_INTERRUPT: u16 = 20;

pub(crate) fn start() {}

/// The emulator has none.
pub(crate) use crate::watchdog::software as watchdog;

/// The nRF51's first timer, of 32 bits at full speed.
pub(crate) mod reference {
    use crate::register::Register;

    pub(crate) const HZ: u32 = super::CORE_HZ;

    const START: Register = Register::at(0x4000_8000);
    const CAPTURE: Register = Register::at(0x4000_8040);
    const WIDTH: Register = Register::at(0x4000_8508);
    const PRESCALER: Register = Register::at(0x4000_8510);
    const CAPTURED: Register = Register::at(0x4000_8540);

    const BITS_32: u32 = 3;

    pub(crate) fn start() {
        WIDTH.write(BITS_32);
        PRESCALER.write(0);
        START.write(1);
    }

    pub(crate) fn read() -> u32 {
        CAPTURE.write(1);
        CAPTURED.read()
    }
}

/// The nRF51 UART: events instead of flags, one byte each.
pub(crate) mod uart {
    use crate::register::Register;

    pub(crate) const INTERRUPT: u16 = 2;

    const START_RX: Register = Register::at(0x4000_2000);
    const START_TX: Register = Register::at(0x4000_2008);
    const RX_READY: Register = Register::at(0x4000_2108);
    const TX_READY: Register = Register::at(0x4000_211C);
    const INTERRUPT_SET: Register = Register::at(0x4000_2304);
    const ENABLE: Register = Register::at(0x4000_2500);
    const RXD: Register = Register::at(0x4000_2518);
    const TXD: Register = Register::at(0x4000_251C);
    const BAUD_RATE: Register = Register::at(0x4000_2524);

    const ENABLED: u32 = 4;
    const BAUD_115200: u32 = 0x01D7_E000;
    const ON_RX_READY: u32 = 1 << 2;
    const ON_TX_READY: u32 = 1 << 7;

    pub(crate) fn start() {
        BAUD_RATE.write(BAUD_115200);
        ENABLE.write(ENABLED);
        INTERRUPT_SET.write(ON_RX_READY | ON_TX_READY);
        START_RX.write(1);
        START_TX.write(1);
    }

    /// The next received byte.
    pub(crate) fn receive() -> Option<u8> {
        if RX_READY.read() == 0 {
            return None;
        }
        // Before the read, which announces the byte after it.
        RX_READY.write(0);
        Some(RXD.read().to_le_bytes()[0])
    }

    /// Starts to send a byte; the one before it must have left.
    pub(crate) fn send(byte: u8) {
        TXD.write(byte.into());
    }

    /// Whether a byte has left since the last call.
    pub(crate) fn take_sent() -> bool {
        let sent = TX_READY.read() != 0;
        TX_READY.write(0);
        sent
    }
}
