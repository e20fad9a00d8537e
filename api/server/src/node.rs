//! What a handler does for those who come through the API: everything that is done with a machine besides its object.

use crate::console::Consoles;
use crate::ports::Ports;
use crate::power::Power;

/// A node's machines: their consoles, their switches, their guests' ports.
pub trait Node: Consoles + Power + Ports {}

impl<T: Consoles + Power + Ports> Node for T {}
