//! What QEMU is told when a device is plugged in or pulled out: pure, one command after the other.
//!
//! Devices go behind a bridge of their own, as QEMU lets nothing be plugged into its root bus. The bridge is one of
//! conventional PCI with the standard hot-plug controller: a guest whose kernel does not drive that finds a new device when
//! it looks at its bus again, and QEMU takes a device out at once. Ports of PCI Express would keep a new device without
//! power until their driver comes, and wait for it before they let one go.
//!
//! What was opened for a device goes to QEMU over its monitor's socket, so that QEMU opens nothing itself but a passt's.

use std::fs::File;

use rvmm_backends::plugged::{Plugged, PluggedKind};
use rvmm_spec::{CacheMode, DeviceId, Disk, DiskFormat, MemorySize, Net, Network};
use serde_json::{Map, Value, json};

use crate::command::disk::{rerror, werror};

/// The bridge, as an option of QEMU: in the root bus's last slot.
pub(crate) const BRIDGE: &str = "pci-bridge,id=bays,chassis_nr=1,shpc=on,bus=pcie.0,addr=0x1f";

/// The name of the bridge's bus.
const BUS: &str = "bays";

/// Slots of the bridge; the controller counts them from 1.
const SLOTS: std::ops::RangeInclusive<u8> = 1..=31;

/// One command, and how it is taken back if a later one fails.
#[derive(Debug)]
pub(crate) struct Step {
    /// The command.
    pub command: Value,
    /// A descriptor that goes along.
    pub along: Option<File>,
    /// What undoes it.
    pub undo: Option<Value>,
    /// The device that has to be gone before the next step.
    pub gone: Option<String>,
}

/// What is in which slot. The slot's number is in all names.
#[derive(Debug, Default)]
pub(crate) struct Bays {
    taken: Vec<(DeviceId, u8, Vec<Value>)>,
}

// === impl Step ===

impl Step {
    fn new(execute: &str, arguments: Value) -> Self {
        Self {
            command: command(execute, arguments),
            along: None,
            undo: None,
            gone: None,
        }
    }

    fn with(mut self, file: File) -> Self {
        self.along = Some(file);
        self
    }

    fn undone_by(mut self, execute: &str, arguments: Value) -> Self {
        self.undo = Some(command(execute, arguments));
        self
    }

    /// A step that only takes one back.
    pub(crate) fn undoing(command: Value) -> Self {
        Self {
            command,
            along: None,
            undo: None,
            gone: None,
        }
    }
}

// === impl Bays ===

impl Bays {
    /// The steps that plug a device into a free slot, which is its from now on; none where there is no free slot.
    pub(crate) fn plug(&mut self, device: Plugged, is_block_device: bool) -> Option<Vec<Step>> {
        let is_free = |slot: &u8| !self.taken.iter().any(|(_, taken, _)| taken == slot);
        let slot = SLOTS.into_iter().find(is_free)?;
        let steps = match device.kind {
            PluggedKind::Disk(disk, file) => disk_steps(slot, &disk, file, is_block_device),
            PluggedKind::Lun(..) => return None,
            PluggedKind::Net(net, queues) => net_steps(slot, &net, queues),
        };
        let undo = steps.iter().rev().filter_map(|step| step.undo.clone());
        self.taken.push((device.id, slot, undo.collect()));
        Some(steps)
    }

    /// The steps that pull a device out; none where there is none of this name.
    pub(crate) fn unplug(&self, id: &DeviceId) -> Option<Vec<Step>> {
        let (_, slot, undo) = self.taken.iter().find(|(taken, ..)| taken == id)?;
        let mut delete = Step::new("device_del", json!({"id": device(*slot)}));
        delete.gone = Some(device(*slot));
        let rest = undo.iter().cloned().map(Step::undoing);
        Some([delete].into_iter().chain(rest).collect())
    }

    /// The machine's name of the disk that QEMU calls so, or whose throttle it calls so.
    pub(crate) fn disk_of(&self, node: &str) -> Option<String> {
        let Some(bay) = node.strip_prefix("bay") else {
            let number = node
                .strip_prefix("disk")
                .or_else(|| node.strip_prefix("limited"))?;
            return Some(format!("disk{number}"));
        };
        let slot: u8 = bay.strip_suffix("-limited").unwrap_or(bay).parse().ok()?;
        let mut taken = self.taken.iter();
        let (id, ..) = taken.find(|(_, taken, _)| *taken == slot)?;
        Some(id.to_string())
    }

