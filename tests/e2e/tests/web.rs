//! The web console as its user meets it, in a real browser.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rvm_e2e::browser::{Browser, Page};
use rvm_e2e::guest::{NAME, PROMPT};
use rvm_e2e::machines;
use rvm_harness::patience::Look;
use rvm_harness::{Api, Cluster, Handler, HandlerSetup, Manifest, Tools, eventually};
use serde_json::json;

/// Keys that are no letters, as WebDriver has them.
const ENTER: char = '\u{e007}';
const TAB: char = '\u{e004}';
const CONTROL: char = '\u{e009}';

/// Local mode with the demo guest, and a browser.
struct Desk {
    handler: Handler,
    browser: Rc<Browser>,
    _tools: Arc<Tools>,
}

// === impl Desk ===

impl Desk {
    fn new() -> Self {
        let tools = Tools::open().unwrap();
        // The same after a restart, as an operator would have it.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let setup = HandlerSetup::local().with(&["--web-listen", &port.to_string(), "--pod-network", "none"]);
        let handler = setup.start(&tools).unwrap();
        Self {
            handler,
            browser: Browser::start().unwrap(),
            _tools: tools,
        }
    }

    /// The address with the token, as `rvm web` prints it.
    fn address(&self) -> String {
        let printed = self.handler.rvm(&["web"]).unwrap().ok().unwrap();
        printed.trim().to_owned()
    }

    fn run_demo(&self) {
        let kubectl = self.handler.kubectl().unwrap();
        kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
        kubectl.await_phase(NAME, "Running").unwrap();
    }

    /// A window at the demo's page, its console attached.
    fn at_console(&self) -> Page {
        let page = self.browser.page().unwrap();
        page.go(&self.address()).unwrap();
        page.click("td.name a").unwrap();
        page.expect("#console-state", "You are typing.").unwrap();
        page.expect_shown(&[PROMPT]).unwrap();
        page
    }

    fn pictures(&self) -> PathBuf {
        let wanted = std::env::var_os("RVM_PICTURES").map(PathBuf::from);
        wanted.unwrap_or_else(|| self.browser.folder().to_owned())
    }
}

