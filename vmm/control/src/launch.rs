//! How a machine reaches an rvmm that was started without one (`rvmm --await DIR`): its description, and an open descriptor for
//! each of its files, so that rvmm needs none of them in its own file system.
//!
//! ```text
//!   rvmm --await DIR ── listens at DIR/launch.sock ──► hears from whom it obeys ──► holds DIR ──► answers ──► runs
//!   hand_over        ── connects ─► 8 bytes, descriptors beside them ─► the description ─► waits for the answer
//! ```
//!
//! The descriptors come in the order of [`Spec::files`], each path once. Whoever receives them opens them anew by
//! `/proc/self/fd/N`, which is held against the file's mode as any other opening is: a file that is only to be read stays so.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::{FdFlags, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rvmm_spec::Spec;
use rvmm_spec::limits::MAX_DOCUMENT;
use rvmm_spec::wire::{Document, WireError};
use serde::{Deserialize, Serialize};

/// The socket's name in the folder.
pub const SOCKET: &str = "launch.sock";

/// Most files of a machine: more than there are places for disks, their bases, and what is booted.
pub const MAX_FILES: usize = 128;

/// How long the other side may keep us waiting for what it is about to say.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest answer: a line that people read.
const MAX_ANSWER: u64 = 16 << 10;

/// Bytes that say how long the description is, and how many descriptors come along.
const HEAD: usize = 8;

/// A machine could not be handed over, or received.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Nobody waits there, or went away.
    #[error("nobody waits for the machine")]
    Socket(#[source] io::Error),
    /// The description.
    #[error(transparent)]
    Document(#[from] WireError),
    /// Longer than any machine's.
    #[error("the machine's description has {0} bytes; {MAX_DOCUMENT} are read")]
    TooLong(u64),
    /// More than a machine can have.
    #[error("{0} descriptors came; a machine has {MAX_FILES} files at most")]
    TooMany(usize),
    /// Others than the description's.
    #[error("the machine has {wanted} files and {came} descriptors came")]
    Files {
        /// In the description.
        wanted: usize,
        /// Beside it.
        came: usize,
    },
    /// Not one whom we obey.
    #[error("user {0} may not hand over a machine")]
    Stranger(u32),
    /// The waiting rvmm said no.
    #[error("the machine was refused: {0}")]
    Refused(String),
    /// It said nothing that is understood.
    #[error("the answer is not understood")]
    Answer(#[source] serde_json::Error),
}

/// What the waiting one says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Answer {
    /// It is its machine from now on.
    Taken,
    /// It is not, and why.
    Refused(String),
}

/// A machine that was received, and who waits to hear what becomes of it.
#[derive(Debug)]
pub struct Received {
    /// The machine, whose files are the descriptors.
    pub spec: Spec,
    /// They have to stay open for as long as it may be booted.
    pub files: Vec<OwnedFd>,
    /// Whoever handed it over.
    pub giver: Giver,
}

/// Whoever hands over a machine.
#[derive(Debug)]
pub struct Giver(UnixStream);

// === impl Giver ===

impl Giver {
    /// Says that the machine is ours from now on.
    ///
    /// # Errors
    /// He is gone, which changes nothing.
    pub fn taken(self) -> io::Result<()> {
        say(&self.0, &Answer::Taken)
    }

    /// Says that it is not.
    ///
    /// # Errors
    /// He is gone.
    pub fn refused(self, why: &str) -> io::Result<()> {
        say(&self.0, &Answer::Refused(why.to_owned()))
    }
}

/// The paths of a machine's files, in the order in which their descriptors are handed over: each once, and whether it is written
/// by any of its devices.
pub fn files(spec: &Spec) -> Vec<(&Path, bool)> {
    let mut found: Vec<(&Path, bool)> = Vec::new();
    for file in spec.files() {
        match found.iter_mut().find(|(path, _)| *path == file.path) {
            Some((_, written)) => *written |= file.written,
            None => found.push((file.path, file.written)),
        }
    }
    found
}

/// Hands a machine over to an rvmm that waits at the other end, with what was opened for [`files`], and waits until it has taken it.
///
/// # Errors
/// Any [`LaunchError`]; it is not known then whether the machine was taken, unless it was [refused](LaunchError::Refused).
pub fn hand_over(stream: &UnixStream, spec: &Spec, opened: &[BorrowedFd<'_>]) -> Result<(), LaunchError> {
    if opened.len() > MAX_FILES {
        return Err(LaunchError::TooMany(opened.len()));
    }
    let json = Document::from(spec).to_json()?;
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
    let count = u32::try_from(opened.len()).unwrap_or(u32::MAX);
    let head = [length.to_le_bytes(), count.to_le_bytes()].concat();
    patient(stream).map_err(LaunchError::Socket)?;
    let mut room = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(opened.len()))];
    let mut along = SendAncillaryBuffer::new(&mut room);
    if !opened.is_empty() {
        along.push(SendAncillaryMessage::ScmRights(opened));
    }
    let sent = retry_on_intr(|| sendmsg(stream, &[IoSlice::new(&head)], &mut along, SendFlags::NOSIGNAL));
    let sent = sent.map_err(|errno| LaunchError::Socket(errno.into()))?;
    let mut writer = stream;
    let rest = head.get(sent..).unwrap_or_default();
    writer
        .write_all(rest)
        .and_then(|()| writer.write_all(json.as_bytes()))
        .map_err(LaunchError::Socket)?;
    match hear(stream)? {
        Answer::Taken => Ok(()),
        Answer::Refused(why) => Err(LaunchError::Refused(why)),
    }
}

