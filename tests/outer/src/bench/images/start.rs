//! From `rvm apply` to the guest's prompt, in local mode, emulated, with a warm cache: where the time goes.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::super::System;
use super::super::report::Figure;
use super::handler::{Handler, Programs};
use super::here;

/// Starts that are measured; one before them warms the cache.
const STARTS: u32 = 9;

/// The image's name; the mirror leads it to the demo's layout.
const IMAGE: &str = "docker.io/library/alpine:3.23";

/// The first and the last that the firmware says.
const FIRMWARE_BEGUN: &[u8] = b"OpenSBI";
const FIRMWARE_DONE: &[u8] = b"Boot HART MEDELEG";

/// The prompt of the guest's shell.
const PROMPT: &[u8] = b":~# ";

/// How often the console's socket is looked for.
const LOOK: Duration = Duration::from_millis(1);

/// So often at most.
const PATIENCE: u32 = 60_000;

/// Rows: what was begun, and what was done then.
const ROWS: [&str; 8] = [
    "start-api",
    "start-pull",
    "start-disks",
    "start-network",
    "start-hand-over",
    "start-rvmm",
    "start-firmware",
    "start-kernel",
];

/// Our share of it: all but the last two.
const OURS: usize = 6;

/// Starts machines one after the other.
pub fn measure(programs: &Programs) -> Result<Vec<Figure>> {
    let layout = programs.guests.join("alpine-3.23");
    let mirror = format!("{IMAGE}=oci:{}", layout.display());
    let mut handler = Handler::start(programs, &mirror, &programs.folder.join("rvmm"))?;
    let mut stages: [Vec<f64>; ROWS.len()] = Default::default();
    let (mut ours, mut cpu) = (Vec::new(), Vec::new());
    for number in 0..=STARTS {
        let started = start(&mut handler, &format!("vm-{number}"))?;
        if number == 0 {
            continue;
        }
        for (stage, took) in stages.iter_mut().zip(started.stages) {
            stage.push(took);
        }
        ours.push(started.stages.iter().take(OURS).sum());
        cpu.push(started.cpu);
    }
    let rows = ROWS.into_iter().zip(&stages);
    let rows = rows.chain([("start-our-share", &ours), ("start-our-share-cpu", &cpu)]);
    Ok(rows
        .filter_map(|(row, runs)| Figure::wall(row, System::Rvmm, runs))
        .collect())
}

struct Started {
    stages: [f64; ROWS.len()],
    /// Of the handler and of rvmm, without the emulator.
    cpu: f64,
}

fn start(handler: &mut Handler, name: &str) -> Result<Started> {
    let (cpu, begun) = (handler.cpu()?, here::now());
    handler.apply(name, IMAGE)?;
    let machine = here::machine(&handler.run_dir())?;
    let mut console = console(&machine)?;
    let mut said = Vec::new();
    let first = until(&mut console, &mut said, FIRMWARE_BEGUN)?;
    let firmware = until(&mut console, &mut said, FIRMWARE_DONE)?;
    let prompt = until(&mut console, &mut said, PROMPT)?;
    let stamps = [
        begun,
        handler.when(name, "claimed")?,
        handler.when(name, "preparing")?,
        handler.when(name, "its files are made")?,
        handler.when(name, "its network is there")?,
        handler.when(name, "rvmm started")?,
        first,
        firmware,
        prompt,
    ];
    let mut stages = [0.0; ROWS.len()];
    for (stage, (earlier, later)) in stages.iter_mut().zip(stamps.iter().zip(&stamps[1..])) {
        *stage = later - earlier;
    }
    let pid = std::fs::read_to_string(machine.join("pid"))?;
    let cpu = handler.cpu()? - cpu + here::cpu(pid.trim())?;
    drop(console);
    handler.delete(name, &machine)?;
    Ok(Started { stages, cpu })
}

/// The console of a machine that is being started.
fn console(machine: &Path) -> Result<UnixStream> {
    let socket = machine.join("console.sock");
    for _ in 0..PATIENCE {
        if let Ok(console) = UnixStream::connect(&socket) {
            return Ok(console);
        }
        thread::sleep(LOOK);
    }
    bail!("no console at {}", socket.display());
}

/// Reads on until these bytes have come, and returns when that was.
fn until(console: &mut UnixStream, said: &mut Vec<u8>, wanted: &[u8]) -> Result<f64> {
    let mut bytes = [0; 4096];
    while !said.windows(wanted.len()).any(|part| part == wanted) {
        let count = console.read(&mut bytes)?;
        if count == 0 {
            bail!("the console ended with:\n{}", String::from_utf8_lossy(said));
        }
        said.extend_from_slice(bytes.get(..count).unwrap_or_default());
    }
    Ok(here::now())
}
