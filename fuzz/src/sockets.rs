//! The host's end of a guest's sockets: packets in any order, to a port where somebody listens and to others.

use std::os::unix::net::UnixListener;

use rvmm_backends::vsock::{MAX_CONNECTIONS, MAX_RESETS, Muxer};
use rvmm_devices::virtio::vsock::{Op, Packet, VsockBackend};

use crate::queues::MAX_STEPS;
use crate::script::Script;

/// A port whose path leads back to the guest, and one where a program listens that takes nothing.
const LOOP: u32 = 5;
const SLOW: u32 = 6;

fn op(step: u8) -> Op {
    match step & 7 {
        0 | 1 => Op::Request,
        2 => Op::Response,
        3 => Op::Reset,
        4 => Op::Shutdown {
            receive: step & 8 != 0,
            send: step & 16 != 0,
        },
        5 => Op::Data,
        6 => Op::CreditUpdate,
        _ => Op::CreditRequest,
    }
}

/// Packets from the guest, and those for it as often as a script wants them.
pub fn packets(script: &[u8]) {
    let folder = tempfile::tempdir().expect("there is a folder for sockets");
    let path = folder.path().join("v");
    let mut muxer = Muxer::listen(&path).expect("the path is free");
    std::os::unix::fs::symlink("v", folder.path().join(format!("v_{LOOP}"))).expect("the name is free");
    let slow = UnixListener::bind(folder.path().join(format!("v_{SLOW}"))).expect("the name is free");
    let (mut script, mut room) = (Script(script), vec![0; 4096]);
    for _ in 0..MAX_STEPS {
        let Some(step) = script.step() else { break };
        if step & 0xe0 == 0xe0 {
            muxer.reset();
        }
        let ports = script.byte();
        let packet = Packet {
            guest_port: u32::from(ports >> 4),
            // The ports that the host takes for its own questions are tried, too.
            host_port: [LOOP, SLOW, 7, 1 << 30, (1 << 30) + 1, u32::MAX][usize::from(ports & 7) % 6],
            op: op(step),
            buffer: u32::from(script.half()) << (step >> 4),
            forwarded: u32::from(script.half()),
        };
        let ask = format!("CONNECT {}\n", ports >> 4);
        let data = if step & 32 == 0 {
            ask.as_bytes()
        } else {
            &[0x5a; 60_000]
        };
        muxer.send(&packet, if packet.op == Op::Data { data } else { &[] });
        if step & 64 != 0
            && let Some((_, len)) = muxer.receive(&mut room)
        {
            assert!(len <= room.len());
        }
    }
    // What waits is bounded, whatever came: each connection has a few things to say, and those that are gone one.
    let most = 64 * (MAX_CONNECTIONS + MAX_RESETS);
    let rest = std::iter::from_fn(|| muxer.receive(&mut room)).take(most);
    assert!(rest.count() < most, "the host does not come to an end");
    drop(slow);
}
