//! What clients and the run directory see.

use std::fs;
use std::os::fd::AsFd;

use rustix::process::Signal;
use rvmm_control::{
    AskedBy, Client, ClientError, EndReason, Event, How, RefusalCode, Request, State, Stopped,
};

use crate::stage::{Stage, eventually};

fn refused(result: Result<(), ClientError>) -> RefusalCode {
    match result.unwrap_err() {
        ClientError::Refused(refusal) => refusal.code,
        other => unreachable!("{other}"),
    }
}

#[test]
fn a_start_that_fails_is_written_down_in_the_place_of_an_earlier_ending() {
    let stage = Stage::new();
    fs::create_dir(stage.path("vm")).unwrap();
    fs::write(stage.path("text"), "no document").unwrap();
    for arguments in [
        &["--kernel", "/nonexistent", "--accel", "tcg", "--run-dir", "vm"][..],
        &["--spec", "text", "--run-dir", "vm"],
        &["--kernel", "Image", "--memory", "1M", "--run-dir", "vm"],
    ] {
        fs::write(
            stage.path("vm/exit.json"),
            r#"{"reason":"poweroff","message":"long ago"}"#,
        )
        .unwrap();
        let output = stage.run(arguments);
        assert_eq!(output.status.code(), Some(1));
        let ending = stage.ending();
        assert_eq!(ending.reason, EndReason::Failed);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, format!("rvmm: {}\n", ending.message));
        assert!(!stage.path("vm/control.sock").exists());
    }
}

#[test]
fn a_start_that_hangs_holds_up_neither_clients_nor_signals() {
    let stage = Stage::new();
    let machine = stage.start("before:exec sleep 1000");
    let mut client = stage.client();
    assert_eq!(client.info().unwrap().state, State::Starting);
    assert_eq!(refused(client.perform(Request::Pause)), RefusalCode::State);
    machine.signal(Signal::TERM);
    assert_eq!(machine.status(), Some(128 + 15));
    let machine = stage.start("before:exec sleep 1000");
    let stopped = stage.client().stop(600).unwrap();
    assert_eq!((stopped.how, stopped.by), (How::Killed, None));
    assert_eq!(machine.status(), Some(0));
}

#[test]
fn a_machine_is_paused_resumed_and_reset_and_says_so() {
    let stage = Stage::new();
    let machine = stage.start("pausable");
    let mut client = stage.client_when(State::Running);
    let mut events = Client::connect(&stage.run_dir().control_socket())
        .and_then(Client::subscribe)
        .unwrap();
    client.perform(Request::Pause).unwrap();
    assert_eq!(client.info().unwrap().state, State::Paused);
    assert_eq!(refused(client.perform(Request::Pause)), RefusalCode::State);
    client.perform(Request::Resume).unwrap();
    assert_eq!(client.info().unwrap().state, State::Running);
    assert_eq!(refused(client.perform(Request::Resume)), RefusalCode::State);
    client.perform(Request::Pause).unwrap();
    client.perform(Request::Reset).unwrap();
    let mut client = stage.client_when(State::Running);
    assert_eq!(client.info().unwrap().resets, 1);
    let unsupported = client.perform(Request::Balloon { bytes: 1 << 27 });
    assert_eq!(refused(unsupported), RefusalCode::Unsupported);
    client.kill().unwrap();
    assert_eq!(machine.status(), Some(0));
    let told: Vec<_> = events.by_ref().map(Result::unwrap).collect();
    let (last, before) = told.split_last().unwrap();
    assert_eq!(
        before,
        [
            Event::Paused,
            Event::Running,
            Event::Paused,
            Event::Reset,
            Event::Running
        ]
    );
    assert!(matches!(last, Event::Ended(ending) if ending.reason == EndReason::Killed));
}

/// An agent that listens, and switches off when it is told to.
const AGENT: &str = "port_open true; read -r sync <&$agent; printf '\\xff{\"return\": 1}\\n' >&$agent; \
                     read -r order <&$agent; [[ $order == *guest-shutdown* ]] && shutdown guest-shutdown";

