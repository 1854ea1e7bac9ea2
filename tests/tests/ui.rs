//! What must not compile, and what the compiler says about it.
//!
//! After an upgrade of the compiler, `TRYBUILD=overwrite cargo test -p failsoft-tests --test ui` writes the messages anew.

#[test]
fn misuse_does_not_compile_and_the_message_says_why() {
    let cases = trybuild::TestCases::new();
    // One that compiles: it shows that the others fail for their own reason. It also makes this a full build, without
    // which conditions of generic code are not looked at.
    cases.pass("ui/correct.rs");
    for case in [
        "a_permit_is_spent_once",
        "a_bulkheads_permit_comes_back_once",
        "a_local_policy_is_not_for_a_static",
        "a_local_policy_is_not_for_another_thread",
        "attempts_are_not_zero",
        "permits_are_not_zero",
        "a_rate_is_not_above_one",
        "probes_fit_the_trials",
        "trials_fit_the_counter",
        "a_cap_is_not_below_the_base",
        "a_compartment_has_a_valid_configuration",
        "a_compartment_has_a_known_name",
        "two_conditions_fit_one_word",
        "a_fallback_is_not_within_a_retry",
        "a_retry_is_not_within_a_breaker",
        "a_part_has_its_place",
        "a_retry_takes_a_request_for_every_attempt",
    ] {
        cases.compile_fail(format!("ui/{case}.rs"));
    }
}