/// Receives a machine from whoever has connected. Root is obeyed, and our own user, who could do anything to us anyway.
///
/// # Errors
/// Any [`LaunchError`]; he was told, and another one may come.
pub fn receive(stream: UnixStream) -> Result<Received, LaunchError> {
    let got = patient(&stream).map_err(LaunchError::Socket);
    match got.and_then(|()| take(&stream)) {
        Ok((spec, files)) => Ok(Received {
            spec,
            files,
            giver: Giver(stream),
        }),
        Err(error) => {
            // He may be gone.
            Giver(stream).refused(&error.to_string()).ok();
            Err(error)
        }
    }
}

fn take(stream: &UnixStream) -> Result<(Spec, Vec<OwnedFd>), LaunchError> {
    let peer = user_of(stream).map_err(LaunchError::Socket)?;
    if !is_obeyed(peer, rustix::process::geteuid().as_raw()) {
        return Err(LaunchError::Stranger(peer));
    }
    let (length, count, files) = head(stream)?;
    if length > MAX_DOCUMENT {
        return Err(LaunchError::TooLong(length));
    }
    if count > MAX_FILES {
        return Err(LaunchError::TooMany(count));
    }
    let mut json = Vec::new();
    stream
        .take(length)
        .read_to_end(&mut json)
        .map_err(LaunchError::Socket)?;
    let spec = Document::parse(&json)?;
    let wanted: Vec<PathBuf> = self::files(&spec)
        .iter()
        .map(|(path, _)| (*path).to_owned())
        .collect();
    if wanted.len() != files.len() || count != files.len() {
        return Err(LaunchError::Files {
            wanted: wanted.len(),
            came: files.len(),
        });
    }
    let place = |path: &Path| {
        let at = wanted.iter().position(|wanted| wanted == path);
        let file = at.and_then(|at| files.get(at));
        file.map_or_else(
            || path.to_owned(),
            |file| format!("/proc/self/fd/{}", file.as_raw_fd()).into(),
        )
    };
    let spec = spec.with_files_at(place);
    Ok((spec, files))
}

/// The user at the other end. rustix knows no process of number 0, which one outside of our container is to us.
fn user_of(stream: &UnixStream) -> io::Result<u32> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut size = libc::socklen_t::try_from(size_of_val(&peer)).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "std has no stable way to ask who is at the other end")]
    // SAFETY: the option writes a struct ucred of this size, which lies there, and how much it wrote.
    let asked = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    };
    if asked < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(peer.uid)
}

/// Who may hand over a machine.
fn is_obeyed(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

/// How long the description is, how many descriptors there should be, and those that there are. A QEMU of ours inherits them.
fn head(stream: &UnixStream) -> Result<(u64, usize, Vec<OwnedFd>), LaunchError> {
    let socket = |errno: rustix::io::Errno| LaunchError::Socket(errno.into());
    let mut head = [0; HEAD];
    let mut room = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut along = RecvAncillaryBuffer::new(&mut room);
    let pieces = &mut [IoSliceMut::new(&mut head)];
    // The kernel closes those for which there is no room.
    let came = recvmsg(stream, pieces, &mut along, RecvFlags::CMSG_CLOEXEC).map_err(socket)?;
    let mut files = Vec::new();
    for message in along.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            files.extend(descriptors);
        }
    }
    let mut reader = stream;
    let rest = head.get_mut(came.bytes..).unwrap_or_default();
    reader.read_exact(rest).map_err(LaunchError::Socket)?;
    for file in &files {
        rustix::io::fcntl_setfd(file, FdFlags::empty()).map_err(socket)?;
    }
    let [a, b, c, d, e, f, g, h] = head;
    let length = u32::from_le_bytes([a, b, c, d]);
    let count = usize::try_from(u32::from_le_bytes([e, f, g, h])).unwrap_or(usize::MAX);
    Ok((length.into(), count, files))
}

fn hear(stream: &UnixStream) -> Result<Answer, LaunchError> {
    let mut said = Vec::new();
    stream
        .take(MAX_ANSWER)
        .read_to_end(&mut said)
        .map_err(LaunchError::Socket)?;
    serde_json::from_slice(&said).map_err(LaunchError::Answer)
}

/// Says it, and then no more.
fn say(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    stream.write_all(&serde_json::to_vec(answer)?)?;
    stream.shutdown(std::net::Shutdown::Write)
}

