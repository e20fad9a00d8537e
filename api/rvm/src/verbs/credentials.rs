//! `rvm credentials`: keys and passwords in the Secrets that a VirtualMachine names, as virtctl keeps them there.
//!
//! ```text
//!   GET the VM ─► its accessCredentials for this user, by the guest's agent ─► the Secret ─► PATCH it, as it was read
//!                          └─ none, and a key is added ─► POST one that the VM owns ─► PATCH the VM
//! ```
//!
//! Each change bears the version that was read, so that nobody's change is lost; who was late reads again.

use std::fs;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::create::letters;
use super::{bare_name, metadata};
use crate::args::{AddSshKey, Credentials, CredentialsVerb, Key, RemoveSshKey, SetPassword, Whose};
use crate::cluster::{Cluster, JSON, Resource, Said, request};
use crate::screen::say;

/// What says which fields become what.
const MERGE: &str = "application/merge-patch+json";
/// How often a change is tried that others were faster with.
const ATTEMPTS: usize = 5;
/// Before the random letters of a key's name in a Secret.
const PREFIX: &str = "ssh-key-";
/// How many those are.
const LETTERS: usize = 6;

/// Does it.
pub async fn run(cluster: &Cluster, args: &Credentials) -> Result<()> {
    match &args.verb {
        CredentialsVerb::AddSshKey(args) => add(cluster, args).await,
        CredentialsVerb::RemoveSshKey(args) => remove(cluster, args).await,
        CredentialsVerb::SetPassword(args) => set(cluster, args).await,
    }
}

async fn add(cluster: &Cluster, args: &AddSshKey) -> Result<()> {
    let (whose, key) = (&args.whose, args.key.read()?);
    let vm = vm(cluster, whose).await?;
    let secrets = secrets(&vm, |credential| keys_of(credential, &whose.user));
    if args.create_secret || (!args.update_secret && secrets.is_empty()) {
        return create(cluster, whose, &vm, &key).await;
    }
    if secrets.is_empty() {
        bail!("no secrets specified for user: {}", whose.user);
    }
    let name = whose.one_of(&secrets)?;
    let path = secret_path(cluster, &name);
    let new = format!("{PREFIX}{}", letters(LETTERS)?);
    let mut has_it = false;
    change(cluster, &path, |secret| {
        let mut texts = data(secret).into_iter();
        has_it = texts.any(|(_, text)| text.lines().any(|line| is_key(line, &key)));
        if has_it {
            return Ok(None);
        }
        whose.may_change(secret, &vm)?;
        Ok(Some(Map::from_iter([(new.clone(), encoded(&key))])))
    })
    .await
    .map_err(|why| anyhow!("error patching secret \"{name}\": {why:#}"))?;
    let said = if has_it {
        format!("Secret \"{name}\" already contains this SSH key.")
    } else {
        format!("Successfully added the key to secret \"{name}\"")
    };
    Ok(say(&said)?)
}

/// Makes a Secret that goes with the machine, and has the machine name it.
async fn create(cluster: &Cluster, whose: &Whose, vm: &Value, key: &str) -> Result<()> {
    let name = bare_name(&whose.name)?;
    if !whose.force && cluster.has(Resource::Instance, name).await? {
        bail!(
            "virtual machine {name} is running. Use --force flag to update a running VM, it will take effect after restart"
        );
    }
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "generateName": format!("{name}-{PREFIX}"), "namespace": cluster.namespace(),
            "ownerReferences": [{
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": name,
                "uid": metadata(vm, "uid"), "controller": true,
            }],
        },
        "data": {format!("{PREFIX}{}", letters(LETTERS)?): encoded(key)},
    });
    let path = format!("/api/v1/namespaces/{}/secrets", cluster.namespace());
    let made = cluster.ask("POST", &path, secret.to_string().into_bytes()).await;
    let made = made.map_err(|why| anyhow!("error creating secret: {why}"))?;
    let made: Value = serde_json::from_str(&made).context("the server sent something that is no JSON")?;
    let mut all = credentials(vm);
    all.push(json!({"sshPublicKey": {
        "source": {"secret": {"secretName": metadata(&made, "name")}},
        "propagationMethod": {"qemuGuestAgent": {"users": [whose.user]}},
    }}));
    let patch = json!({
        "metadata": {"resourceVersion": metadata(vm, "resourceVersion")},
        "spec": {"template": {"spec": {"accessCredentials": all}}},
    });
    let patched = merge(cluster, &cluster.object(Resource::Machine, name), &patch).await;
    patched.map_err(|why| anyhow!("error patching virtual machine: {why}"))
}

