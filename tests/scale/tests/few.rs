//! What a thousand machines must not cost, shown with a few.

use std::fs;
use std::process::Command;

use serde_json::Value;

const MACHINES: f64 = 40.0;

#[test]
fn a_program_that_is_started_again_asks_for_no_machine_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    let mut scale = Command::new(env!("CARGO_BIN_EXE_rvm-scale"));
    scale.args(["--machines", "40", "--quiet", "5", "--results"]);
    let output = scale.arg(&results).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let results = fs::read_to_string(&results).unwrap();
    let value = |row: &str| {
        let lines = results
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found = lines.into_iter().find(|line| line["row"] == row);
        found.unwrap()["value"].as_f64().unwrap()
    };
    for program in ["api", "handler"] {
        let requests = value(&format!("requests-after-restart-of-{program}"));
        assert!(
            requests > 0.0 && requests < MACHINES,
            "{program}: {requests}, {said}"
        );
    }
    let changes = value("changes-after-restart-of-handler");
    assert!(changes < MACHINES / 4.0, "{changes}, {said}");
}
