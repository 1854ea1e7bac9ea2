//! The list of the bugs, `tests/peers-bugs.md`, against the tests: it can't name what is not there, nor leave anything out.
