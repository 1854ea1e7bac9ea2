//! Values over time: upstream phases, breaker states, degradation levels.

use core::time::Duration;

/// A value for a while.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Band<T> {
    /// The value.
    pub(crate) value: T,
    /// From when.
    pub(crate) from: Duration,
    /// Until when.
    pub(crate) to: Duration,
}

/// A value as it changes, without gaps.
#[derive(Clone, Debug)]
pub(crate) struct Bands<T>(Vec<Band<T>>);

impl<T> Default for Bands<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + PartialEq> Bands<T> {
    /// Notes the value at an instant; instants must not go back.
    pub(crate) fn note(&mut self, at: Duration, value: T) {
        if let Some(last) = self.0.last_mut() {
            last.to = at;
            if last.value == value {
                return;
            }
        }
        self.0.push(Band { value, from: at, to: at });
    }

    /// Notes that the value still is what it was.
    pub(crate) fn extend(&mut self, at: Duration) {
        if let Some(last) = self.0.last_mut() {
            last.to = at;
        }
    }

    /// The value at an instant, if it was noted.
    pub(crate) fn at(&self, at: Duration) -> Option<T> {
        let band = self.0.iter().rev().find(|band| band.from <= at)?;
        (at <= band.to).then_some(band.value)
    }

    /// The latest value.
    pub(crate) fn last(&self) -> Option<T> {
        self.0.last().map(|band| band.value)
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Band<T>> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_repeated_value_is_one_band() {
        let mut bands = Bands::default();
        for (at, value) in [(0, 'a'), (10, 'a'), (20, 'b')] {
            bands.note(ms(at), value);
        }
        bands.extend(ms(30));
        let bands: Vec<_> = bands.iter().map(|b| (b.value, b.from, b.to)).collect();
        assert_eq!(bands, [('a', ms(0), ms(20)), ('b', ms(20), ms(30))]);
    }

    #[test]
    fn nothing_is_known_outside() {
        let mut bands = Bands::default();
        bands.note(ms(10), 'a');
        bands.extend(ms(20));
        assert_eq!(bands.at(ms(9)), None);
        assert_eq!(bands.at(ms(20)), Some('a'));
        assert_eq!(bands.at(ms(21)), None);
    }
}
