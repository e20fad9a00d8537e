//! A pseudo-terminal, with a person's end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::lab::PATIENCE;

/// A person's end of a terminal, and the program's.
pub struct Terminal {
    screen: File,
    /// The program's end.
    pub device: OwnedFd,
    /// What it was like at first.
    pub before: LocalModes,
}

impl Terminal {
    pub fn new() -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&screen).expect("is granted");
        unlockpt(&screen).expect("is unlocked");
        let name = ptsname(&screen, Vec::new())
            .expect("has a name")
            .into_string()
            .expect("of ASCII");
        let device: OwnedFd = File::options()
            .read(true)
            .write(true)
            .open(name)
            .expect("opens")
            .into();
        let before = tcgetattr(&device).expect("is a terminal").local_modes;
        Self {
            screen: screen.into(),
            device,
            before,
        }
    }

    pub fn modes(&self) -> LocalModes {
        tcgetattr(&self.device).expect("is a terminal").local_modes
    }

    pub fn is_raw(&self) -> bool {
        !self
            .modes()
            .intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    pub fn keys(&self, keys: &[u8]) {
        (&self.screen).write_all(keys).expect("is typed");
    }

    /// Reads the screen until this text is on it; returns all that was read.
    pub async fn shows(&self, text: &'static str) -> String {
        let mut screen = self.screen.try_clone().expect("is cloned");
        let read = tokio::task::spawn_blocking(move || {
            let (mut seen, started) = (Vec::new(), Instant::now());
            let mut chunk = [0; 1024];
            while !String::from_utf8_lossy(&seen).contains(text) && started.elapsed() < PATIENCE {
                let length = screen.read(&mut chunk).expect("the screen is read");
                seen.extend_from_slice(&chunk[..length]);
            }
            String::from_utf8_lossy(&seen).into_owned()
        });
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("it is shown")
            .expect("it is read")
    }
}
