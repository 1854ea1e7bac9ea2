//! Bad configurations do not construct: the error that says which field and why.

use core::fmt;

/// A configuration that makes no sense: which field, and why it is refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ConfigError {
    field: &'static str,
    problem: &'static str,
    message: &'static str,
}

impl ConfigError {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(field: &'static str, problem: &'static str, message: &'static str) -> Self {
        Self { field, problem, message }
    }

    /// The field that is refused.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// Why it is refused.
    #[must_use]
    pub const fn problem(&self) -> &'static str {
        self.problem
    }

    /// Field and reason in one sentence, available in a `const` too.
    #[must_use]
    pub const fn message(&self) -> &'static str {
        self.message
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)
    }
}

impl core::error::Error for ConfigError {}

/// `refuse!("field", "problem")`: the [`ConfigError`], with its message put together at compile time.
macro_rules! refuse {
    ($field:literal, $problem:literal) => {
        $crate::config::ConfigError::new($field, $problem, concat!("`", $field, "` ", $problem))
    };
}
pub(crate) use refuse;

/// A configuration that has been found to make sense: what policies are made of.
///
/// It comes from a configuration's `validate()`, or from [`valid!`](crate::valid) at compile time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Valid<C>(C);

impl<C: Copy> Valid<C> {
    pub(crate) const fn vouched(config: C) -> Self {
        Self(config)
    }

    /// The configuration.
    #[must_use]
    pub const fn get(self) -> C {
        self.0
    }
}

/// Validates at compile time: a configuration that makes no sense stops the build, with the field and the reason.
///
/// It takes anything of type `Result<_, ConfigError>`.
///
/// ```
/// use failsoft_core::{bulkhead::{Bulkhead, Config}, cell::CriticalSection, valid};
///
/// static BUS: Bulkhead<CriticalSection> = Bulkhead::new(valid!(Config::new(4).validate()));
/// # let _ = BUS.try_acquire();
/// ```
///
/// ```compile_fail
/// use failsoft_core::{bulkhead::{Bulkhead, Config}, cell::CriticalSection, valid};
///
/// // error: `permits` is zero: nothing could ever pass
/// static BUS: Bulkhead<CriticalSection> = Bulkhead::new(valid!(Config::new(0).validate()));
/// ```
#[macro_export]
macro_rules! valid {
    ($checked:expr) => {
        const {
            match $checked {
                Ok(value) => value,
                Err(error) => panic!("{}", $crate::ConfigError::message(&error)),
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_refusal_says_which_field_and_why() {
        let error: ConfigError = refuse!("permits", "is zero");
        assert_eq!((error.field(), error.problem()), ("permits", "is zero"));
        assert_eq!((error.message(), error.to_string().as_str()), ("`permits` is zero", "`permits` is zero"));
    }
}
