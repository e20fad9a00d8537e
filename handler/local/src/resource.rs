//! What the API serves: one `Resource` for each kind of object, made from a CRD or built in.
//!
//! All that makes kinds differ stands here as data, so that the routes and the rules are written once.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use serde_json::{Value, json};

use crate::jsonpath::JsonPath;
use crate::object::Prefix;
use crate::patch::strategic::Lists;
use crate::scale::Scale;
use crate::schema::{Schema, SchemaError};
use crate::status::Cause;
use crate::table::{Cell, Column};

/// What a kind's own rules say about an object, after its schema had its say.
pub trait Admission: Send + Sync {
    /// Fills in what the user left out. `before` is the stored object, none on create.
    fn default(&self, object: &mut Value, before: Option<&Value>);

    /// Everything that is wrong with the object.
    fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<Cause>;
}

/// Why a CRD cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// No version that is both served and stored.
    #[error("CRD {0} has no version that is served and stored")]
    NoVersion(String),
    /// Something in it that is not supported here.
    #[error("CRD {crd}: {what} is not supported")]
    Unsupported {
        /// The CRD's name.
        crd: String,
        /// What it asks for.
        what: String,
    },
    /// Its schema.
    #[error("CRD {crd}: its schema cannot be used")]
    Schema {
        /// The CRD's name.
        crd: String,
        /// Why.
        #[source]
        source: SchemaError,
    },
}

/// Objects that are stored in the form of another API version than that which shows them.
#[derive(Clone)]
pub(crate) enum View {
    /// As another group's, under other names.
    Form {
        /// Group and resource of the objects that are really stored.
        stored: (&'static str, &'static str),
        show: fn(Value) -> Value,
        store: fn(Value) -> Value,
    },
    /// The same but for this `apiVersion`: what a CRD without conversion means by its versions.
    Version(String),
}

/// Reads an object through its Rust type, for the sake of the errors.
pub(crate) type Decode = fn(&Value) -> Result<(), serde_json::Error>;

/// One kind of object, and all that is particular about it.
pub struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) has_status: bool,
    /// How many of something its objects ask for, where that can be changed by itself.
    pub(crate) scale: Option<Scale>,
    /// A PUT without resourceVersion is taken, as for Kubernetes' own kinds; not for custom ones.
    pub(crate) blind_update: bool,
    pub(crate) schema: Option<Schema>,
    /// Checks the types of a built-in kind.
    pub(crate) decode: Option<Decode>,
    pub(crate) admission: Option<Arc<dyn Admission>>,
    pub(crate) columns: Vec<Column>,
    /// Fields that a field selector may name, besides `metadata.name` and `metadata.namespace`.
    pub(crate) selectable: Vec<String>,
    /// How long an object is kept after it was last written.
    pub(crate) kept: Option<Duration>,
    pub(crate) view: Option<View>,
    /// The lists that a strategic merge patch merges; none where there is no such patch, as for custom kinds.
    pub(crate) merged: Option<Lists>,
    /// The definition of the kind for OpenAPI, and the definitions it refers to.
    pub(crate) definitions: Vec<(String, Value)>,
    /// The kind's own name among the definitions.
    pub(crate) definition: String,
}

impl Resource {
    /// The resources that a CRD defines, one for each version that is served, with the rules that go beyond its schema.
    pub fn from_crd(
        crd: &CustomResourceDefinition,
        admission: Option<&Arc<dyn Admission>>,
    ) -> Result<Vec<Self>, ResourceError> {
        let mut versions = crd.spec.versions.iter();
        let stored = versions
            .find(|version| version.served && version.storage)
            .ok_or_else(|| ResourceError::NoVersion(crd.metadata.name.clone().unwrap_or_default()))?;
        let others = crd
            .spec
            .versions
            .iter()
            .filter(|version| version.served && !version.storage);
        let of = |version| Self::of_version(crd, version, stored, admission.cloned());
        std::iter::once(stored).chain(others).map(of).collect()
    }

