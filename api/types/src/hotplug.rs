//! Volumes that come and go while a machine runs: what is asked for, whether it can be, and what it makes of a spec.
//!
//! ```text
//!   PUT …/addvolume ─► AddVolumeOptions ─judge─► VolumeRequest ─apply─► the instance's spec, or a VM's template
//! ```
//!
//! A volume of that kind says `hotpluggable: true`. All that its spec says besides is the same whether it is there or not, which is
//! what [`fixed`] compares.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::devices::{Disk, DiskTarget};
use crate::vmi::VirtualMachineInstanceSpec;
use crate::volume::{ClaimVolume, Volume};
use crate::{Extra, VirtualMachineInstance};

/// The bus of disks that come and go.
pub const BUS: &str = "scsi";

/// What KubeVirt's clients ask for where their user says nothing. It means [`BUS`] here, as guests are told of no other device that comes.
const DEFAULT_OF_CLIENTS: &str = "virtio";

/// Most volumes of a machine that come and go.
pub const MAX_VOLUMES: usize = 64;

/// Something that was asked for. Exactly one of the two is there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRequest {
    /// A volume is to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_volume_options: Option<AddVolumeOptions>,
    /// A volume is to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_volume_options: Option<RemoveVolumeOptions>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A volume that is to come, and the disk that it becomes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AddVolumeOptions {
    /// The name of both.
    pub name: String,
    /// The disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<NamelessDisk>,
    /// Where it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_source: Option<HotplugVolumeSource>,
    /// `All`: nothing is to be kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<String>,
}

/// A disk whose name its volume says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct NamelessDisk {
    /// Whatever is said of it.
    #[serde(flatten)]
    pub fields: Extra,
}

/// A volume that is to go.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RemoveVolumeOptions {
    /// Its name, or that of its claim.
    pub name: String,
    /// `All`: nothing is to be kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<String>,
}

/// Where a volume that is to come comes from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HotplugVolumeSource {
    /// A claim of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimVolume>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

// === impl VolumeRequest ===

impl VolumeRequest {
    /// Asks for the end of a volume.
    pub fn remove(options: RemoveVolumeOptions) -> Self {
        Self {
            remove_volume_options: Some(options),
            ..Self::default()
        }
    }

    /// Asks for a volume.
    ///
    /// # Errors
    /// What is missing, in KubeVirt's words, or cannot be.
    pub fn add(mut options: AddVolumeOptions) -> Result<Self, String> {
        if options.name.is_empty() {
            return Err("AddVolumeOptions requires name to be set".to_owned());
        }
        if options.disk.is_none() {
            return Err("AddVolumeOptions requires disk to not be nil".to_owned());
        }
        let source = options.volume_source.as_mut();
        let source = source.ok_or("AddVolumeOptions requires VolumeSource to not be nil")?;
        if source.extra.contains_key("dataVolume") {
            return Err(
                "DataVolumes need CDI, which rvm does not work with; name the PersistentVolumeClaim"
                    .to_owned(),
            );
        }
        let claim = source.persistent_volume_claim.as_mut();
        let claim = claim.ok_or("AddVolumeOptions requires a PersistentVolumeClaim in its VolumeSource")?;
        claim.hotpluggable = Some(true);
        let request = Self {
            add_volume_options: Some(options),
            ..Self::default()
        };
        // It is made once, so that what cannot be a disk is known now.
        request.made().map(|_| request.clone())
    }

    /// The name that it is about.
    pub fn name(&self) -> &str {
        let add = self.add_volume_options.as_ref().map(|add| &add.name);
        let remove = || self.remove_volume_options.as_ref().map(|remove| &remove.name);
        add.or_else(remove).map_or("", String::as_str)
    }

    /// Whether a volume is to come.
    pub fn adds(&self) -> bool {
        self.add_volume_options.is_some()
    }

    /// Whether it can be done to these volumes.
    ///
    /// # Errors
    /// Why not, in KubeVirt's words.
    pub fn judge(&self, volumes: &[Volume]) -> Result<(), String> {
        match &self.add_volume_options {
            Some(add) => judge_add(add, volumes),
            None => judge_remove(self.name(), volumes),
        }
    }

