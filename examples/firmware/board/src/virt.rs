//! QEMU's `virt` machine: RISC-V, as a chip might be.

use crate::register::Register;

/// The timer's.
pub(crate) const TIMER_HZ: u32 = 10_000_000;

pub(crate) fn start() {}

/// The machine has none.
pub(crate) use crate::watchdog::software as watchdog;

/// Resets the machine.
pub(crate) fn reset() {
    const TEST: Register = Register::at(0x0010_0000);
    const RESET: u32 = 0x7777;
    TEST.write(RESET);
}

/// The lower half of the timer's own count, as it is.
pub(crate) mod reference {
    use crate::register::Register;

    pub(crate) const HZ: u32 = super::TIMER_HZ;

    const COUNT: Register = Register::at(0x0200_BFF8);

    pub(crate) fn start() {}

    pub(crate) fn read() -> u32 {
        COUNT.read()
    }
}

/// The 16550 UART, without its FIFOs.
pub(crate) mod uart {
    use crate::register::Register;

    pub(crate) const INTERRUPT: u16 = 10;

    const DATA: Register<u8> = Register::at(0x1000_0000);
    const INTERRUPT_ENABLE: Register<u8> = Register::at(0x1000_0001);
    const INTERRUPT_IDENTITY: Register<u8> = Register::at(0x1000_0002);
    const LINE: Register<u8> = Register::at(0x1000_0003);
    const STATUS: Register<u8> = Register::at(0x1000_0005);

    const EIGHT_BITS: u8 = 3;
    const RECEIVED: u8 = 1;
    const SENT: u8 = 1 << 1;
    const READY: u8 = 1;
    const IDENTITY: u8 = 0xF;
    const IS_SENT: u8 = 2;

    pub(crate) fn start() {
        LINE.write(EIGHT_BITS);
        INTERRUPT_ENABLE.write(RECEIVED | SENT);
    }

    /// The next received byte.
    pub(crate) fn receive() -> Option<u8> {
        (STATUS.read() & READY != 0).then(|| DATA.read())
    }

    /// Starts to send a byte; the one before it must have left.
    pub(crate) fn send(byte: u8) {
        DATA.write(byte);
    }

    /// Whether a byte has left since the last call. Reading this says so once.
    pub(crate) fn take_sent() -> bool {
        INTERRUPT_IDENTITY.read() & IDENTITY == IS_SENT
    }
}
