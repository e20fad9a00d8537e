//! Asks a guest's machine a question from user space, the way programs do without knowing it.
//!
//! `probe vdso` reads the clock as glibc's `clock_gettime` does: by calling into the vDSO, which executes `rdtime`. A
//! machine monitor that leaves `scounteren.TM` clear kills every such program with SIGILL, and a busybox
//! guest never shows it. It says `vdso ok`, or what went wrong with status 1.
//!
//! | `probe …` | where | what |
//! | --- | --- | --- |
//! | `agent` | guest | the guest agent of a guest whose process 1 is a shell: it ends the machine itself |
//! | `ask-host PORT TEXT` | guest | says a text to a port of the host (`AF_VSOCK`), prints the answer |
//! | `answer-host PORT` | guest | answers the first who comes, in capitals, prints what he said |
//! | `ask-path PATH TEXT`, `answer-path PATH` | host | the same over a Unix socket; `/` in the text ends a line |
//! | `zero FILE OFFSET LENGTH` | guest | has the kernel write zeroes, by whatever way the disk under FILE knows |
//! | `unmap FILE OFFSET LENGTH` | guest | gives back the space there |
//! | `read FILE BLOCK COUNT`, `write …` | guest | moves so many blocks, says how long that took; `read-direct` and `write-direct` past the cache |
//! | `serve-tcp ADDRESS CLIENTS` | host | serves so many of these: |
//! | `send-tcp ADDRESS BYTES`, `receive-tcp …`, `ask-tcp ADDRESS TIMES` | guest | says how long it took |

mod disks;
mod sockets;
mod stopwatch;
mod streams;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::num::ParseIntError;
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;
use std::str::FromStr;

use disks::Way;
use rustix::system::{RebootCommand, reboot};
use rvm_guest_init::agent::{self, Shutdown};

/// The entry of the auxiliary vector that says where the vDSO lies.
const AT_SYSINFO_EHDR: u64 = 33;
/// The vDSO is two pages at most.
const VDSO_MAX: usize = 8192;
/// What the vDSO calls its clock.
const CLOCK_GETTIME: &[u8] = b"__vdso_clock_gettime\0";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let answer = match words[..] {
        ["vdso"] => vdso(),
        ["agent"] => agent::serve(end_machine),
        ["ask-host", port, text] => said(number(port).and_then(|port| sockets::ask_host(port, text))),
        ["answer-host", port] => said(number(port).and_then(sockets::answer_host)),
        ["ask-path", path, text] => said(sockets::ask_path(path, text)),
        ["answer-path", path] => said(sockets::answer_path(path)),
        ["zero", path, offset, length] => disks::zero(path, offset, length),
        ["unmap", path, offset, length] => disks::unmap(path, offset, length),
        ["read", path, block, count] => disks::read(path, block, count, Way::Cached),
        ["read-direct", path, block, count] => disks::read(path, block, count, Way::Direct),
        ["write", path, block, count] => disks::write(path, block, count, Way::Cached),
        ["write-direct", path, block, count] => disks::write(path, block, count, Way::Direct),
        ["serve-tcp", address, count] => {
            plain(number(count).and_then(|clients| streams::serve(address, clients)))
        }
        ["send-tcp", address, count] => plain(number(count).and_then(|bytes| streams::send(address, bytes))),
        ["receive-tcp", address, count] => {
            plain(number(count).and_then(|bytes| streams::receive(address, bytes)))
        }
        ["ask-tcp", address, count] => plain(number(count).and_then(|times| streams::ask(address, times))),
        _ => Err("usage: probe WHAT …; this program's own text has the list".to_owned()),
    };
    let (said, status) = match answer {
        Ok(said) => (said, ExitCode::SUCCESS),
        Err(problem) => (problem, ExitCode::FAILURE),
    };
    let _ = writeln!(io::stdout(), "{said}");
    status
}

fn number<T: FromStr<Err = ParseIntError>>(text: &str) -> io::Result<T> {
    text.parse().map_err(io::Error::other)
}

fn plain(said: io::Result<String>) -> Result<String, String> {
    said.map_err(|error| error.to_string())
}

fn said(heard: io::Result<String>) -> Result<String, String> {
    plain(heard.map(|text| format!("heard: {text}")))
}

/// Ends the machine without asking other programs.
fn end_machine(shutdown: Shutdown) {
    rustix::fs::sync();
    let command = match shutdown {
        Shutdown::PowerOff => RebootCommand::PowerOff,
        Shutdown::Reset => RebootCommand::Restart,
    };
    if let Err(error) = reboot(command) {
        let _ = writeln!(io::stderr(), "the kernel does not end the machine: {error}");
    }
}

/// Reads the clock twice through the vDSO and the counter beneath it once.
fn vdso() -> Result<String, String> {
    let base = vdso_address()?;
    let mut image = vec![0; VDSO_MAX];
    let memory = File::open("/proc/self/mem").map_err(|error| format!("cannot read own memory: {error}"))?;
    let read = memory
        .read_at(&mut image, base)
        .map_err(|error| format!("cannot read the vDSO: {error}"))?;
    image.truncate(read);
    let offset = symbol(&image, CLOCK_GETTIME).ok_or("this vDSO has no clock_gettime")?;
    let first = clock::read(base.wrapping_add(offset))?;
    let second = clock::read(base.wrapping_add(offset))?;
    if second < first {
        return Err(format!("the clock went back from {first} to {second}"));
    }
    Ok(format!("vdso ok clock={first} rdtime={}", clock::counter()))
}

