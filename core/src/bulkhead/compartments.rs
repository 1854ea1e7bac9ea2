//! Named compartments: several bulkheads, found by name.

use core::fmt;

use super::{Bulkhead, Slots, Tally};
use crate::cell::CellKind;
use crate::config::{ConfigError, refuse};

/// There is no compartment of this name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UnknownCompartment<'n>(pub &'n str);

impl fmt::Display for UnknownCompartment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no compartment `{}`", self.0)
    }
}

impl core::error::Error for UnknownCompartment<'_> {}

/// Bulkheads by name, for names that come from outside. Where the names are known at compile time, [`compartments!`](crate::compartments)
/// checks them there.
#[derive(Debug)]
pub struct Compartments<K, Q, const N: usize>
where
    K: CellKind<Slots> + CellKind<Tally>,
{
    entries: [(&'static str, Bulkhead<K, Q>); N],
}

#[cfg(feature = "defmt")]
impl<K, Q, const N: usize> defmt::Format for Compartments<K, Q, N>
where
    K: CellKind<Slots> + CellKind<Tally>,
{
    fn format(&self, f: defmt::Formatter<'_>) {
        for (name, bulkhead) in &self.entries {
            defmt::write!(f, "{}: {} ", name, bulkhead);
        }
    }
}

impl<K, Q, const N: usize> Compartments<K, Q, N>
where
    K: CellKind<Slots> + CellKind<Tally>,
{
    /// These compartments.
    ///
    /// # Errors
    /// A name that is there twice.
    pub fn new(entries: [(&'static str, Bulkhead<K, Q>); N]) -> Result<Self, ConfigError> {
        let mut rest = entries.as_slice();
        while let [(name, _), others @ ..] = rest {
            if others.iter().any(|(other, _)| other == name) {
                return Err(refuse!("name", "is there twice"));
            }
            rest = others;
        }
        Ok(Self { entries })
    }

    /// The compartment of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn get<'n>(&self, name: &'n str) -> Result<&Bulkhead<K, Q>, UnknownCompartment<'n>> {
        self.iter().find_map(|(other, bulkhead)| (other == name).then_some(bulkhead)).ok_or(UnknownCompartment(name))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Bulkhead<K, Q>)> {
        self.entries.iter().map(|(name, bulkhead)| (*name, bulkhead))
    }
}

/// Bulkheads named by an enum: an unknown name, or a configuration that makes no sense, is a compile error.
///
/// ```
/// use failsoft_core::{bulkhead::{Bulkhead, Config}, cell::CriticalSection};
///
/// failsoft_core::compartments! {
///     /// The hub's buses.
///     pub struct Buses of Bulkhead<CriticalSection>;
///     /// Who may use them.
///     pub enum Bus {
///         /// The sensors'.
///         Sensors = Config::new(2),
///         /// The display's.
///         Display = Config::new(1),
///     }
/// }
/// static BUSES: Buses = Buses::new();
///
/// let _permit = BUSES.get(Bus::Display).try_acquire()?;
/// assert!(BUSES.get(Bus::Display).try_acquire().is_err());
/// assert!(BUSES.get(Bus::Sensors).try_acquire().is_ok());
/// # Ok::<(), failsoft_core::Rejected>(())
/// ```
#[macro_export]
macro_rules! compartments {
    (
        $(#[$set_meta:meta])* $set_vis:vis struct $Set:ident of $Bulkhead:ty;
        $(#[$meta:meta])* $vis:vis enum $Name:ident { $($(#[$variant_meta:meta])* $Variant:ident = $config:expr),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        $vis enum $Name { $($(#[$variant_meta])* $Variant),+ }

        $(#[$set_meta])*
        #[derive(Debug)]
        #[expect(non_snake_case, reason = "the fields are named like the variants")]
        $set_vis struct $Set { $($Variant: $Bulkhead),+ }

        impl $Set {
            /// The compartments, all empty.
            $set_vis const fn new() -> Self {
                Self { $($Variant: <$Bulkhead>::new($crate::valid!($config.validate()))),+ }
            }

            /// The compartment of this name.
            $set_vis const fn get(&self, name: $Name) -> &$Bulkhead {
                match name { $($Name::$Variant => &self.$Variant),+ }
            }
        }
    };
}
