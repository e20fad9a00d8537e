//! Volumes whose content is a few small files: ConfigMaps, Secrets, ServiceAccounts, fields of the machine itself,
//! what cloud-init reads; and the credentials that reach the guest by way of cloud-init.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Extra;

/// Each of a ConfigMap's keys as a file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapVolume {
    /// The ConfigMap, in the machine's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The machine starts without it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
    /// The disk's label, 32 bytes at most; cfgdata by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_label: Option<String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Each of a Secret's keys as a file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretVolume {
    /// The Secret, in the machine's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// The machine starts without it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
    /// The disk's label, 32 bytes at most; cfgdata by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_label: Option<String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What lets the guest speak to the cluster as a ServiceAccount: the files that a pod of it would have.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountVolume {
    /// The ServiceAccount, in the machine's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Fields of the machine's own object as files.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownwardApiVolume {
    /// The files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<DownwardApiFile>,
    /// The disk's label, 32 bytes at most; cfgdata by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_label: Option<String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A field of the machine's own object as a file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownwardApiFile {
    /// The file's path in the volume, without `..`.
    pub path: String,
    /// The field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldRef>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A field of the machine's own object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    /// metadata.name, .namespace, .uid, .labels, .annotations, or one label or annotation: `metadata.labels['app']`.
    pub field_path: String,
    /// The version of the object that the field is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What cloud-init reads. Of the user's data, and of the network's, one source at most is given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudInit {
    /// The Secret whose key `userdata` or `userData` holds the user's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
    /// The user's data in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data_base64: Option<String>,
    /// The user's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// The Secret whose key `networkdata` or `networkData` holds the network's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_data_secret_ref: Option<LocalReference>,
    /// The network's data in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_data_base64: Option<String>,
    /// The network's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_data: Option<String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Another object of the machine's namespace.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalReference {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Something by which people get into the guest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessCredential {
    /// Public keys for SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_public_key: Option<SshPublicKey>,
    /// Passwords of users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_password: Option<UserPassword>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Public keys for SSH, and how they reach the guest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SshPublicKey {
    /// Where the keys are.
    pub source: SshPublicKeySource,
    /// How they reach the guest.
    pub propagation_method: PropagationMethod,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Passwords of users, and how they reach the guest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserPassword {
    /// Where they are: a Secret whose keys are the users.
    pub source: SshPublicKeySource,
    /// How they reach the guest.
    pub propagation_method: UserPasswordPropagation,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How passwords reach the guest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserPasswordPropagation {
    /// The guest's agent sets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu_guest_agent: Option<Propagation>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Where credentials are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SshPublicKeySource {
    /// A Secret: each of its values holds keys, or the password of the user that it is named after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<AccessSecret>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A Secret with credentials.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessSecret {
    /// Its name.
    pub secret_name: String,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How credentials reach the guest: one of these.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PropagationMethod {
    /// In the data of the cloudInitConfigDrive volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_drive: Option<Propagation>,
    /// In the data of the cloudInitNoCloud volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_cloud: Option<Propagation>,
    /// The guest's agent adds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu_guest_agent: Option<AgentUsers>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Whose keys the guest's agent sets.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct AgentUsers {
    /// The users; all of them get all keys, and lose those that they had.
    #[serde(default)]
    pub users: Vec<String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A way that has no options.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Propagation {
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}
