//! What an image and its emulator tell each other, by semihosting.

/// How the board ends an image by itself. An image chooses its own codes below these.
pub mod exit_code {
    /// A hard fault, or an interrupt that nobody handles.
    pub const FAULT: u8 = 70;
    /// The [`Watchdog`](crate::Watchdog) was not fed in time.
    pub const WATCHDOG: u8 = 71;
    /// A panic, as in programs on a host.
    pub const PANIC: u8 = 101;
}

/// Ends the image and the emulator, with `code` as its exit status.
pub fn exit(code: u8) -> ! {
    semihosting::process::exit(code.into())
}

/// The number given as `NAME=NUMBER` on the emulator's command line.
pub fn argument(name: &str) -> Option<u32> {
    let arguments = semihosting::experimental::env::args::<128>().ok()?;
    (&arguments).into_iter().flatten().find_map(|argument| {
        let (key, value) = argument.split_once('=')?;
        if key == name { value.parse().ok() } else { None }
    })
}
