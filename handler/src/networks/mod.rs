//! The networks of machines: a namespace for each, joined to the node's, which leads outside.

pub mod model;
