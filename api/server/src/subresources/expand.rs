//! A VirtualMachine with all that its spec takes from elsewhere. There are no instance types and preferences here, so it is as it is;
//! one that names some is refused by that field.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use rvm_types::VirtualMachine;
use serde_json::Value;

use super::answer::{Kind, Refused};
use super::{Machine, Subresources};

/// What would have to be looked up.
const ELSEWHERE: [&str; 2] = ["instancetype", "preference"];

/// `GET …/virtualmachines/{name}/expand-spec`
pub(super) async fn stored(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
) -> Result<Json<Value>, Refused> {
    server.expand(&machine).await.map(Json)
}

/// `PUT …/expand-vm-spec`: of a VM that may be nowhere yet.
pub(super) async fn given(Path(namespace): Path<String>, body: Bytes) -> Result<Json<Value>, Refused> {
    expand_given(&body, &namespace).map(Json)
}

/// A VM that may be nowhere yet, with all that its spec takes from elsewhere.
pub(crate) fn expand_given(body: &[u8], namespace: &str) -> Result<Value, Refused> {
    read(body, namespace).and_then(expanded)
}

// === impl Subresources ===

impl Subresources {
    /// A VM with all that its spec takes from elsewhere.
    pub(crate) async fn expand(&self, (namespace, name): &Machine) -> Result<Value, Refused> {
        let vms = self.objects::<VirtualMachine>(namespace, name, Kind::Machine)?;
        let vm = serde_json::to_value(vms.get(name).await?);
        expanded(vm.map_err(|error| Refused::internal(error.to_string()))?)
    }
}

fn read(body: &[u8], namespace: &str) -> Result<Value, Refused> {
    if body.is_empty() {
        return Err(Refused::bad_request("empty request body"));
    }
    let mut vm: Value = serde_json::from_slice(body).map_err(|error| {
        Refused::bad_request(format!(
            "Can not unmarshal Request body to struct, error: {error}"
        ))
    })?;
    if vm["kind"] != "VirtualMachine" || serde_json::from_value::<VirtualMachine>(vm.clone()).is_err() {
        return Err(Refused::bad_request("Object is not a valid VirtualMachine"));
    }
    let own = vm["metadata"]["namespace"].as_str().unwrap_or_default();
    if !own.is_empty() && own != namespace {
        let message = format!("VM namespace must be empty or {namespace}");
        return Err(Refused::bad_request(message));
    }
    vm["metadata"]["namespace"] = namespace.into();
    Ok(vm)
}

fn expanded(vm: Value) -> Result<Value, Refused> {
    match ELSEWHERE.into_iter().find(|field| !vm["spec"][field].is_null()) {
        Some(field) => Err(Refused::bad_request(format!(
            "spec.{field} is not supported; rvm has no instance types and no preferences"
        ))),
        None => Ok(vm),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn given(vm: &Value) -> Result<Value, String> {
        let read = read(vm.to_string().as_bytes(), "lab").and_then(expanded);
        read.map_err(|refused| refused.message)
    }

    fn machine() -> Value {
        json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "a"},
            "spec": {"runStrategy": "Always", "template": {"spec": {"domain": {"devices": {}}}}, "other": 1},
        })
    }

    #[test]
    fn a_machine_that_takes_nothing_from_elsewhere_is_as_it_is() {
        let mut expected = machine();
        expected["metadata"]["namespace"] = "lab".into();
        assert_eq!(given(&machine()), Ok(expected));
    }

    #[test]
    fn what_cannot_be_expanded_is_refused_in_kubevirts_words() {
        let but = |path: &str, value: Value| {
            let mut vm = machine();
            *vm.pointer_mut(path).expect("it is there") = value;
            given(&vm).expect_err("it is refused")
        };
        let no_machine = "Object is not a valid VirtualMachine";
        assert_eq!(but("/kind", json!("Pod")), no_machine);
        assert_eq!(but("/spec/template", json!(7)), no_machine);
        assert_eq!(
            but("/metadata", json!({"namespace": "other"})),
            "VM namespace must be empty or lab"
        );
        let mut typed = machine();
        typed["spec"]["instancetype"] = json!({"name": "large"});
        assert!(
            given(&typed)
                .expect_err("it is refused")
                .starts_with("spec.instancetype ")
        );
        assert_eq!(
            read(b"", "lab").expect_err("nothing").message,
            "empty request body"
        );
    }
}
