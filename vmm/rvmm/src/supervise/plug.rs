//! Devices that come and go while the guest runs.
//!
//! ```text
//!   add-disk, add-net ─► room? name free? possible? ─► Guest::plug ──► Happening::Plugged ─► kept for every later boot
//!   remove-device ─────► one that was plugged in? ───► Guest::unplug ► Happening::Plugged ─► forgotten, closed
//! ```
//!
//! A client opened what a device needs and sent it along: behind its walls, rvmm could not. A passt is the exception: each boot
//! begins a connection of its own, as both ends forget half a frame only then, and walls do not stand in the way of a socket. While a device is on its way
//! other requests stand in line.

use std::fs::File;
use std::os::fd::OwnedFd;

use rvmm_backends::control::Answer;
use rvmm_backends::plugged::{Plugged, PluggedKind};
use rvmm_control::{Device, Event, Refusal, RefusalCode, Reply, Request};
use rvmm_spec::wire::{DiskDocument, NetDocument};
use rvmm_spec::{DeviceId, Disk, DiskBus, NetWish, Network, SpecError};

use super::inbox::Happening;
use super::{Finish, Supervisor};

/// What was plugged in.
#[derive(Default)]
pub(super) struct PluggedIn {
    /// In the order in which it came.
    pub(super) devices: Vec<Plugged>,
    /// How many network interfaces ever were.
    nets: usize,
    /// The number after the last that a disk on the SCSI controller had.
    next_lun: u8,
}

/// A device on its way, and who waits for it.
pub(super) struct OnItsWay {
    change: Change,
    answer: Answer,
}

/// Which way.
pub(super) enum Change {
    /// In.
    Plug(Plugged),
    /// Out.
    Unplug(DeviceId),
}

