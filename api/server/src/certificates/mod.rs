//! The certificates of a cluster's rvm-api and of its handlers: made, handed over and renewed without anybody's help.
//!
//! ```text
//!   Secret rvm-ca             the authorities ──signs──► rvm-api's own pair, in its memory alone
//!        │ signs                   │ bundle ──► caBundle of the APIServices: kube-apiserver believes rvm-api
//!        ▼                         │
//!   Secret rvm-handler-certs ──────┴──► each handler: its pair, and whom it believes
//! ```
//!
//! Life of an authority: it is made when a third of the life of the one before is left. For a day it is only believed, while all
//! hear of it; then it signs. The one before is believed until it expires. Any number of rvm-api may keep them at once: each write
//! carries the version that it was decided on, so of several one wins and the others read again.
//!
//! Who reads these Secrets can be any of them: they are to be kept as those of the nodes are.

mod alone;
mod authority;
mod keep;
mod kept;
mod receive;

pub use alone::Alone;
pub use authority::Pair;
pub use keep::{Identity, Keeper};
pub use kept::KeepError;
pub use receive::receive;

/// The name of rvm-api, in its certificate and elsewhere.
pub const API: &str = "rvm-api";
/// The name of every handler, in its certificate.
pub const HANDLER: &str = "rvm-handler";
/// The Secret with what the handlers need.
const HANDLER_SECRET: &str = "rvm-handler-certs";
/// The Secret with the authorities.
const AUTHORITY_SECRET: &str = "rvm-ca";

/// What such a Secret calls its parts.
mod parts {
    pub const CERTIFICATE: &str = "tls.crt";
    pub const KEY: &str = "tls.key";
    pub const BUNDLE: &str = "ca.crt";
    pub const FORMER_CERTIFICATE: &str = "former.crt";
    pub const FORMER_KEY: &str = "former.key";
}
