//! What a policy's page in the documentation must have.

use std::path::Path;

/// Modules of core that are no policies: what policies are made of, composed by, or tested with.
const NO_POLICIES: [&str; 6] = ["cell", "pipeline", "quantile", "queue", "testing", "window"];

#[test]
fn every_policy_has_its_example_its_defaults_when_not_to_use_it_and_its_source() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src");
    let read = |file: &str| std::fs::read_to_string(core.join(file)).expect(file);
    let library = read("lib.rs");
    let modules = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let policies: Vec<_> = modules.filter(|name| !NO_POLICIES.contains(name)).collect();
    assert!(policies.contains(&"circuit_breaker") && policies.len() > 6, "{policies:?}");
    let mut missing = Vec::new();
    // What an adapter has beyond the core's.
    let pages = policies.into_iter().map(|policy| format!("{policy}.rs"));
    let others = ["coalesce", "http", "metrics", "registry", "settings", "trace"]
        .map(|module| format!("../../std-adapter/src/{module}.rs"));
    for policy in pages.chain(others) {
        let text = read(&policy);
        let page: Vec<_> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        for heading in ["//! ```", "//! # Defaults", "//! # When not to use it", "//! # Source"] {
            if !page.contains(&heading) {
                missing.push(format!("{policy}: {heading}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
