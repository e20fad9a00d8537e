//! The files that cloud-init finds on its disk, named and written as KubeVirt writes them.
//!
//! | data source | label | files |
//! | --- | --- | --- |
//! | NoCloud | cidata | `meta-data`, `user-data`, `network-config` |
//! | ConfigDrive | config-2 | `openstack/latest/` with `meta_data.json`, `user_data`, `network_data.json` |

use std::collections::BTreeMap;

use serde::Serialize;

use super::iso::File;

/// The label of NoCloud's disk.
pub const NO_CLOUD_LABEL: &str = "cidata";
/// The label of ConfigDrive's disk.
pub const CONFIG_DRIVE_LABEL: &str = "config-2";

/// Whose disk it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The VMI's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What the guest calls itself.
    pub hostname: String,
    /// The machine's UUID: its firmware's, or the VMI's.
    pub uuid: String,
}

/// What the author of the VMI gave, read from wherever it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Data {
    /// For the user data's file, which is always there.
    pub user: Vec<u8>,
    /// For the network's.
    pub network: Option<Vec<u8>>,
    /// Public keys for SSH.
    pub keys: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct NoCloudMetadata<'a> {
    instance_id: String,
    local_hostname: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    public_keys: BTreeMap<String, &'a str>,
}

#[derive(Serialize)]
struct ConfigDriveMetadata<'a> {
    instance_id: String,
    hostname: &'a str,
    uuid: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    public_keys: BTreeMap<String, &'a str>,
}

/// The files of NoCloud.
///
/// # Errors
/// JSON's, which has none for texts.
pub fn no_cloud(identity: &Identity, data: Data) -> Result<Vec<File>, serde_json::Error> {
    let metadata = NoCloudMetadata {
        instance_id: format!("{}.{}", identity.hostname, identity.namespace),
        local_hostname: &identity.hostname,
        public_keys: numbered(&data.keys),
    };
    let metadata = serde_json::to_vec(&metadata)?;
    Ok(files(
        ["meta-data", "user-data", "network-config"],
        metadata,
        data,
    ))
}

/// The files of ConfigDrive.
///
/// # Errors
/// JSON's, which has none for texts.
pub fn config_drive(identity: &Identity, data: Data) -> Result<Vec<File>, serde_json::Error> {
    let metadata = ConfigDriveMetadata {
        instance_id: format!("{}.{}", identity.name, identity.namespace),
        hostname: &identity.hostname,
        uuid: &identity.uuid,
        public_keys: numbered(&data.keys),
    };
    let metadata = serde_json::to_vec(&metadata)?;
    let names = ["meta_data.json", "user_data", "network_data.json"];
    Ok(files(
        names.map(|name| format!("openstack/latest/{name}")),
        metadata,
        data,
    ))
}

fn files<S: Into<String>>([meta, user, network]: [S; 3], metadata: Vec<u8>, data: Data) -> Vec<File> {
    let file = |path: S, content| File {
        path: path.into(),
        content,
    };
    let network = data.network.map(|content| file(network, content));
    [file(meta, metadata), file(user, data.user)]
        .into_iter()
        .chain(network)
        .collect()
}

/// Keys have no names, so they are counted.
fn numbered(keys: &[String]) -> BTreeMap<String, &str> {
    let keys = keys.iter().enumerate();
    keys.map(|(number, key)| (number.to_string(), key.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn identity() -> Identity {
        Identity {
            name: "vmi.one".into(),
            namespace: "default".into(),
            hostname: "vmi-one".into(),
            uuid: "6f9619ff-8b86-4d01-b42d-00cf4fc964ff".into(),
        }
    }

    fn metadata(files: &[File]) -> Value {
        serde_json::from_slice(&files[0].content).unwrap()
    }

    fn paths(files: &[File]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn no_cloud_names_the_instance_the_host_and_the_keys() {
        let data = Data {
            user: b"#cloud-config".into(),
            network: Some(b"v2".into()),
            keys: vec!["ssh-ed25519 A".into()],
        };
        let files = no_cloud(&identity(), data).unwrap();
        assert_eq!(paths(&files), ["meta-data", "user-data", "network-config"]);
        let expected = json!({
            "instance-id": "vmi-one.default", "local-hostname": "vmi-one", "public-keys": {"0": "ssh-ed25519 A"},
        });
        assert_eq!(metadata(&files), expected);
        assert_eq!(
            (&files[1].content[..], &files[2].content[..]),
            (&b"#cloud-config"[..], &b"v2"[..])
        );
    }

    #[test]
    fn a_config_drive_has_openstacks_folders_and_the_machines_uuid() {
        let files = config_drive(&identity(), Data::default()).unwrap();
        assert_eq!(
            paths(&files),
            ["openstack/latest/meta_data.json", "openstack/latest/user_data"]
        );
        let expected = json!({
            "instance_id": "vmi.one.default", "hostname": "vmi-one", "uuid": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
        });
        assert_eq!(metadata(&files), expected);
    }
}
