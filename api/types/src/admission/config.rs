//! What can be wrong with volumes that bring files: ConfigMaps and their like, cloud-init's data, credentials.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::volumes::validate_object_name;
use super::{Cause, Path};
use crate::VirtualMachineInstance;
use crate::config::{
    AccessCredential, AgentUsers, CloudInit, DownwardApiVolume, FieldRef, LocalReference, SshPublicKey,
    UserPassword,
};
use crate::volume::Volume;

/// Most bytes of user data or network data that are written into a VMI itself; larger ones come from a Secret.
pub const MAX_INLINE_DATA: usize = 2048;
/// Longest label of a disk, in bytes: ISO 9660's.
const MAX_LABEL: usize = 32;
/// Most files of a downwardAPI volume.
const MAX_FIELDS: usize = 256;
/// Longest path of a file in a volume, and its longest part, in bytes.
const MAX_PATH: usize = 512;
const MAX_PART: usize = 160;
/// Most users of one credential, and the longest name of one: that of Linux.
const MAX_USERS: usize = 16;
const MAX_USER: usize = 32;

/// Most credentials of one machine.
const MAX_CREDENTIALS: usize = 64;
/// Fields that a file can be made from, besides single labels and annotations.
const FIELDS: [&str; 5] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels",
    "metadata.annotations",
];

pub(super) fn validate(vmi: &VirtualMachineInstance, spec: &Path, causes: &mut Vec<Cause>) {
    let path = spec.field("volumes");
    for (index, volume) in vmi.spec.volumes.iter().enumerate() {
        validate_volume(volume, &path.index(index), causes);
    }
    let path = spec.field("accessCredentials");
    if vmi.spec.access_credentials.len() > MAX_CREDENTIALS {
        causes.push(path.invalid(format_args!("has more than {MAX_CREDENTIALS} elements")));
    }
    for (index, credential) in vmi.spec.access_credentials.iter().enumerate() {
        validate_credential(credential, &vmi.spec.volumes, &path.index(index), causes);
    }
}

fn validate_volume(volume: &Volume, path: &Path, causes: &mut Vec<Cause>) {
    if let Some(map) = &volume.config_map {
        let path = path.field("configMap");
        validate_object_name(map.name.as_deref(), &path.field("name"), causes);
        validate_label(map.volume_label.as_deref(), &path, causes);
    }
    if let Some(secret) = &volume.secret {
        let path = path.field("secret");
        validate_object_name(secret.secret_name.as_deref(), &path.field("secretName"), causes);
        validate_label(secret.volume_label.as_deref(), &path, causes);
    }
    if let Some(api) = &volume.downward_api {
        validate_downward_api(api, &path.field("downwardAPI"), causes);
    }
    if let Some(data) = &volume.cloud_init_no_cloud {
        validate_cloud_init(data, &path.field("cloudInitNoCloud"), causes);
    }
    if let Some(data) = &volume.cloud_init_config_drive {
        validate_cloud_init(data, &path.field("cloudInitConfigDrive"), causes);
    }
}

fn validate_label(label: Option<&str>, path: &Path, causes: &mut Vec<Cause>) {
    if let Some(label) = label
        && (label.len() > MAX_LABEL || !label.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        causes.push(path.field("volumeLabel").invalid(format_args!(
            "must be ASCII without spaces, {MAX_LABEL} bytes at most"
        )));
    }
}

fn validate_downward_api(api: &DownwardApiVolume, path: &Path, causes: &mut Vec<Cause>) {
    validate_label(api.volume_label.as_deref(), path, causes);
    let path = path.field("fields");
    if api.fields.len() > MAX_FIELDS {
        causes.push(path.invalid(format_args!("has more than {MAX_FIELDS} elements")));
        return;
    }
    for (index, file) in api.fields.iter().enumerate() {
        let path = path.index(index);
        let part =
            |part: &str| matches!(part, "" | "." | "..") || part.len() > MAX_PART || part.contains('\0');
        if file.path.len() > MAX_PATH || file.path.split('/').any(part) {
            causes.push(path.field("path").invalid(format_args!(
                "must be a relative path of {MAX_PATH} bytes at most, its parts of {MAX_PART}, and none of them .."
            )));
        }
        // The path of one may not be a folder on the way to another's.
        let clash = |other: &str| {
            other == file.path
                || other
                    .strip_prefix(&file.path)
                    .is_some_and(|rest| rest.starts_with('/'))
                || file
                    .path
                    .strip_prefix(other)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        if let Some(first) = api.fields[..index].iter().position(|other| clash(&other.path)) {
            causes.push(
                path.field("path")
                    .invalid(format_args!("is in the way of fields[{first}].path")),
            );
        }
        let path = path.field("fieldRef.fieldPath");
        match &file.field_ref {
            None => causes.push(path.required("is a required field")),
            Some(field) if !FIELDS.contains(&field.field_path.as_str()) && field.key().is_none() => {
                causes.push(path.not_supported(format_args!(
                    "is {:?}; supported: {}, metadata.labels['KEY'], metadata.annotations['KEY']",
                    field.field_path,
                    FIELDS.join(", ")
                )));
            }
            Some(_) => {}
        }
    }
}

fn validate_cloud_init(data: &CloudInit, path: &Path, causes: &mut Vec<Cause>) {
    let user = Inline {
        words: ["userdatasource", "userdata", "UserDataSecretRef"],
        secret: data.secret_ref.as_ref().map(|secret| (secret, "secretRef")),
        base64: data
            .user_data_base64
            .as_deref()
            .map(|text| (text, "userDataBase64")),
        plain: data.user_data.as_deref(),
    };
    let network = Inline {
        words: ["networkdata source", "networkdata", "NetworkDataSecretRef"],
        secret: data
            .network_data_secret_ref
            .as_ref()
            .map(|secret| (secret, "networkDataSecretRef")),
        base64: data
            .network_data_base64
            .as_deref()
            .map(|text| (text, "networkDataBase64")),
        plain: data.network_data.as_deref(),
    };
    if user.validate(path, causes) + network.validate(path, causes) == 0 {
        causes.push(path.invalid("must have at least one userdatasource or one networkdatasource set."));
    }
}

/// Data that may be given in three ways.
struct Inline<'a> {
    /// How KubeVirt calls the source, the data, and the better way for much of it.
    words: [&'static str; 3],
    secret: Option<(&'a LocalReference, &'static str)>,
    base64: Option<(&'a str, &'static str)>,
    plain: Option<&'a str>,
}

impl Inline<'_> {
    /// Says how many ways are used.
    fn validate(&self, path: &Path, causes: &mut Vec<Cause>) -> usize {
        let [source, data, better] = self.words;
        let (mut sources, mut length) = (0, 0);
        if let Some((secret, field)) = self.secret {
            sources += 1;
            validate_object_name(secret.name.as_deref(), &path.field(field).field("name"), causes);
        }
        if let Some((text, field)) = self.base64.filter(|(text, _)| !text.is_empty()) {
            sources += 1;
            match STANDARD.decode(text) {
                Ok(bytes) => length = bytes.len(),
                Err(_) => causes.push(path.field(field).invalid("is not a valid base64 value.")),
            }
        }
        if let Some(text) = self.plain.filter(|text| !text.is_empty()) {
            sources += 1;
            length = text.len();
        }
        if sources > 1 {
            causes.push(path.invalid(format_args!("must have only one {source} set.")));
        }
        if length > MAX_INLINE_DATA {
            causes.push(path.invalid(format_args!(
                "{data} exceeds {MAX_INLINE_DATA} byte limit. Should use {better} for larger data."
            )));
        }
        sources
    }
}

