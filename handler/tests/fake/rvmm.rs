//! A stand-in for rvmm in the handler's tests: the same arguments, run directory and sockets, and no guest.
//!
//! How it behaves is part of the VM's name: `poweroff-…` switches itself off when a viewer types, `crash-…` dies
//! without a word when a viewer types, `refuse-…` never comes up, `deaf-…` does not obey, `polite-…` has a
//! guest agent, which notes what it is told in `agent-told`, and switches itself off when it is asked to. The console greets and
//! gives back what is typed. It takes every disk that is plugged in, and gives it back.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rvmm_control::session::Session;
use rvmm_control::{
    Accelerator, Device, EndReason, Ending, Event, Info, Reply, Request, RunDir, RunLock, State,
};
use rvmm_spec::Spec;
use rvmm_spec::wire::Document;
use serde_json::Value;

struct Machine {
    spec: Spec,
    run: RunDir,
    /// Its guest was told that nothing is to be written.
    frozen: AtomicBool,
    /// What was plugged in.
    devices: Mutex<Vec<Device>>,
    /// Whoever takes it ends the machine.
    lock: Mutex<Option<RunLock>>,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |flag: &str| {
        args.iter()
            .skip_while(|arg| *arg != flag)
            .nth(1)
            .map(PathBuf::from)
            .expect("a flag")
    };
    let spec = Document::parse(&std::fs::read(value("--spec")).expect("a spec")).expect("a machine");
    assert!(!spec.name().starts_with("refuse"), "the fake refuses");
    let run = RunDir::new(value("--run-dir"));
    let lock = run.claim().expect("the run directory is free");
    let consoles = UnixListener::bind(run.console_socket()).expect("a console");
    let controls = UnixListener::bind(run.control_socket()).expect("a control socket");
    let machine = Arc::new(Machine {
        spec,
        run,
        frozen: AtomicBool::new(false),
        devices: Mutex::default(),
        lock: Mutex::new(Some(lock)),
    });
    end_with(machine.run.clone());
    let (of_consoles, of_controls) = (Arc::clone(&machine), machine);
    std::thread::spawn(move || {
        for stream in consoles.incoming().flatten() {
            let machine = Arc::clone(&of_consoles);
            std::thread::spawn(move || machine.console(stream));
        }
    });
    for stream in controls.incoming().flatten() {
        let machine = Arc::clone(&of_controls);
        std::thread::spawn(move || machine.control(stream));
    }
}

/// A test that fails leaves its machines behind, but takes their directory away.
fn end_with(run: RunDir) {
    std::thread::spawn(move || {
        while run.path().exists() {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        std::process::abort();
    });
}

impl Machine {
    fn console(&self, mut stream: UnixStream) {
        stream
            .write_all(format!("fake console of {}\n", self.spec.name()).as_bytes())
            .ok();
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..count]).ok();
            match self.spec.name().split('-').next() {
                Some("poweroff") => self.end(EndReason::Poweroff),
                Some("crash") => std::process::abort(),
                _ => {}
            }
        }
    }

    fn control(&self, mut stream: UnixStream) {
        let mut session = Session::default();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            session.feed(&buffer[..count]);
            while let Some(call) = session.next_call() {
                let killed = call.request == Request::Kill;
                match call.request {
                    Request::Info => session.answer(call.id, Reply::Info(Box::new(self.info()))),
                    Request::Kill => session.answer(call.id, Reply::Done),
                    Request::Stop { .. } => self.end(EndReason::Poweroff),
                    Request::Subscribe => {
                        session.subscribe();
                        session.answer(call.id, Reply::Done);
                        session.notify(&Event::Running);
                    }
                    Request::AskAgent { execute, .. } => {
                        let log = self.run.path().join("agent-told");
                        let mut log = File::options()
                            .append(true)
                            .create(true)
                            .open(log)
                            .expect("a log");
                        writeln!(log, "{execute}").expect("it is written");
                        match execute.as_str() {
                            "guest-fsfreeze-freeze" => self.frozen.store(true, Ordering::Relaxed),
                            "guest-fsfreeze-thaw" => self.frozen.store(false, Ordering::Relaxed),
                            _ => {}
                        }
                        session.answer(call.id, Reply::Agent(self.says(&execute)));
                    }
                    Request::AddDisk { id, .. } => {
                        let device = Device {
                            id: id.expect("a name"),
                            backend: "a disk".to_owned(),
                            plugged: true,
                        };
                        self.devices().push(device.clone());
                        session.answer(call.id, Reply::Plugged(device));
                    }
                    Request::RemoveDevice { id } => {
                        self.devices().retain(|device| device.id != id);
                        session.answer(call.id, Reply::Done);
                    }
                    // Nothing else is asked of it.
                    _ => session.answer(call.id, Reply::Done),
                }
                stream.write_all(session.pending()).ok();
                session.written(session.pending().len());
                if killed && !self.spec.name().starts_with("deaf") {
                    self.end(EndReason::Killed);
                }
            }
        }
    }

    /// What its guest's agent says.
    fn says(&self, command: &str) -> Value {
        match (command, self.frozen.load(Ordering::Relaxed)) {
            ("guest-fsfreeze-status", true) => "frozen".into(),
            ("guest-fsfreeze-status", false) => "thawed".into(),
            _ => 0.into(),
        }
    }

    fn devices(&self) -> MutexGuard<'_, Vec<Device>> {
        self.devices.lock().expect("nobody panics with it")
    }

    fn info(&self) -> Info {
        Info {
            name: self.spec.name().to_owned(),
            uid: self.spec.uid().map(str::to_owned),
            pid: std::process::id(),
            version: "fake".to_owned(),
            accelerator: Accelerator::Tcg,
            accelerator_reason: "the fake has none".to_owned(),
            state: State::Running,
            cpus: self.spec.cpus(),
            memory_bytes: self.spec.memory().bytes(),
            resets: 0,
            uptime_seconds: 0,
            agent: self.spec.name().starts_with("polite"),
            devices: self.devices().clone(),
            disk_error: None,
        }
    }

    fn end(&self, reason: EndReason) {
        let Some(lock) = self.lock.lock().expect("nobody panics with it").take() else {
            return;
        };
        let ending = Ending {
            reason,
            message: format!("the fake ended: {reason:?}"),
        };
        self.run.write_ending(&lock, &ending).expect("an ending");
        self.run.remove_sockets(&lock);
        std::process::exit(reason.exit_status().into());
    }
}
