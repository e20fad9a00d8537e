//! Blobs against `dtc`, overlays against `fdtoverlay`, and everything that is neither.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::overlay::{OverlayError, apply, label};
use super::*;

const BASE: &str = r#"/dts-v1/;
/ { #address-cells = <1>; #size-cells = <1>; compatible = "base";
    soc: soc { #address-cells = <1>; #size-cells = <1>; ranges;
        interrupt_controller_c000000: interrupt-controller@c000000 { reg = <0xc000000 0x100>; phandle = <7>; };
        serial_10000000: serial@10000000 { reg = <0x10000000 0x100>; status = "disabled"; }; }; };
"#;

const OVERLAY: &str = r#"/dts-v1/; /plugin/;
&serial_10000000 { status = "okay"; interrupt-parent = <&interrupt_controller_c000000>; };
&soc { clock: fixed { clock-frequency = <5>; }; user { clocks = <&clock 1>, <&clock 2>; }; };
&{/} { model = "changed"; };
"#;

/// Runs dtc on a source.
fn dtc(source: &str) -> Vec<u8> {
    pipe(
        "dtc",
        &["-q", "-@", "-I", "dts", "-O", "dtb", "-"],
        source.as_bytes(),
    )
}

fn decompile(blob: &[u8]) -> String {
    String::from_utf8(pipe("dtc", &["-q", "-s", "-I", "dtb", "-O", "dts", "-"], blob)).unwrap()
}

fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("dtc is installed by `make setup` (package device-tree-compiler)");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn base() -> Node {
    let mut base = parse(&dtc(BASE)).unwrap();
    label(&mut base);
    base
}

fn refusal(overlay: &str) -> String {
    let mut tree = base();
    let error = apply(&mut tree, &dtc(overlay)).unwrap_err();
    assert_eq!(tree, base(), "a refused overlay changes nothing");
    error.to_string()
}

#[test]
fn a_blob_of_dtc_survives_being_read_and_written() {
    let blob = dtc(BASE);
    let tree = parse(&blob).unwrap();
    assert_eq!(decompile(&write(&tree).unwrap()), decompile(&blob));
    assert_eq!(
        tree.at("/soc/serial").unwrap().get("status"),
        Some(&b"disabled\0"[..])
    );
}

#[test]
fn an_overlay_changes_the_tree_as_fdtoverlay_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let overlay = dtc(OVERLAY);
    std::fs::write(file("base.dtb"), write(&base()).unwrap()).unwrap();
    std::fs::write(file("a.dtbo"), &overlay).unwrap();
    let status = Command::new("fdtoverlay")
        .arg("-i")
        .args([file("base.dtb"), "-o".into(), file("all.dtb"), file("a.dtbo")])
        .status()
        .unwrap();
    assert!(status.success());
    let mut tree = base();
    apply(&mut tree, &overlay).unwrap();
    let soc = tree.at("/soc").unwrap();
    let clock = soc.child("fixed").unwrap().get("phandle").unwrap().to_vec();
    let user = soc.child("user").unwrap().get("clocks").unwrap();
    assert_eq!(
        user,
        [&clock[..], &[0, 0, 0, 1], &clock[..], &[0, 0, 0, 2]].concat()
    );
    let theirs = std::fs::read(file("all.dtb")).unwrap();
    assert_eq!(decompile(&write(&tree).unwrap()), decompile(&theirs));
}

#[test]
fn an_overlay_may_use_the_labels_of_the_one_before_it() {
    let mut tree = base();
    apply(&mut tree, &dtc(OVERLAY)).unwrap();
    apply(
        &mut tree,
        &dtc("/dts-v1/; /plugin/; &clock { clock-frequency = <6>; };"),
    )
    .unwrap();
    let clock = tree.at("/soc/fixed").unwrap();
    assert_eq!(clock.get("clock-frequency"), Some(&[0, 0, 0, 6][..]));
}

#[test]
fn overlays_that_do_not_fit_the_machine_say_why() {
    let fragment = |text: &str| format!("/dts-v1/; / {{ fragment@0 {{ {text} }}; }};");
    let fixup = "/dts-v1/; / { fragment@0 { target = <0>; __overlay__ { }; }; __fixups__ { soc = \"/fragment@0:target:2\"; }; };";
    let local = "/dts-v1/; / { fragment@0 { target-path = \"/\"; __overlay__ { a = <1>; }; }; __local_fixups__ { fragment@0 { __overlay__ { a = <4>; }; }; }; };";
    for (overlay, why) in [
        (
            "/dts-v1/; / { };",
            "is no overlay: it has no fragment with a node '__overlay__'",
        ),
        (
            "/dts-v1/; /plugin/; &{/nowhere} { a; };",
            "wants to change '/nowhere', which this machine's device tree does not have",
        ),
        (
            "/dts-v1/; /plugin/; &gpio { a; };",
            "uses the label 'gpio', which this machine's device tree does not have; it has: soc, \
             interrupt_controller_c000000, serial_10000000",
        ),
        (
            &fragment("__overlay__ { a; };"),
            "has a fragment 'fragment@0' without a target that can be followed",
        ),
        (
            fixup,
            "has a reference that leads nowhere: '/fragment@0:target:2'",
        ),
        (local, "has a reference that leads nowhere: 'a'"),
        (
            &fragment("target-path = \"/\"; __overlay__ { phandle = <0xfffffffa>; };"),
            "has phandles that do not fit behind those of the machine",
        ),
    ] {
        assert_eq!(refusal(overlay), why);
    }
}

#[test]
fn files_that_are_no_tree_are_refused() {
    let blob = dtc(BASE);
    let with = |at: usize, value: u32| {
        let mut blob = blob.clone();
        blob[at..at + 4].copy_from_slice(&value.to_be_bytes());
        parse(&blob)
    };
    assert_eq!(parse(b"overlay"), Err(DtbError::Magic));
    assert_eq!(with(20, 3), Err(DtbError::Version(3)));
    assert_eq!(with(8, u32::MAX), Err(DtbError::Truncated));
    assert_eq!(with(36, u32::MAX), Err(DtbError::Truncated));
    let structure = usize::from(blob[11]);
    assert_eq!(with(structure, 5), Err(DtbError::Structure));
    assert_eq!(with(structure, END), Err(DtbError::Structure));
    let deep = format!("/dts-v1/; / {{ {} {} }};", "a {".repeat(40), "};".repeat(40));
    assert_eq!(parse(&dtc(&deep)), Err(DtbError::Depth));
    assert_eq!(parse(&vec![0; MAX_BLOB + 1]), Err(DtbError::TooLarge));
    let large = apply(&mut base(), &vec![0; 300 << 10]);
    assert!(matches!(large, Err(OverlayError::TooLarge)));
}

#[test]
fn any_changed_overlay_is_applied_or_refused() {
    let (overlay, base) = (dtc(OVERLAY), base());
    let len = overlay.len();
    let change = proptest::collection::vec((0..len, any::<u8>()), 1..4);
    proptest!(ProptestConfig::with_cases(512), |(changes in change, cut in 0..len / 8)| {
        let mut blob = overlay.clone();
        for (at, value) in changes { blob[at] = value; }
        blob.truncate(len - cut);
        let mut tree = base.clone();
        if apply(&mut tree, &blob).is_ok() {
            prop_assert_eq!(parse(&write(&tree).unwrap()), Ok(tree));
        } else {
            prop_assert_eq!(&tree, &base);
        }
    });
}
