//! Whole lives of a QEMU: of a script that speaks its protocol (`fake-qemu`), and of the real one with a kernel of ten
//! instructions.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use event_manager::{EventManager, SubscriberOps};
use rvmm_backends::console::Server;
use rvmm_sandbox::Walls;
use rvmm_spec::{Boot, CacheMode, Disk, MemorySize, SpecBuilder, Thp};

use super::*;

const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/fake-qemu");

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A guest, and what is known of it.
struct Life {
    guest: Option<QemuGuest>,
    news: Receiver<News>,
    agent: Agent,
    folder: tempfile::TempDir,
    hub: Hub,
}

impl Life {
    fn start(program: &str, kernel: &[u8], wish: impl FnOnce(SpecBuilder) -> SpecBuilder, act: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Image");
        fs::write(&path, kernel).unwrap();
        let boot = Boot {
            cmdline: act.replace("$folder", &folder.path().display().to_string()),
            ..Boot::new(path)
        };
        let spec = wish(Spec::builder(boot)).build().unwrap();
        let hub = Hub::new().unwrap();
        hub.log_to(&folder.path().join("log")).unwrap();
        let (sender, news) = mpsc::channel();
        let on_news: OnNews = Arc::new(move |said| sender.send(said).unwrap());
        let agent = Agent::new(Box::new(|_| {})).unwrap();
        let from = Start {
            launcher: &Launcher::start(&Walls::none()).unwrap(),
            program: Some(Path::new(program)),
            folder: folder.path(),
        };
        let guest = QemuGuest::start_program(
            &from,
            &spec,
            &hub,
            &agent,
            Arc::new(Wishes::new().unwrap()),
            on_news,
        );
        Self {
            guest: Some(guest.unwrap()),
            news,
            agent,
            folder,
            hub,
        }
    }

    /// A life played by the script.
    fn play(act: &str) -> Self {
        Self::start(FAKE, &image(0), |wish| wish, act)
    }

    fn next(&self) -> News {
        self.news.recv_timeout(LONG).unwrap()
    }

    /// How it ended, after it ran.
    fn outcome(&self) -> Outcome {
        assert_eq!(self.next(), News::Running);
        self.end()
    }

    fn end(&self) -> Outcome {
        match self.next() {
            News::Ended(outcome) => outcome,
            other => unreachable!("{other:?}"),
        }
    }

    /// Why it never ran.
    fn error(&self) -> String {
        match self.end() {
            Outcome::Failed(why) => why,
            other => unreachable!("{other:?}"),
        }
    }