fn validate_credential(
    credential: &AccessCredential,
    volumes: &[Volume],
    path: &Path,
    causes: &mut Vec<Cause>,
) {
    match (&credential.ssh_public_key, &credential.user_password) {
        (Some(key), None) => validate_key(key, volumes, &path.field("sshPublicKey"), causes),
        (None, Some(password)) => validate_password(password, &path.field("userPassword"), causes),
        // What else it is then stands among the fields that are refused by name.
        (None, None) if !credential.extra.is_empty() => {}
        _ => causes.push(path.required("must have exactly one access credential type set.")),
    }
}

fn validate_password(password: &UserPassword, path: &Path, causes: &mut Vec<Cause>) {
    let secret = password.source.secret.as_ref();
    let name = secret.map(|secret| secret.secret_name.as_str());
    validate_object_name(name, &path.field("source.secret.secretName"), causes);
    let (method, path) = (&password.propagation_method, path.field("propagationMethod"));
    if usize::from(method.qemu_guest_agent.is_some()) + method.extra.len() != 1 {
        causes.push(path.invalid("must have exactly one propagation method set."));
    }
}

fn validate_key(key: &SshPublicKey, volumes: &[Volume], path: &Path, causes: &mut Vec<Cause>) {
    let name = key
        .source
        .secret
        .as_ref()
        .map(|secret| secret.secret_name.as_str());
    validate_object_name(name, &path.field("source.secret.secretName"), causes);
    let (method, path) = (&key.propagation_method, path.field("propagationMethod"));
    let ways = [
        method.no_cloud.is_some(),
        method.config_drive.is_some(),
        method.qemu_guest_agent.is_some(),
    ];
    if ways.iter().filter(|way| **way).count() + method.extra.len() != 1 {
        causes.push(path.invalid("must have exactly one propagation method set."));
    }
    if let Some(agent) = &method.qemu_guest_agent {
        validate_users(agent, &path.field("qemuGuestAgent"), causes);
    }
    let has = |volume: fn(&Volume) -> bool| volumes.iter().any(volume);
    if method.no_cloud.is_some() && !has(|volume| volume.cloud_init_no_cloud.is_some()) {
        causes.push(
            path.invalid("requires a noCloud volume to exist when the noCloud propagationMethod is in use."),
        );
    }
    if method.config_drive.is_some() && !has(|volume| volume.cloud_init_config_drive.is_some()) {
        causes.push(path.invalid(
            "requires a configDrive volume to exist when the configDrive propagationMethod is in use.",
        ));
    }
}

fn validate_users(agent: &AgentUsers, path: &Path, causes: &mut Vec<Cause>) {
    let path = path.field("users");
    if agent.users.is_empty() {
        causes.push(path.required("requires at least one user to be present in the users list"));
    } else if agent.users.len() > MAX_USERS {
        causes.push(path.invalid(format_args!("has more than {MAX_USERS} elements")));
    }
    let is_name = |user: &String| {
        (1..=MAX_USER).contains(&user.len())
            && user.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
    };
    if !agent.users.iter().all(is_name) {
        causes.push(path.invalid(format_args!(
            "must be names in ASCII without spaces, {MAX_USER} bytes at most"
        )));
    }
}

impl FieldRef {
    /// Of `metadata.labels['KEY']` and `metadata.annotations['KEY']`: which of them, and the key.
    pub fn key(&self) -> Option<(&str, &str)> {
        let (map, key) = self.field_path.strip_prefix("metadata.")?.split_once("['")?;
        let key = key.strip_suffix("']").filter(|key| !key.is_empty())?;
        matches!(map, "labels" | "annotations").then_some((map, key))
    }
}