#[test]
fn a_stop_asks_the_agent_and_says_that_the_guest_obeyed() {
    let stage = Stage::new();
    let machine = stage.start(AGENT);
    let mut client = stage.client_when(State::Running);
    eventually(|| client.info().unwrap().agent.then_some(()));
    let wanted = Stopped {
        how: How::Asked,
        by: Some(AskedBy::Agent),
    };
    assert_eq!(client.stop(600).unwrap(), wanted);
    assert_eq!(machine.status(), Some(0));
    assert_eq!(stage.ending().reason, EndReason::Poweroff);
}

/// An agent that knows its host's name.
const NAMED: &str = "port_open true; read -r sync <&$agent; printf '\\xff{\"return\": 1}\\n' >&$agent; \
                     read -r order <&$agent; printf '{\"return\": {\"host-name\": \"a\"}}\\n' >&$agent; exec sleep 1000";

#[test]
fn the_agent_is_asked_and_what_it_says_is_given_back() {
    let stage = Stage::new();
    let machine = stage.start(NAMED);
    let mut client = stage.client_when(State::Running);
    eventually(|| client.info().unwrap().agent.then_some(()));
    let said = client.ask_agent("guest-get-host-name", None).unwrap();
    assert_eq!(said, serde_json::json!({"host-name": "a"}));
    client.kill().unwrap();
    assert_eq!(machine.status(), Some(0));
}

#[test]
fn a_question_to_an_agent_that_is_not_there_is_refused() {
    let stage = Stage::new();
    let machine = stage.start("exec sleep 1000");
    let mut client = stage.client_when(State::Running);
    let asked = client.ask_agent("guest-ping", None);
    assert_eq!(refused(asked.map(drop)), RefusalCode::State);
    client.kill().unwrap();
    assert_eq!(machine.status(), Some(0));
}

#[test]
fn a_stop_kills_at_its_deadline_and_says_whether_anyone_was_asked() {
    let stage = Stage::new();
    let machine = stage.start("exec sleep 1000");
    let mut client = stage.client_when(State::Running);
    // The one that waits learns what the shorter one brought about.
    let socket = stage.run_dir().control_socket();
    let patient = std::thread::spawn(move || Client::connect(&socket).unwrap().stop(600).unwrap());
    eventually(|| (client.info().unwrap().state == State::Stopping).then_some(()));
    let stopped = client.stop(0).unwrap();
    assert_eq!((stopped.how, stopped.by), (How::Killed, None));
    assert_eq!(patient.join().unwrap(), stopped);
    assert_eq!(machine.status(), Some(0));
    let ending = stage.ending();
    assert_eq!(
        (ending.reason, ending.message.as_str()),
        (
            EndReason::Killed,
            "killed after 0 s: no guest agent could be asked"
        )
    );
}

#[test]
fn a_paused_guest_is_resumed_to_be_asked() {
    let stage = Stage::new();
    let machine = stage.start("pausable");
    let mut client = stage.client_when(State::Running);
    client.perform(Request::Pause).unwrap();
    let events = Client::connect(&stage.run_dir().control_socket())
        .and_then(Client::subscribe)
        .unwrap();
    client.stop(1).unwrap();
    assert_eq!(machine.status(), Some(0));
    let told: Vec<_> = events.map(Result::unwrap).collect();
    assert_eq!(told[..2], [Event::Stopping, Event::Running]);
}

#[test]
fn a_machine_starts_paused_begins_when_it_is_resumed_and_is_reset_running() {
    let stage = Stage::new();
    let machine = stage.start_with(&["--paused"], "echo -n $first, >&$uart; pausable");
    let mut client = stage.client_when(State::Paused);
    assert_eq!(refused(client.perform(Request::Pause)), RefusalCode::State);
    client.perform(Request::Resume).unwrap();
    assert_eq!(client.info().unwrap().state, State::Running);
    client.perform(Request::Reset).unwrap();
    let mut client = stage.client_when(State::Running);
    assert_eq!(client.info().unwrap().resets, 1);
    let printed = || fs::read_to_string(stage.run_dir().console_log()).unwrap();
    eventually(|| (printed() == "stop,cont,").then_some(()));
    client.kill().unwrap();
    assert_eq!(machine.status(), Some(0));
}

