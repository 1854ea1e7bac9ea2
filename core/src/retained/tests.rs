use std::vec::Vec;

use super::*;
use crate::rng::Rng;

type Value = (u32, [u32; 2], u64);
type Memory<const VERSION: u32 = 1> = Retained<Value, VERSION>;

/// All words of it: seven of each copy.
fn words<const VERSION: u32>(memory: &Memory<VERSION>) -> Vec<&AtomicU32> {
    let mut words = Vec::new();
    for Slot { number, value: (first, [second, third], (low, high)), checksum } in &memory.slots {
        words.extend([number, first, second, third, low, high, checksum]);
    }
    words
}

fn image<const VERSION: u32>(memory: &Memory<VERSION>) -> Vec<u32> {
    words(memory).into_iter().map(|word| word.load(Relaxed)).collect()
}

fn fill<const VERSION: u32>(memory: &Memory<VERSION>, image: &[u32]) {
    for (word, value) in words(memory).into_iter().zip(image) {
        word.store(*value, Relaxed);
    }
}

fn value(n: u32) -> Value {
    (n, [n.wrapping_mul(3), !n], u64::from(!n) << 32 | 5)
}

#[test]
fn what_was_stored_last_is_loaded() {
    let memory = Memory::<1>::default();
    assert_eq!(memory.load(), None);
    for n in 0..10 {
        memory.store(value(n));
        assert_eq!(memory.load(), Some(value(n)));
    }
}

#[test]
fn the_newer_copy_counts_also_where_the_numbers_wrap() {
    for start in [u32::MAX - 3, u32::MAX / 2 - 3, u32::MAX / 2 + 1] {
        let memory = Memory::<1>::new();
        // A copy with a number of our choice.
        let mut writer = Writer(Checksum::new(1));
        start.write(&memory.slots[0].number, &mut writer);
        value(99).write(&memory.slots[0].value, &mut writer);
        memory.slots[0].checksum.store(writer.0.finish(), Relaxed);
        assert_eq!(memory.load(), Some(value(99)));
        for n in 0..8 {
            memory.store(value(n));
            assert_eq!(memory.load(), Some(value(n)), "{n} stores after {start}");
        }
    }
}

#[test]
fn a_reset_at_any_word_of_a_store_leaves_this_value_or_the_one_before() {
    for stores in 0..4 {
        let memory = Memory::<1>::new();
        (0..stores).for_each(|n| memory.store(value(n)));
        let (before, old) = (memory.load(), image(&memory));
        memory.store(value(77));
        let new = image(&memory);
        let changed: Vec<usize> = (0..old.len()).filter(|&place| old[place] != new[place]).collect();
        assert!(changed.len() >= 3, "there are several words to be cut between");
        // The compiler may store the words in any order: every set of them.
        for done in 0..1_u32 << changed.len() {
            fill(&memory, &old);
            for (bit, &place) in changed.iter().enumerate() {
                if done >> bit & 1 == 1 {
                    words(&memory)[place].store(new[place], Relaxed);
                }
            }
            let all = done.count_ones() as usize == changed.len();
            assert_eq!(memory.load(), if all { Some(value(77)) } else { before }, "{done:b} of {changed:?}");
            memory.store(value(78));
            assert_eq!(memory.load(), Some(value(78)), "and goes on from there");
        }
    }
}

#[test]
fn two_stores_at_once_leave_one_of_them_or_the_value_before() {
    let memory = Memory::<1>::new();
    memory.store(value(1));
    memory.store(value(2));
    let before = image(&memory);
    let of_each = [3, 4].map(|n| {
        fill(&memory, &before);
        memory.store(value(n));
        image(&memory)
    });
    // Both write the same words, and each keeps the last that was written.
    let places: Vec<usize> =
        (0..14).filter(|&place| of_each.iter().any(|image| image[place] != before[place])).collect();
    for last in 0..1_u32 << places.len() {
        fill(&memory, &before);
        for (bit, &place) in places.iter().enumerate() {
            words(&memory)[place].store(of_each[(last >> bit & 1) as usize][place], Relaxed);
        }
        let found = memory.load();
        assert!([2, 3, 4].map(|n| Some(value(n))).contains(&found), "{last:b}: {found:?}");
    }
}

#[test]
fn garbage_is_no_value() {
    let mut rng = Rng::new(7);
    for _ in 0..20_000 {
        let memory = Memory::<1>::new();
        fill(&memory, &[(); 14].map(|()| rng.next()));
        assert_eq!(memory.load(), None);
        memory.store(value(1));
        assert_eq!(memory.load(), Some(value(1)));
    }
    for pattern in [0, u32::MAX, 0xAAAA_AAAA, 0x5555_5555, 0xDEAD_BEEF] {
        let memory = Memory::<1>::new();
        fill(&memory, &[pattern; 14]);
        assert_eq!(memory.load(), None, "all {pattern:x}");
    }
}

#[test]
fn one_wrong_bit_leaves_the_value_before_and_two_leave_none() {
    let memory = Memory::<1>::new();
    memory.store(value(1));
    memory.store(value(2));
    let image = image(&memory);
    let (older, newer) = (0..7, 7..14);
    for place in newer {
        for bit in 0..32 {
            fill(&memory, &image);
            words(&memory)[place].fetch_xor(1 << bit, Relaxed);
            assert_eq!(memory.load(), Some(value(1)));
            words(&memory)[older.start].fetch_xor(1, Relaxed);
            assert_eq!(memory.load(), None);
        }
    }
}

#[test]
fn another_version_is_ignored() {
    let (old, new) = (Memory::<1>::new(), Memory::<2>::new());
    old.store(value(1));
    fill(&new, &image(&old));
    assert_eq!(new.load(), None);
    new.store(value(2));
    fill(&old, &image(&new));
    assert_eq!(old.load(), None);
}

#[test]
fn it_takes_three_words_more_for_each_copy_and_says_what_it_holds() {
    assert_eq!(size_of::<Retained<u32>>(), 2 * 3 * 4);
    assert_eq!(size_of::<Retained<(u32, u64, [u32; 3], u32)>>(), 2 * (7 + 2) * 4);
    let memory = Retained::<(u32, u32, u32), 5>::new();
    assert_eq!(std::format!("{memory:?}"), "Retained { version: 5, stored: false }");
    memory.store((1, 2, 3));
    assert_eq!(memory.load(), Some((1, 2, 3)));
    assert_eq!(std::format!("{memory:?}"), "Retained { version: 5, stored: true }");
}

/// Of the algorithm's own verification: whole words, little endian.
#[test]
fn the_checksum_is_the_published_one() {
    let of = |seed, words: &[u32]| {
        let mut checksum = Checksum::new(seed);
        words.iter().for_each(|&word| checksum.add(word));
        checksum.finish()
    };
    assert_eq!(of(0, &[]), 0);
    assert_eq!(of(1, &[]), 0x514E_28B7);
    assert_eq!(of(u32::MAX, &[]), 0x81F1_6F39);
    assert_eq!(of(0, &[u32::MAX]), 0x7629_3B50);
    assert_eq!(of(0, &[0x8765_4321]), 0xF55B_516B);
    assert_eq!(of(0x5082_EDEE, &[0x8765_4321]), 0x2362_F9DE);
    assert_eq!(of(0, &[0]), 0x2362_F9DE);
    assert_eq!(of(0x9747_B28C, &[u32::from_le_bytes(*b"aaaa")]), 0x5A97_808A);
}
