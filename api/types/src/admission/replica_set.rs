//! What is said of a replica set whose instances could not run, or would not be its own.

use kube::core::SelectorExt;

use super::{Cause, Path, vm};
use crate::replica_set::VirtualMachineInstanceReplicaSet;

/// Names everything that is wrong with a set, or that rvm cannot do yet.
pub fn validate(set: &VirtualMachineInstanceReplicaSet) -> Vec<Cause> {
    let spec = Path::new("spec");
    let mut causes: Vec<Cause> = set
        .spec
        .extra
        .keys()
        .map(|name| spec.field(name).invalid("is not a field of a replica set"))
        .collect();
    if set.spec.replicas.is_some_and(|replicas| replicas < 0) {
        causes.push(spec.field("replicas").invalid("must not be negative"));
    }
    causes.extend(vm::validate_template(set.spec.template.instance()));
    causes.extend(validate_selector(set, &spec.field("selector")));
    causes
}

fn validate_selector(set: &VirtualMachineInstanceReplicaSet, path: &Path) -> Option<Cause> {
    let selector = match set.selector() {
        Ok(selector) => selector,
        Err(error) => return Some(path.invalid(format_args!("cannot be read: {error}"))),
    };
    if selector.selects_all() {
        return Some(path.invalid("is empty: it would select the machines of everybody"));
    }
    let metadata = set.spec.template.metadata.clone().unwrap_or_default();
    let fits = selector.matches(&metadata.labels);
    (!fits).then(|| {
        path.invalid("does not match the labels of spec.template.metadata: selector does not match labels.")
    })
}