async fn remove(cluster: &Cluster, args: &RemoveSshKey) -> Result<()> {
    let (whose, key) = (&args.whose, args.key.read()?);
    let vm = vm(cluster, whose).await?;
    let mut secrets = secrets(&vm, |credential| keys_of(credential, &whose.user));
    if secrets.is_empty() {
        return Ok(say(&format!("No secrets associated with user {}", whose.user))?);
    }
    if let Some(wanted) = &whose.secret {
        secrets.retain(|secret| secret == wanted);
        if secrets.is_empty() {
            bail!("secret {wanted} is not associated with user {}", whose.user);
        }
    }
    for name in secrets {
        let path = secret_path(cluster, &name);
        change(cluster, &path, |secret| {
            whose.may_change(secret, &vm)?;
            let texts = data(secret).into_iter();
            let changed = texts.filter_map(|(file, text)| Some((file, without(&text, &key)?)));
            Ok(Some(changed.collect()))
        })
        .await?;
    }
    Ok(())
}

async fn set(cluster: &Cluster, args: &SetPassword) -> Result<()> {
    let whose = &args.whose;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if whose.user.is_empty() || !whose.user.bytes().all(fits) {
        bail!(
            "{:?} is no name under which a Secret can keep a password",
            whose.user
        );
    }
    let vm = vm(cluster, whose).await?;
    let secrets = secrets(&vm, |credential| {
        let password = &credential["userPassword"];
        let by_agent = !password["propagationMethod"]["qemuGuestAgent"].is_null();
        by_agent.then(|| password["source"].clone())
    });
    if secrets.is_empty() {
        bail!("no secrets assigned to UserPassword AccessCredentials");
    }
    let name = whose.one_of(&secrets)?;
    let path = secret_path(cluster, &name);
    change(cluster, &path, |secret| {
        whose.may_change(secret, &vm)?;
        Ok(Some(Map::from_iter([(
            whose.user.clone(),
            encoded(&args.password),
        )])))
    })
    .await
    .map_err(|why| anyhow!("error patching secret \"{name}\": {why:#}"))?;
    Ok(say(&format!("Successfully set password in secret \"{name}\""))?)
}

// === the machine ===

async fn vm(cluster: &Cluster, whose: &Whose) -> Result<Value> {
    let found = cluster
        .get(&cluster.object(Resource::Machine, bare_name(&whose.name)?))
        .await;
    found.map_err(|why| anyhow!("error getting virtual machine: {why}"))
}

fn credentials(vm: &Value) -> Vec<Value> {
    let all = &vm["spec"]["template"]["spec"]["accessCredentials"];
    all.as_array().cloned().unwrap_or_default()
}

/// The Secrets of those credentials that are chosen, by where they come from.
fn secrets(vm: &Value, chosen: impl Fn(&Value) -> Option<Value>) -> Vec<String> {
    let sources = credentials(vm)
        .into_iter()
        .filter_map(|credential| chosen(&credential));
    let names = sources.filter_map(|source| Some(source["secret"]["secretName"].as_str()?.to_owned()));
    names.filter(|name| !name.is_empty()).collect()
}

/// Where this user's keys come from, if the guest's agent sets them.
fn keys_of(credential: &Value, user: &str) -> Option<Value> {
    let keys = &credential["sshPublicKey"];
    let users = keys["propagationMethod"]["qemuGuestAgent"]["users"].as_array()?;
    users
        .iter()
        .any(|one| one == user)
        .then(|| keys["source"].clone())
}

// === a Secret ===

fn secret_path(cluster: &Cluster, name: &str) -> String {
    format!("/api/v1/namespaces/{}/secrets/{name}", cluster.namespace())
}

