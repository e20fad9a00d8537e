//! `rvm create vm`: prints the manifest that virtctl prints for the same flags. No server is asked.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, anyhow, bail};
use rvm_types::manifest;
use serde_json::{Map, Value, json};

use crate::args::{CloudInit, Create, CreateVm, Created};
use crate::screen::say;

const STRATEGIES: [&str; 5] = ["Always", "Manual", "Halted", "Once", "RerunOnFailure"];
/// Letters of a name that nobody chose.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// cloud-init's volume, as virtctl names it.
const CLOUD_INIT: &str = "cloudinitdisk";
/// The longest password that is read.
const MAX_PASSWORD: usize = 1 << 10;

pub fn run(args: &Create) -> Result<()> {
    match &args.what {
        Created::Vm(args) => Ok(say(manifest::to_yaml(&vm(args)?)?.trim_end())?),
        Created::Instancetype(_) => {
            bail!(
                "create instancetype is not there: rvm has no instance types; `rvm create vm --memory` says how large a machine is"
            )
        }
        Created::Preference(_) => bail!("create preference is not there: rvm has no preferences"),
        Created::Clone(_) => bail!("create clone is not there: rvm does not clone machines"),
    }
}

/// A volume's parameters.
struct Volume {
    flag: &'static str,
    name: Option<String>,
    source: String,
    boot_order: Option<u32>,
}

fn vm(args: &CreateVm) -> Result<Value> {
    if args.instancetype.is_some() || args.preference.is_some() {
        bail!("rvm has neither instance types nor preferences; --memory says how large a machine is");
    }
    if !STRATEGIES.contains(&args.run_strategy.as_str()) {
        return Err(wrong(
            "run-strategy",
            &format!(
                "invalid run strategy \"{}\", supported values are: {}",
                args.run_strategy,
                STRATEGIES.join(", ")
            ),
        ));
    }
    let name = args.name.clone().map_or_else(any_name, Ok)?;
    let mut volumes = Volumes::default();
    for (at, text) in args.volume_containerdisk.iter().enumerate() {
        let volume = Volume::parse("volume-containerdisk", text)?;
        let image = json!({"containerDisk": {"image": volume.source}});
        volumes.add(&volume, &format!("{name}-containerdisk-{at}"), image)?;
    }
    for text in &args.volume_pvc {
        let volume = Volume::parse("volume-pvc", text)?;
        if volume.source.contains('/') {
            return Err(wrong(
                "volume-pvc",
                "a claim is of the machine's own namespace; name it alone",
            ));
        }
        let claim = json!({"persistentVolumeClaim": {"claimName": volume.source}});
        volumes.add(&volume, &volume.source, claim)?;
    }
    if let Some((kind, data)) = cloud_init(args)? {
        volumes.put(
            "cloud-init",
            CLOUD_INIT,
            Value::Object(Map::from_iter([(kind.to_owned(), data)])),
        )?;
    }
    let mut spec = json!({
        "domain": {"devices": {}, "memory": {"guest": args.memory}},
        "terminationGracePeriodSeconds": args.termination_grace_period,
    });
    if !volumes.disks.is_empty() {
        spec["domain"]["devices"]["disks"] = volumes.disks.into();
    }
    if !volumes.volumes.is_empty() {
        spec["volumes"] = volumes.volumes.into();
    }
    Ok(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": name},
        "spec": {"runStrategy": args.run_strategy, "template": {"spec": spec}},
    }))
}

/// cloud-init's volume, if there is something in it.
fn cloud_init(args: &CreateVm) -> Result<Option<(&'static str, Value)>> {
    let mut data = Map::new();
    if let Some(text) = user_data(args)? {
        data.insert("userData".to_owned(), text.into());
    }
    let given = [
        ("userDataBase64", &args.cloud_init_user_data),
        ("networkDataBase64", &args.cloud_init_network_data),
    ];
    for (field, value) in given {
        if let Some(value) = value {
            data.insert(field.to_owned(), value.clone().into());
        }
    }
    let kind = match args.cloud_init {
        CloudInit::NoCloud => "cloudInitNoCloud",
        CloudInit::ConfigDrive => "cloudInitConfigDrive",
        CloudInit::None if data.is_empty() => return Ok(None),
        CloudInit::None => bail!("--cloud-init=none and data for cloud-init exclude each other"),
    };
    Ok((!data.is_empty()).then_some((kind, data.into())))
}

