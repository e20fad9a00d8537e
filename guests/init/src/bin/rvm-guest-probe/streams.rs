//! How long it takes to move bytes over TCP, and to be answered: a server for the host, and what the guest does with it.
//!
//! The first byte of a connection says what comes: the client sends, or receives, or asks again and again. A time is that of
//! the client's clock, and ends when it has heard that all has arrived.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::stopwatch::Stopwatch;

const SEND: u8 = b's';
const RECEIVE: u8 = b'r';
const ASK: u8 = b'a';

/// What is written and read at once.
const PIECE: usize = 64 << 10;

/// On the host: serves so many clients at this address, one after the other.
pub fn serve(address: &str, clients: u32) -> io::Result<String> {
    let listener = TcpListener::bind(address)?;
    writeln!(io::stdout(), "listening")?;
    for _ in 0..clients {
        answer(listener.accept()?.0)?;
    }
    Ok(format!("{clients} clients"))
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut head = [0; 9];
    client.read_exact(&mut head)?;
    let [what, count @ ..] = head;
    let count = u64::from_le_bytes(count);
    match what {
        SEND => {
            take(&mut client, count)?;
            client.write_all(&[SEND])
        }
        RECEIVE => give(&mut client, count),
        _ => {
            let mut word = [0];
            for _ in 0..count {
                client.read_exact(&mut word)?;
                client.write_all(&word)?;
            }
            Ok(())
        }
    }
}

/// In the guest: sends so many bytes.
pub fn send(address: &str, count: u64) -> io::Result<String> {
    timed(address, SEND, count, |server| {
        give(server, count)?;
        server.read_exact(&mut [0])?;
        Ok(format!("moved {count} bytes"))
    })
}

/// In the guest: receives so many bytes.
pub fn receive(address: &str, count: u64) -> io::Result<String> {
    timed(address, RECEIVE, count, |server| {
        take(server, count)?;
        Ok(format!("moved {count} bytes"))
    })
}

/// In the guest: asks so many times, with a byte, and waits for each answer.
pub fn ask(address: &str, count: u64) -> io::Result<String> {
    timed(address, ASK, count, |server| {
        let mut word = [ASK];
        for _ in 0..count {
            server.write_all(&word)?;
            server.read_exact(&mut word)?;
        }
        Ok(format!("answered {count} times"))
    })
}

fn timed(
    address: &str,
    what: u8,
    count: u64,
    act: impl FnOnce(&mut TcpStream) -> io::Result<String>,
) -> io::Result<String> {
    let mut server = TcpStream::connect(address)?;
    server.set_nodelay(true)?;
    let mut head = [what; 9];
    head[1..].copy_from_slice(&count.to_le_bytes());
    let start = Stopwatch::start()?;
    server.write_all(&head)?;
    let done = act(&mut server)?;
    Ok(format!("{done} in {} ns", start.elapsed()?.as_nanos()))
}

fn give(to: &mut TcpStream, mut count: u64) -> io::Result<()> {
    let bytes = vec![0x5a; PIECE];
    while count > 0 {
        let piece = PIECE.min(usize::try_from(count).unwrap_or(PIECE));
        to.write_all(&bytes[..piece])?;
        count -= piece as u64;
    }
    Ok(())
}

fn take(from: &mut TcpStream, mut count: u64) -> io::Result<()> {
    let mut bytes = vec![0; PIECE];
    while count > 0 {
        let piece = PIECE.min(usize::try_from(count).unwrap_or(PIECE));
        match from.read(&mut bytes[..piece])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => count -= got as u64,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_both_ways_and_questions_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            answer(listener.accept().unwrap().0).unwrap();
            answer(listener.accept().unwrap().0).unwrap();
            answer(listener.accept().unwrap().0).unwrap();
        });
        assert!(
            send(&address, 100_000)
                .unwrap()
                .starts_with("moved 100000 bytes in ")
        );
        assert!(
            receive(&address, 100_000)
                .unwrap()
                .starts_with("moved 100000 bytes in ")
        );
        assert!(ask(&address, 3).unwrap().starts_with("answered 3 times in "));
        server.join().unwrap();
    }
}
