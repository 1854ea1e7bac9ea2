//! What only shows under load: overload that feeds on itself, stacks of policies made up at random, floods.

mod overload;
mod stacks;
mod work;
