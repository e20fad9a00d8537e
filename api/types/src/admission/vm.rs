//! What a VM is turned into when it comes in, and what is said of one whose instances could not run.
//!
//! Its template is judged as an instance of it would be, so that a mistake is told to whoever makes it and not to whoever
//! starts it. Its defaults are filled in when an instance is made, not here: what is not written follows the defaults of
//! the day.

use super::{Cause, Path};
use crate::VirtualMachineInstance;
use crate::vm::{RunStrategy, VirtualMachine};

/// What of a VM's spec is neither modelled nor harmless, and why it is refused.
const UNSUPPORTED: [(&str, &str); 3] = [
    (
        "dataVolumeTemplates",
        "needs CDI, which rvm does not work with yet",
    ),
    (
        "instancetype",
        "is not supported yet; write what it stands for into the template",
    ),
    (
        "preference",
        "is not supported yet; write what it stands for into the template",
    ),
];

/// What of it only advises.
const HARMLESS: [&str; 2] = ["updateVolumesStrategy", "liveUpdateFeatures"];

/// Names everything that is wrong with a VM, or that rvm cannot do yet.
pub fn validate(vm: &VirtualMachine) -> Vec<Cause> {
    let spec = Path::new("spec");
    let mut causes = Vec::new();
    validate_strategy(vm, &spec, &mut causes);
    for name in vm
        .spec
        .extra
        .keys()
        .filter(|name| !HARMLESS.contains(&name.as_str()))
    {
        let refused = UNSUPPORTED.iter().find(|(field, _)| field == name);
        causes.push(match refused {
            Some((_, why)) => spec.field(name).not_supported(why),
            None => spec.field(name).invalid("is not a field of a virtual machine"),
        });
    }
    causes.extend(validate_template(vm.instance()));
    causes
}

/// What is wrong with an instance of a template, at its place in that.
pub(super) fn validate_template(mut instance: VirtualMachineInstance) -> Vec<Cause> {
    super::default(&mut instance);
    let causes = super::validate(&instance);
    causes.into_iter().map(in_template).collect()
}

fn validate_strategy(vm: &VirtualMachine, spec: &Path, causes: &mut Vec<Cause>) {
    match (&vm.spec.running, &vm.spec.run_strategy) {
        (Some(_), Some(_)) => causes.push(spec.field("running").invalid(
            "Running and RunStrategy are mutually exclusive. Note that Running is deprecated, please use RunStrategy instead",
        )),
        (None, None) => causes.push(
            spec.field("running")
                .invalid("One of Running or RunStrategy must be specified"),
        ),
        (None, Some(RunStrategy::Other(word))) => causes.push(
            spec.field("runStrategy")
                .invalid(format_args!("Invalid RunStrategy ({word})")),
        ),
        _ => {}
    }
}

/// A cause of an instance, at its place in the template.
fn in_template(mut cause: Cause) -> Cause {
    let moved = |text: &str| Some(format!("spec.template.spec{}", text.strip_prefix("spec")?));
    cause.message = moved(&cause.message).unwrap_or(cause.message);
    cause.field = moved(&cause.field).unwrap_or(cause.field);
    cause
}
