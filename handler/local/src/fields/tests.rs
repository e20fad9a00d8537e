//! Who owns what after several have applied and written, told as scenes on one object.

#![expect(
    clippy::needless_pass_by_value,
    reason = "scenes are written with values in place"
)]

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::*;

/// A kind whose spec has a number, a map, a list that is one value, one by keys, and an object that is one value.
fn kind() -> Arc<Resource> {
    let crd: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "properties": {
                    "size": {"type": "integer"},
                    "words": {"type": "object", "additionalProperties": {"type": "string"}},
                    "args": {"type": "array", "items": {"type": "string"}},
                    "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "ports": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "properties": {
                            "name": {"type": "string"}, "port": {"type": "integer"}, "note": {"type": "string"},
                        }},
                    },
                    "pick": {"type": "object", "x-kubernetes-map-type": "atomic", "x-kubernetes-preserve-unknown-fields": true},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}},
            }}}],
        },
    }))
    .unwrap();
    Arc::new(Resource::from_crd(&crd, None).unwrap().remove(0))
}

/// One object, as the writes of this test leave it.
struct Scene {
    kind: Arc<Resource>,
    object: Option<Value>,
}

impl Scene {
    fn new() -> Self {
        Self {
            kind: kind(),
            object: None,
        }
    }

    /// Somebody applies this spec; the conflicts where that is refused.
    fn apply_as(&mut self, who: &str, spec: Value, force: bool) -> Result<(), Vec<String>> {
        let object =
            json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec});
        let config = Config::new(&self.kind, object, force).unwrap();
        let manager = named(who);
        let write = self.write(&manager);
        let mut after = match &self.object {
            None => config.object.clone(),
            Some(live) => write.apply(live, &config).map_err(|failure| fields(&failure))?,
        };
        write.note(self.object.as_ref(), &mut after, None, Some(&config));
        self.object = Some(after);
        Ok(())
    }

    fn apply(&mut self, who: &str, spec: Value) -> Result<(), Vec<String>> {
        self.apply_as(who, spec, false)
    }

    /// Somebody writes this spec.
    fn put(&mut self, manager: &Manager, spec: Value) {
        let mut after = self.object.clone().unwrap_or(json!({"metadata": {"name": "a"}}));
        after["spec"] = spec;
        let write = self.write(manager);
        write.note(self.object.as_ref(), &mut after, None, None);
        self.object = Some(after);
    }

    fn write<'a>(&'a self, manager: &'a Manager) -> Write<'a> {
        Write {
            resource: &self.kind,
            subresource: None,
            manager,
        }
    }

    fn spec(&self) -> &Value {
        &self.object.as_ref().unwrap()["spec"]
    }

    /// What this manager owns, as paths.
    fn owned(&self, who: &str) -> Vec<String> {
        let entries = noted(self.object.as_ref().unwrap());
        let theirs = entries.iter().filter(|entry| entry.manager == who);
        theirs
            .flat_map(|entry| &entry.fields)
            .map(ToString::to_string)
            .collect()
    }
}

fn named(who: &str) -> Manager {
    Manager {
        name: who.to_owned(),
        is_named: true,
    }
}

