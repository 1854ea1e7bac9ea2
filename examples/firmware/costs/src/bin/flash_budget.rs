//! A token budget: a call deposits, a retry takes.

#![no_std]
#![no_main]

use core::hint::black_box;
use failsoft_embassy::budget::{TokenBudget, TokenConfig};
use failsoft_embassy::{CriticalSection, Instant, valid};

static BUDGET: TokenBudget<CriticalSection> = TokenBudget::new(valid!(TokenConfig::new().validate()));

fn spend(budget: &TokenBudget<CriticalSection>, now: Instant) {
    budget.deposit(black_box(1), &now);
    black_box(budget.try_withdraw(black_box(1), &now));
}

costs::flash_image!(spend(black_box(&BUDGET), black_box(Instant::START)));
