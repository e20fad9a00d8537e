//! Requests and frames: everything that is said between a test and the agent.
//!
//! A connection starts with one line of JSON, the [`Request`]. Then come frames, both ways: one byte of kind, four of
//! length (little-endian), the payload.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

/// The longest request line.
pub const MAX_REQUEST: u64 = 1 << 20;
/// The longest payload of a frame; longer data goes in several.
pub const MAX_PAYLOAD: usize = 1 << 16;

const HEADER: usize = 5;

/// What is asked for, once per connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Run a program.
    Run(Program),
    /// Write what follows as [`Frame::Input`] to a file.
    Put {
        /// The file; folders above it are made.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// Send a file back as [`Frame::Output`].
    Get {
        /// The file.
        path: String,
    },
}

/// A program to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program, looked up in `PATH`, and its arguments.
    pub argv: Vec<String>,
    /// Variables set on top of the agent's own.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Where it runs; the agent's own folder otherwise.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Whether it gets a terminal of its own instead of three pipes. Its errors then come as output.
    #[serde(default)]
    pub terminal: bool,
}

/// One message after the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// To the program's standard input, or into the file.
    Input(Vec<u8>),
    /// There is no more input.
    InputEnd,
    /// Send the program this signal.
    Signal(i32),
    /// From the program's standard output or terminal, or out of the file.
    Output(Vec<u8>),
    /// From the program's standard error.
    Error(Vec<u8>),
    /// The program has ended, or the file is done. The last frame.
    Ended(End),
    /// The request could not be carried out. The last frame.
    Failed(String),
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl Request {
    /// Sends the request.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        out.write_all(&line)
    }

    /// Receives a request.
    pub fn read_from(input: &mut impl BufRead) -> io::Result<Self> {
        let mut line = Vec::new();
        input.take(MAX_REQUEST).read_until(b'\n', &mut line)?;
        Ok(serde_json::from_slice(&line)?)
    }
}

impl Frame {
    /// Sends the frame; long data goes in several.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Input(bytes) => write_data(out, 1, bytes),
            Self::InputEnd => write_one(out, 2, &[]),
            Self::Signal(number) => write_one(out, 3, &number.to_le_bytes()),
            Self::Output(bytes) => write_data(out, 4, bytes),
            Self::Error(bytes) => write_data(out, 5, bytes),
            Self::Ended(End::Status(number)) => write_one(out, 6, &number.to_le_bytes()),
            Self::Ended(End::Signal(number)) => write_one(out, 7, &number.to_le_bytes()),
            Self::Failed(why) => {
                let bytes = why.as_bytes();
                write_one(out, 8, &bytes[..bytes.len().min(MAX_PAYLOAD)])
            }
        }
    }

    /// Receives a frame; `None` where the other side has closed the connection.
    pub fn read_from(input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        if input.read(&mut header[..1])? == 0 {
            return Ok(None);
        }
        input.read_exact(&mut header[1..])?;
        let [kind, length @ ..] = header;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_PAYLOAD {
            return Err(broken("a frame is longer than any that is sent"));
        }
        let mut payload = vec![0; length];
        input.read_exact(&mut payload)?;
        Ok(Some(match kind {
            1 => Self::Input(payload),
            2 => Self::InputEnd,
            3 => Self::Signal(number(&payload)?),
            4 => Self::Output(payload),
            5 => Self::Error(payload),
            6 => Self::Ended(End::Status(number(&payload)?)),
            7 => Self::Ended(End::Signal(number(&payload)?)),
            8 => Self::Failed(String::from_utf8_lossy(&payload).into_owned()),
            _ => return Err(broken("a frame is of no known kind")),
        }))
    }
}

fn write_data(out: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    bytes
        .chunks(MAX_PAYLOAD)
        .try_for_each(|chunk| write_one(out, kind, chunk))
}

fn write_one(out: &mut impl Write, kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(|_| broken("a frame is too long to send"))?;
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.push(kind);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(payload);
    out.write_all(&frame)
}

fn number(payload: &[u8]) -> io::Result<i32> {
    let bytes = payload
        .try_into()
        .map_err(|_| broken("a frame's number is not four bytes"))?;
    Ok(i32::from_le_bytes(bytes))
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_and_received(frame: &Frame) -> Vec<Frame> {
        let mut bytes = Vec::new();
        frame.write_to(&mut bytes).unwrap();
        let mut rest = bytes.as_slice();
        std::iter::from_fn(|| Frame::read_from(&mut rest).unwrap()).collect()
    }

    #[test]
    fn every_frame_arrives_as_it_was_sent() {
        let frames = [
            Frame::Input(b"in".to_vec()),
            Frame::InputEnd,
            Frame::Signal(15),
            Frame::Output(b"out".to_vec()),
            Frame::Error(b"err".to_vec()),
            Frame::Ended(End::Status(3)),
            Frame::Ended(End::Signal(9)),
            Frame::Failed("no such file".to_owned()),
        ];
        let arrived: Vec<_> = frames.iter().flat_map(sent_and_received).collect();
        assert_eq!(arrived, frames);
    }

    #[test]
    fn long_data_goes_in_frames_that_the_reader_takes() {
        let data = vec![7; MAX_PAYLOAD + 1];
        let parts = sent_and_received(&Frame::Output(data));
        assert_eq!(
            parts,
            [Frame::Output(vec![7; MAX_PAYLOAD]), Frame::Output(vec![7])]
        );
    }

    #[test]
    fn a_frame_beyond_the_bound_is_refused_before_it_is_read() {
        let error = Frame::read_from(&mut [4, 0, 0, 2, 0].as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_cut_frame_and_an_unknown_kind_are_errors() {
        assert!(Frame::read_from(&mut [4, 2, 0, 0, 0, 1].as_slice()).is_err());
        assert!(Frame::read_from(&mut [99, 0, 0, 0, 0].as_slice()).is_err());
        assert!(Frame::read_from(&mut [3, 1, 0, 0, 0, 1].as_slice()).is_err());
    }

    #[test]
    fn requests_are_one_line_and_an_endless_line_is_refused() {
        let request = Request::Run(Program {
            argv: vec!["a\nb".to_owned()],
            terminal: true,
            ..Program::default()
        });
        let mut line = Vec::new();
        request.write_to(&mut line).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(Request::read_from(&mut line.as_slice()).unwrap(), request);
        let endless = io::repeat(b' ');
        assert!(Request::read_from(&mut io::BufReader::new(endless)).is_err());
    }
}
