//! How many vCPUs a VMI asks for, and what they can do.

use rvm_types::admission::{Cause, Path};
use rvm_types::domain::{CpuFeature, Domain};
use rvmm_spec::{CpuModel, ParseCpuError};

/// Cores × sockets × threads, each of them 1 where it is not given.
pub fn count(domain: &Domain) -> u64 {
    let cpu = domain.cpu.clone().unwrap_or_default();
    let counts = [cpu.cores, cpu.sockets, cpu.threads];
    counts
        .iter()
        .map(|count| u64::from(count.unwrap_or(1)))
        .fold(1, u64::saturating_mul)
}

/// The processors' extensions. What is optional is what the host has anyway.
///
/// # Errors
/// A name that no extension can have.
pub fn model(domain: &Domain) -> Result<CpuModel, Cause> {
    let features = domain.cpu.iter().flat_map(|cpu| &cpu.features);
    let path = Path::new("spec.domain.cpu.features");
    // One name is one switch.
    if let Some(several) = features.clone().find(|feature| feature.name.contains(['=', ','])) {
        let error = ParseCpuError::Switch(several.name.clone());
        return Err(path.invalid(error));
    }
    let switches: Vec<String> = features.filter_map(switch).collect();
    let model = with_switches(&switches.join(","));
    model.map_err(|error| path.invalid(error))
}

/// The host's processors with these switches, as in `v=on,zbb=off`.
///
/// # Errors
/// They are none.
pub fn with_switches(switches: &str) -> Result<CpuModel, ParseCpuError> {
    let between = if switches.is_empty() { "" } else { "," };
    format!("host{between}{switches}").parse()
}

fn switch(feature: &CpuFeature) -> Option<String> {
    let state = match feature.policy.as_deref() {
        Some("optional") => return None,
        Some("disable" | "forbid") => "off",
        _ => "on",
    };
    Some(format!("{}={state}", feature.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model_of(features: &serde_json::Value) -> Result<String, Cause> {
        let domain = json!({"devices": {}, "cpu": {"features": features}});
        model(&serde_json::from_value(domain).unwrap()).map(|model| model.to_string())
    }

    #[test]
    fn features_switch_what_the_host_has() {
        assert_eq!(model_of(&json!([])).unwrap(), "host");
        let features = json!([
            {"name": "v"}, {"name": "zba", "policy": "force"}, {"name": "zbb", "policy": "disable"},
            {"name": "zbs", "policy": "forbid"}, {"name": "zicond", "policy": "optional"},
        ]);
        assert_eq!(model_of(&features).unwrap(), "host,v=on,zba=on,zbb=off,zbs=off");
    }

    #[test]
    fn a_feature_that_is_no_name_is_refused_by_its_field() {
        for name in ["", "V", "v=on,x", "v w"] {
            let refused = model_of(&json!([{"name": name}])).unwrap_err();
            assert_eq!(refused.field, "spec.domain.cpu.features", "{name}");
        }
    }
}