fn fields(failure: &Failure) -> Vec<String> {
    assert_eq!(failure.code(), 409);
    let causes = failure.to_value()["details"]["causes"].clone();
    let causes = causes.as_array().unwrap().iter();
    causes
        .map(|cause| cause["field"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_is_applied_is_owned_and_what_is_no_longer_applied_goes() {
    let mut scene = Scene::new();
    scene
        .apply("me", json!({"size": 1, "words": {"a": "x", "b": "y"}}))
        .unwrap();
    assert_eq!(
        scene.owned("me"),
        [".spec.size", ".spec.words.a", ".spec.words.b"]
    );
    scene.apply("me", json!({"words": {"b": "z"}})).unwrap();
    assert_eq!(*scene.spec(), json!({"words": {"b": "z"}}));
    // What held nothing else goes along.
    scene.apply("me", json!({"size": 2})).unwrap();
    assert_eq!(*scene.spec(), json!({"size": 2}));
}

#[test]
fn what_is_anothers_is_not_changed_unless_forced() {
    let mut scene = Scene::new();
    scene
        .apply("me", json!({"size": 1, "words": {"a": "x"}}))
        .unwrap();
    assert_eq!(
        scene.apply("you", json!({"size": 2})),
        Err(vec![".spec.size".to_owned()])
    );
    assert_eq!(scene.spec()["size"], 1);
    scene.apply_as("you", json!({"size": 2}), true).unwrap();
    assert_eq!(
        (scene.spec()["size"].as_i64(), scene.owned("you")),
        (Some(2), vec![".spec.size".to_owned()])
    );
    assert_eq!(scene.owned("me"), [".spec.words.a"]);
    // The first does not give up what it lost.
    scene.apply("me", json!({"words": {"a": "x"}})).unwrap();
    assert_eq!(scene.spec()["size"], 2);
}

#[test]
fn what_both_apply_stays_until_both_give_it_up() {
    let mut scene = Scene::new();
    scene.apply("me", json!({"size": 1})).unwrap();
    scene.apply("you", json!({"size": 1})).unwrap();
    scene.apply("me", json!({"args": ["x"]})).unwrap();
    assert_eq!(scene.spec()["size"], 1);
    scene.apply("you", json!({"words": {"a": "x"}})).unwrap();
    assert_eq!(scene.spec().get("size"), None);
}

#[test]
fn items_with_keys_are_each_somebodys() {
    let mut scene = Scene::new();
    scene
        .apply(
            "me",
            json!({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}),
        )
        .unwrap();
    scene
        .apply(
            "you",
            json!({"ports": [{"name": "c", "port": 3}, {"name": "a", "note": "yours"}]}),
        )
        .unwrap();
    let names: Vec<&Value> = scene.spec()["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| &port["name"])
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(
        scene.apply("you", json!({"ports": [{"name": "b", "port": 9}]})),
        Err(vec![".spec.ports[name=\"b\"].port".to_owned()])
    );
    scene
        .apply("me", json!({"ports": [{"name": "b", "port": 2}]}))
        .unwrap();
    let ports = json!([{"name": "a", "note": "yours"}, {"name": "b", "port": 2}, {"name": "c", "port": 3}]);
    assert_eq!(scene.spec()["ports"], ports);
    scene.apply("you", json!({"size": 1})).unwrap();
    assert_eq!(scene.spec()["ports"], json!([{"name": "b", "port": 2}]));
}

#[test]
fn members_of_a_set_are_each_somebodys() {
    let mut scene = Scene::new();
    scene.apply("me", json!({"tags": ["a", "b"]})).unwrap();
    scene.apply("you", json!({"tags": ["b", "c"]})).unwrap();
    assert_eq!(scene.spec()["tags"], json!(["a", "b", "c"]));
    scene.apply("me", json!({"size": 1})).unwrap();
    assert_eq!(scene.spec()["tags"], json!(["b", "c"]));
    assert_eq!(scene.owned("you"), [".spec.tags[=\"b\"]", ".spec.tags[=\"c\"]"]);
}

#[test]
fn what_is_one_value_is_one_persons() {
    let mut scene = Scene::new();
    scene
        .apply("me", json!({"args": ["a"], "pick": {"x": 1}}))
        .unwrap();
    let conflicts = scene.apply("you", json!({"args": ["a", "b"], "pick": {"y": 1}}));
    assert_eq!(
        conflicts,
        Err(vec![".spec.args".to_owned(), ".spec.pick".to_owned()])
    );
    scene
        .apply_as("you", json!({"args": ["b"], "pick": {"y": 1}}), true)
        .unwrap();
    assert_eq!(*scene.spec(), json!({"args": ["b"], "pick": {"y": 1}}));
}

#[test]
fn what_the_schema_does_not_know_is_merged_by_its_fields() {
    let mut scene = Scene::new();
    scene
        .apply("me", json!({"free": {"a": {"b": 1}, "list": [1]}}))
        .unwrap();
    scene.apply("you", json!({"free": {"a": {"c": 2}}})).unwrap();
    assert_eq!(scene.spec()["free"], json!({"a": {"b": 1, "c": 2}, "list": [1]}));
    assert_eq!(scene.owned("me"), [".spec.free.a.b", ".spec.free.list"]);
}

#[test]
fn who_writes_takes_over_what_they_change() {
    let mut scene = Scene::new();
    scene
        .apply("me", json!({"size": 1, "words": {"a": "x", "b": "y"}}))
        .unwrap();
    scene.put(&named("editor"), json!({"size": 5, "words": {"a": "x"}}));
    assert_eq!(scene.owned("editor"), [".spec.size"]);
    assert_eq!(scene.owned("me"), [".spec.words.a"]);
    assert_eq!(
        scene.apply("me", json!({"size": 1})),
        Err(vec![".spec.size".to_owned()])
    );
    // What the writer has is not the applier's to give up.
    scene.apply("me", json!({"words": {"a": "x"}})).unwrap();
    assert_eq!(scene.spec()["size"], 5);
}

#[test]
fn a_conflict_reads_as_kube_apiservers() {
    let mut scene = Scene::new();
    scene.put(&named("editor"), json!({"size": 5, "args": ["x"]}));
    let live = scene.object.clone().unwrap();
    let refused = |spec: Value| {
        let config = Config::new(&scene.kind, json!({"spec": spec}), false).unwrap();
        let manager = named("me");
        let failure = scene.write(&manager).apply(&live, &config).unwrap_err();
        failure.message().to_owned()
    };
    assert_eq!(
        refused(json!({"size": 1})),
        "Apply failed with 1 conflict: conflict with \"editor\" using example.com/v1: .spec.size"
    );
    assert_eq!(
        refused(json!({"size": 1, "args": []})),
        "Apply failed with 2 conflicts: conflicts with \"editor\" using example.com/v1:\n- .spec.args\n- .spec.size"
    );
}

#[test]
fn nobody_is_noted_before_somebody_gives_their_name_or_applies() {
    let mut scene = Scene::new();
    let program = Manager {
        name: "program".to_owned(),
        is_named: false,
    };
    scene.put(&program, json!({"size": 1}));
    assert!(noted(scene.object.as_ref().unwrap()).is_empty());
    assert_eq!(
        scene.apply("me", json!({"size": 2})),
        Err(vec![".spec.size".to_owned()])
    );
    scene.apply("me", json!({"size": 1, "args": ["x"]})).unwrap();
    assert_eq!(scene.owned(BEFORE), [".spec.size"]);
    assert_eq!(scene.owned("me"), [".spec.args", ".spec.size"]);
    // From now on everybody is.
    scene.put(&program, json!({"size": 3, "args": ["x"]}));
    assert_eq!(scene.owned("program"), [".spec.size"]);
}

#[test]
fn applying_the_same_again_changes_nothing_at_all() {
    let mut scene = Scene::new();
    scene.apply("me", json!({"size": 1})).unwrap();
    scene.apply("you", json!({"args": ["x"]})).unwrap();
    let mut before = scene.object.clone().unwrap();
    // However long ago that was.
    for entry in before["metadata"]["managedFields"].as_array_mut().unwrap() {
        entry["time"] = json!("2001-01-01T00:00:00Z");
    }
    scene.object = Some(before.clone());
    scene.apply("me", json!({"size": 1})).unwrap();
    assert_eq!(scene.object, Some(before));
}

#[test]
fn kubectl_takes_over_what_it_had_applied_by_itself() {
    let mut scene = Scene::new();
    let program = Manager {
        name: "program".to_owned(),
        is_named: false,
    };
    scene.put(&program, json!({"size": 1, "args": ["x"]}));
    let applied = json!({"spec": {"size": 1}}).to_string();
    scene.object.as_mut().unwrap()["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
    assert_eq!(
        scene.apply("other", json!({"size": 2})),
        Err(vec![".spec.size".to_owned()])
    );
    assert_eq!(
        scene.apply("kubectl", json!({"args": []})),
        Err(vec![".spec.args".to_owned()])
    );
    scene.apply("kubectl", json!({"size": 2})).unwrap();
    assert_eq!(scene.spec()["size"], 2);
}

#[test]
fn a_writer_may_say_who_owns_what() {
    let mut scene = Scene::new();
    scene.apply("me", json!({"size": 1})).unwrap();
    let live = scene.object.clone().unwrap();
    let told = |told: Value| {
        let mut after = live.clone();
        let manager = named("editor");
        scene
            .write(&manager)
            .note(Some(&live), &mut after, Some(&told), None);
        noted(&after)
            .iter()
            .map(|entry| entry.manager.clone())
            .collect::<Vec<_>>()
    };
    let mut other = live["metadata"]["managedFields"].clone();
    other[0]["manager"] = json!("heir");
    assert_eq!(told(other), ["heir"]);
    assert!(told(json!([{}])).is_empty());
    for nonsense in [json!([]), json!("x"), json!([{"operation": "Steal"}])] {
        assert_eq!(told(nonsense), ["me"]);
    }
}

#[test]
fn writers_that_have_gone_are_remembered_together() {
    let mut scene = Scene::new();
    for number in 0..crate::limits::FIELD_MANAGERS + 5 {
        let mut words = scene
            .object
            .as_ref()
            .map_or(json!({}), |_| scene.spec()["words"].clone());
        words[format!("w{number}")] = json!("x");
        scene.put(&named(&format!("writer-{number}")), json!({"words": words}));
    }
    let entries = noted(scene.object.as_ref().unwrap());
    assert_eq!(entries.len(), crate::limits::FIELD_MANAGERS + 1);
    assert_eq!(scene.owned("ancient-changes").len(), 5);
}

#[test]
fn items_that_cannot_be_told_apart_are_refused() {
    let kind = kind();
    let refused = |ports: Value| {
        let config = Config::new(&kind, json!({"spec": {"ports": ports}}), false);
        config.map(drop).map_err(|failure| failure.code().as_u16())
    };
    assert_eq!(refused(json!([{"name": "a"}, {"name": "a"}])), Err(400));
    assert_eq!(refused(json!([{"port": 1}])), Err(400));
    assert_eq!(refused(json!([{"name": "a"}])), Ok(()));
}
