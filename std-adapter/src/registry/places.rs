//! Where the keys of a registry have their places: in tables behind locks.

use core::borrow::Borrow;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};

use hashbrown::HashTable;

use super::LOOKS;
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A table gets room for a part of what it has, at least: one of so many. Less, and it would be moved too often; more, and it would be larger
/// than it has to be, for all the keys behind one lock.
const SPARE: usize = 32;

/// A part of the keys, behind a lock of its own, and on a cache line of its own.
#[repr(align(64))]
pub(super) struct Shard<K, P>(RwLock<Places<K, P>>);

impl<K, P> Shard<K, P> {
    pub(super) fn new() -> Self {
        Self(RwLock::new(Places { table: HashTable::new(), used: Marks::none(0), hand: 0, counted: 0 }))
    }

    // What is behind the lock is whole also after a panic: others' code runs where that ends nothing half-way.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Places<K, P>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To change what is there; `len` is the number of keys in all shards.
    pub(super) fn write<'s>(&'s self, len: &'s AtomicUsize) -> Counted<'s, K, P> {
        Counted { places: self.0.write().unwrap_or_else(PoisonError::into_inner), len }
    }
}

/// A key and its policy.
pub(super) struct Slot<K, P> {
    pub(super) key: K,
    pub(super) policy: Arc<P>,
}

impl<K, P> Slot<K, P> {
    /// Whether nobody holds it and the policy may go. Nobody can come to hold it meanwhile: that takes the lock.
    fn is_idle(&mut self, may_go: impl Fn(&P) -> bool) -> bool {
        Arc::get_mut(&mut self.policy).is_some_and(|policy| may_go(policy))
    }
}

/// The places of a shard's keys, and the hand that goes round them.
pub(super) struct Places<K, P> {
    table: HashTable<Slot<K, P>>,
    used: Marks,
    hand: usize,
    /// Its part of the number of all keys: as many as there are, but while it is being changed.
    counted: usize,
}

impl<K, P> Places<K, P> {
    pub(super) fn find<Q>(&self, hash: u64, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.table.find_bucket_index(hash, |slot| slot.key.borrow() == key)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot<K, P>> {
        self.table.iter()
    }

    pub(super) fn policy(&self, place: usize) -> Option<Arc<P>> {
        self.table.get_bucket(place).map(|slot| slot.policy.clone())
    }

    /// The policy of this key, which is then used.
    pub(super) fn get<Q>(&self, hash: u64, key: &Q) -> Option<Arc<P>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let place = self.find(hash, key)?;
        self.used.mark(place, By::Hand);
        self.used.mark(place, By::Sweep);
        self.policy(place)
    }

    pub(super) fn insert(&mut self, hash: u64, slot: Slot<K, P>, hash_of: impl Fn(&K) -> u64) {
        if self.table.len() == self.table.capacity() {
            self.make_room(&hash_of);
        }
        let place = self.table.insert_unique(hash, slot, |slot| hash_of(&slot.key)).bucket_index();
        // Who was there before may have been used.
        self.used.take(place, By::Hand);
        self.used.mark(place, By::Sweep);
    }

    /// Moves all to a new table, with room for more. Left to itself the table would grow to twice its size when keys have come and
    /// gone for a while, and forget who was used.
    fn make_room(&mut self, hash_of: impl Fn(&K) -> u64) {
        let len = self.table.len();
        // First, and all, should others' code panic.
        let hash = |place| Some((place, hash_of(&self.table.get_bucket(place)?.key)));
        let hashes: Vec<_> = (0..self.table.num_buckets()).filter_map(hash).collect();
        let mut roomy = HashTable::with_capacity(len + len / SPARE + 1);
        let used = Marks::none(roomy.num_buckets());
        for (place, hash) in hashes {
            let Some(slot) = self.take_out(place) else { continue };
            let to = roomy.insert_unique(hash, slot, |slot| hash_of(&slot.key)).bucket_index();
            for by in [By::Hand, By::Sweep] {
                if self.used.take(place, by) {
                    used.mark(to, by);
                }
            }
        }
        (self.table, self.used) = (roomy, used);
    }

