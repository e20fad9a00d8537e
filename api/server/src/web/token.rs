//! Bearer tokens: how a request shows one, and local mode's own.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};

/// Before a token in a websocket's list of subprotocols, as kube-apiserver reads it; the token follows in base64.
pub(super) const SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The files of local mode's console: its token, and its address with the token.
const TOKEN_FILE: &str = "token";
const ADDRESS_FILE: &str = "address";

/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 << 10;
/// Random bytes of a token of ours.
const BYTES: usize = 32;

/// The token that a request shows: in its header, or in the subprotocols of a websocket, where a browser can set no header.
pub(super) fn shown(headers: &HeaderMap) -> Option<String> {
    let said = headers.get(header::AUTHORIZATION);
    let token = match said {
        Some(said) => {
            let (kind, token) = said.to_str().ok()?.split_once(' ')?;
            kind.eq_ignore_ascii_case("bearer")
                .then(|| token.trim().to_owned())
        }
        None => protocols(headers).find_map(|protocol| {
            let token = protocol.strip_prefix(SUBPROTOCOL)?;
            let token = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok()?;
            String::from_utf8(token).ok()
        }),
    };
    // One that is no header value would be nobody's.
    let fits = |token: &String| {
        (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
    };
    token.filter(fits)
}

/// The subprotocols that a websocket asks for.
pub(super) fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
}

/// The token by which local mode knows its owner in a browser.
pub struct OwnToken(String);

// === impl OwnToken ===

impl OwnToken {
    /// The one in this file, which only its owner can read; made where there is none, and then kept, so that open pages go on.
    ///
    /// # Errors
    /// The file system's; or the kernel has no randomness.
    pub fn kept(path: &Path) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(kept) if kept.len() == BYTES * 2 && kept.bytes().all(|b| b.is_ascii_hexdigit()) => {
                return Ok(Self(kept));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut random = [0; BYTES];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(path, &token)?;
        Ok(Self(token))
    }

    /// What is typed, or opened.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether that is it. Takes as long for any wrong one of the same length.
    pub(super) fn is(&self, token: &str) -> bool {
        let differences = self.0.bytes().zip(token.bytes());
        let differences = differences.fold(0, |all, (a, b)| all | (a ^ b));
        self.0.len() == token.len() && differences == 0
    }
}

/// Writes into this folder where local mode's console is, with its token, for the folder's owner alone. Returns the token.
///
/// # Errors
/// The file system's; or the kernel has no randomness.
pub fn announce(folder: &Path, address: SocketAddr) -> io::Result<OwnToken> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let token = OwnToken::kept(&folder.join(TOKEN_FILE))?;
    // A browser sends no server what stands behind '#'.
    let text = format!("http://{address}/#token={}\n", token.text());
    write_private(&folder.join(ADDRESS_FILE), &text)?;
    Ok(token)
}

/// Takes back what a former console has written there.
///
/// # Errors
/// The file system's.
pub fn withdraw(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(ADDRESS_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let half = path.with_extension("half");
    match fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&half)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&half, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use http::HeaderValue;

    use super::*;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a value"))])
    }

    #[test]
    fn a_token_is_shown_in_the_header_or_among_subprotocols() {
        let header = |value: &str| shown(&with(header::AUTHORIZATION, value));
        assert_eq!(header("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(header("bearer abc").as_deref(), Some("abc"));
        let long = format!("Bearer {}", "x".repeat(MAX_TOKEN + 1));
        for none in ["Basic abc", "Bearer ", "abc", "Bearer a b", &long] {
            assert_eq!(header(none), None, "{none:.20}");
        }
        let protocol = |value: &str| shown(&with(header::SEC_WEBSOCKET_PROTOCOL, value));
        let list = format!("viewers.rvm.v1, {SUBPROTOCOL}YWJj");
        assert_eq!(protocol(&list).as_deref(), Some("abc"));
        assert_eq!(protocol("viewers.rvm.v1"), None);
        assert_eq!(protocol(&format!("{SUBPROTOCOL}!!")), None);
        assert_eq!(shown(&HeaderMap::new()), None);
    }

    #[test]
    fn the_own_token_is_kept_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let token = OwnToken::kept(&path).expect("a token");
        assert_eq!(token.text().len(), BYTES * 2);
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = OwnToken::kept(&path).expect("the same");
        assert!(token.is(again.text()));
        assert!(!token.is("") && !token.is(&token.text()[1..]) && !token.is(&"0".repeat(BYTES * 2)));
        fs::write(&path, "short").expect("written");
        assert_ne!(OwnToken::kept(&path).expect("another").text(), "short");
    }
}
