//! Keys and passwords that a guest's agent sets: from a VMI's `accessCredentials` and their Secrets to what the agent is told.
//!
//! They are told again when the agent comes back, as it does after each boot, and when a Secret has other content. An order bears what
//! nobody else may read, so it is never shown.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rvm_types::VirtualMachineInstance;
use rvmm_control::{Client, ClientError};
use serde_json::{Value, json};

use crate::steps::chain;
use crate::volumes::objects::{ObjectError, Objects};

/// Most orders for one guest: a Secret may have very many users.
const MAX_ORDERS: usize = 64;

/// What came of it: in the end, why not.
pub type Outcome = Result<(), String>;

/// One thing that an agent is told to do.
#[derive(Clone, PartialEq, Eq)]
pub struct Order {
    execute: &'static str,
    arguments: Value,
}

/// What cannot be ordered.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Where it is.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Not that much.
    #[error("the guest's agent is to set keys or passwords of more than {MAX_ORDERS} users")]
    TooMany,
}

// === impl Order ===

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("execute", &self.execute)
            .finish_non_exhaustive()
    }
}

impl Order {
    /// This user has these keys, and no others.
    fn keys(user: &str, keys: &[String]) -> Self {
        Self {
            execute: "guest-ssh-add-authorized-keys",
            arguments: json!({"username": user, "keys": keys, "reset": true}),
        }
    }

    fn password(user: &str, password: &[u8]) -> Self {
        Self {
            execute: "guest-set-user-password",
            arguments: json!({"username": user, "password": STANDARD.encode(password), "crypted": false}),
        }
    }
}

/// What the agent of a VMI's guest is to be told; nothing where its credentials go other ways.
///
/// # Errors
/// Any [`OrderError`].
pub async fn orders(vmi: &VirtualMachineInstance, objects: &Objects) -> Result<Vec<Order>, OrderError> {
    let mut keys: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut passwords = BTreeMap::new();
    for credential in &vmi.spec.access_credentials {
        let ssh = credential.ssh_public_key.as_ref();
        if let Some(agent) = ssh.and_then(|ssh| ssh.propagation_method.qemu_guest_agent.as_ref()) {
            let brought = objects.keys(vec![credential]).await?;
            for user in &agent.users {
                keys.entry(user).or_default().extend_from_slice(&brought);
            }
        }
        let password = credential.user_password.as_ref();
        let password = password.filter(|password| password.propagation_method.qemu_guest_agent.is_some());
        if let Some(secret) = password.and_then(|password| password.source.secret.as_ref()) {
            let files = objects.secret(&secret.secret_name, false).await?;
            passwords.extend(files.into_iter().map(|file| (file.path, file.content)));
        }
    }
    if keys.len() + passwords.len() > MAX_ORDERS {
        return Err(OrderError::TooMany);
    }
    let keys = keys.iter().map(|(user, keys)| Order::keys(user, keys));
    let passwords = passwords.iter().map(|(user, word)| Order::password(user, word));
    Ok(keys.chain(passwords).collect())
}

/// Tells an agent, unless it has `done` just that. Nothing where there is nothing to be told. Blocks.
pub fn carry_out(
    client: &mut Client,
    orders: Result<Vec<Order>, OrderError>,
    done: &mut Vec<Order>,
) -> Option<Outcome> {
    let orders = match orders {
        Ok(orders) => orders,
        Err(error) => return Some(Err(chain(&error))),
    };
    if orders.is_empty() {
        return None;
    }
    if orders == *done {
        return Some(Ok(()));
    }
    done.clear();
    for order in &orders {
        let told = client.ask_agent(order.execute, Some(order.arguments.clone()));
        if let Err(error) = told {
            return Some(Err(said(order, &error)));
        }
    }
    *done = orders;
    Some(Ok(()))
}

fn said(order: &Order, error: &ClientError) -> String {
    format!("{}: {}", order.execute, chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_what_is_to_be_set_and_shows_it_to_nobody() {
        let password = Order::password("debian", b"sesame");
        assert_eq!(
            password.arguments,
            json!({"username": "debian", "password": "c2VzYW1l", "crypted": false})
        );
        assert_eq!(
            format!("{password:?}"),
            r#"Order { execute: "guest-set-user-password", .. }"#
        );
        let keys = Order::keys("debian", &["ssh-ed25519 A".to_owned()]);
        assert_eq!(
            keys.arguments,
            json!({"username": "debian", "keys": ["ssh-ed25519 A"], "reset": true})
        );
    }
}
