//! How much a call matters, when not all can pass.

use crate::config::{ConfigError, refuse};
use crate::ratio::Ratio;

/// How much a call matters: the share of the permits that may be in use, its own included, for it to pass.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Priority(Ratio);

impl Priority {
    /// May use every permit, and wait for one where there is a queue: what a call has unless said otherwise.
    pub const CRITICAL: Self = Self(Ratio::ONE);
    /// Leaves the last tenth of the permits to what is critical.
    pub const HIGH: Self = Self(Ratio::percent(90));
    /// Leaves the last quarter.
    pub const NORMAL: Self = Self(Ratio::percent(75));
    /// Leaves the last half: work that can be done later, or not at all.
    pub const LOW: Self = Self(Ratio::percent(50));

    /// Passes while no more than this share of the permits is in use; a part of a permit counts as a whole one.
    ///
    /// # Errors
    /// A share of zero, or above 1.
    pub const fn new(share: Ratio) -> Result<Self, ConfigError> {
        if share.as_basis_points() == 0 {
            return Err(refuse!("priority", "is a share of zero: nothing could ever pass"));
        }
        if !share.is_share() {
            return Err(refuse!("priority", "is a share above 1"));
        }
        Ok(Self(share))
    }

    /// The share of the permits.
    #[must_use]
    pub const fn share(self) -> Ratio {
        self.0
    }

    pub(super) const fn is_highest(self) -> bool {
        self.0.as_basis_points() == Ratio::ONE.as_basis_points()
    }

    /// How many of so many permits may be in use.
    #[expect(clippy::cast_possible_truncation, reason = "a part of 32 bits")]
    pub(super) const fn of(self, permits: u32) -> u32 {
        if self.is_highest() {
            return permits;
        }
        // What is left to others is rounded down, so that this is rounded up.
        let others = Ratio::basis_points(Ratio::ONE.as_basis_points().saturating_sub(self.0.as_basis_points()));
        permits.saturating_sub(others.of(permits as u64) as u32)
    }
}
