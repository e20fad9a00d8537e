//! Gives out tokens for a registry, as docker.io's `auth` service does: a small server on loopback that signs what it grants
//! (distribution, docs/spec/auth/token.md).

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, DnType, KeyPair, SigningKey};
use serde_json::{Value, json};

use crate::registry::LOGIN;

/// Who signs, and for whom.
pub const NAME: &str = "rvm-tests";

/// The certificate of who signs, in the registry's folder.
pub const CERTIFICATE: &str = "tokens.crt";

/// How long a token is good, in seconds.
const GOOD_FOR: u64 = 300;

/// Longest question.
const MAX_ASKED: u64 = 16 << 10;

/// Bytes of each of the two numbers that a signature is.
const NUMBER: usize = 32;

struct Issuer {
    key: KeyPair,
    certificate: String,
}

/// Starts a server that lives as long as this process, writes its certificate into `folder`, and returns its port.
///
/// # Errors
/// No port, or the folder cannot be written.
pub fn serve(folder: &Path) -> Result<u16> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, NAME);
    let certificate = params.self_signed(&key)?;
    fs::write(folder.join(CERTIFICATE), certificate.pem())?;
    let issuer = Arc::new(Issuer {
        key,
        certificate: STANDARD.encode(certificate.der()),
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let issuer = Arc::clone(&issuer);
            thread::spawn(move || issuer.answer(client));
        }
    });
    Ok(port)
}

// === impl Issuer ===

impl Issuer {
    fn answer(&self, mut client: TcpStream) -> Result<()> {
        let mut asked = Vec::new();
        let mut bytes = [0; 1024];
        while !asked.ends_with(b"\r\n\r\n") && asked.len() as u64 <= MAX_ASKED {
            let count = client.read(&mut bytes)?;
            ensure!(count > 0, "cut off");
            asked.extend_from_slice(bytes.get(..count).unwrap_or_default());
        }
        let asked = String::from_utf8(asked)?;
        let (status, body) = match self.token(&asked) {
            Ok(token) => ("200 OK", json!({"token": token})),
            Err(error) => ("401 Unauthorized", json!({"details": error.to_string()})),
        };
        let body = body.to_string();
        let length = body.len();
        write!(
            client,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
        Ok(())
    }

    /// The token for a question. Who does not say who he is gets one that opens nothing.
    fn token(&self, asked: &str) -> Result<String> {
        let (name, password) = LOGIN;
        let login = format!("basic {}", STANDARD.encode(format!("{name}:{password}")));
        let said = asked.lines().find_map(|line| {
            line.split_once(": ")
                .filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
        });
        let known = match said {
            None => false,
            Some((_, said)) => {
                ensure!(said.eq_ignore_ascii_case(&login), "wrong name or password");
                true
            }
        };
        let line = asked.lines().next().unwrap_or_default();
        let path = line.split(' ').nth(1).context("no path")?;
        let query = path.split_once('?').map_or("", |(_, query)| query);
        let scope = query.split('&').find_map(|part| part.strip_prefix("scope="));
        let scope = decoded(scope.unwrap_or_default());
        let access = if known { granted(&scope) } else { json!([]) };
        self.signed(&access)
    }

    fn signed(&self, access: &Value) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let claims = json!({
            "iss": NAME, "aud": NAME, "sub": LOGIN.0, "jti": "1", "access": access,
            "iat": now, "nbf": now - GOOD_FOR, "exp": now + GOOD_FOR,
        });
        token(&self.key, &header, &claims)
    }
}

/// The token of one of a cluster's accounts, signed by this key as kube-apiserver signs them, that is good from and until these seconds
/// since 1970.
///
/// # Errors
/// The key cannot be read.
pub fn of_account(
    key: &Path,
    (namespace, name, uid): (&str, &str, &str),
    good: (u64, u64),
) -> Result<String> {
    let key = KeyPair::from_pem(&fs::read_to_string(key)?)?;
    let issuer = "https://kubernetes.default.svc";
    let account = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}});
    let claims = json!({
        "iss": issuer, "aud": [issuer], "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "iat": good.0, "nbf": good.0, "exp": good.1, "kubernetes.io": account,
    });
    token(&key, &json!({"typ": "JWT", "alg": "ES256"}), &claims)
}

fn token(key: &KeyPair, header: &Value, claims: &Value) -> Result<String> {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = plain(&key.sign(text.as_bytes())?).context("a signature of another form")?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// `repository:NAME:pull,push`, as a token says it.
fn granted(scope: &str) -> Value {
    let mut parts = scope.splitn(3, ':');
    let (kind, name, actions) = (parts.next(), parts.next(), parts.next());
    let actions: Vec<&str> = actions.unwrap_or_default().split(',').collect();
    json!([{"type": kind, "name": name, "actions": actions}])
}

/// Undoes a query's `%` and `+`.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        all.extend(u8::from_str_radix(code, 16).map(char::from));
        all.push_str(rest);
    }
    all.replace('+', " ")
}

/// A signature as tokens have it: two numbers of the same length, out of ASN.1's sequence of two integers.
fn plain(der: &[u8]) -> Option<Vec<u8>> {
    let mut rest = der.get(2..)?;
    let mut all = Vec::new();
    for _ in 0..2 {
        let length = usize::from(*rest.get(1)?);
        let number = rest.get(2..2 + length)?;
        rest = rest.get(2 + length..)?;
        let first = number.iter().position(|&byte| byte != 0).unwrap_or(number.len());
        let number = number.get(first..)?;
        all.resize(all.len() + NUMBER.checked_sub(number.len())?, 0);
        all.extend_from_slice(number);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_two_numbers_of_the_same_length() {
        let long = [vec![0x30, 39, 2, 33, 0], vec![0xff; 32], vec![2, 2, 1, 2]].concat();
        let expected = [vec![0xff; 32], vec![0; 30], vec![1, 2]].concat();
        assert_eq!(plain(&long).unwrap(), expected);
        assert_eq!(plain(&long[..20]), None);
    }

    #[test]
    fn a_scope_is_what_is_granted() {
        let scope = decoded("repository%3Ateam%2Fdemo%3Apull%2Cpush");
        assert_eq!(
            granted(&scope),
            json!([{"type": "repository", "name": "team/demo", "actions": ["pull", "push"]}])
        );
    }
}