    /// Whether it is done already.
    pub fn is_done(&self, spec: &VirtualMachineInstanceSpec) -> bool {
        let mut of_it = spec.volumes.iter().filter(|volume| is_it(volume, self.name()));
        if self.adds() {
            of_it.next().is_some()
        } else {
            // What stays in any case is not to be waited for.
            !of_it.any(|volume| volume.is_hotpluggable())
        }
    }

    /// Does it to a spec; what is done already stays as it is.
    pub fn apply(&self, spec: &mut VirtualMachineInstanceSpec) {
        if self.is_done(spec) {
            return;
        }
        let disks = &mut spec.domain.devices.disks;
        if let Ok(Some((volume, disk))) = self.made() {
            spec.volumes.push(volume);
            disks.push(disk);
            return;
        }
        let goes = |volume: &Volume| volume.is_hotpluggable() && is_it(volume, self.name());
        let gone: Vec<Volume> = spec.volumes.extract_if(.., |volume| goes(volume)).collect();
        disks.retain(|disk| !gone.iter().any(|volume| volume.name == disk.name));
    }

    /// The volume and its disk, where it asks for one.
    fn made(&self) -> Result<Option<(Volume, Disk)>, String> {
        let Some(add) = &self.add_volume_options else {
            return Ok(None);
        };
        let source = add.volume_source.clone().unwrap_or_default();
        let volume = Volume {
            name: add.name.clone(),
            persistent_volume_claim: source.persistent_volume_claim,
            ..Volume::default()
        };
        let mut fields = add.disk.clone().unwrap_or_default().fields;
        fields.insert("name".to_owned(), add.name.clone().into());
        let fields = serde_json::Value::Object(fields.into_iter().collect());
        let mut disk: Disk =
            serde_json::from_value(fields).map_err(|error| format!("the disk cannot be read: {error}"))?;
        if disk.cdrom.is_none() && !disk.extra.contains_key("lun") {
            let target = disk.disk.get_or_insert_with(DiskTarget::default);
            target.bus = target.bus.take().filter(|bus| bus != DEFAULT_OF_CLIENTS);
            target.bus.get_or_insert_with(|| BUS.to_owned());
        }
        Ok(Some((volume, disk)))
    }
}

fn judge_add(add: &AddVolumeOptions, volumes: &[Volume]) -> Result<(), String> {
    let name = &add.name;
    let source = add.volume_source.as_ref();
    let claim = source.and_then(|source| source.persistent_volume_claim.as_ref());
    let claim = claim.and_then(|claim| claim.claim_name.as_deref());
    for volume in volumes {
        if volume.name == *name {
            return Err(format!(
                "Unable to add volume [{name}] because volume with that name already exists"
            ));
        }
        if let Some(claim) = claim.filter(|claim| volume.claim() == Some(claim)) {
            return Err(format!(
                "Unable to add volume source [{claim}] because it already exists"
            ));
        }
    }
    Ok(())
}

fn judge_remove(name: &str, volumes: &[Volume]) -> Result<(), String> {
    match volumes.iter().find(|volume| is_it(volume, name)) {
        None => Err(format!(
            "Unable to remove volume [{name}] because it does not exist"
        )),
        Some(volume) if !volume.is_hotpluggable() => Err(format!(
            "Unable to remove volume [{}] because it is not hotpluggable",
            volume.name
        )),
        Some(_) => Ok(()),
    }
}

/// Whether a volume is called so, by its own name or its claim's.
fn is_it(volume: &Volume, name: &str) -> bool {
    volume.name == name || volume.claim() == Some(name)
}

/// A spec without the volumes that come and go, and their disks.
#[must_use]
pub fn fixed(spec: &VirtualMachineInstanceSpec) -> VirtualMachineInstanceSpec {
    let mut spec = spec.clone();
    let gone: Vec<Volume> = spec
        .volumes
        .extract_if(.., |volume| volume.is_hotpluggable())
        .collect();
    let disks = &mut spec.domain.devices.disks;
    disks.retain(|disk| !gone.iter().any(|volume| volume.name == disk.name));
    spec
}

// === impl VirtualMachineInstance ===

impl VirtualMachineInstance {
    /// Whether something can be plugged in while it runs.
    pub fn takes_volumes(&self) -> bool {
        self.spec.domain.devices.disable_hotplug != Some(true)
    }