    /// A device is out, or never came in.
    pub(crate) fn forget(&mut self, id: &DeviceId) {
        self.taken.retain(|(taken, ..)| taken != id);
    }
}

fn command(execute: &str, arguments: Value) -> Value {
    let mut command = json!({"execute": execute, "id": crate::qmp::ERRAND});
    command["arguments"] = arguments;
    command
}

fn device(slot: u8) -> String {
    format!("bay{slot}-device")
}

fn disk_steps(slot: u8, disk: &Disk, file: File, is_block_device: bool) -> Vec<Step> {
    let set = json!({"fdset-id": slot});
    let mut steps = vec![
        Step::new("add-fd", set.clone())
            .with(file)
            .undone_by("remove-fd", set),
    ];
    let mut drive = format!("bay{slot}");
    steps.push(
        Step::new("blockdev-add", node(slot, disk, is_block_device))
            .undone_by("blockdev-del", json!({"node-name": drive})),
    );
    if disk.iops.is_some() || disk.bandwidth.is_some() {
        let group = format!("bay{slot}-limits");
        let mut limits = Map::new();
        limits.extend(disk.iops.map(|iops| ("iops-total".to_owned(), iops.into())));
        let bytes = disk.bandwidth.map(MemorySize::bytes);
        limits.extend(bytes.map(|bytes| ("bps-total".to_owned(), bytes.into())));
        let object = json!({"qom-type": "throttle-group", "id": group, "limits": limits});
        steps.push(Step::new("object-add", object).undone_by("object-del", json!({"id": group})));
        let limited = format!("bay{slot}-limited");
        let node = json!({
            "driver": "throttle", "node-name": limited, "throttle-group": group, "file": drive,
            "read-only": disk.read_only, "discard": "unmap",
        });
        steps.push(Step::new("blockdev-add", node).undone_by("blockdev-del", json!({"node-name": limited})));
        drive = limited;
    }
    let mut options = json!({
        "driver": "virtio-blk-pci-non-transitional", "id": device(slot), "bus": BUS, "addr": format!("{slot:#x}"),
        "drive": drive, "werror": werror(disk), "rerror": rerror(disk), "num-queues": disk.queues,
    });
    if disk.cache == CacheMode::Writethrough {
        options["write-cache"] = "off".into();
    }
    if let Some(serial) = &disk.serial {
        options["serial"] = serial.as_str().into();
    }
    steps.push(Step::new("device_add", options));
    steps
}

/// The image. Who opened it has locked it, too.
fn node(slot: u8, disk: &Disk, is_block_device: bool) -> Value {
    let cache = json!({"direct": disk.direct, "no-flush": disk.cache == CacheMode::Unsafe});
    json!({
        "driver": match disk.format { DiskFormat::Raw => "raw", DiskFormat::Qcow2 => "qcow2" },
        "node-name": format!("bay{slot}"),
        "read-only": disk.read_only,
        "discard": "unmap",
        "cache": cache,
        "file": {
            "driver": if is_block_device { "host_device" } else { "file" },
            "filename": format!("/dev/fdset/{slot}"),
            "locking": "off",
            "cache": cache,
        },
    })
}