/// Types a line into the terminal.
fn type_line(page: &Page, line: &str) {
    page.click(".xterm-screen").unwrap();
    page.keys(&format!("{line}{ENTER}")).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_console_in_a_browser_is_typed_at_looked_on_at_taken_over_and_found_again() {
    let mut desk = Desk::new();
    desk.run_demo();
    let first = desk.at_console();
    type_line(&first, "echo $((6 * 7)) $(uname -m)");
    first.expect_shown(&["42 riscv64"]).unwrap();

    // What was said before the page was loaded stands there, once.
    first.reload().unwrap();
    let shown = first.expect_shown(&["42 riscv64"]).unwrap();
    assert_eq!(shown.matches("42 riscv64").count(), 1, "{shown}");

    // A second one types; the first is told, looks on, and takes the keyboard back.
    let second = desk.at_console();
    first.expect("#console-state", "Somebody else is typing").unwrap();
    type_line(&second, "echo $((40 + 3)) to see");
    first.expect_shown(&["43 to see"]).unwrap();
    type_line(&first, "echo lost");
    first.click("#take-over").unwrap();
    first.expect("#console-state", "You are typing.").unwrap();
    second
        .expect("#console-state", "Somebody else is typing")
        .unwrap();
    first.expect_shown(&["43 to see"]).unwrap();
    type_line(&first, "echo $((40 + 4)) again");
    let shown = second.expect_shown(&["44 again"]).unwrap();
    assert!(!shown.contains("lost"), "who looks on does not type: {shown}");

    // The server goes and comes; the machine did not notice, and nothing stands there twice.
    desk.handler.kill().unwrap();
    first.expect("#console-state", "The connection is lost").unwrap();
    first.expect("#link-state", "Not connected").unwrap();
    desk.handler.start().unwrap();
    first.expect("#console-state", "You are typing.").unwrap();
    second
        .expect("#console-state", "Somebody else is typing")
        .unwrap();
    type_line(&first, "echo $((40 + 5)) here");
    let shown = first.expect_shown(&["45 here"]).unwrap();
    assert_eq!(shown.matches("44 again").count(), 1, "{shown}");

    // Any colour that a guest asks for, within the page's policy; and what is selected is legible in it.
    type_line(&first, "printf '\\033[38;2;0;255;0mgr%s\\033[0m\\n' een");
    first.expect_shown(&["green"]).unwrap();
    let coloured = "return [...document.querySelectorAll('.xterm-rows span')].filter((e) => e.textContent === 'green').map((e) => getComputedStyle(e).color)";
    assert_eq!(first.script(coloured).unwrap(), json!(["rgb(0, 255, 0)"]));
    first.press("Copy").unwrap();

    // The switches; and the keyboard alone leads out of the console to them.
    first.press("Pause").unwrap();
    first.expect("h1", "Paused").unwrap();
    first.press("Resume").unwrap();
    first.expect("h1", "Running").unwrap();
    first.click(".xterm-screen").unwrap();
    first.chord(CONTROL, ']').unwrap();
    let focused = "return document.activeElement.textContent";
    assert_eq!(first.script(focused).unwrap(), "Copy");
    first.keys(&TAB.to_string()).unwrap();
    assert_eq!(first.script(focused).unwrap(), "Paste");
    first.expect(".events", "Started").unwrap();
    first.click("summary").unwrap();
    first
        .expect(".manifest code", "image: docker.io/library/alpine:3.23")
        .unwrap();

    first.must_be_usable("machine", &desk.pictures()).unwrap();
    first.must_be_clean().unwrap();
    first.click(".back a").unwrap();
    first.expect("td.phase", "Running").unwrap();
    first.expect("td.accelerator", "TCG").unwrap();
    first.expect("td.cpu", "%").unwrap();
    first.expect("td.memory", "MiB").unwrap();
    first.must_be_usable("list", &desk.pictures()).unwrap();
    // Nothing of it matches, which is not to have nothing.
    first.click("#filter").unwrap();
    first.keys("nowhere").unwrap();
    first.expect(".empty", "None of them has “nowhere”").unwrap();
    assert_eq!(first.text("table").unwrap(), "");
    first.must_be_usable("unmatched", &desk.pictures()).unwrap();
    first.keys(&"\u{e003}".repeat("nowhere".len())).unwrap();
    first.expect("td.phase", "Running").unwrap();

    // Gone is gone.
    first.click("td.name a").unwrap();
    first.press("Delete").unwrap();
    first.expect("dialog", "Delete vmi-alpine?").unwrap();
    first.must_be_usable("question", &desk.pictures()).unwrap();
    first.press("Delete").unwrap();
    first.expect("h1", "Gone").unwrap();
    first.must_be_clean().unwrap();
}

#[test]
fn nobody_without_the_token_learns_anything() {
    let desk = Desk::new();
    let folder = desk.handler.state_dir().join("web");
    let modes = [&folder, &folder.join("token"), &folder.join("address")].map(|path| mode(path));
    assert_eq!(modes, [0o700, 0o600, 0o600]);
    let address = desk.address();
    assert!(
        !desk.handler.log().contains(address.rsplit('=').next().unwrap()),
        "a log is no place for a token"
    );

    let page = desk.browser.page().unwrap();
    let (base, token) = address.split_once("#token=").unwrap();
    page.go(base).unwrap();
    page.expect("h1", "Log in").unwrap();
    page.must_be_usable("login", &desk.pictures()).unwrap();
    page.keys(&format!("guess{ENTER}")).unwrap();
    page.expect(".wrong", "not known here").unwrap();
    page.keys(&format!("{token}{ENTER}")).unwrap();
    page.expect("h1", "Virtual machines").unwrap();
    page.expect(".empty", "No machines here yet").unwrap();
    page.must_be_usable("empty", &desk.pictures()).unwrap();
    page.press("Log out").unwrap();
    page.expect("h1", "Log in").unwrap();
    page.must_be_clean().unwrap();

    // The token does not stay in the address, where somebody could look over a shoulder.
    page.go("about:blank").unwrap();
    page.go(&address).unwrap();
    page.expect("h1", "Virtual machines").unwrap();
    let shown = page.script("return location.href").unwrap();
    assert_eq!(shown, format!("{base}#/"));
}

#[test]
fn full_a_machine_is_started_and_stopped_in_a_browser() {
    let desk = Desk::new();
    let kubectl = desk.handler.kubectl().unwrap();
    kubectl.apply(&[machines::machine("Halted").unwrap()]).unwrap();
    let page = desk.browser.page().unwrap();
    page.go(&desk.address()).unwrap();
    page.expect("td.phase", "Stopped").unwrap();
    page.click("td.name a").unwrap();
    page.press("Start").unwrap();
    page.expect("h1", "Running").unwrap();
    page.expect_shown(&[PROMPT]).unwrap();
    let before = kubectl.vmi(NAME).unwrap()["metadata"]["uid"].clone();

    // Another instance has another console, which begins anew.
    type_line(&page, "echo $((6 * 7)) before");
    page.expect_shown(&["42 before"]).unwrap();
    page.press("Restart").unwrap();
    page.expect("dialog", "Restart vmi-alpine?").unwrap();
    page.press("Restart").unwrap();
    eventually("another instance", || {
        let now = kubectl.get(&["vmi", NAME])?["metadata"]["uid"].clone();
        Ok(Look::of((now != before && !now.is_null()).then_some(()), || {
            now.to_string()
        }))
    })
    .unwrap();
    page.expect("#console-state", "You are typing.").unwrap();
    let shown = page.expect_shown(&[PROMPT]).unwrap();
    assert!(!shown.contains("42 before"), "{shown}");

    page.press("Stop").unwrap();
    page.press("Stop").unwrap();
    page.expect("h1", "Stopped").unwrap();
    page.expect("#console-state", "does not run").unwrap();
    page.must_be_usable("stopped", &desk.pictures()).unwrap();
    page.must_be_clean().unwrap();
}

#[test]
fn full_fifty_megabytes_leave_the_page_usable() {
    let desk = Desk::new();
    desk.run_demo();
    let page = desk.at_console();
    // Numbers from a file, nine bytes a line: a shell's loop would take longer than the serial port.
    let lines =
        "seq 1000001 1620000 >/tmp/lines; for n in 1 2 3 4 5 6 7 8 9; do cat /tmp/lines >/dev/ttyS0; done";
    type_line(&page, &format!("{lines}; echo end=$((6 * 7))"));
    // Meanwhile what is clicked on is answered.
    page.press("Enlarge").unwrap();
    page.press("Make smaller").unwrap();
    page.expect(".events", "Started").unwrap();
    // An emulated serial port takes its time: some patiences, up to what the runner waits.
    let shown = (0..12).find_map(|_| page.expect_shown(&["end=42"]).ok());
    assert!(shown.is_some(), "{}", page.text(".xterm-rows").unwrap());
    type_line(&page, "echo $((40 + 3)) after");
    page.expect_shown(&["43 after"]).unwrap();
    page.chord(CONTROL, ']').unwrap();
    page.press("Copy").unwrap();
    let held = page.script("return performance.memory.usedJSHeapSize").unwrap();
    assert!(held.as_u64().unwrap() < 200 << 20, "the page holds {held} bytes");
    page.must_be_clean().unwrap();
}

#[test]
fn full_in_a_cluster_each_user_may_do_what_their_roles_let_them() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let node = HandlerSetup::on_node(&cluster, "n1").with(&["--grpc-listen", "127.0.0.1:0"]);
    let _node = node.start(&tools).unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let listen = format!("127.0.0.1:{port}").leak();
    let _api = Api::start_with(&tools, &cluster, &["--web-listen", listen]).unwrap();
    let kubectl = cluster.kubectl();
    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    kubectl.await_phase(NAME, "Running").unwrap();
    for (account, role) in [("ellen", "edit"), ("victor", "view")] {
        kubectl.ok(&["create", "serviceaccount", account]).unwrap();
        let role = format!("--clusterrole=kubevirt.io:{role}");
        let subject = format!("--serviceaccount=default:{account}");
        kubectl
            .ok(&["create", "rolebinding", account, &role, &subject])
            .unwrap();
        let events = format!("{account}-events");
        let look = [
            "create",
            "role",
            &events,
            "--verb=list,watch",
            "--resource=events",
        ];
        kubectl.ok(&look).unwrap();
        let role = format!("--role={events}");
        kubectl
            .ok(&["create", "rolebinding", &events, &role, &subject])
            .unwrap();
    }
    let token = |account: &str| {
        kubectl
            .ok(&["create", "token", account])
            .unwrap()
            .trim()
            .to_owned()
    };

    let browser = Browser::start().unwrap();
    let page = browser.page().unwrap();
    let enter = |account: &str| {
        page.go("about:blank").unwrap();
        page.go(&format!("https://{listen}/#token={}", token(account)))
            .unwrap();
        page.expect("h1", "Virtual machines").unwrap();
    };
    enter("ellen");
    // Nobody lets her list what is everybody's.
    page.expect(".wrong", "Name one of yours").unwrap();
    page.click("#namespace").unwrap();
    page.keys(&format!("default{ENTER}")).unwrap();
    page.expect("td.phase", "Running").unwrap();
    page.expect("td.cpu", "%").unwrap();
    page.click("td.name a").unwrap();
    page.expect("#console-state", "You are typing.").unwrap();
    page.expect_shown(&[PROMPT]).unwrap();
    type_line(&page, "echo $((6 * 7)) $(uname -m)");
    page.expect_shown(&["42 riscv64"]).unwrap();
    page.expect(".events", "Started").unwrap();
    page.press("Pause").unwrap();
    page.expect("h1", "Paused").unwrap();
    page.press("Resume").unwrap();
    page.expect("h1", "Running").unwrap();
    page.must_be_clean().unwrap();

    enter("victor");
    page.click("td.name a").unwrap();
    page.expect(".facts", "n1").unwrap();
    page.press("Pause").unwrap();
    page.expect(".switches .wrong", "cannot update resource").unwrap();
    page.expect("#console-state", "cannot get resource").unwrap();
    let asked = "return fetch('/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances').then((a) => a.status)";
    assert_eq!(
        page.script(asked).unwrap(),
        401,
        "without a token nothing is passed on"
    );
}
