//! Writes the log that the chips' images have to write too, to the byte.

use failsoft_core::cell::CriticalSection;

fn main() {
    let mut log = String::new();
    if failsoft_replay::replay::<CriticalSection, CriticalSection>(
        failsoft_replay::SEED,
        failsoft_replay::STEPS,
        &mut log,
    )
    .is_ok()
    {
        print!("{log}");
    }
}
