//! The page that tells users which fields do something: written from the schemas, so that it cannot lag behind the types.
//!
//! What a schema names is modelled: it has the effect that KubeVirt gives it, or a value of it is refused by its path. All
//! else is kept as it was written and, where it would change the machine, refused (`admission/unsupported.rs`).

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use crate::admission::unsupported;
use crate::crd;

/// The objects of the page: their definition, and what of the specification is told elsewhere on it.
type Kind = (fn() -> CustomResourceDefinition, Option<&'static str>);

const KINDS: [Kind; 4] = [
    (crd::virtual_machine_instances, None),
    (crd::virtual_machines, Some("template")),
    (crd::replica_sets, Some("template")),
    (crd::kubevirts, None),
];

/// Fields that neither change the guest nor forbid a node, and where they stand.
const ADVICE: [(&str, &[&str]); 4] = [
    ("spec", &unsupported::SPEC),
    ("spec.domain", &unsupported::DOMAIN),
    ("spec.domain.resources", &unsupported::RESOURCES),
    ("spec.domain.devices", &unsupported::DEVICES),
];

const OPENING: &str = "\
# Fields

Written by `cargo xtask reference` from the types; a test keeps it true. `kubectl explain` says the same of an installed cluster.

A field of these tables has the effect that KubeVirt gives it; a value that rvm cannot give effect to is refused with the path
of the field. Every other field of KubeVirt's is kept as it was written; where it asks for something (it is not `false`, `null`
or an empty list), a VMI is refused with its path and `is not supported by rvm`.
";

const CLOSING: &str = "
## Taken, and without an effect

These advise a scheduler or a host that rvm does not ask, and change no guest:

";

/// The page, as Markdown.
pub fn page() -> String {
    let mut page = OPENING.to_owned();
    for (definition, elsewhere) in KINDS {
        let definition = definition();
        let version = &definition.spec.versions[0];
        let schema = version
            .schema
            .as_ref()
            .and_then(|schema| schema.open_api_v3_schema.as_ref());
        let spec = schema
            .and_then(|schema| schema.properties.as_ref())
            .and_then(|fields| fields.get("spec"));
        let kind = &definition.spec.names.kind;
        let _ = write!(
            page,
            "\n## {kind}\n\n| field | type | what |\n| --- | --- | --- |\n"
        );
        if let Some(spec) = spec {
            rows(&mut page, "spec", spec, elsewhere);
        }
        if let Some(elsewhere) = elsewhere {
            let _ = writeln!(
                page,
                "\n`spec.{elsewhere}` has the labels, annotations and specification of the VMIs that are made."
            );
        }
    }
    page.push_str(CLOSING);
    for (place, fields) in ADVICE {
        let _ = writeln!(page, "- `{place}`: `{}`", fields.join("`, `"));
    }
    page
}

fn rows(page: &mut String, place: &str, schema: &JSONSchemaProps, elsewhere: Option<&str>) {
    for (name, field) in schema.properties.iter().flatten() {
        if Some(name.as_str()) == elsewhere {
            continue;
        }
        let mut place = format!("{place}.{name}");
        let what = field.description.as_deref().unwrap_or_default();
        let what = what
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .replace('|', "\\|");
        let _ = writeln!(page, "| `{place}` | {} | {what} |", type_of(field));
        let within = match (&field.items, &field.additional_properties) {
            (Some(JSONSchemaPropsOrArray::Schema(item)), _) => {
                place.push_str("[]");
                item
            }
            (_, Some(JSONSchemaPropsOrBool::Schema(value))) => {
                place.push_str(".*");
                value
            }
            _ => field,
        };
        rows(page, &place, within, None);
    }
}

fn type_of(field: &JSONSchemaProps) -> String {
    let own = match field.type_.as_deref() {
        Some(own) => own,
        None if field.x_kubernetes_int_or_string == Some(true) => "integer or string",
        None => "any",
    };
    match &field.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => format!("{own} of {}", type_of(item)),
        _ => own.to_owned(),
    }
}
