//! The JSON form of a [`Spec`], versioned so that it can age apart from it.
//!
//! `spec.json` of a run directory holds one [`Document`]. Unknown fields and versions are refused: a machine that
//! differs from what was asked for is worse than none.

mod boot;
mod memory;
mod network;
mod sandbox;
mod share;
mod vsock;
mod watchdog;

use serde::{Deserialize, Serialize};

use boot::BootDocument;

use crate::network::ParseNetError;
use crate::{
    AcceleratorChoice, Boot, Console, CpuModel, MemorySize, OnReset, OnStart, ParseCpuError, Rng, Spec,
    SpecError, Transport,
};
use memory::MemoryDocument;
pub use network::NetDocument;
use sandbox::SandboxDocument;
use share::ShareDocument;
use vsock::VsockDocument;
use watchdog::WatchdogDocument;

/// The version that is written, and the only one that is read.
pub const VERSION: &str = "rvmm/v1";

/// A machine as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Document {
    version: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    cpus: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu: Option<String>,
    memory_bytes: u64,
    #[serde(default, skip_serializing_if = "MemoryDocument::is_default")]
    memory: MemoryDocument,
    boot: BootDocument,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    disks: Vec<DiskDocument>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    scsi: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nets: Vec<NetDocument>,
    #[serde(default)]
    transport: TransportDocument,
    #[serde(default)]
    console: ConsoleDocument,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    balloon: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rng_bytes_per_second: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vsock: Option<VsockDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watchdog: Option<WatchdogDocument>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shares: Vec<ShareDocument>,
    #[serde(default)]
    accelerator: AcceleratorDocument,
    #[serde(default, skip_serializing_if = "OnStartDocument::is_default")]
    on_start: OnStartDocument,
    #[serde(default)]
    on_reset: OnResetDocument,
    #[serde(default, skip_serializing_if = "SandboxDocument::is_default")]
    sandbox: SandboxDocument,
}

mod disk;

pub use disk::DiskDocument;