fn patient(stream: &UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvmm_spec::{Boot, Disk};
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::thread;

    fn spec(folder: &Path) -> Spec {
        let kernel = folder.join("Image");
        fs::write(&kernel, "kernel").unwrap();
        let twice = Disk {
            read_only: true,
            ..Disk::new(folder.join("Image"))
        };
        let disk = folder.join("disk");
        fs::write(&disk, "disk").unwrap();
        Spec::builder(Boot::new(kernel))
            .disk(twice)
            .disk(Disk::new(disk))
            .build()
            .unwrap()
    }

    fn opened(spec: &Spec) -> Vec<File> {
        files(spec)
            .iter()
            .map(|(path, _)| File::open(path).unwrap())
            .collect()
    }

    /// Says these bytes and descriptors to one who waits; what he makes of it, and what is answered.
    fn say_raw(bytes: &[u8], files: &[File]) -> (LaunchError, String) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let waiting = thread::spawn(move || receive(theirs).unwrap_err());
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut room = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(files.len()))];
        let mut along = SendAncillaryBuffer::new(&mut room);
        assert!(files.is_empty() || along.push(SendAncillaryMessage::ScmRights(&files)));
        sendmsg(&ours, &[IoSlice::new(bytes)], &mut along, SendFlags::NOSIGNAL).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let error = waiting.join().unwrap();
        let mut said = String::new();
        (&ours).read_to_string(&mut said).unwrap();
        (error, said)
    }

    fn head_of(length: u32, count: u32) -> Vec<u8> {
        [length.to_le_bytes(), count.to_le_bytes()].concat()
    }

    #[test]
    fn a_machine_arrives_with_what_its_files_hold() {
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(folder.path());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let waiting = thread::spawn(move || {
            let received = receive(theirs).unwrap();
            let paths: Vec<PathBuf> = received
                .spec
                .files()
                .iter()
                .map(|file| file.path.to_owned())
                .collect();
            let texts: Vec<_> = paths
                .iter()
                .map(|path| fs::read_to_string(path).unwrap())
                .collect();
            received.giver.taken().unwrap();
            (texts, received.files.len())
        });
        let opened = opened(&spec);
        // What is at the paths by now is nobody's business.
        fs::remove_file(folder.path().join("disk")).unwrap();
        let borrowed: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
        hand_over(&ours, &spec, &borrowed).unwrap();
        let (texts, count) = waiting.join().unwrap();
        assert_eq!(
            (texts, count),
            (["kernel", "kernel", "disk"].map(str::to_owned).to_vec(), 2)
        );
    }

    #[test]
    fn a_file_that_is_written_by_one_device_is_listed_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Image");
        let spec = Spec::builder(Boot::new(&path))
            .disk(Disk::new(&path))
            .build()
            .unwrap();
        assert_eq!(files(&spec), [(path.as_path(), true)]);
    }

    #[test]
    fn a_refusal_is_heard() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(folder.path());
        let waiting = thread::spawn(move || receive(theirs).unwrap().giver.refused("it is taken").unwrap());
        let opened = opened(&spec);
        let borrowed: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
        let refused = hand_over(&ours, &spec, &borrowed).unwrap_err();
        assert_eq!(refused.to_string(), "the machine was refused: it is taken");
        waiting.join().unwrap();
    }

    #[test]
    fn a_description_that_is_too_long_is_refused_before_it_is_read() {
        let (error, said) = say_raw(&head_of(u32::MAX, 0), &[]);
        assert!(matches!(error, LaunchError::TooLong(_)), "{error}");
        assert!(said.contains("1048576 are read"), "{said}");
    }

    #[test]
    fn descriptors_that_the_description_does_not_name_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(folder.path());
        let json = Document::from(&spec).to_json().unwrap();
        let twice: Vec<File> = opened(&spec).into_iter().chain(opened(&spec)).collect();
        for (files, count) in [(twice, 4), (Vec::new(), 0), (opened(&spec), 1)] {
            let came = files.len();
            let mut bytes = head_of(u32::try_from(json.len()).unwrap(), count);
            bytes.extend(json.as_bytes());
            let (error, _) = say_raw(&bytes, &files);
            assert!(
                matches!(error, LaunchError::Files { wanted: 2, came: there } if there == came),
                "{error}"
            );
        }
        let (error, _) = say_raw(&head_of(2, 9999), &[]);
        assert!(matches!(error, LaunchError::TooMany(9999)), "{error}");
    }

    #[test]
    fn what_is_no_description_is_refused() {
        let mut bytes = head_of(2, 0);
        bytes.extend(b"{}");
        assert!(matches!(say_raw(&bytes, &[]).0, LaunchError::Document(_)));
        assert!(matches!(say_raw(&[1, 2], &[]).0, LaunchError::Socket(_)));
    }

    #[test]
    fn root_and_our_own_user_are_obeyed_and_nobody_else() {
        assert!(is_obeyed(0, 107) && is_obeyed(107, 107));
        assert!(!is_obeyed(1000, 107) && !is_obeyed(65534, 0));
    }
}
