//! What a thread that the guest has taken over might try.

use std::fs::{self, File};
use std::io;
use std::ptr;

use anyhow::{Context, Result};

/// A file that every host has and no machine needs.
const FORBIDDEN: &str = "/etc/passwd";

/// Something forbidden, and the harmless thing beside it.
#[derive(Debug, Clone, Copy)]
pub struct Deed {
    name: &'static str,
    run: fn() -> io::Result<()>,
}

const DEEDS: [Deed; 16] = [
    Deed {
        name: "nothing",
        run: || Ok(()),
    },
    Deed {
        name: "run-a-program",
        run: run_a_program,
    },
    Deed {
        name: "make-a-process",
        run: || system_call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0]),
    },
    Deed {
        name: "make-a-process-unseen",
        run: || system_call(libc::SYS_clone3, [0, 0, 0]),
    },
    Deed {
        name: "trace-a-process",
        run: || system_call(libc::SYS_ptrace, [0, 0, 0]),
    },
    Deed {
        name: "kill-another",
        run: || system_call(libc::SYS_tgkill, [1, 1, 0]),
    },
    Deed {
        name: "mount",
        run: || system_call(libc::SYS_mount, [0, 0, 0]),
    },
    Deed {
        name: "become-another-user",
        run: || system_call(libc::SYS_setuid, [65534, 0, 0]),
    },
    Deed {
        name: "load-a-kernel-program",
        run: || system_call(libc::SYS_bpf, [0, 0, 0]),
    },
    Deed {
        name: "open-the-internet",
        run: || system_call(libc::SYS_socket, [libc::AF_INET as usize, 1, 0]),
    },
    Deed {
        name: "open-a-unix-socket",
        run: || system_call(libc::SYS_socket, [libc::AF_UNIX as usize, 1, 0]),
    },
    Deed {
        name: "type-into-a-terminal",
        run: || system_call(libc::SYS_ioctl, [0, 0x5412, 0]),
    },
    Deed {
        name: "make-code",
        run: make_code,
    },
    Deed {
        name: "raise-a-limit",
        run: || system_call(libc::SYS_prlimit64, [0, 7, 1]),
    },
    Deed {
        name: "read-another-file",
        run: || File::open(FORBIDDEN).map(drop),
    },
    Deed {
        name: "write-another-file",
        run: || fs::write("/tmp/rvm-trespasser-was-here", ""),
    },
];

// === impl Deed ===

impl Deed {
    /// The deed of this name.
    pub fn named(name: &str) -> Result<Self> {
        let found = DEEDS.into_iter().find(|deed| deed.name == name);
        found.with_context(|| {
            format!(
                "there is no deed '{name}'; there are {}",
                DEEDS.map(|deed| deed.name).join(", ")
            )
        })
    }

    /// Tries it.
    pub fn do_it(self) -> io::Result<()> {
        (self.run)()
    }
}

fn run_a_program() -> io::Result<()> {
    std::process::Command::new("/bin/true").status().map(drop)
}

fn make_code() -> io::Result<()> {
    let access = libc::PROT_READ | libc::PROT_EXEC;
    #[expect(unsafe_code, reason = "safe mappings cannot be executed")]
    // SAFETY: a new anonymous mapping, at a place of the kernel's choice, changes nothing that is there.
    let mapping = unsafe {
        libc::mmap(
            ptr::null_mut(),
            4096,
            access,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapping == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A system call as it is, with all other arguments zero. None of those above does any harm where it is let through: their
/// arguments are wrong, or ask for nothing.
fn system_call(number: libc::c_long, [a, b, c]: [usize; 3]) -> io::Result<()> {
    #[expect(unsafe_code, reason = "what is forbidden has no safe form")]
    // SAFETY: see above; no argument is an address of this process's memory.
    let result = unsafe { libc::syscall(number, a, b, c, 0, 0, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if number == libc::SYS_clone && result == 0 {
        #[expect(unsafe_code, reason = "the child of a bare clone must not return into Rust")]
        // SAFETY: the child ends here.
        unsafe {
            libc::_exit(0)
        }
    }
    Ok(())
}