fn net_steps(slot: u8, net: &Net, queues: Vec<File>) -> Vec<Step> {
    let id = format!("bay{slot}");
    let count = queues.len();
    let names: Vec<_> = (0..count).map(|queue| format!("bay{slot}-{queue}")).collect();
    let mut steps: Vec<_> = names
        .iter()
        .zip(queues)
        // The network takes it, so that nothing is left to close.
        .map(|(name, queue)| Step::new("getfd", json!({"fdname": name})).with(queue))
        .collect();
    let network = match &net.network {
        Network::Tap(_) => {
            let word = if count > 1 { "fds" } else { "fd" };
            json!({"type": "tap", "id": id, word: names.join(":")})
        }
        Network::Passt(path) => json!({
            "type": "stream", "id": id, "server": false, "addr": {"type": "unix", "path": path},
        }),
    };
    steps.push(Step::new("netdev_add", network).undone_by("netdev_del", json!({"id": id})));
    let mut options = json!({
        "driver": "virtio-net-pci-non-transitional", "id": device(slot), "bus": BUS, "addr": format!("{slot:#x}"),
        "netdev": id, "mac": net.mac.to_string(), "mq": count > 1, "romfile": "",
    });
    if let Some(mtu) = net.mtu {
        options["host_mtu"] = mtu.into();
    }
    steps.push(Step::new("device_add", options));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvmm_spec::{NetWish, Spec};

    fn file() -> File {
        File::open("/dev/null").unwrap()
    }

    fn disk(id: &str, disk: Disk) -> Plugged {
        Plugged {
            id: id.parse().unwrap(),
            kind: PluggedKind::Disk(disk, file()),
        }
    }

    fn words(steps: &[Step]) -> Vec<&str> {
        let words = steps.iter().map(|step| step.command["execute"].as_str().unwrap());
        words.collect()
    }

    #[test]
    fn a_disk_comes_as_a_descriptor_and_goes_in_the_opposite_order() {
        let mut bays = Bays::default();
        let limited = Disk {
            iops: Some(100),
            ..Disk::new("/d")
        };
        let steps = bays.plug(disk("a", limited), false).unwrap();
        assert_eq!(
            words(&steps),
            [
                "add-fd",
                "blockdev-add",
                "object-add",
                "blockdev-add",
                "device_add"
            ]
        );
        assert!(steps[0].along.is_some() && steps[1].along.is_none());
        assert_eq!(steps[1].command["arguments"]["file"]["filename"], "/dev/fdset/1");
        assert_eq!(steps[4].command["arguments"]["drive"], "bay1-limited");
        let steps = bays.unplug(&"a".parse().unwrap()).unwrap();
        assert_eq!(
            words(&steps),
            [
                "device_del",
                "blockdev-del",
                "object-del",
                "blockdev-del",
                "remove-fd"
            ]
        );
        assert_eq!(steps[0].gone.as_deref(), Some("bay1-device"));
    }

    #[test]
    fn slots_are_used_again_and_there_are_only_so_many() {
        let mut bays = Bays::default();
        for number in 0..31 {
            assert!(
                bays.plug(disk(&format!("d{number}"), Disk::new("/d")), false)
                    .is_some()
            );
        }
        assert!(bays.plug(disk("more", Disk::new("/d")), false).is_none());
        bays.forget(&"d4".parse().unwrap());
        let steps = bays.plug(disk("more", Disk::new("/d")), true).unwrap();
        assert_eq!(steps[2].command["arguments"]["addr"], "0x5");
        assert_eq!(steps[1].command["arguments"]["file"]["driver"], "host_device");
        assert!(bays.unplug(&"d4".parse().unwrap()).is_none());
        let names = [
            "bay5",
            "bay5-limited",
            "bay4",
            "disk3",
            "limited3",
            "base3",
            "#block1",
            "bay40",
        ]
        .map(|node| bays.disk_of(node));
        let names = names.each_ref().map(Option::as_deref);
        let expected = [
            Some("more"),
            Some("more"),
            Some("d3"),
            Some("disk3"),
            Some("disk3"),
            None,
            None,
            None,
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn qemu_connects_to_a_passt_itself() {
        let wish = NetWish::new(Network::Passt("/p".into()));
        let spec = Spec::builder(rvmm_spec::Boot::new("Image")).build().unwrap();
        let device = Plugged {
            id: "n".parse().unwrap(),
            kind: PluggedKind::Net(spec.check_net(wish, 0).unwrap(), Vec::new()),
        };
        let mut bays = Bays::default();
        let steps = bays.plug(device, false).unwrap();
        assert_eq!(words(&steps), ["netdev_add", "device_add"]);
        let network = &steps[0].command["arguments"];
        assert_eq!(
            (&network["type"], &network["addr"]["path"]),
            (&"stream".into(), &"/p".into())
        );
        let steps = bays.unplug(&"n".parse().unwrap()).unwrap();
        assert_eq!(words(&steps), ["device_del", "netdev_del"]);
    }

    #[test]
    fn an_interface_has_a_descriptor_for_each_queue() {
        let boot = rvmm_spec::Boot::new("Image");
        let wish = NetWish {
            queues: 2,
            ..NetWish::new(Network::Tap("t0".parse().unwrap()))
        };
        let net = Spec::builder(boot).build().unwrap().check_net(wish, 0).unwrap();
        let device = Plugged {
            id: "n".parse().unwrap(),
            kind: PluggedKind::Net(net, vec![file(), file()]),
        };
        let steps = Bays::default().plug(device, false).unwrap();
        assert_eq!(words(&steps), ["getfd", "getfd", "netdev_add", "device_add"]);
        assert_eq!(steps[2].command["arguments"]["fds"], "bay1-0:bay1-1");
        assert_eq!(steps[3].command["arguments"]["mq"], true);
    }
}
