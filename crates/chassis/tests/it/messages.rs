//! A mistake in `service!` is a compile error that says what to write.

#[test]
fn wrong_keys_name_the_allowed_ones() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
