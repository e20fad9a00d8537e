//! Help and errors, word for word: `tests/rvm/words/*.trycmd`. `TRYCMD=overwrite` writes them anew.

#[test]
fn help_and_errors_are_as_written_down() {
    trycmd::TestCases::new()
        .env("RVM_RUN", "/nonexistent/run")
        .env("RVM_STATE", "/nonexistent/state")
        .env("HOME", "/nonexistent")
        .env("COLUMNS", "100")
        .case("tests/rvm/words/*.trycmd");
}
