//! D, network.

#[cfg(feature = "payload")]
use crate::payload::{bare::*, *};

cases! {
    "D-header-nothing", Net, "a frame without a header, of no bytes", Answered NeedsReset => || on(net(), |d| d.chain(1, &[(d.buffer(DATA), 0, 0)]));
    "D-header-one-byte", Net, "a frame of one byte", Answered Answered => || on(net(), |d| d.chain(1, &[(d.buffer(DATA), 1, 0)]));
    "D-header-short", Net, "a header of 11 bytes", Answered Answered => || on(net(), |d| d.chain(1, &[(d.buffer(DATA), 11, 0)]));
    "D-header-alone", Net, "a header and no frame", Answered Answered => || on(net(), |d| d.chain(1, &[(d.buffer(DATA), 12, 0)]));
    "D-header-in-pieces", Net, "a header in twelve pieces", Answered Answered => || on(net(), |d| in_pieces(d, 12));
    "D-frame-13", Net, "a frame of 13 bytes, one less than addresses and type", Answered Answered => || frame(&[], 13);
    "D-frame-huge", Net, "a frame of 64 KiB and one byte", Answered Answered => || frame(&[], 0x1_0001);
    "D-frame-four-gib", Net, "a frame of 4 GiB", NeedsReset NeedsReset => || on(net(), |d| d.chain(1, &[(d.buffer(DATA), 0xffff_ffff, 0)]));
    "D-frame-of-all-ram", Net, "a frame made of the same megabyte a hundred times", Answered Answered => || on(net(), |d| d.chain(1, &[(ARENA, 1 << 20, 0); 100]));
    "D-frame-256-pieces", Net, "a frame in as many pieces as the queue has", Answered Answered => || on(net(), |d| in_pieces(d, 250));
    "D-flags-unknown", Net, "a header with every flag set", Answered Answered => || frame(&[(0, 0xff)], 64);
    "D-offload-unknown", Net, "an offload that there is not", Answered Answered => || frame(&[(1, 0x7f)], 64);
    "D-offload-not-agreed", Net, "a TCP offload that was not agreed upon", Answered Answered => || on(raw_net().up_with(F_VERSION_1), |d| framed(d, &[(1, 1), (4, 0xff)], 64));
    "D-offload-size-zero", Net, "a TCP offload in segments of no bytes", Answered Answered => || frame(&[(0, 1), (1, 1)], 2000);
    "D-offload-header-long", Net, "a TCP offload whose headers are longer than the frame", Answered Answered => || frame(&[(0, 1), (1, 1), (2, 0xff), (3, 0xff), (4, 100)], 100);
    "D-offload-udp", Net, "a UDP fragment offload of the largest segments", Answered Answered => || frame(&[(1, 3), (4, 0xff), (5, 0xff)], 100);
    "D-offload-ecn", Net, "congestion notification without an offload", Answered Answered => || frame(&[(1, 0x80)], 100);
    "D-checksum-beyond", Net, "a checksum to be computed from behind the frame's end", Answered Answered => || frame(&[(0, 1), (6, 0xff), (7, 0xff)], 64);
    "D-checksum-offset", Net, "a checksum to be stored behind the frame's end", Answered Answered => || frame(&[(0, 1), (6, 34), (8, 0xff), (9, 0xff)], 64);
    "D-checksum-wraps", Net, "a checksum whose start and offset together wrap around", Answered Answered => || frame(&[(0, 1), (6, 0xfe), (7, 0xff), (8, 2)], 64);
    "D-buffers-count", Net, "a frame sent that says it has 65,535 buffers", Answered Answered => || frame(&[(10, 0xff), (11, 0xff)], 64);
    "D-send-writable", Net, "a frame to send in a buffer to be written", Answered NeedsReset => || on(net(), |d| d.chain(1, &[(d.buffer(DATA), 64, WRITE)]));
    "D-send-mixed", Net, "a frame to send with a buffer to be written behind it", Answered Answered => || on(net(), |d| d.chain(1, &[(d.buffer(DATA), 64, 0), (d.buffer(DATA), 64, WRITE)]));
    "D-send-nowhere", Net, "a frame behind RAM", NeedsReset Answered => || on(net(), |d| d.chain(1, &[(RAM_END, 64, 0)]));
    "D-send-ring-full", Net, "a ring full of frames, eight times", Answered Answered => || on(net(), |d| frame_storm(d));
    "D-receive-one-byte", Net, "buffers for received frames of one byte", Refused Refused => || received_into(1, WRITE);
    "D-receive-nothing", Net, "buffers for received frames of no bytes", Refused Refused => || received_into(0, WRITE);
    "D-receive-readable", Net, "buffers for received frames that may only be read", Refused Refused => || received_into(2048, 0);
    "D-receive-nowhere", Net, "buffers for received frames behind RAM", Refused Refused => || on(net(), |d| {(0..8).for_each(|index| {d.descriptor(0, index, RAM_END, 2048, WRITE, 0).offer(0, index);}); d.kick(0).wait_for(0, 1)});
    "D-receive-loop", Net, "buffers for received frames that loop", Refused Refused => || on(net(), |d| d.descriptor(0, 0, d.buffer(DATA), 64, NEXT | WRITE, 0).offer(0, 0).serve(0));
    "D-control-absent", Net, "a command to a control queue that was not agreed upon", Refused Answered => || on(raw_net().up_with(F_VERSION_1), |d| control(d, 2, &[0, 0, 1]));
    "D-control-class", Net, "a control command of a class that there is not", Answered Answered => || on(net(), |d| control(d, 2, &[0xff, 0, 1]));
    "D-control-empty", Net, "a control command of no bytes", Answered NeedsReset => || on(net(), |d| control(d, 2, &[]));
    "D-control-pairs-zero", Net, "multi-queue with no pairs", Answered Answered => || on(net(), |d| control(d, 2, &[4, 0, 0, 0]));
    "D-control-pairs-huge", Net, "multi-queue with 65,535 pairs", Answered Answered => || on(net(), |d| control(d, 2, &[4, 0, 0xff, 0xff]));
    "D-control-table", Net, "a table of four thousand million hardware addresses", Answered Answered => || on(net(), |d| control(d, 2, &[1, 0, 0xff, 0xff, 0xff, 0xff]));
    "D-control-vlan", Net, "a VLAN with a number that there is not", Answered Answered => || on(net(), |d| control(d, 2, &[2, 0, 0xff, 0xff]));
    "D-reset-with-frames", Net, "resets with frames and buffers under way", Answered Answered => || on(net(), |d| frames_and_resets(d));
}