    /// The volumes that come and go.
    pub fn hotpluggable(&self) -> impl Iterator<Item = &Volume> {
        let volumes = self.spec.volumes.iter();
        volumes.filter(|volume| volume.is_hotpluggable())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn add(body: serde_json::Value) -> Result<VolumeRequest, String> {
        VolumeRequest::add(serde_json::from_value(body).unwrap())
    }

    fn data() -> VolumeRequest {
        let body = json!({
            "name": "data", "disk": {"disk": {}, "serial": "data"},
            "volumeSource": {"persistentVolumeClaim": {"claimName": "claim"}},
        });
        add(body).unwrap()
    }

    fn remove(name: &str) -> VolumeRequest {
        VolumeRequest::remove(RemoveVolumeOptions {
            name: name.to_owned(),
            ..RemoveVolumeOptions::default()
        })
    }

    fn spec() -> VirtualMachineInstanceSpec {
        let spec = json!({
            "domain": {"devices": {"disks": [{"name": "root", "disk": {}}]}},
            "volumes": [{"name": "root", "containerDisk": {"image": "a"}}],
        });
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn what_is_missing_is_told_in_kubevirts_words() {
        let source = json!({"persistentVolumeClaim": {"claimName": "claim"}});
        let refused = |body| add(body).unwrap_err();
        assert_eq!(refused(json!({})), "AddVolumeOptions requires name to be set");
        assert_eq!(
            refused(json!({"name": "a", "volumeSource": source})),
            "AddVolumeOptions requires disk to not be nil"
        );
        assert_eq!(
            refused(json!({"name": "a", "disk": {}})),
            "AddVolumeOptions requires VolumeSource to not be nil"
        );
        let data_volume = json!({"name": "a", "disk": {}, "volumeSource": {"dataVolume": {"name": "d"}}});
        assert!(refused(data_volume).starts_with("DataVolumes need CDI"));
        let no_disk = json!({"name": "a", "disk": {"disk": "big"}, "volumeSource": source});
        assert!(refused(no_disk).starts_with("the disk cannot be read"));
    }

    #[test]
    fn a_volume_comes_once_and_goes_by_either_name() {
        let (request, before) = (data(), spec());
        let mut spec = before.clone();
        assert_eq!(request.judge(&spec.volumes), Ok(()));
        request.apply(&mut spec);
        let there = spec.clone();
        request.apply(&mut spec);
        assert!(spec == there && request.is_done(&spec));
        assert!(spec.volumes[1].is_hotpluggable());
        let disk = &spec.domain.devices.disks[1];
        assert_eq!(disk.disk.as_ref().unwrap().bus.as_deref(), Some(BUS));
        assert_eq!(disk.serial.as_deref(), Some("data"));
        assert_eq!(
            request.judge(&spec.volumes),
            Err("Unable to add volume [data] because volume with that name already exists".to_owned())
        );
        let again = json!({"name": "b", "disk": {}, "volumeSource": {"persistentVolumeClaim": {"claimName": "claim"}}});
        assert_eq!(
            add(again).unwrap().judge(&spec.volumes),
            Err("Unable to add volume source [claim] because it already exists".to_owned())
        );
        for name in ["data", "claim"] {
            let mut spec = there.clone();
            assert_eq!(remove(name).judge(&spec.volumes), Ok(()));
            remove(name).apply(&mut spec);
            assert_eq!(spec, before);
        }
    }

    #[test]
    fn only_what_comes_and_goes_is_removed() {
        let mut spec = spec();
        let refused = |name| remove(name).judge(&spec.volumes).unwrap_err();
        assert_eq!(
            refused("root"),
            "Unable to remove volume [root] because it is not hotpluggable"
        );
        assert_eq!(
            refused("none"),
            "Unable to remove volume [none] because it does not exist"
        );
        let before = spec.clone();
        remove("root").apply(&mut spec);
        assert!(spec == before && remove("root").is_done(&spec));
    }

    #[test]
    fn a_spec_is_the_same_with_and_without_what_comes_and_goes() {
        let mut with = spec();
        data().apply(&mut with);
        assert_eq!(fixed(&with), spec());
        with.hostname = Some("other".to_owned());
        assert_ne!(fixed(&with), spec());
    }
}
