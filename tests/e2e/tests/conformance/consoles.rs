//! Who may see and type at a guest's console.

use rvm_e2e::guest;
use rvm_harness::Plain;
use serde_json::json;

use crate::place::{Place, vmi};

/// The first viewer's connection ends as if it were cut, which is how virtctl tells that from a console that has ended.
pub fn case_01_a_second_console_ends_the_first(place: &Place) {
    place.run(vmi());
    let mut first = place.console();
    first.expect(guest::PROMPT).unwrap();
    let mut second = place.console();
    assert_eq!(first.end().unwrap(), None);
    second.send(b"echo second=$((6 * 7))\r").unwrap();
    second.expect("second=42\r\n").unwrap();
}

/// With the words that clients look for.
pub fn case_02_a_vmi_without_a_serial_console_refuses_one(place: &Place) {
    place.run(vmi().with(|vmi| {
        vmi["spec"]["domain"]["devices"]["autoattachSerialConsole"] = json!(false);
    }));
    let refused = Plain::open(&place.kubectl, &place.console_path()).unwrap_err();
    let refused = format!("{refused:#}");
    assert!(
        refused.contains("400") && refused.contains("No serial consoles are present."),
        "{refused}"
    );
}
