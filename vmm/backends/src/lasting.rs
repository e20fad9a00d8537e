//! What outlives a boot of a machine: the ends that others are connected to.

use crate::vhost_user::Servers;
use crate::{Agent, Hub};

/// Made once by whoever boots a machine again and again, and given to each boot. Clones are the same ends.
#[derive(Clone)]
pub struct Lasting {
    /// Where the console is seen and typed into.
    pub hub: Hub,
    /// Who speaks with the guest's agent.
    pub agent: Agent,
    /// The processes that serve its shared folders.
    pub servers: Servers,
}
