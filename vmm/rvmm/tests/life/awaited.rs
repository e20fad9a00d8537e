//! An rvmm that waits for its machine: what it takes, from whom, and how it ends.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use rvmm_control::launch::{self, LaunchError, SOCKET};
use rvmm_control::{EndReason, Liveness, Request, State};
use rvmm_spec::{AcceleratorChoice, Boot, Disk, Spec};

use crate::stage::{RVMM, Rvmm, Stage, eventually};

/// Who a container's process is.
const USER: u32 = 107;

impl Stage {
    /// An rvmm that waits, with what it prints in a file.
    fn wait(&self, options: &[&str]) -> Rvmm {
        fs::create_dir_all(self.path("vm")).unwrap();
        let mut command = self.command(RVMM);
        command.args(["--await", "vm"]).args(options);
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(self.path("printed")).unwrap())
            .spawn()
            .unwrap();
        Rvmm { child }
    }

    /// A way to one who waits.
    fn giver(&self) -> UnixStream {
        let socket = self.path("vm").join(SOCKET);
        eventually(|| UnixStream::connect(&socket).ok())
    }

    /// A machine whose files nobody but us finds by their names.
    fn spec(&self, act: &str) -> Spec {
        let boot = Boot {
            cmdline: act.to_owned(),
            ..Boot::new(self.path("Image"))
        };
        fs::write(self.path("disk"), [7; 4096]).unwrap();
        let wish = Spec::builder(boot).accelerator(AcceleratorChoice::Tcg);
        wish.disk(Disk::new(self.path("disk"))).build().unwrap()
    }

    fn give(&self, spec: &Spec) -> Result<(), LaunchError> {
        let files: Vec<File> = launch::files(spec)
            .iter()
            .map(|(path, _)| File::open(path).unwrap())
            .collect();
        let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        launch::hand_over(&self.giver(), spec, &files)
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.path("printed")).unwrap()
    }
}

#[test]
fn a_machine_that_is_brought_runs_from_descriptors_and_over_a_reset() {
    let stage = Stage::new();
    let machine = stage.wait(&[]);
    // The files are gone from where they were when it boots; a boot that has the disk, as QEMU has it, ends well.
    let act = "for disk in /proc/self/fd/*; do [[ $(readlink $disk) == */disk* ]] && head -c1 <$disk >&$uart; done; pausable";
    let spec = stage.spec(act);
    stage.give(&spec).unwrap();
    for name in ["Image", "disk"] {
        fs::remove_file(stage.path(name)).unwrap();
    }
    let mut client = stage.client_when(State::Running);
    eventually(|| (stage.printed().bytes().filter(|byte| *byte == 7).count() == 1).then_some(()));
    client.perform(Request::Reset).unwrap();
    eventually(|| (stage.printed().bytes().filter(|byte| *byte == 7).count() == 2).then_some(()));
    client.kill().unwrap();
    assert_eq!(machine.status(), Some(0));
    assert_eq!(stage.ending().reason, EndReason::Killed);
    assert!(!stage.path("vm").join(SOCKET).exists());
}

#[test]
fn one_who_waits_takes_one_machine_and_refuses_what_is_none() {
    let stage = Stage::new();
    let machine = stage.wait(&[]);
    let spec = stage.spec("exec sleep 1000");
    let none = launch::hand_over(&stage.giver(), &spec, &[]).unwrap_err();
    assert_eq!(
        none.to_string(),
        "the machine was refused: the machine has 2 files and 0 descriptors came"
    );
    assert_eq!(stage.run_dir().liveness().unwrap(), Liveness::Dead);
    stage.give(&spec).unwrap();
    let taken = stage.run_dir().liveness().unwrap();
    assert!(matches!(taken, Liveness::Alive(_)), "{taken:?}");
    assert!(UnixStream::connect(stage.path("vm").join(SOCKET)).is_err());
    stage.client_when(State::Running).kill().unwrap();
    machine.status();
}

#[test]
fn one_who_waits_ends_when_it_is_told_to() {
    let stage = Stage::new();
    let machine = stage.wait(&[]);
    stage.giver();
    machine.signal(Signal::TERM);
    assert_eq!(machine.status(), Some(128 + 15));
    assert_eq!(stage.run_dir().liveness().unwrap(), Liveness::Dead);
}

#[test]
fn a_guest_that_can_be_asked_has_its_grace_at_the_end_and_another_has_none() {
    let agent = "port_open true; read -r sync <&$agent; printf '\\xff{\"return\": 1}\\n' >&$agent; \
                 read -r order <&$agent; [[ $order == *guest-shutdown* ]] && shutdown guest-shutdown";
    for (act, listens, expected) in [
        (agent, true, (EndReason::Poweroff, Some(0))),
        ("exec sleep 1000", false, (EndReason::Killed, Some(128 + 15))),
    ] {
        let stage = Stage::new();
        let machine = stage.wait(&["--grace", "100"]);
        stage.give(&stage.spec(act)).unwrap();
        let mut client = stage.client_when(State::Running);
        eventually(|| (client.info().unwrap().agent == listens).then_some(()));
        machine.signal(Signal::TERM);
        let status = machine.status();
        assert_eq!((stage.ending().reason, status), expected);
    }
}

#[test]
fn a_user_without_rights_runs_what_others_opened_and_writes_no_more_than_it_may() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can be two users");
        return;
    }
    let stage = Stage::new();
    for folder in [stage.folder.path(), &stage.path("vm"), &stage.path("tmp")] {
        fs::create_dir_all(folder).unwrap();
        std::os::unix::fs::chown(folder, Some(USER), Some(USER)).unwrap();
    }
    // A folder of root's, where the user finds nothing.
    let closed = stage.path("closed");
    fs::create_dir(&closed).unwrap();
    let shut = |path: &Path, mode| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    shut(&closed, 0o700);
    let act = "for file in /proc/self/fd/*; do case $(readlink $file) in \
               */kept) head -c1 <$file >&$uart; (echo x >$file) 2>/dev/null && echo written >&$uart;; \
               */own) echo x >$file && echo mine >&$uart;; esac; done; shutdown guest-shutdown";
    let (kept, own) = (closed.join("kept"), closed.join("own"));
    fs::write(&kept, [b'k'; 4096]).unwrap();
    fs::write(&own, [b'o'; 4096]).unwrap();
    shut(&kept, 0o444);
    shut(&own, 0o600);
    std::os::unix::fs::chown(&own, Some(USER), Some(USER)).unwrap();
    shut(&stage.path("Image"), 0o444);
    let boot = Boot {
        cmdline: act.to_owned(),
        ..Boot::new(stage.path("Image"))
    };
    let read_only = Disk {
        read_only: true,
        ..Disk::new(&kept)
    };
    let wish = Spec::builder(boot).accelerator(AcceleratorChoice::Tcg);
    let spec = wish.disk(read_only).disk(Disk::new(&own)).build().unwrap();
    let mut command = stage.command(RVMM);
    command.args(["--await", "vm"]).uid(USER).gid(USER);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let Ok(child) = child else {
        eprintln!("not run: user {USER} cannot reach the program");
        return;
    };
    let machine = Rvmm { child };
    stage.give(&spec).unwrap();
    assert_eq!(machine.status(), Some(0), "{:?}", stage.ending());
    let said = fs::read_to_string(stage.run_dir().console_log()).unwrap();
    // Descriptors have no order that matters.
    assert!(["kmine\n", "mine\nk"].contains(&said.as_str()), "{said}");
    assert!(fs::read(&kept).unwrap().iter().all(|byte| *byte == b'k'));
}
