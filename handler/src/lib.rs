//! One per node: makes the node's virtual machines match the cluster's wishes.
