//! What a user sees who wraps a service whose error cannot carry a refusal.

#[test]
fn a_missing_lift_layer_is_explained_by_name() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/lifted.rs");
    cases.compile_fail("tests/ui/not_lifted_oneshot.rs");
    cases.compile_fail("tests/ui/not_lifted_ready.rs");
    cases.compile_fail("tests/ui/not_a_classifier.rs");
}