/// Changes a Secret's data to what they are to become; one that is gone has none.
async fn change(
    cluster: &Cluster,
    path: &str,
    mut wanted: impl FnMut(&Value) -> Result<Option<Map<String, Value>>>,
) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let Some(secret) = cluster.find(path).await? else {
            bail!("it is not there");
        };
        let Some(data) = wanted(&secret)?.filter(|data| !data.is_empty()) else {
            return Ok(());
        };
        let version = metadata(&secret, "resourceVersion");
        let patch = json!({"metadata": {"resourceVersion": version}, "data": data});
        match merge(cluster, path, &patch).await {
            Err(said) if said.is_conflict() => {}
            done => return Ok(done?),
        }
    }
    bail!("others change it all the time; try again")
}

async fn merge(cluster: &Cluster, path: &str, patch: &Value) -> Result<(), Said> {
    let body = patch.to_string().into_bytes();
    cluster
        .exchange(request("PATCH", path, (JSON, MERGE), body)?)
        .await
        .map(drop)
}

/// What it holds, as far as that is text.
fn data(secret: &Value) -> Vec<(String, String)> {
    let data = secret["data"].as_object().into_iter().flatten();
    let decoded = data.filter_map(|(file, value)| {
        let bytes = BASE64_STANDARD.decode(value.as_str()?).ok()?;
        Some((file.clone(), String::from_utf8(bytes).ok()?))
    });
    decoded.collect()
}

fn encoded(text: &str) -> Value {
    BASE64_STANDARD.encode(text).into()
}

fn is_key(line: &str, key: &str) -> bool {
    line.trim().starts_with(key)
}

/// The text without this key, which is nothing where no other is left; none where the key is not in it.
fn without(text: &str, key: &str) -> Option<Value> {
    if !text.lines().any(|line| is_key(line, key)) {
        return None;
    }
    let others = text
        .lines()
        .filter(|line| !is_key(line, key) && !line.trim().is_empty());
    let others: Vec<_> = others.collect();
    Some(if others.is_empty() {
        Value::Null
    } else {
        encoded(&others.join("\n"))
    })
}

// === impl Whose ===

impl Whose {
    /// The Secret that is meant.
    fn one_of(&self, secrets: &[String]) -> Result<String> {
        match (&self.secret, secrets) {
            (Some(wanted), _) if secrets.contains(wanted) => Ok(wanted.clone()),
            (Some(wanted), _) => bail!("secret {wanted} was not assigned"),
            (None, [one]) => Ok(one.clone()),
            (None, _) => {
                bail!("multiple secrets specified, use option --secret to specify which secret to modify")
            }
        }
    }

    /// A Secret that others may use as well is changed by who insists.
    fn may_change(&self, secret: &Value, vm: &Value) -> Result<()> {
        let owners = secret["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten();
        let is_owner =
            |owner: &Value| owner["kind"] == "VirtualMachine" && owner["uid"] == metadata(vm, "uid");
        if self.force || owners.into_iter().any(is_owner) {
            return Ok(());
        }
        let (secret, vm) = (metadata(secret, "name"), metadata(vm, "name"));
        bail!(
            "secret {secret} does not have an owner reference pointing to VM {vm}; --force changes it all the same"
        )
    }
}

// === impl Key ===

impl Key {
    fn read(&self) -> Result<String> {
        let key = match (&self.file, &self.value) {
            (Some(file), _) => fs::read_to_string(file)
                .with_context(|| format!("error getting ssh key: {}", file.display()))?,
            (None, value) => value.clone().unwrap_or_default(),
        };
        let key = key.trim();
        if key.is_empty() || key.contains('\n') {
            bail!("error getting ssh key: one key is one line");
        }
        Ok(key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_and_others_stay() {
        let text = "ssh-ed25519 AAAA ann\n\nssh-rsa BBBB bob\n";
        assert_eq!(
            without(text, "ssh-ed25519 AAAA"),
            Some(encoded("ssh-rsa BBBB bob"))
        );
        assert_eq!(
            without("ssh-ed25519 AAAA ann\n", "ssh-ed25519 AAAA"),
            Some(Value::Null)
        );
        assert_eq!(without(text, "ssh-ed25519 CCCC"), None);
    }
}