    fn of_version(
        crd: &CustomResourceDefinition,
        version: &CustomResourceDefinitionVersion,
        stored: &CustomResourceDefinitionVersion,
        admission: Option<Arc<dyn Admission>>,
    ) -> Result<Self, ResourceError> {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let unsupported = |what: String| ResourceError::Unsupported {
            crd: name.clone(),
            what,
        };
        let subresources = version.subresources.clone().unwrap_or_default();
        let scale = subresources.scale.as_ref().map(Scale::of).transpose();
        let scale = scale.map_err(|path| unsupported(format!("the path {path} of the scale subresource")))?;
        let source = version
            .schema
            .as_ref()
            .and_then(|schema| schema.open_api_v3_schema.as_ref());
        let source = source.map(|schema| serde_json::to_value(schema).expect("a schema is plain JSON"));
        let source = source.ok_or_else(|| unsupported("a version without a schema".to_owned()))?;
        let schema = Schema::compile(&source).map_err(|source| ResourceError::Schema {
            crd: name.clone(),
            source,
        })?;
        let names = &crd.spec.names;
        let definition = definition_name(&crd.spec.group, &version.name, &names.kind);
        Ok(Self {
            group: crd.spec.group.clone(),
            version: version.name.clone(),
            plural: names.plural.clone(),
            singular: names
                .singular
                .clone()
                .unwrap_or_else(|| names.kind.to_lowercase()),
            kind: names.kind.clone(),
            short_names: names.short_names.clone().unwrap_or_default(),
            categories: names.categories.clone().unwrap_or_default(),
            namespaced: crd.spec.scope == "Namespaced",
            has_status: subresources.status.is_some(),
            scale,
            blind_update: false,
            schema: Some(schema),
            decode: None,
            admission,
            columns: columns(version).map_err(unsupported)?,
            selectable: selectable(version),
            kept: None,
            view: (!version.storage).then(|| View::Version(format!("{}/{}", crd.spec.group, stored.name))),
            merged: None,
            definitions: vec![(definition.clone(), source)],
            definition,
        })
    }

    /// `kubevirt.io/v1`, or `v1` for the core group.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// What the keys of this resource's objects begin with.
    pub(crate) fn prefix(&self) -> Prefix {
        match &self.view {
            Some(View::Form {
                stored: (group, plural),
                ..
            }) => Prefix::of(group, plural),
            Some(View::Version(_)) | None => Prefix::of(&self.group, &self.plural),
        }
    }

    /// A stored object as this resource shows it.
    pub(crate) fn show<'a>(&self, stored: &'a Value) -> Cow<'a, Value> {
        match &self.view {
            Some(View::Form { show, .. }) => Cow::Owned(show(stored.clone())),
            Some(View::Version(_)) => Cow::Owned(with_version(stored.clone(), &self.api_version())),
            None => Cow::Borrowed(stored),
        }
    }

    /// An object of this resource as it is stored.
    pub(crate) fn to_stored(&self, object: Value) -> Value {
        match &self.view {
            Some(View::Form { store, .. }) => store(object),
            Some(View::Version(stored)) => with_version(object, stored),
            None => object,
        }
    }

    pub(crate) fn group_version_kind(&self) -> Value {
        json!({"group": self.group, "version": self.version, "kind": self.kind})
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({}/{}/{})", self.group, self.version, self.plural)
    }
}

fn with_version(mut object: Value, version: &str) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), json!(version));
    }
    object
}

/// A CRD's printer columns, after the name; the age where it names none, as kube-apiserver does it.
fn columns(version: &CustomResourceDefinitionVersion) -> Result<Vec<Column>, String> {
    let Some(list) = version
        .additional_printer_columns
        .as_ref()
        .filter(|list| !list.is_empty())
    else {
        return Ok(vec![Column::age()]);
    };
    let column = |source: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition| {
        let path = JsonPath::parse(&source.json_path)
            .ok_or_else(|| format!("the printer column path {}", source.json_path))?;
        Ok(Column {
            name: source.name.clone(),
            kind: source.type_.clone(),
            format: source.format.clone().unwrap_or_default(),
            description: source.description.clone().unwrap_or_default(),
            priority: source.priority.unwrap_or(0),
            cell: Cell::Path(path),
        })
    };
    list.iter().map(column).collect()
}

fn selectable(version: &CustomResourceDefinitionVersion) -> Vec<String> {
    let fields = version.selectable_fields.iter().flatten();
    fields
        .map(|field| field.json_path.trim_start_matches('.').to_owned())
        .collect()
}

/// `io.kubevirt.v1.VirtualMachineInstance`: the group's parts backwards, as kube-apiserver names definitions.
pub(crate) fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let backwards: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", backwards.join("."))
}