    /// Takes out the first from the hand on that may go, and was not used since the hand last came by.
    pub(super) fn evict(&mut self, may_go: impl Fn(&P) -> bool) -> Option<Slot<K, P>> {
        let (mut looks, places) = (0, self.table.num_buckets());
        // In the second round nobody has a mark any more.
        for _ in 0..2 * places {
            self.hand = (self.hand + 1) % places;
            if self.used.take(self.hand, By::Hand) {
                continue;
            }
            let Some(slot) = self.table.get_bucket_mut(self.hand) else { continue };
            if slot.is_idle(&may_go) {
                return self.take_out(self.hand);
            }
            looks += 1;
            if looks == LOOKS {
                break;
            }
        }
        None
    }

    /// Takes out all that may go and were not used since this was last done.
    pub(super) fn sweep(&mut self, may_go: impl Fn(&P) -> bool) -> Vec<Slot<K, P>> {
        let mut gone = Vec::new();
        for place in 0..self.table.num_buckets() {
            let used = self.used.take(place, By::Sweep);
            if !used && self.table.get_bucket_mut(place).is_some_and(|slot| slot.is_idle(&may_go)) {
                gone.extend(self.take_out(place));
            }
        }
        gone
    }

    pub(super) fn take_out(&mut self, place: usize) -> Option<Slot<K, P>> {
        Some(self.table.get_bucket_entry(place).ok()?.remove().0)
    }
}

/// Who asks which places were used since it last asked.
#[derive(Clone, Copy)]
enum By {
    /// The hand, of what was used again: what came once, as all of a flood does, goes before what is used.
    Hand,
    Sweep,
}

/// A bit for each place and each of those who ask, where a byte in the slot would take eight.
struct Marks(Box<[[AtomicU64; 2]]>);

impl Marks {
    fn none(places: usize) -> Self {
        Self((0..places.div_ceil(64)).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect())
    }

    #[inline]
    fn mark(&self, place: usize, by: By) {
        let (Some(words), bit) = (self.0.get(place / 64), 1 << (place % 64)) else { return };
        let word = &words[by as usize];
        // Written only where it isn't set, so that threads don't take its cache line from each other.
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }

    /// Whether it was marked; it no longer is.
    fn take(&mut self, place: usize, by: By) -> bool {
        let (Some(words), bit) = (self.0.get_mut(place / 64), 1 << (place % 64)) else { return false };
        let word = words[by as usize].get_mut();
        let marked = *word & bit != 0;
        *word &= !bit;
        marked
    }
}

/// A shard that is being changed.
pub(super) struct Counted<'s, K, P> {
    places: RwLockWriteGuard<'s, Places<K, P>>,
    len: &'s AtomicUsize,
}

impl<K, P> Counted<'_, K, P> {
    /// Whether there was a place for one more, which it then is to be.
    pub(super) fn take_place(&mut self, capacity: usize) -> bool {
        let more = |len: usize| (len < capacity).then_some(len + 1);
        let taken = self.len.fetch_update(Relaxed, Relaxed, more).is_ok();
        if taken {
            self.places.counted += 1;
        }
        taken
    }
}

/// Whatever has become of it counts, also where others' code has panicked.
impl<K, P> Drop for Counted<'_, K, P> {
    fn drop(&mut self) {
        let (counted, there) = (self.places.counted, self.places.table.len());
        self.len.fetch_sub(counted.saturating_sub(there), Relaxed);
        self.places.counted = there;
    }
}

impl<K, P> Deref for Counted<'_, K, P> {
    type Target = Places<K, P>;

    fn deref(&self) -> &Places<K, P> {
        &self.places
    }
}

impl<K, P> DerefMut for Counted<'_, K, P> {
    fn deref_mut(&mut self) -> &mut Places<K, P> {
        &mut self.places
    }
}
