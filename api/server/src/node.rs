//! What a handler does for those who come through the API: everything that is done with a machine besides its object.

use crate::agent::Agents;
use crate::console::Consoles;
use crate::ports::Ports;
use crate::power::Power;
use crate::usage::Meters;

/// A node's machines: their consoles, their switches, their guests' ports and agents, and what they take.
pub trait Node: Consoles + Power + Ports + Agents + Meters {}

impl<T: Consoles + Power + Ports + Agents + Meters> Node for T {}