    /// All that was printed, once the guest is gone.
    fn printed(mut self) -> String {
        drop(self.guest.take());
        drop(self.hub);
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

/// A kernel that prints `hi` and asks the SBI for this kind of reset: 0 to power off, 1 to reboot.
fn image(reset: u32) -> Vec<u8> {
    let print = |letter: u8| [0x0010_0893, 0x0000_0513 | u32::from(letter) << 20, 0x73]; // a7 = 1, a0 = letter, ecall
    let system_reset = [
        0x5352_58b7,
        0x3548_8893,
        0x813,
        0x513 | reset << 20,
        0x593,
        0x73,
        0x6f,
    ]; // SRST, then stay
    let code = [&print(b'h')[..], &print(b'i'), &system_reset].concat();
    let mut image = vec![0; 64];
    image[..4].copy_from_slice(&0x0400_006f_u32.to_le_bytes()); // j 64
    image[8..16].copy_from_slice(&0x20_0000_u64.to_le_bytes());
    image[16..24].copy_from_slice(&4096_u64.to_le_bytes());
    image[56..60].copy_from_slice(b"RSC\x05");
    image.extend(code.into_iter().flat_map(u32::to_le_bytes));
    image
}

fn paused(wish: SpecBuilder) -> SpecBuilder {
    wish.on_start(OnStart::Pause)
}

#[test]
fn a_power_off_comes_after_the_last_output_of_both_consoles() {
    let life = Life::play("shutdown guest-shutdown; echo -n one >&$uart; echo -n two >&$console");
    assert_eq!(life.outcome(), Outcome::Poweroff);
    let printed = life.printed();
    assert!(printed.contains("one") && printed.contains("two"), "{printed}");
}

#[test]
fn a_reset_and_a_failure_of_the_guest_are_told_apart() {
    assert_eq!(Life::play("shutdown guest-reset").outcome(), Outcome::Reset);
    let failed = Outcome::Failed("the guest switched itself off with failure code 7".to_owned());
    assert_eq!(Life::play("shutdown guest-panic; exit 7").outcome(), failed);
}

#[test]
fn a_qemu_that_dies_or_is_ended_by_others_is_a_failure() {
    let died = Outcome::Failed("QEMU ended by itself: it hurts".to_owned());
    assert_eq!(
        Life::play("echo 'qemu-system-riscv64: it hurts' >&2; exit 1").outcome(),
        died
    );
    let killed = Outcome::Failed("QEMU ended by itself: signal: 9 (SIGKILL)".to_owned());
    assert_eq!(Life::play("kill -9 $$").outcome(), killed);
    let ended = Outcome::Failed("QEMU was ended from outside (host-signal)".to_owned());
    assert_eq!(Life::play("shutdown host-signal").outcome(), ended);
}

#[test]
fn a_failed_start_is_one_clear_line_and_no_outcome() {
    let life = Life::play("before:echo 'qemu-system-riscv64: no such thing' >&2; exit 1");
    assert_eq!(life.error(), "QEMU could not start the machine: no such thing");
}

#[test]
fn a_version_without_our_machine_is_refused() {
    let life = Life::play("before:version='\"major\": 7, \"minor\": 2, \"micro\": 22'");
    assert_eq!(life.error(), "QEMU 7.2.22 is too old: 8.2 or later is needed");
}

#[test]
fn a_qemu_that_cannot_give_up_system_calls_runs_without() {
    let refuse = "before:[ -z $sandbox ] || { echo \"$0: -sandbox on: seccomp is not compiled into this build\" >&2; exit 1; }";
    let life = Life::play(&format!("{refuse}; act=before::'shutdown guest-shutdown'"));
    assert_eq!(life.outcome(), Outcome::Poweroff);
}

#[test]
fn a_guest_is_paused_and_resumed_and_can_be_killed_meanwhile() {
    let mut life = Life::play("pausable");
    assert_eq!(life.next(), News::Running);
    let guest = life.guest.take().unwrap();
    guest.pause();
    assert_eq!(life.next(), News::Paused);
    guest.resume();
    assert_eq!(life.next(), News::Running);
    guest.pause();
    assert_eq!(life.next(), News::Paused);
    guest.kill();
    assert!(life.news.recv().is_err());
}

#[test]
fn a_guest_that_starts_paused_runs_when_it_is_resumed() {
    let mut life = Life::start(FAKE, &image(0), paused, "[ $first = stop ] || exit 99; pausable");
    assert_eq!(life.next(), News::Paused);
    let guest = life.guest.take().unwrap();
    guest.resume();
    assert_eq!(life.next(), News::Running);
    guest.pause();
    assert_eq!(life.next(), News::Paused);
    guest.kill();
    assert!(life.news.recv().is_err());
}

#[test]
fn an_agent_is_told_to_switch_the_guest_off() {
    let act = "port_open true; read -r sync <&$agent; printf '\\xff{\"return\": 1}\\n' >&$agent; \
               read -r order <&$agent; [[ $order == *guest-shutdown* ]] && shutdown guest-shutdown";
    let life = Life::play(act);
    life.agent.ask_poweroff();
    assert_eq!(life.outcome(), Outcome::Poweroff);
    assert!(life.agent.was_told());
}

#[test]
fn a_start_that_hangs_holds_up_nobody_and_can_be_ended() {
    let mut life = Life::play("before:exec sleep 1000");
    life.guest.take().unwrap().kill();
    assert!(life.news.recv().is_err());
}

#[test]
fn a_killed_guest_is_gone_and_has_no_outcome() {
    let mut life = Life::play("echo $$ > $folder/pid; echo -n up >&$uart; exec sleep 1000");
    let (pid, end) = (life.folder.path().join("pid"), Instant::now() + LONG);
    while !fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n')) {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }
    let process = Path::new("/proc").join(fs::read_to_string(pid).unwrap().trim());
    assert!(process.exists());
    life.guest.take().unwrap().kill();
    assert!(!process.exists());
    assert_eq!(life.next(), News::Running);
    assert!(life.news.recv().is_err());
}

#[test]
fn a_qemu_dies_with_the_thread_that_watches_it() {
    let arguments = ["1000".into()];
    let spawning =
        thread::spawn(move || spawn(Path::new("sleep"), &arguments, Vec::new(), Thp::Always).unwrap());
    let status = spawning.join().unwrap().wait().unwrap();
    assert_eq!(status.signal(), Some(9));
}

#[test]
fn what_is_typed_reaches_the_console_in_focus_also_when_it_is_slow() {
    let act = "read -rN 3 x <&$console; sleep 0.2; read -rN 40000 y <&$console; echo -n $x${#y} >&$uart; exec sleep 1000";
    let life = Life::start(FAKE, &image(0), |wish| wish.console(Console::Virtio), act);
    assert_eq!(life.next(), News::Running);
    let socket = life.folder.path().join("console.sock");
    let mut server = Server::new(life.hub.clone()).unwrap();
    server.listen(&socket).unwrap();
    let mut events = EventManager::new().unwrap();
    events.add_subscriber(server);
    let typist = thread::spawn(move || {
        let mut viewer = UnixStream::connect(socket).unwrap();
        viewer.write_all(b"abc").unwrap();
        viewer.write_all(&[b'x'; 40000]).unwrap();
        let mut answer = [0; 8];
        viewer.read_exact(&mut answer).map(|()| answer)
    });
    while !typist.is_finished() {
        assert_eq!(life.news.try_recv().ok(), None, "the guest is to stay");
        events.run_with_timeout(10).unwrap();
    }
    assert_eq!(&typist.join().unwrap().unwrap(), b"abc40000");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let life = Life::start("/nonexistent/qemu", &image(0), |wish| wish, "");
    let error = life.error();
    assert!(
        error.starts_with("QEMU ('/nonexistent/qemu') cannot be started: "),
        "{error}"
    );
}

/// The real one, on the PATH or named by `RVMM_QEMU`; `make test` has it there.
fn real(kernel: &[u8], wish: impl FnOnce(SpecBuilder) -> SpecBuilder) -> Life {
    let program = find::program().unwrap();
    Life::start(program.to_str().unwrap(), kernel, wish, "console=ttyS0")
}

#[test]
fn a_real_qemu_prints_and_powers_off() {
    let life = real(&image(0), |wish| wish.cpus(2));
    assert_eq!(life.outcome(), Outcome::Poweroff);
    let printed = life.printed();
    assert!(
        printed.contains("OpenSBI") && printed.ends_with("hi"),
        "{printed}"
    );
}

#[test]
fn a_real_qemu_that_starts_paused_prints_nothing_before_it_is_resumed() {
    let life = real(&image(0), paused);
    assert_eq!(life.next(), News::Paused);
    assert_eq!(life.hub.end(), 0);
    life.guest.iter().for_each(QemuGuest::resume);
    assert_eq!(life.outcome(), Outcome::Poweroff);
    assert!(life.printed().ends_with("hi"));
}

#[test]
fn a_real_qemu_ends_with_a_reset() {
    assert_eq!(real(&image(1), |wish| wish).outcome(), Outcome::Reset);
}

#[test]
fn a_real_qemu_takes_all_our_arguments_and_locks_its_disks() {
    let image_file = tempfile::NamedTempFile::with_suffix(",x.img").unwrap();
    image_file.as_file().set_len(1 << 20).unwrap();
    let disk = |read_only| Disk {
        read_only,
        serial: Some("a,b".to_owned()),
        direct: false,
        cache: CacheMode::Writethrough,
        queues: 2,
        iops: Some(1000),
        bandwidth: Some(MemorySize::from_mib(100)),
        ..Disk::new(image_file.path())
    };
    let stay = [&image(0)[..64], &0x6f_u32.to_le_bytes()].concat();
    let running = real(&stay, |wish| {
        wish.disk(disk(false)).console(Console::Virtio).cpus(2)
    });
    assert_eq!(running.next(), News::Running);
    let second = real(&stay, |wish| wish.disk(disk(true)).cpus(2));
    let path = image_file.path().display();
    assert_eq!(
        second.error(),
        format!("disk '{path}' is in use by another process, which writes it")
    );
}