/// What the flags of a user say to cloud-init, whose data are YAML and take JSON's texts.
fn user_data(args: &CreateVm) -> Result<Option<String>> {
    let mut lines = vec!["#cloud-config".to_owned()];
    if let Some(user) = &args.user {
        lines.push(format!("user: {}", json!(user)));
    }
    if let Some(file) = &args.password_file {
        let password = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() || password.len() > MAX_PASSWORD {
            bail!(
                "{} holds no password of one to {MAX_PASSWORD} bytes",
                file.display()
            );
        }
        lines.push(format!("password: {}", json!(password)));
        lines.push("chpasswd: { expire: False }".to_owned());
    }
    if !args.ssh_key.is_empty() {
        lines.push("ssh_authorized_keys:".to_owned());
        lines.extend(args.ssh_key.iter().map(|key| format!("  - {}", json!(key))));
    }
    Ok((lines.len() > 1).then(|| lines.join("\n")))
}

fn any_name() -> Result<String> {
    Ok(format!("vm-{}", letters(5)?))
}

/// So many letters as generated names have: without vowels, so that they are no word.
pub(super) fn letters(count: usize) -> Result<String> {
    let mut random = vec![0; count];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let letter = |byte: &u8| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]);
    Ok(random.iter().map(letter).collect())
}

/// As virtctl says it.
fn wrong(flag: &str, why: &str) -> anyhow::Error {
    anyhow!("failed to parse \"--{flag}\" flag: {why}")
}

/// A machine's volumes, and the disks that say more than that they are there.
#[derive(Default)]
struct Volumes {
    names: BTreeSet<String>,
    orders: BTreeSet<u32>,
    volumes: Vec<Value>,
    disks: Vec<Value>,
}

// === impl Volumes ===

impl Volumes {
    fn add(&mut self, volume: &Volume, name: &str, source: Value) -> Result<()> {
        let name = volume.name.as_deref().unwrap_or(name);
        self.put(volume.flag, name, source)?;
        if let Some(order) = volume.boot_order {
            if !self.orders.insert(order) {
                let why = format!("bootorder {order} was specified multiple times");
                return Err(wrong(volume.flag, &why));
            }
            self.disks.push(json!({"name": name, "bootOrder": order}));
        }
        Ok(())
    }

    fn put(&mut self, flag: &str, name: &str, mut source: Value) -> Result<()> {
        if !self.names.insert(name.to_owned()) {
            return Err(wrong(
                flag,
                &format!("there is already a volume with name '{name}'"),
            ));
        }
        source["name"] = name.into();
        self.volumes.push(source);
        Ok(())
    }
}

// === impl Volume ===

impl Volume {
    /// `src:IMAGE:TAG,name:NAME,bootorder:1`
    fn parse(flag: &'static str, text: &str) -> Result<Self> {
        let (mut name, mut source, mut boot_order) = (None, None, None);
        for parameter in text.split(',') {
            let (key, value) = parameter
                .split_once(':')
                .filter(|(_, value)| !value.is_empty())
                .ok_or_else(|| wrong(flag, &format!("\"{parameter}\" is not KEY:VALUE")))?;
            match key {
                "name" => name = Some(value.to_owned()),
                "src" => source = Some(value.to_owned()),
                "bootorder" => {
                    let order = value.parse().ok().filter(|order| *order > 0);
                    let order = order.ok_or_else(|| wrong(flag, "bootorder must be greater than 0"))?;
                    boot_order = Some(order);
                }
                other => return Err(wrong(flag, &format!("unknown param(s): {other}"))),
            }
        }
        let source = source.ok_or_else(|| wrong(flag, "src must be specified"))?;
        Ok(Self {
            flag,
            name,
            source,
            boot_order,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_chose_are_names() {
        let name = any_name().unwrap();
        assert!(name.len() == 8 && rvm_types::admission::is_name(&name), "{name}");
    }

    #[test]
    fn a_volume_is_said_by_its_parameters() {
        let volume = Volume::parse("volume-pvc", "src:r:5000/a:1,name:b,bootorder:2").unwrap();
        assert_eq!(
            (volume.source.as_str(), volume.name.as_deref(), volume.boot_order),
            ("r:5000/a:1", Some("b"), Some(2))
        );
        for bad in ["", "src", "src:", "name:a", "src:a,bootorder:0", "src:a,size:1"] {
            let error = Volume::parse("volume-pvc", bad).err().unwrap().to_string();
            assert!(
                error.starts_with("failed to parse \"--volume-pvc\" flag: "),
                "{error}"
            );
        }
    }
}
