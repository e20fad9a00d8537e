//! B, transport: messages in place of interrupt pins (MSI-X). A host without AIA has none, and refuses all of it.

#[cfg(feature = "payload")]
use crate::payload::{bare::*, *};

cases! {
    "B-pci-message-zero", Pci, "a message to address 0", ByHost Answered => || message(0, 0);
    "B-pci-message-ram", Pci, "a message to RAM", ByHost Answered => || message(SCRATCH, 0xffff_ffff);
    "B-pci-message-behind-ram", Pci, "a message to what is behind RAM", ByHost Answered => || message(RAM_END, 1);
    "B-pci-message-own-bar", Pci, "a message to the function's own doorbell", ByHost Answered => || message(LOW + 0x10_3000, 0);
    "B-pci-message-ecam", Pci, "a message to configuration space", ByHost Answered => || message(ECAM + 4, 0);
    "B-pci-message-uart", Pci, "a message to the serial port", ByHost Answered => || message(0x1000_0007, 0);
    "B-pci-message-last", Pci, "a message to the last address", ByHost Answered => || message(u64::MAX, u64::MAX);
    "B-pci-message-odd", Pci, "a message to the middle of an interrupt file's register", ByHost Answered => || message(0x2800_0002, 1);
    "B-pci-message-absent-hart", Pci, "a message to the interrupt file of a hart that there is not", ByHost Answered => || message(0x2800_0000 + 63 * 0x1000, 1);
    "B-pci-message-identity", Pci, "a message of an identity that there is not", ByHost Answered => || message(0x2800_0000, 0xffff_ffff);
    "B-pci-message-power", Pci, "a message to the power register, with the word that switches the machine off", ByHost Off => || message(0x10_0000, 0x5555);
    "B-pci-message-route-storm", Pci, "a message's address changes a hundred times while it is due", ByHost Answered => || messages(|f, d, at| route_storm(f, d, at));
    "B-pci-message-mask-storm", Pci, "every mask there is comes and goes while messages are due", ByHost Answered => || messages(|f, d, at| mask_storm(f, d, at));
    "B-pci-message-table-bytes", Pci, "the table of messages is written in bytes", Refused Refused => || messages(|f, _, _| table_in_pieces(f));
    "B-pci-message-table-double", Pci, "the table of messages is written eight bytes at a time", ByHost Answered => || messages(|f, _, _| table_at_once(f));
    "B-pci-message-beyond", Pci, "messages behind the last one are written", Refused Refused => || messages(|f, _, at| table_beyond(f, at));
    "B-pci-message-pending", Pci, "the pending bits are written", Refused Refused => || messages(|f, _, at| pending_written(f, at));
    "B-pci-message-count", Pci, "the number of messages is overwritten", Refused Refused => || messages(|f, _, at| {let before = f.message_count(at); f.set_half(at + 2, 0x7ff); Verdict::answered_if(f.message_count(at) != before)});
    "B-pci-message-table-moved", Pci, "the place of the table is overwritten", Refused Refused => || messages(|f, _, at| changes(f, at + 4, |f| {f.set_word(at + 4, 0xffff_ffff);}));
    "B-pci-message-at-random", Pci, "five thousand writes of nonsense to the table at random, with messages on", ByHost Answered => || messages(|f, d, at| {f.set_half(at + 2, 0x8000); at_random(f.table(), 0x40); flush(d)});
    "B-pci-vector-huge", Pci, "a queue with a message that there is not", Refused Refused => || function(|_, d| vector(d, 26, 0x7ff));
    "B-pci-vector-configuration", Pci, "a configuration with a message that there is not", Refused Refused => || function(|_, d| vector(d, 16, 0x7fff));
    "B-pci-vector-absent-queue", Pci, "a message for a queue that does not exist", Refused Answered => || function(|_, d| {d.write(register::QUEUE_SEL, 9); store16(d.base + 26, 0); Verdict::answered_if(load16(d.base + 26) == 0)});
    "B-pci-vector-storm", Pci, "every message for a queue while requests are under way", Answered Answered => || function(|_, d| {full_of_reads(d).kick(0); (0..0x400).for_each(|value| {vector(d, 26, value);}); flush(d.up())});
}
