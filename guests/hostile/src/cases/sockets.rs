//! E, sockets: packets of the guest to the host. QEMU-TCG gives a guest none.

#[cfg(feature = "payload")]
use crate::payload::{bare::*, *};

cases! {
    "E-vsock-connect", Vsock, "a connection, as it should be", Answered Absent => || asked(packet(REQUEST), 0);
    "E-vsock-echo", Vsock, "both ends of a connection are the guest's, and a word goes through", Answered Absent => || echo();
    "E-vsock-source-host", Vsock, "a packet that says it is from the host", Refused Absent => || asked(Packet {cids: (HOST, HOST), ..packet(REQUEST)}, 0);
    "E-vsock-source-other", Vsock, "a packet that says it is from another guest", Refused Absent => || asked(Packet {cids: (GUEST + 1, HOST), ..packet(REQUEST)}, 0);
    "E-vsock-source-wide", Vsock, "a packet whose source has upper bits", Refused Absent => || asked(Packet {cids: (GUEST | 1 << 32, HOST), ..packet(REQUEST)}, 0);
    "E-vsock-source-any", Vsock, "a packet from everybody", Refused Absent => || asked(Packet {cids: (0xffff_ffff, HOST), ..packet(REQUEST)}, 0);
    "E-vsock-target-hypervisor", Vsock, "a packet to number 0", Refused Absent => || asked(Packet {cids: (GUEST, 0), ..packet(REQUEST)}, 0);
    "E-vsock-target-local", Vsock, "a packet to number 1", Refused Absent => || asked(Packet {cids: (GUEST, 1), ..packet(REQUEST)}, 0);
    "E-vsock-target-self", Vsock, "a packet to oneself", Refused Absent => || asked(Packet {cids: (GUEST, GUEST), ..packet(REQUEST)}, 0);
    "E-vsock-target-wide", Vsock, "a packet whose target has upper bits", Refused Absent => || asked(Packet {cids: (GUEST, HOST | 1 << 32), ..packet(REQUEST)}, 0);
    "E-vsock-kind-packets", Vsock, "a socket of packets, which was not offered", Refused Absent => || asked(Packet {kind: 2, ..packet(REQUEST)}, 0);
    "E-vsock-kind-unknown", Vsock, "a kind of socket that there is not", Refused Absent => || asked(Packet {kind: 0xffff, ..packet(REQUEST)}, 0);
    "E-vsock-op-zero", Vsock, "a packet that wants nothing", Refused Absent => || asked(packet(0), 0);
    "E-vsock-op-eight", Vsock, "a packet of the first kind that there is not", Refused Absent => || asked(packet(8), 0);
    "E-vsock-op-last", Vsock, "a packet of kind 65,535", Refused Absent => || asked(packet(0xffff), 0);
    "E-vsock-port-nobody", Vsock, "a port where nobody listens", Refused Absent => || asked(Packet {ports: (OURS, NOBODY), ..packet(REQUEST)}, 0);
    "E-vsock-port-zero", Vsock, "port 0", Refused Absent => || asked(Packet {ports: (0, 0), ..packet(REQUEST)}, 0);
    "E-vsock-port-last", Vsock, "port 4,294,967,295", Refused Absent => || asked(Packet {ports: (0xffff_ffff, 0xffff_ffff), ..packet(REQUEST)}, 0);
    "E-vsock-stray-data", Vsock, "data without a connection", Refused Absent => || asked(Packet {len: 16, ..packet(DATA_PACKET)}, 16);
    "E-vsock-stray-response", Vsock, "an answer to nobody's question", Refused Absent => || asked(packet(RESPONSE), 0);
    "E-vsock-stray-shutdown", Vsock, "the end of no connection", Refused Absent => || asked(Packet {flags: 3, ..packet(SHUTDOWN)}, 0);
    "E-vsock-stray-credit", Vsock, "room for no connection", Refused Absent => || asked(packet(CREDIT), 0);
    "E-vsock-stray-credit-request", Vsock, "a question for room without a connection", Refused Absent => || asked(packet(CREDIT_REQUEST), 0);
    "E-vsock-stray-reset", Vsock, "a reset of no connection, which is not answered", Refused Absent => || asked(packet(RESET), 0);
    "E-vsock-request-data", Vsock, "a question for a connection with data behind it", Answered Absent => || asked(Packet {len: 512, ..packet(REQUEST)}, 512);
    "E-vsock-request-len", Vsock, "a question for a connection that says it has four GiB", Answered Absent => || asked(Packet {len: 0xffff_ffff, ..packet(REQUEST)}, 0);
    "E-vsock-request-flags", Vsock, "a question for a connection with every flag set", Answered Absent => || asked(Packet {flags: 0xffff_ffff, ..packet(REQUEST)}, 0);
    "E-vsock-request-twice", Vsock, "a connection is asked for twice", Refused Absent => || on_connection(packet(REQUEST), 0);
    "E-vsock-response-twice", Vsock, "a connection that stands is answered", Refused Absent => || on_connection(packet(RESPONSE), 0);
    "E-vsock-len-short", Vsock, "data of which more is there than is said", Answered Absent => || on_connection(Packet {len: 1, ..packet(DATA_PACKET)}, 512);
    "E-vsock-len-long", Vsock, "data of which less is there than is said", Refused Absent => || on_connection(Packet {len: 0x1000, ..packet(DATA_PACKET)}, 16);
    "E-vsock-len-four-gib", Vsock, "data of four GiB, of which 16 bytes are there", Refused Absent => || on_connection(Packet {len: 0xffff_ffff, ..packet(DATA_PACKET)}, 16);
    "E-vsock-len-zero", Vsock, "data of no bytes", Answered Absent => || on_connection(packet(DATA_PACKET), 0);
    "E-vsock-not-a-question", Vsock, "words that are no question for a port", Answered Absent => || connected(|d| {let said = says(d, b"\xff\xfe\n\0\x1b[2J"); hangs_up(d, said)});
    "E-vsock-line-endless", Vsock, "a question for a port that does not end", Answered Absent => || connected(|d| {let said = says(d, b"CONNECT 00000000000000000000000000000000000"); hangs_up(d, said)});
    "E-vsock-response-forged", Vsock, "an answer for another port than was asked", Refused Absent => || to_oneself(|d, answer| {let _ = d.sends(Packet {ports: (8, answer.ports.1), ..answer}, 0); Verdict::answered_if(d.hears(2) != Some(RESET))});
    "E-vsock-data-before-answer", Vsock, "data on a connection that does not stand yet", Refused Absent => || to_oneself(|d, answer| {let _ = d.sends(Packet {op: DATA_PACKET, len: 16, ..answer}, 16); Verdict::answered_if(d.hears(2) != Some(RESET))});
    "E-vsock-credit-overflow", Vsock, "more data than the host has room for", Refused Absent => || credit_overflow();
    "E-vsock-credit-none", Vsock, "a guest without room", Answered Absent => || on_connection(Packet {credit: (0, 0), ..packet(CREDIT)}, 0);
    "E-vsock-credit-nonsense", Vsock, "more taken than ever was sent", Answered Absent => || on_connection(Packet {credit: (0xffff_ffff, 0xffff_ffff), ..packet(CREDIT)}, 0);
    "E-vsock-credit-storm", Vsock, "thirty questions for room", Answered Absent => || connected(|d| Verdict::answered_if((1..30).all(|turn| d.sends(packet(CREDIT_REQUEST), 0) == Verdict::Answered && d.hears(turn) == Some(CREDIT))));
    "E-vsock-shutdown-nothing", Vsock, "an end of neither direction", Answered Absent => || on_connection(packet(SHUTDOWN), 0);
    "E-vsock-shutdown-unknown", Vsock, "an end with flags that there are not", Answered Absent => || on_connection(Packet {flags: 0xffff_fffc, ..packet(SHUTDOWN)}, 0);
    "E-vsock-shutdown-both", Vsock, "an end of both directions, after which there is no connection", Refused Absent => || on_connection(Packet {flags: 3, ..packet(SHUTDOWN)}, 0);
    "E-vsock-data-after-shutdown", Vsock, "data after the end of one's own direction", Refused Absent => || connected(|d| {let _ = d.sends(Packet {flags: 2, ..packet(SHUTDOWN)}, 0); let _ = says(d, b"more"); Verdict::answered_if(!(1..4).any(|turn| d.hears(turn) == Some(RESET)))});
    "E-vsock-flood", Vsock, "six hundred connections", Refused Absent => || flood();
    "E-vsock-unanswered-flood", Vsock, "a thousand packets to nowhere, and no room for an answer", Answered Absent => || strays(1000);
    "E-vsock-resets", Vsock, "thirty resets, each with a connection", Answered Absent => || resets();
    "E-vsock-header-nothing", Vsock, "a packet of no bytes", Answered Absent => || socket(|d| d.chain(1, &[(d.buffer(DATA), 0, 0)]));
    "E-vsock-header-short", Vsock, "a packet of 43 bytes", Answered Absent => || socket(|d| d.head(packet(REQUEST)).chain(1, &[(d.buffer(DATA), 43, 0)]).unless(!d.hears_no_more_than(0), "half a packet is heard"));
    "E-vsock-header-writable", Vsock, "a packet in a buffer to be written", Answered Absent => || socket(|d| d.head(packet(REQUEST)).chain(1, &[(d.buffer(DATA), 44, WRITE)]));
    "E-vsock-header-nowhere", Vsock, "a packet behind RAM", NeedsReset Absent => || socket(|d| d.chain(1, &[(RAM_END, 44, 0)]));
    "E-vsock-header-loop", Vsock, "a packet that loops", NeedsReset Absent => || socket(|d| d.descriptor(1, 0, d.buffer(DATA), 44, NEXT, 0).offer(1, 0).serve(1));
    "E-vsock-data-64-kib", Vsock, "as much data as a packet may have, and one byte", Refused Absent => || connected(|d| {let _ = d.head(Packet {len: 0x1_0001, ..packet(DATA_PACKET)}).lay(1, &[(d.buffer(DATA), 44, 0), (SCRATCH, 0x1_0001, 0)]).offer(1, 0).kick(1).wait_patiently(1, 2); still_stands(d)});
    "E-vsock-receive-one-byte", Vsock, "an answer into one byte", Refused Absent => || answered_into(|d| (d.buffer(DATA), 1, WRITE));
    "E-vsock-receive-nothing", Vsock, "an answer into no bytes", Refused Absent => || answered_into(|d| (d.buffer(DATA), 0, WRITE));
    "E-vsock-receive-readable", Vsock, "an answer into a buffer that may only be read", Refused Absent => || answered_into(|d| (d.buffer(DATA), 64, 0));
    "E-vsock-receive-nowhere", Vsock, "an answer behind RAM", NeedsReset Absent => || answered_into(|_| (RAM_END, 64, WRITE));
    "E-vsock-event-queue", Vsock, "buffers for events that never come", Refused Absent => || bare_socket(|d| d.chain(2, &[(d.buffer(DATA), 64, WRITE)]));
    "E-vsock-number-written", Vsock, "the guest's number is overwritten", Refused Absent => || bare_socket(|d| {store64(d.config(), 7); Verdict::answered_if(load64(d.config()) != GUEST)});
}