/// Gives an enum of the checked side its name on the wire.
macro_rules! wire_enum {
    ($wire:ident, $inner:ident, $($variant:ident),+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum $wire { #[default] $($variant),+ }
        impl From<$wire> for $inner {
            fn from(wire: $wire) -> Self { match wire { $($wire::$variant => Self::$variant),+ } }
        }
        impl From<$inner> for $wire {
            fn from(inner: $inner) -> Self { match inner { $($inner::$variant => Self::$variant),+ } }
        }
    };
}
use wire_enum;
wire_enum!(TransportDocument, Transport, Mmio, Pci);
wire_enum!(ConsoleDocument, Console, Serial, Virtio);
wire_enum!(AcceleratorDocument, AcceleratorChoice, Auto, Kvm, Tcg);
wire_enum!(OnStartDocument, OnStart, Run, Pause);
wire_enum!(OnResetDocument, OnReset, Restart, Exit);

/// The document does not describe a machine.
#[derive(Debug, thiserror::Error)]
#[error("the machine's description is not valid")]
pub enum WireError {
    /// Not JSON, or not this shape.
    #[error("the machine's description is not valid JSON of version {VERSION}")]
    Json(#[source] serde_json::Error),
    /// Another version.
    #[error("the machine's description has version '{0}'; this rvmm reads {VERSION}")]
    Version(String),
    /// CPUs that cannot be.
    #[error("the CPU model of the machine's description is not valid")]
    Cpu(#[source] ParseCpuError),
    /// A tap or address that cannot be.
    #[error("a network of the machine's description is not valid")]
    Net(#[source] ParseNetError),
    /// A network that is none, or two.
    #[error("a network of the machine's description needs either 'tap' or 'passt'")]
    Network,
    /// A machine that cannot be.
    #[error("the machine's description cannot be met")]
    Spec(#[source] SpecError),
}

// === impl OnStartDocument ===

impl OnStartDocument {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Document ===

impl Document {
    /// Reads a document and checks it into a machine.
    ///
    /// # Errors
    /// What is wrong with the text or with the machine.
    pub fn parse(json: &[u8]) -> Result<Spec, WireError> {
        let document: Self = serde_json::from_slice(json).map_err(WireError::Json)?;
        document.into_spec()
    }

    /// As JSON for people and programs.
    ///
    /// # Errors
    /// [`WireError::Json`] where a path is not UTF-8: JSON cannot hold it.
    pub fn to_json(&self) -> Result<String, WireError> {
        serde_json::to_string_pretty(self).map_err(WireError::Json)
    }

    fn into_spec(self) -> Result<Spec, WireError> {
        if self.version != VERSION {
            return Err(WireError::Version(self.version));
        }
        let boot = Boot::try_from(self.boot).map_err(WireError::Spec)?;
        let mut builder = Spec::builder(boot)
            .name(self.name)
            .cpus(self.cpus)
            .memory(MemorySize::from_bytes(self.memory_bytes))
            .memory_backing(self.memory.into())
            .transport(self.transport.into())
            .console(self.console.into())
            .balloon(self.balloon)
            .scsi(self.scsi)
            .rng(Rng {
                bandwidth: self.rng_bytes_per_second.map(MemorySize::from_bytes),
            })
            .accelerator(self.accelerator.into())
            .on_start(self.on_start.into())
            .on_reset(self.on_reset.into())
            .sandbox(self.sandbox.into());
        if let Some(cpu) = self.cpu {
            builder = builder.cpu(cpu.parse().map_err(WireError::Cpu)?);
        }
        if let Some(uid) = self.uid {
            builder = builder.uid(uid);
        }
        if let Some(vsock) = self.vsock {
            builder = builder.vsock(vsock.try_into().map_err(WireError::Spec)?);
        }
        if let Some(watchdog) = self.watchdog {
            builder = builder.watchdog(watchdog.into());
        }
        for share in self.shares {
            builder = builder.share(share.try_into().map_err(WireError::Spec)?);
        }
        for disk in self.disks {
            builder = builder.disk(disk.into());
        }
        for net in self.nets {
            builder = builder.interface(net.try_into()?);
        }
        builder.build().map_err(WireError::Spec)
    }
}

impl From<&Spec> for Document {
    fn from(spec: &Spec) -> Self {
        Self {
            version: VERSION.to_owned(),
            name: spec.name.clone(),
            uid: spec.uid.clone(),
            cpus: spec.cpus.into(),
            cpu: (spec.cpu != CpuModel::default()).then(|| spec.cpu.to_string()),
            memory_bytes: spec.memory.bytes(),
            memory: spec.memory_backing.into(),
            boot: (&spec.boot).into(),
            disks: spec.disks.iter().map(DiskDocument::from).collect(),
            nets: spec.nets.iter().map(NetDocument::from).collect(),
            transport: spec.transport.into(),
            console: spec.console.into(),
            balloon: spec.balloon,
            scsi: spec.scsi,
            rng_bytes_per_second: spec.rng.bandwidth.map(MemorySize::bytes),
            vsock: spec.vsock.as_ref().map(VsockDocument::from),
            watchdog: spec.watchdog.map(WatchdogDocument::from),
            shares: spec.shares.iter().map(ShareDocument::from).collect(),
            accelerator: spec.accelerator.into(),
            on_start: spec.on_start.into(),
            on_reset: spec.on_reset.into(),
            sandbox: (&spec.sandbox).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Disk, DiskBus, HugePages, MemoryBacking, NetWish, Network, Sandbox, SandboxMode, Share, Thp, Vsock,
        Watchdog, WatchdogAction,
    };
    use proptest::prelude::*;

    const MINIMAL: &str = r#"{"version":"rvmm/v1","name":"vm","cpus":1,"memoryBytes":268435456,"boot":{"kernel":"/Image","cmdline":""}}"#;

    #[test]
    fn a_minimal_document_gives_the_defaults() {
        let spec = Document::parse(MINIMAL.as_bytes()).unwrap();
        assert_eq!(spec.accelerator(), AcceleratorChoice::Auto);
        assert!(spec.disks().is_empty());
        assert_eq!(spec.on_start(), OnStart::Run);
    }

    #[test]
    fn unknown_fields_and_versions_are_refused() {
        let typo = MINIMAL.replace("\"cpus\"", "\"cpu\"");
        assert!(matches!(
            Document::parse(typo.as_bytes()),
            Err(WireError::Json(_))
        ));
        let newer = MINIMAL.replace("rvmm/v1", "rvmm/v2");
        assert!(matches!(Document::parse(newer.as_bytes()), Err(WireError::Version(v)) if v == "rvmm/v2"));
    }

    #[test]
    fn an_interface_has_one_network() {
        let with = |net: &str| {
            let document = MINIMAL.replace("\"boot\"", &format!("\"nets\":[{net}],\"boot\""));
            Document::parse(document.as_bytes())
        };
        let spec = with(r#"{"tap":"t0"}"#).unwrap();
        assert_eq!((spec.nets()[0].queues, spec.nets()[0].mtu), (1, None));
        for net in ["{}", r#"{"tap":"t0","passt":"/p"}"#] {
            assert!(matches!(with(net), Err(WireError::Network)), "{net}");
        }
    }

    proptest! {
        #[test]
        fn every_spec_survives_its_json_form(cpus in 1u64..=64, mib in 16u64..4096, disks in 0usize..3, nets in 0usize..4, uid in proptest::option::of("[a-f0-9]{8}")) {
            let mut wish = Spec::builder(Boot { initrd: Some("/initrd".into()), ..Boot::new("/Image") })
                .cpus(cpus).memory(MemorySize::from_mib(mib * 2)).memory_backing(MemoryBacking { shared: mib % 2 == 0, prefault: mib % 3 == 0, huge_pages: (mib % 5 == 0).then_some(HugePages::TwoMib), thp: if mib % 7 == 0 { Thp::Never } else { Thp::Always } }).on_start(if cpus % 3 == 0 { OnStart::Pause } else { OnStart::Run }).on_reset(OnReset::Exit).console(Console::Virtio).transport(Transport::Pci).balloon(cpus % 2 == 0).scsi(cpus % 4 == 0);
            if let Some(uid) = uid { wish = wish.uid(uid).vsock(Vsock::new(3, "/v.sock").unwrap()); }
            if mib % 2 == 0 { wish = wish.share(Share::new("data", "/s.sock").unwrap()); }
            if nets == 2 { wish = wish.rng(crate::Rng { bandwidth: Some(MemorySize::from_mib(mib)) }); }
            if nets == 1 { wish = wish.watchdog(Watchdog { action: WatchdogAction::Pause }); }
            if disks == 1 { wish = wish.cpu("host,zbb=off,v=on".parse().unwrap()); }
            wish = wish.sandbox(Sandbox { mode: if mib % 2 == 0 { SandboxMode::Off } else { SandboxMode::Log }, allowed: vec!["/images".into()] });
            for n in 0..disks { wish = wish.disk(Disk { read_only: n == 1, serial: Some(format!("s{n}")), bus: if nets == 3 { DiskBus::Scsi } else { DiskBus::Virtio }, ..Disk::new(format!("/d{n}")) }); }
            for n in 0..nets {
                let network = if n == 0 { Network::Passt("/p".into()) } else { Network::Tap(format!("tap{n}").parse().unwrap()) };
                wish = wish.interface(NetWish { queues: if n == 1 { 4 } else { 1 }, vhost: n == 2, mtu: (n == 1).then_some(9000), ..NetWish::new(network) });
            }
            let spec = wish.build().unwrap();
            prop_assert_eq!(Document::parse(Document::from(&spec).to_json().unwrap().as_bytes()).unwrap(), spec);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Document::parse(&bytes);
        }
    }
}
