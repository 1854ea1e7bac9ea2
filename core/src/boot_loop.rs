//! Boot loops: a device that resets again and again waits longer each time, and after some resets does only what is safe.
//!
//! The number of boots in a row that came to no good end is [retained](crate::retained) over the resets. A device that has run for long
//! enough is stable, and the count starts over; so it does after a power loss.
//!
//! ```
//! use core::time::Duration;
//! use failsoft_core::{boot_loop::{Boot, Config}, retained::Retained, testing::VirtualExecutor, valid};
//!
//! const LOOP: Config = Config::new().with_safe_mode_after(2).with_stable_after(Duration::from_secs(60));
//!
//! // On a chip, in a section that start-up leaves alone: `#[unsafe(link_section = ".uninit.boots")]`.
//! static BOOTS: Retained<u32> = Retained::new();
//!
//! let boot = Boot::count(valid!(LOOP.validate()), &BOOTS); // after power-on
//! assert_eq!((boot.resets(), boot.hold_off(), boot.is_safe_mode()), (0, Duration::ZERO, false));
//! let boot = Boot::count(valid!(LOOP.validate()), &BOOTS); // after a reset: first a moment's rest
//! assert_eq!((boot.resets(), boot.hold_off(), boot.is_safe_mode()), (1, Duration::from_secs(1), false));
//! let boot = Boot::count(valid!(LOOP.validate()), &BOOTS);
//! assert_eq!((boot.resets(), boot.hold_off(), boot.is_safe_mode()), (2, Duration::from_secs(2), true));
//!
//! let executor = VirtualExecutor::new();
//! executor.run(boot.stable(&executor)).expect("a minute later it is stable");
//! assert_eq!(Boot::count(valid!(LOOP.validate()), &BOOTS).resets(), 0);
//! ```
//!
//! # Defaults
//!
//! | what | default | range | at the extremes |
//! | --- | --- | --- | --- |
//! | hold-off after the n-th reset in a row | [`HOLD_OFF`] (1 s, doubled each time, at most 5 min) | any [`Backoff`]; its jitter is left out | [`Backoff::none`] starts at once |
//! | safe mode after so many resets in a row | [`SAFE_MODE_AFTER`] (5) | 1 or more | `u32::MAX`: never |
//! | stable after so long | [`STABLE_AFTER`] (10 min) | above zero | too short: a loop that takes longer is none |
//!
//! # When not to use it
//! For resets that are wanted: before the restart that ends an update, store a zero.
//!
//! # Source
//! The hold-off and the time until a start counts as stable are those of Kubernetes' `CrashLoopBackOff`; the safe mode after some resets
//! that of Android's Rescue Party.

use core::time::Duration;

use crate::backoff::Backoff;
use crate::config::{ConfigError, Valid, refuse};
use crate::executor::Executor;
use crate::retained::Retained;
use crate::time::Span;

/// How long a start waits after resets in a row, unless said otherwise.
pub const HOLD_OFF: Backoff = Backoff::exponential(Duration::from_secs(1)).with_cap(Duration::from_secs(300));
/// Resets in a row that lead to safe mode, unless said otherwise.
pub const SAFE_MODE_AFTER: u32 = 5;
/// How long a device must have run to be stable, unless said otherwise.
pub const STABLE_AFTER: Duration = Duration::from_secs(600);

/// The settings against boot loops.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    hold_off: Backoff,
    safe_mode_after: u32,
    stable_after: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// The defaults, as in the [module's table](self#defaults).
    #[must_use]
    pub const fn new() -> Self {
        Self { hold_off: HOLD_OFF, safe_mode_after: SAFE_MODE_AFTER, stable_after: Span::of(STABLE_AFTER) }
    }

    /// Waits this long before the start that follows the n-th reset in a row.
    #[must_use]
    pub const fn with_hold_off(mut self, hold_off: Backoff) -> Self {
        self.hold_off = hold_off;
        self
    }

    /// Starts in safe mode after so many resets in a row.
    #[must_use]
    pub const fn with_safe_mode_after(mut self, resets: u32) -> Self {
        self.safe_mode_after = resets;
        self
    }

    /// Calls the device stable when it has run for so long.
    #[must_use]
    pub const fn with_stable_after(mut self, time: Duration) -> Self {
        self.stable_after = Span::of(time);
        self
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// The first field that doesn't, and why.
    pub const fn validate(self) -> Result<Valid<Self>, ConfigError> {
        if let Err(error) = self.hold_off.check() {
            return Err(error);
        }
        if self.safe_mode_after == 0 {
            return Err(refuse!("safe_mode_after", "is zero: the device would never do anything else"));
        }
        if self.stable_after.is_zero() {
            return Err(refuse!("stable_after", "is zero: no two resets would be in a row"));
        }
        Ok(Valid::vouched(self))
    }
}

/// One boot: what it has to do first, from how many there were before.
#[derive(Debug)]
pub struct Boot<'a> {
    config: Config,
    resets: u32,
    boots: &'a Retained<u32>,
}

#[cfg(feature = "defmt")]
impl defmt::Format for Boot<'_> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Boot {{ resets: {} }}", self.resets);
    }
}

impl<'a> Boot<'a> {
    /// Counts this boot: once, as early as can be.
    #[must_use]
    pub fn count(config: Valid<Config>, boots: &'a Retained<u32>) -> Self {
        let resets = boots.load().unwrap_or(0);
        boots.store(resets.saturating_add(1));
        Self { config: config.get(), resets, boots }
    }

    /// Resets in a row before this boot, none of them after a stable time.
    #[must_use]
    pub const fn resets(&self) -> u32 {
        self.resets
    }

    /// How long to wait before anything that may have led to the reset.
    #[must_use]
    pub const fn hold_off(&self) -> Duration {
        self.config.hold_off.delay(self.resets)
    }

    /// Whether to start only what is known to be safe: what is needed to be reached, and repaired.
    #[must_use]
    pub const fn is_safe_mode(&self) -> bool {
        self.resets >= self.config.safe_mode_after
    }

    /// Waits until the device is stable, and forgets the resets. The time counts from the first poll: poll it when the start is complete.
    ///
    /// In safe mode, too: the next start is a full one then. Don't poll it there if the device is to stay in safe mode until it has been
    /// repaired.
    ///
    /// # Cancel safety
    /// Dropped before it ends, it forgets nothing.
    pub async fn stable<X: Executor>(&self, executor: X) {
        let at = executor.now().after(self.config.stable_after);
        // A sleep may end early.
        while executor.now() < at {
            executor.sleep_until(at).await;
        }
        self.boots.store(0);
    }
}

#[cfg(test)]
mod tests;
