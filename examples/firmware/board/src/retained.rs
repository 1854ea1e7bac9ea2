//! Memory that a reset leaves alone.

/// A `static` that start-up does not initialise, whatever its initial value: after power-on it holds anything, after a reset what was in
/// it. Its type must take any content.
#[macro_export]
macro_rules! retained {
    ($(#[$attribute:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $(#[$attribute])*
        #[unsafe(link_section = concat!(".uninit.", stringify!($name)))]
        static $name: $type = $value;
    };
}

unsafe extern "C" {
    /// The linker's: where all of it begins and ends.
    static mut __suninit: u32;
    static mut __euninit: u32;
}

/// Fills all such memory with garbage, made of `seed`, and resets the chip: what a power loss comes to. Only `spared` keeps what it holds, by
/// which an image knows how far it has come.
pub fn lose_power<T>(seed: u32, spared: &'static T) -> ! {
    let spared = (&raw const *spared).cast::<u32>();
    let (mut word, end) = (&raw mut __suninit, (&raw const __euninit));
    let mut garbage = seed;
    while word.cast_const() < end {
        // Numerical Recipes' generator: it only has to look like nothing in particular.
        garbage = garbage.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let is_spared = (spared..spared.wrapping_byte_add(size_of::<T>())).contains(&word.cast_const());
        if !is_spared {
            // SAFETY: within the section, in which everything takes any content; and nobody comes to read it before the reset.
            unsafe { word.write_volatile(garbage) };
        }
        word = word.wrapping_add(1);
    }
    crate::reset()
}
