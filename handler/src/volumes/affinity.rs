//! Whether a PersistentVolume can be used on this node: the `nodeAffinity` that its cluster gave it, by Kubernetes' rules.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

/// The one field of a node that terms may ask for.
const NAME: &str = "metadata.name";

/// Whether one of the terms is of this node.
pub fn admits(selector: &NodeSelector, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let terms = &selector.node_selector_terms;
    terms.iter().any(|term| is_of(term, node, labels))
}

/// All that a term asks for must be there. One that asks for nothing is of no node.
fn is_of(term: &NodeSelectorTerm, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.iter().flatten();
    let mut of_labels = expressions.map(|asked| holds(asked, labels.get(&asked.key).map(String::as_str)));
    let fields = term.match_fields.iter().flatten();
    let mut of_fields = fields.map(|asked| holds(asked, (asked.key == NAME).then_some(node)));
    let asks = [&term.match_expressions, &term.match_fields];
    let asks = asks.into_iter().flatten().any(|asked| !asked.is_empty());
    asks && of_labels.all(|held| held) && of_fields.all(|held| held)
}

/// Whether a value, or that there is none, is what is asked for. What is asked for in another way than these is not.
fn holds(asked: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = asked.values.as_deref().unwrap_or_default();
    let is_one = || value.is_some_and(|value| values.iter().any(|one| one == value));
    let compared = || {
        let limit = values.first()?.parse::<i64>().ok()?;
        Some(value?.parse::<i64>().ok()?.cmp(&limit))
    };
    match asked.operator.as_str() {
        "In" => is_one(),
        "NotIn" => !is_one(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(std::cmp::Ordering::is_gt),
        "Lt" => compared().is_some_and(std::cmp::Ordering::is_lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Whether a node `n1` with the labels `zone=a` and `disks=8` has volumes with such terms.
    fn admitted(terms: &Value) -> bool {
        let selector = serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap();
        let labels = [("zone", "a"), ("disks", "8")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        admits(&selector, "n1", &labels.into())
    }

    fn label(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({"key": key, "operator": operator, "values": values})
    }

    fn by_label(key: &str, operator: &str, values: &[&str]) -> bool {
        admitted(&json!([{"matchExpressions": [label(key, operator, values)]}]))
    }

    #[test]
    fn each_operator_asks_what_it_asks_of_a_pods_node() {
        assert!(by_label("zone", "In", &["b", "a"]) && !by_label("zone", "In", &["b"]));
        assert!(!by_label("zone", "NotIn", &["a"]) && by_label("none", "NotIn", &["a"]));
        assert!(by_label("zone", "Exists", &[]) && !by_label("none", "Exists", &[]));
        assert!(by_label("none", "DoesNotExist", &[]) && !by_label("zone", "DoesNotExist", &[]));
        assert!(by_label("disks", "Gt", &["7"]) && !by_label("disks", "Gt", &["8"]));
        assert!(by_label("disks", "Lt", &["9"]) && !by_label("zone", "Lt", &["9"]));
        assert!(!by_label("zone", "Like", &["a"]));
    }

    #[test]
    fn one_term_suffices_and_must_hold_as_a_whole() {
        let (good, bad) = (label("zone", "In", &["a"]), label("zone", "In", &["b"]));
        assert!(admitted(
            &json!([{"matchExpressions": [bad]}, {"matchExpressions": [good]}])
        ));
        assert!(!admitted(&json!([{"matchExpressions": [good, bad]}])));
        let name = |name: &str| label("metadata.name", "In", &[name]);
        assert!(admitted(
            &json!([{"matchExpressions": [good], "matchFields": [name("n1")]}])
        ));
        assert!(!admitted(
            &json!([{"matchExpressions": [good], "matchFields": [name("n2")]}])
        ));
        assert!(!admitted(&json!([{}])) && !admitted(&json!([])));
    }
}