fn vdso_address() -> Result<u64, String> {
    let vector =
        fs::read("/proc/self/auxv").map_err(|error| format!("cannot read the auxiliary vector: {error}"))?;
    let pairs = vector.chunks_exact(16).map(|pair| (word(pair, 0), word(pair, 8)));
    let found = pairs.into_iter().find(|(kind, _)| *kind == Some(AT_SYSINFO_EHDR));
    found
        .and_then(|(_, address)| address)
        .ok_or_else(|| "this kernel maps no vDSO".to_owned())
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(
        bytes.get(at..at.checked_add(8)?)?.try_into().ok()?,
    ))
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    )))
}

fn place(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(word(bytes, at)?).ok()
}

/// The value of a dynamic symbol of an ELF64 image, found through its section table.
fn symbol(image: &[u8], name: &[u8]) -> Option<u64> {
    const DYNSYM: u32 = 11;
    let (table, size, count) = (place(image, 40)?, half(image, 58)?, half(image, 60)?);
    let section = |index: usize| image.get(table.checked_add(index.checked_mul(size)?)?..);
    let symbols = (0..count)
        .filter_map(section)
        .find(|header| header.get(4..8) == Some(&DYNSYM.to_le_bytes()))?;
    let strings = section(usize::try_from(word(symbols, 40)? & u64::from(u32::MAX)).ok()?)?;
    let (from, length) = (place(symbols, 24)?, place(symbols, 32)?);
    let names = image.get(place(strings, 24)?..)?;
    let entries = image.get(from..from.checked_add(length)?)?.chunks_exact(24);
    let named = |entry: &&[u8]| {
        let at = entry
            .get(..4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_le_bytes);
        at.and_then(|at| names.get(usize::try_from(at).ok()?..))
            .is_some_and(|text| text.starts_with(name))
    };
    word(entries.into_iter().find(named)?, 8)
}

#[cfg(target_arch = "riscv64")]
mod clock {
    //! The two reads that need a riscv64 machine.

    use std::mem::transmute;

    const MONOTONIC: i32 = 1;
    const NANOSECONDS: u64 = 1_000_000_000;

    type ClockGettime = extern "C" fn(i32, &mut [u64; 2]) -> i32;

    /// Nanoseconds of the monotonic clock, by calling `__vdso_clock_gettime` at `address`.
    #[expect(
        unsafe_code,
        reason = "a function of the vDSO has no other name than its address"
    )]
    pub fn read(address: u64) -> Result<u64, String> {
        let place = usize::try_from(address).map_err(|_| "the vDSO lies beyond memory".to_owned())?;
        // SAFETY: the kernel mapped the vDSO for this process's life, `address` is where its own symbol table puts
        // clock_gettime, and that function has this signature in the kernel's ABI.
        let call: ClockGettime = unsafe { transmute::<usize, ClockGettime>(place) };
        let mut time = [0; 2];
        match call(MONOTONIC, &mut time) {
            0 => Ok(time[0].wrapping_mul(NANOSECONDS).wrapping_add(time[1])),
            error => Err(format!("the vDSO's clock_gettime failed with {error}")),
        }
    }

    /// The machine's time counter.
    #[expect(unsafe_code, reason = "there is no safe name for the rdtime instruction")]
    pub fn counter() -> u64 {
        let ticks: u64;
        // SAFETY: rdtime reads a counter into one register and touches nothing else.
        unsafe { core::arch::asm!("rdtime {ticks}", ticks = out(reg) ticks, options(nomem, nostack)) };
        ticks
    }
}

#[cfg(not(target_arch = "riscv64"))]
mod clock {
    //! Elsewhere there is nothing to ask.

    /// Always an error: the question is about riscv64.
    pub fn read(_address: u64) -> Result<u64, String> {
        Err("this probe asks about riscv64 machines only".to_owned())
    }

    /// Never reached, since [`read`] fails before.
    pub fn counter() -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_found_in_the_vdso_of_the_machine_that_runs_this_test() {
        let base = vdso_address().unwrap();
        let mut image = vec![0; VDSO_MAX];
        let read = File::open("/proc/self/mem")
            .unwrap()
            .read_at(&mut image, base)
            .unwrap();
        let offset = symbol(&image[..read], CLOCK_GETTIME);
        assert!(offset.is_some_and(|offset| offset > 0), "{offset:?}");
    }

    #[test]
    fn an_image_that_is_no_elf_or_is_cut_short_has_no_symbols() {
        assert_eq!(symbol(&[], CLOCK_GETTIME), None);
        assert_eq!(symbol(&[0xff; 64], CLOCK_GETTIME), None);
        assert_eq!(symbol(&[0x20; 4096], CLOCK_GETTIME), None);
    }
}