#[test]
fn a_machine_whose_guest_never_began_stops_at_once() {
    let stage = Stage::new();
    let machine = stage.start_with(&["--paused"], "pausable");
    let mut client = stage.client_when(State::Paused);
    let stopped = client.stop(600).unwrap();
    assert_eq!((stopped.how, stopped.by), (How::Killed, None));
    assert_eq!(machine.status(), Some(0));
    assert_eq!(
        stage.ending().message,
        "ended by the control socket, before the guest ran"
    );
}

#[test]
fn nothing_is_left_of_an_unpacked_kernel_when_rvmm_is_killed() {
    let stage = Stage::new();
    let machine = stage.start_kernel("Image.gz", "exec sleep 1000");
    stage.client_when(State::Running);
    machine.signal(Signal::KILL);
    assert_eq!(machine.status(), None);
    assert_eq!(fs::read_dir(stage.path("tmp")).unwrap().count(), 0);
    let mut left: Vec<_> = fs::read_dir(stage.path("vm"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["console.log", "console.sock", "control.sock", "pid", "spec.json"]
    );
}

#[test]
fn ctl_asks_in_words_and_in_json_and_a_refusal_is_one_line() {
    let stage = Stage::new();
    let machine = stage.start("pausable");
    stage.client_when(State::Running);
    let (status, said) = stage.ctl(&["info"]);
    assert!(
        status == Some(0) && said.contains("state        running\n"),
        "{said}"
    );
    let (status, said) = stage.ctl(&["-o", "json", "info"]);
    assert!(
        status == Some(0) && said.contains(r#""state":"running""#),
        "{said}"
    );
    let (status, said) = stage.ctl(&["stats", "-o", "json"]);
    assert!(
        status == Some(0) && said.contains(r#""console.output-bytes":"#),
        "{said}"
    );
    assert_eq!(
        stage.ctl(&["resume"]),
        (
            Some(1),
            "rvmm: the machine refused: the machine is running; 'resume' needs one that is paused\n"
                .to_owned()
        )
    );
    assert_eq!(stage.ctl(&["pause"]), (Some(0), String::new()));
    assert_eq!(
        stage.ctl(&["stop", "--deadline", "0", "-o", "json"]),
        (Some(0), "{\"how\":\"killed\",\"by\":null}\n".to_owned())
    );
    assert_eq!(machine.status(), Some(0));
    let (status, said) = stage.ctl(&["info"]);
    assert!(status == Some(1) && said.lines().count() == 1, "{said}");
}

#[test]
fn nothing_is_plugged_in_without_pci_and_nothing_pulled_out_that_is_not_there() {
    let stage = Stage::new();
    let machine = stage.start("pausable");
    let mut client = stage.client_when(State::Running);
    let add = Request::AddDisk {
        id: None,
        disk: (&rvmm_spec::Disk::new("/d")).into(),
    };
    let file = fs::File::open("/dev/null").unwrap();
    let why = client.plug(add, &[file.as_fd()]).unwrap_err();
    assert_eq!(
        why.to_string(),
        "the machine refused: devices are plugged in over PCI only: start the machine with --transport pci, or disks on bus scsi with --scsi"
    );
    let disk = rvmm_spec::Disk {
        bus: rvmm_spec::DiskBus::Scsi,
        ..rvmm_spec::Disk::new("/d")
    };
    let add = Request::AddDisk {
        id: None,
        disk: (&disk).into(),
    };
    let why = client.plug(add, &[file.as_fd()]).unwrap_err();
    assert_eq!(
        why.to_string(),
        "the machine refused: disks are plugged in on bus scsi where the machine has a controller: start it with --scsi"
    );
    let remove = Request::RemoveDevice {
        id: "disk7".to_owned(),
    };
    assert_eq!(refused(client.perform(remove)), RefusalCode::Failed);
    client.kill().unwrap();
    assert_eq!(machine.status(), Some(0));
}
