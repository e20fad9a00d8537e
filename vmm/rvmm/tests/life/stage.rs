//! A folder with a kernel that nobody boots, and an rvmm whose QEMU is a script (`vmm/qemu/src/tests/fake-qemu`): the
//! kernel's command line is what it does.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rvmm_control::{Client, Ending, Liveness, RunDir, State};

pub const RVMM: &str = env!("CARGO_BIN_EXE_rvmm");
const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../qemu/src/tests/fake-qemu");

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(120);

pub struct Stage {
    pub folder: tempfile::TempDir,
}

/// A running rvmm, killed when the test ends.
pub struct Rvmm {
    pub child: Child,
}

impl Stage {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut image = vec![0; 64];
        image[16..24].copy_from_slice(&4096u64.to_le_bytes());
        image[56..60].copy_from_slice(b"RSC\x05");
        fs::write(folder.path().join("Image"), &image).unwrap();
        let file = fs::File::create(folder.path().join("Image.gz")).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        packed.write_all(&image).unwrap();
        packed.finish().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        Self { folder }
    }

    pub fn run_dir(&self) -> RunDir {
        RunDir::new(self.folder.path().join("vm"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program that would start rvmm as all tests here do.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env("RVMM_QEMU", FAKE)
            .env_remove("RVMM_OPENSBI")
            .env("TMPDIR", self.path("tmp"));
        command
    }

    /// Runs rvmm to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(RVMM)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// A machine in the run directory, whose QEMU does this.
    pub fn start(&self, act: &str) -> Rvmm {
        self.start_kernel("Image", act)
    }

    pub fn start_kernel(&self, kernel: &str, act: &str) -> Rvmm {
        self.spawn(&["--kernel", kernel, "--cmdline", act])
    }

    /// The same with more options.
    pub fn start_with(&self, options: &[&str], act: &str) -> Rvmm {
        self.spawn(&[&["--kernel", "Image", "--cmdline", act], options].concat())
    }

    fn spawn(&self, options: &[&str]) -> Rvmm {
        let child = self
            .command(RVMM)
            .args(["--accel", "tcg", "--run-dir", "vm"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Rvmm { child }
    }

    /// A client, once someone listens.
    pub fn client(&self) -> Client {
        let socket = self.run_dir().control_socket();
        eventually(|| Client::connect(&socket).ok())
    }

    /// A client of a machine that is in this state by now.
    pub fn client_when(&self, state: State) -> Client {
        let mut client = self.client();
        eventually(|| (client.info().unwrap().state == state).then_some(()));
        client
    }

    pub fn ending(&self) -> Ending {
        match self.run_dir().liveness().unwrap() {
            Liveness::Ended(ending) => ending,
            other => unreachable!("{other:?}"),
        }
    }

    /// What `rvmm ctl` says to this, with its status.
    pub fn ctl(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.run(&[&["ctl", "--run-dir", "vm"], words].concat());
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }
}

impl Rvmm {
    pub fn status(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Rvmm {
    fn drop(&mut self) {
        // It may be over, and reaped.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Looks until there is something.
pub fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "nothing came");
        std::thread::sleep(Duration::from_millis(10));
    }
}
