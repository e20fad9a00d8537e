//! A QEMU process that ends with us, and the ends of the sockets that it inherits.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::io::FdFlags;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::process::{Pid, Signal};
use rvmm_spec::Thp;

/// Bytes of input that the kernel may hold for a console of QEMU: few, as what is typed should wait in the hub, from
/// where the next boot gets it if this one ends.
const INPUT_IN_FLIGHT: usize = 4 << 10;

/// Our ends of the sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub qmp: UnixStream,
    pub uart: UnixStream,
    pub console: UnixStream,
    pub agent: UnixStream,
}

// === impl Sockets ===

impl Sockets {
    /// Two ends of each: ours, which do not block, and QEMU's.
    pub(crate) fn pairs() -> io::Result<(Self, Self)> {
        let pair = || {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            set_socket_send_buffer_size(&ours, INPUT_IN_FLIGHT)?;
            io::Result::Ok((ours, theirs))
        };
        let (qmp, uart, console, agent) = (pair()?, pair()?, pair()?, pair()?);
        let ours = Self {
            qmp: qmp.0,
            uart: uart.0,
            console: console.0,
            agent: agent.0,
        };
        let theirs = Self {
            qmp: qmp.1,
            uart: uart.1,
            console: console.1,
            agent: agent.1,
        };
        Ok((ours, theirs))
    }
}

/// Starts QEMU. It is killed by the kernel when the calling thread ends, however that comes about, so this is to be
/// called by a thread that lives as long as QEMU may.
///
/// `inherited` stay open in QEMU, under their numbers; all else is closed there. Its error output is a pipe.
pub(crate) fn spawn(
    program: &Path,
    arguments: &[OsString],
    inherited: Vec<RawFd>,
    thp: Thp,
) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Ctrl-C of a terminal is for us; we end QEMU then.
        .process_group(0);
    #[expect(
        unsafe_code,
        reason = "what a child changes of itself between fork and exec has no safe form"
    )]
    // SAFETY: `set_up` only makes system calls: it takes no lock and allocates nothing, as is demanded between fork and
    // exec of a process with threads.
    unsafe {
        command.pre_exec(move || set_up(parent, &inherited, thp));
    }
    command.spawn()
}

fn set_up(parent: Pid, inherited: &[RawFd], thp: Thp) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Had the parent ended before that call, nobody would end QEMU.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::ErrorKind::NotFound.into());
    }
    unblock_signals()?;
    if thp == Thp::Never {
        // QEMU asks for huge pages wherever it has guest RAM; there is no option against it.
        rustix::thread::disable_transparent_huge_pages(true)?;
    }
    for &fd in inherited {
        #[expect(
            unsafe_code,
            reason = "descriptors come as numbers, as QEMU's arguments name them"
        )]
        // SAFETY: the caller of `spawn` holds these open until it returns, and the child has copies of all of them.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    Ok(())
}

/// rvmm takes its signals from a descriptor and so has them blocked, which a child would inherit.
fn unblock_signals() -> io::Result<()> {
    #[expect(unsafe_code, reason = "neither std nor rustix offer signal masks")]
    // SAFETY: the set is initialised by `sigemptyset` before it is read, and the former mask is not asked for.
    let error = unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

/// The numbers of QEMU's ends.
pub(crate) fn numbers(sockets: &Sockets) -> [RawFd; 4] {
    [&sockets.qmp, &sockets.uart, &sockets.console, &sockets.agent].map(AsRawFd::as_raw_fd)
}
