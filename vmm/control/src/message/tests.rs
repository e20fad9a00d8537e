//! The README's tables against the types: each message stands there as it goes over the wire.

use std::collections::BTreeMap;

use rvmm_spec::{Disk, NetWish, Network};
use serde::de::DeserializeOwned;

use super::*;

const README: &str = include_str!("../../README.md");

/// One of each, in the table's order.
pub(crate) fn requests() -> Vec<Request> {
    vec![
        Request::Info,
        Request::Stats,
        Request::Subscribe,
        Request::Pause,
        Request::Resume,
        Request::Stop { deadline_seconds: 30 },
        Request::Kill,
        Request::Reset,
        Request::Balloon { bytes: 134_217_728 },
        Request::AskAgent {
            execute: "guest-get-host-name".to_owned(),
            arguments: None,
        },
        Request::AddDisk {
            id: Some("data".to_owned()),
            disk: DiskDocument::from(&Disk {
                read_only: true,
                serial: Some("s1".to_owned()),
                ..Disk::new("/d.img")
            }),
        },
        Request::AddNet {
            id: None,
            net: NetDocument::from(&NetWish::new(Network::Tap("tap1".parse().unwrap()))),
        },
        Request::RemoveDevice {
            id: "data".to_owned(),
        },
    ]
}

fn info() -> Info {
    Info {
        name: "vm".to_owned(),
        uid: None,
        pid: 7,
        version: "0.1.0".to_owned(),
        accelerator: Accelerator::Kvm,
        accelerator_reason: "KVM was asked for".to_owned(),
        state: State::Running,
        cpus: 1,
        memory_bytes: 268_435_456,
        resets: 0,
        uptime_seconds: 12,
        agent: true,
        devices: vec![Device {
            id: "disk0".to_owned(),
            backend: "/d.img".to_owned(),
            plugged: false,
        }],
        disk_error: None,
    }
}

fn data() -> Device {
    Device {
        id: "data".to_owned(),
        backend: "/d.img".to_owned(),
        plugged: true,
    }
}

fn replies() -> Vec<Reply> {
    let counters = BTreeMap::from([("console.output-bytes".to_owned(), 4096)]);
    vec![
        Reply::Info(Box::new(info())),
        Reply::Stats(Stats {
            counters,
            gauges: [("guest.free-memory".to_owned(), 8 << 20)].into(),
        }),
        Reply::Done,
        Reply::Agent(serde_json::json!({"host-name": "guest"})),
        Reply::Plugged(data()),
        Reply::Stopped(Stopped {
            how: How::Asked,
            by: Some(AskedBy::Agent),
        }),
        Reply::Refused(Refusal::new(
            RefusalCode::State,
            "the machine is running; 'resume' needs one that is paused",
        )),
    ]
}

fn events() -> Vec<Event> {
    vec![
        Event::Running,
        Event::Paused,
        Event::Stopping,
        Event::Reset,
        Event::Agent(true),
        Event::Watchdog(WatchdogAction::Reset),
        Event::DiskError(DiskError {
            disk: "disk0".to_owned(),
            message: "No space left on device".to_owned(),
        }),
        Event::Plugged(data()),
        Event::Unplugged(data()),
        Event::Ended(Ending {
            reason: EndReason::Poweroff,
            message: "the guest switched itself off".to_owned(),
        }),
    ]
}

/// The messages of a table of the README: what stands in backticks in the lines that begin so.
fn documented<T: DeserializeOwned>(beginning: &str) -> Vec<T> {
    README
        .lines()
        .filter_map(|line| line.split('`').find(|piece| piece.starts_with(beginning)))
        .map(|json| serde_json::from_str(json).unwrap())
        .collect()
}

#[test]
fn the_readme_shows_every_request_as_it_is_sent() {
    let calls: Vec<Call> = documented("{\"v\":");
    assert!(calls.iter().all(|call| call.v == VERSION));
    let shown: Vec<Request> = calls.into_iter().map(|call| call.request).collect();
    assert_eq!(shown, requests());
}

#[test]
fn the_readme_shows_every_answer_and_event_as_it_is_sent() {
    let answers = replies().into_iter().map(|reply| Line::Answer { id: 1, reply });
    assert_eq!(documented::<Line>("{\"id\":"), answers.collect::<Vec<_>>());
    let lines = events().into_iter().map(|event| Line::Event { event });
    assert_eq!(documented::<Line>("{\"event\":"), lines.collect::<Vec<_>>());
}

#[test]
fn what_is_sent_looks_as_the_readme_shows() {
    let answers = replies().into_iter().map(|reply| Line::Answer { id: 1, reply });
    for line in answers.chain(events().into_iter().map(|event| Line::Event { event })) {
        let json = serde_json::to_string(&line).unwrap();
        assert!(README.contains(&format!("`{json}`")), "{json}");
    }
    for request in requests() {
        let json = serde_json::to_string(&Call {
            v: VERSION,
            id: 1,
            request,
        });
        let json = json.unwrap();
        assert!(README.contains(&format!("`{json}`")), "{json}");
    }
}

#[test]
fn an_rvmm_of_before_is_understood() {
    let old = r#"{"id":1,"reply":{"info":{"name":"vm","uid":null,"pid":1,"version":"0","accelerator":"tcg","acceleratorReason":"a","state":"running","cpus":1,"memoryBytes":1,"resets":0}}}"#;
    let Line::Answer {
        reply: Reply::Info(info),
        ..
    } = serde_json::from_str(old).unwrap()
    else {
        unreachable!("it is an answer")
    };
    assert_eq!((info.devices.len(), info.agent), (0, false));
}