impl Supervisor<'_> {
    /// Plugs in or pulls out what a client asks for, if that is possible.
    pub(super) fn rearrange(&mut self, request: Request, opened: Vec<OwnedFd>, answer: Answer) {
        let opened = opened.into_iter().map(File::from).collect();
        let change = match request {
            Request::AddDisk { id, disk } => self.disk(id, disk, opened).map(Change::Plug),
            Request::AddNet { id, net } => self.net(id, net, opened).map(Change::Plug),
            Request::RemoveDevice { id } => self.removable(&id).map(Change::Unplug),
            _ => Err(failed("this is about no device")),
        };
        let change = change.and_then(|change| match self.begin(&change) {
            Ok(()) => Ok(change),
            Err(error) => Err(failed(format!("{error:#}"))),
        });
        match change {
            Ok(change) => self.on_its_way = Some(OnItsWay { change, answer }),
            Err(refusal) => answer.refuse(refusal),
        }
    }

    /// A device is in, or out, or neither.
    pub(super) fn rearranged(&mut self, result: Result<(), String>) -> anyhow::Result<Option<Finish>> {
        let Some(OnItsWay { change, answer }) = self.on_its_way.take() else {
            return Ok(None);
        };
        match (result, change) {
            (Err(why), _) => answer.refuse(failed(why)),
            (Ok(()), Change::Plug(plugged)) => {
                self.notify(Event::Plugged(told(&plugged)));
                answer.send(Reply::Plugged(told(&plugged)));
                self.plugged.devices.push(plugged);
            }
            (Ok(()), Change::Unplug(id)) => {
                let out = self.plugged.devices.extract_if(.., |plugged| plugged.id == id);
                let out: Vec<_> = out.map(|plugged| told(&plugged)).collect();
                out.into_iter()
                    .for_each(|device| self.notify(Event::Unplugged(device)));
                answer.send(Reply::Done);
            }
        }
        self.serve_line()
    }

    fn begin(&mut self, change: &Change) -> anyhow::Result<()> {
        let (inbox, boot) = (self.inbox.clone(), self.boots);
        let on_done = move |result| inbox.put(Happening::Plugged(boot, result));
        let Some(guest) = &mut self.guest else {
            anyhow::bail!("there is no guest");
        };
        match change {
            Change::Plug(plugged) => guest.plug(plugged.copy()?, &mut self.events, on_done),
            Change::Unplug(id) => {
                guest.unplug(id, &mut self.events, on_done);
                Ok(())
            }
        }
    }

    fn disk(
        &mut self,
        id: Option<String>,
        disk: DiskDocument,
        opened: Vec<File>,
    ) -> Result<Plugged, Refusal> {
        let disk = Disk::from(disk);
        let lun = match disk.bus {
            DiskBus::Virtio => self.room().map(|()| None)?,
            DiskBus::Scsi => Some(self.free_lun()?),
        };
        let id = self.name(id, "disk")?;
        self.spec.check_disk(&disk).map_err(|error| impossible(&error))?;
        let [file] = <[File; 1]>::try_from(opened)
            .map_err(|other| along("a disk's image is one descriptor", other.len()))?;
        let kind = match lun {
            None => PluggedKind::Disk(disk, file),
            Some(lun) => {
                self.plugged.next_lun = lun.saturating_add(1);
                PluggedKind::Lun(disk, file, lun)
            }
        };
        Ok(Plugged { id, kind })
    }

    fn net(&mut self, id: Option<String>, net: NetDocument, opened: Vec<File>) -> Result<Plugged, Refusal> {
        self.room()?;
        let id = self.name(id, "net")?;
        let wish = NetWish::try_from(net).map_err(|error| failed(error.to_string()))?;
        let index = self.spec.nets().len() + self.plugged.nets;
        let net = self
            .spec
            .check_net(wish, index)
            .map_err(|error| impossible(&error))?;
        match net.network {
            Network::Tap(_) if opened.len() != usize::from(net.queues) => {
                return Err(along("a tap is a descriptor for each queue", opened.len()));
            }
            Network::Passt(_) if !opened.is_empty() => {
                return Err(along("a passt is connected to by rvmm: nothing is", opened.len()));
            }
            _ => {}
        }
        self.plugged.nets += 1;
        let kind = PluggedKind::Net(net, opened);
        Ok(Plugged { id, kind })
    }

    /// Whether there is room for one more device of its own.
    fn room(&self) -> Result<(), Refusal> {
        let plugged = &self.plugged.devices;
        let of_their_own = plugged.iter().filter(|plugged| plugged.lun().is_none());
        let room = self.spec.has_room(of_their_own.count());
        room.map_err(|error| impossible(&error))
    }

    /// The number of one more disk on the SCSI controller.
    fn free_lun(&self) -> Result<u8, Refusal> {
        let plugged = &self.plugged.devices;
        let taken: Vec<_> = plugged.iter().filter_map(Plugged::lun).collect();
        let lun = self.spec.free_lun(&taken, self.plugged.next_lun);
        lun.map_err(|error| impossible(&error))
    }

    /// A name that no device has.
    fn name(&self, wished: Option<String>, kind: &str) -> Result<DeviceId, Refusal> {
        let devices = self.devices();
        let is_free = |name: &str| !devices.iter().any(|device| device.id == name);
        let name = match wished {
            Some(name) if !is_free(&name) => {
                return Err(failed(format!("there is a device '{name}' already")));
            }
            Some(name) => name,
            // There are fewer devices than numbers.
            None => (0..=devices.len())
                .map(|number| format!("{kind}{number}"))
                .find(|name| is_free(name))
                .unwrap_or_default(),
        };
        name.parse().map_err(|error| failed(format!("{error}")))
    }

    fn removable(&self, id: &str) -> Result<DeviceId, Refusal> {
        if let Some(plugged) = self
            .plugged
            .devices
            .iter()
            .find(|plugged| plugged.id.as_str() == id)
        {
            return Ok(plugged.id.clone());
        }
        let is_there = self.devices().iter().any(|device| device.id == id);
        Err(failed(if is_there {
            format!("'{id}' has been there from the start; only what was plugged in can be pulled out")
        } else {
            format!("there is no device '{id}'; 'info' lists them")
        }))
    }

    /// Disks, network interfaces and shares, those that were plugged in last.
    pub(super) fn devices(&self) -> Vec<Device> {
        let disks = (0..)
            .zip(self.spec.disks())
            .map(|(index, disk): (u32, _)| Device {
                id: format!("disk{index}"),
                backend: disk.path.display().to_string(),
                plugged: false,
            });
        let nets = (0..).zip(self.spec.nets()).map(|(index, net): (u32, _)| Device {
            id: format!("net{index}"),
            backend: match &net.network {
                Network::Tap(tap) => tap.as_str().to_owned(),
                Network::Passt(socket) => socket.display().to_string(),
            },
            plugged: false,
        });
        let shares = (0..)
            .zip(self.spec.shares())
            .map(|(index, share): (u32, _)| Device {
                id: format!("fs{index}"),
                backend: share.socket().display().to_string(),
                plugged: false,
            });
        disks
            .chain(nets)
            .chain(shares)
            .chain(self.plugged.devices.iter().map(told))
            .collect()
    }
}

fn told(plugged: &Plugged) -> Device {
    Device {
        id: plugged.id.to_string(),
        backend: plugged.backend(),
        plugged: true,
    }
}

fn failed(text: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::Failed, text)
}

fn along(what: &str, came: usize) -> Refusal {
    Refusal::new(RefusalCode::Request, format!("{what}, sent along; {came} came"))
}

fn impossible(error: &SpecError) -> Refusal {
    let code = match error {
        SpecError::NoHotPlug | SpecError::NoScsi => RefusalCode::Unsupported,
        _ => RefusalCode::Failed,
    };
    Refusal::new(code, error.to_string())
}
