//! `make run` as a newcomer meets it, after the building: without a terminal, with one, and where the user has a
//! machine of that name.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::sync::Arc;

use rvm_e2e::guest::{self, NAME};
use rvm_harness::tools::{Environment, shown};
use rvm_harness::{HandlerSetup, Manifest, Tools};

/// What `make run` does once everything is built.
const RUN: [&str; 3] = ["xtask", "run", "--built"];

/// A user's folders, in which nothing was ever run.
struct User {
    tools: Arc<Tools>,
    folder: tempfile::TempDir,
}

impl User {
    fn new() -> Self {
        Self {
            tools: Tools::open().unwrap(),
            folder: tempfile::Builder::new().prefix("rvm-user-").tempdir().unwrap(),
        }
    }

    fn environment(&self) -> Environment {
        let place = |name: &str| shown(&self.folder.path().join(name));
        vec![
            ("RVM_RUN".to_owned(), place("run")),
            ("RVM_STATE".to_owned(), place("state")),
        ]
    }

    /// Nothing runs any more, and no machine's directory is left.
    fn assert_nothing_left(&self) {
        let names = fs::read_dir(self.folder.path().join("run")).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            !names.iter().any(|name| name == "rvm.sock" || name.len() == 36),
            "{names:?}"
        );
    }
}

#[test]
fn without_a_terminal_it_prints_the_console_up_to_the_prompt_and_ends_well() {
    let user = User::new();
    let output = user.tools.run(&RUN, &user.environment(), "").unwrap();
    let said = output.ok().unwrap();
    assert!(said.contains(guest::PROMPT), "{said}");
    user.assert_nothing_left();
}

#[test]
fn with_a_terminal_it_stays_attached_until_the_escape_key() {
    let user = User::new();
    let session = user.tools.start_on_terminal(&RUN, &user.environment()).unwrap();
    let console = guest::answers(session).unwrap();
    let output = console.leave().unwrap();
    assert_eq!(output.status(), Some(0), "{}", output.text());
    user.assert_nothing_left();
}

#[test]
fn a_users_machine_of_that_name_is_not_touched() {
    let tools = Tools::open().unwrap();
    let mut handler = HandlerSetup::local().start(&tools).unwrap();
    // Its image is nowhere, so that it need not be booted.
    let own = Manifest::demo()
        .unwrap()
        .with(|vmi| vmi["spec"]["volumes"][0]["containerDisk"]["image"] = "rvm.test/none:1".into());
    let kubectl = handler.kubectl().unwrap();
    kubectl.apply(&[own]).unwrap();
    let before = kubectl.vmi(NAME).unwrap()["metadata"]["uid"].clone();
    let environment = handler.environment();
    let refused = |running: &str| {
        let output = tools.run(&RUN, &environment, "").unwrap();
        let said = output.error_text();
        assert_eq!(output.status(), Some(1), "{running}: {said}");
        assert!(
            said.contains("there is a machine vmi-alpine already"),
            "{running}: {said}"
        );
    };
    refused("while the user's handler runs");
    handler.terminate().unwrap();
    refused("while it does not");
    handler.start().unwrap();
    let kubectl = handler.kubectl().unwrap();
    assert_eq!(kubectl.vmi(NAME).unwrap()["metadata"]["uid"], before);
}
