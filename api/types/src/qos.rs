//! The class of service that a VMI's resources ask for, as Kubernetes has it for pods.

use std::collections::BTreeMap;

use crate::domain::ResourceRequirements;
use crate::quantity::Quantity;

/// What is asked for is kept free, and is all there is.
pub const GUARANTEED: &str = "Guaranteed";
/// What is asked for is kept free, and there may be more.
pub const BURSTABLE: &str = "Burstable";

/// What has to be limited for a guarantee.
const LIMITED: [&str; 2] = ["cpu", "memory"];

/// The class of a VMI with these resources. It is never BestEffort: a guest always asks for its memory.
pub fn class(resources: Option<&ResourceRequirements>) -> &'static str {
    let guaranteed = |resources: &ResourceRequirements| {
        let at_its_limit = |name: &&str| {
            let most = millis(&resources.limits, name);
            // Whoever names a limit alone asks for it.
            most.is_some() && millis(&resources.requests, name).is_none_or(|least| Some(least) == most)
        };
        LIMITED.iter().all(at_its_limit)
    };
    if resources.is_some_and(guaranteed) {
        GUARANTEED
    } else {
        BURSTABLE
    }
}

fn millis(list: &BTreeMap<String, Quantity>, name: &str) -> Option<u64> {
    list.get(name)?.millis().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class_of(resources: Value) -> &'static str {
        class(Some(&serde_json::from_value(resources).unwrap()))
    }

    #[test]
    fn whoever_has_all_that_he_may_is_guaranteed() {
        let all = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(class_of(json!({"limits": all, "requests": all})), GUARANTEED);
        assert_eq!(class_of(json!({"limits": all})), GUARANTEED);
        let same = json!({"cpu": "1000m", "memory": "1024Mi"});
        assert_eq!(class_of(json!({"limits": all, "requests": same})), GUARANTEED);
    }

    #[test]
    fn whoever_may_have_more_is_burstable() {
        let all = json!({"cpu": "1", "memory": "1Gi"});
        let less = json!({"cpu": "1", "memory": "1Mi"});
        assert_eq!(class(None), BURSTABLE);
        assert_eq!(class_of(json!({"requests": all})), BURSTABLE);
        assert_eq!(class_of(json!({"limits": {"memory": "1Gi"}})), BURSTABLE);
        assert_eq!(class_of(json!({"limits": all, "requests": less})), BURSTABLE);
    }
}
