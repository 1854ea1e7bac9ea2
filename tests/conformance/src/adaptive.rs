//! Limits that follow what a dependency takes.

use crate::checks::Checks;
use crate::vector::{Result, Unsupported, Vector};

#[inline(never)]
pub(crate) fn run<'a>(vector: &Vector<'a>, checks: &mut Checks) -> Result<'a, ()> {
    match vector.dialect() {
        "aws" => crate::adaptive_rate::run(vector, checks),
        dialect => Err(Unsupported::Dialect(dialect)),
    }
}
