//! What a request asks for besides its path: the query's parameters and the wanted form of the answer.

use std::time::Duration;

use axum::extract::Query;
use http::{HeaderMap, Uri, header};
use serde_json::json;

use crate::fields::Manager;
use crate::limits;
use crate::object::Key;
use crate::status::Cause;
use crate::status::{Answer, Failure};
use crate::table::Include;
use crate::watch::Form;
use crate::write::UnknownFields;

/// The parameters of a query, checked where they are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

/// Where the next page of a list begins: after this key, in the state at this revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Continue {
    pub(crate) revision: u64,
    pub(crate) after: Key,
}

impl Params {
    pub(crate) fn of(uri: &Uri) -> Answer<Self> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
        query
            .map(|Query(pairs)| Self(pairs))
            .map_err(|_| Failure::bad_request("the query cannot be read"))
    }

    /// A parameter's value; an empty one counts as absent.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let mut values = self
            .0
            .iter()
            .filter(|(key, value)| key == name && !value.is_empty());
        values.next().map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Answer<Option<u64>> {
        let read = |text: &str| {
            text.parse()
                .map_err(|_| Failure::bad_request(format!("invalid value for {name}: {text:?}")))
        };
        self.text(name).map(read).transpose()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.text(name)
            .is_some_and(|value| value != "false" && value != "0")
    }

    /// The revision that the client knows; none where it does not say.
    pub(crate) fn revision(&self) -> Answer<Option<u64>> {
        self.number("resourceVersion")
    }

    /// Most objects on a page; none where the client wants no pages.
    pub(crate) fn limit(&self) -> Answer<Option<usize>> {
        let limit = self.number("limit")?.filter(|limit| *limit > 0);
        Ok(limit.map(|limit| {
            usize::try_from(limit)
                .unwrap_or(usize::MAX)
                .min(limits::LIST_PAGE)
        }))
    }

    /// How long a watch may last.
    pub(crate) fn lasts(&self) -> Answer<Duration> {
        let wanted = self
            .number("timeoutSeconds")?
            .map_or(limits::WATCH_DEFAULT, Duration::from_secs);
        Ok(wanted.min(limits::WATCH_LONGEST))
    }

    /// Whether nothing may really change.
    pub(crate) fn dry_run(&self) -> Answer<bool> {
        match self.text("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Failure::bad_request(format!(
                "dryRun: Unsupported value: {other:?}: supported values: \"All\""
            ))),
        }
    }

    pub(crate) fn unknown_fields(&self) -> Answer<UnknownFields> {
        match self.text("fieldValidation") {
            None | Some("Warn") => Ok(UnknownFields::Warn),
            Some("Ignore") => Ok(UnknownFields::Ignore),
            Some("Strict") => Ok(UnknownFields::Refuse),
            Some(other) => Err(Failure::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }

    /// Who writes: what they call themselves, or else what their program is called.
    pub(crate) fn manager(&self, headers: &HeaderMap) -> Answer<Manager> {
        const PROGRAM: &str = "unknown";
        if let Some(name) = self.text("fieldManager") {
            let printable = name.chars().all(|c| !c.is_control());
            if name.len() > limits::MANAGER_BYTES || !printable {
                let what = json!(name);
                let detail = format!(
                    "must be printable and not be longer than {} bytes",
                    limits::MANAGER_BYTES
                );
                let cause = Cause::invalid("fieldManager", &what, detail);
                return Err(Failure::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
            }
            return Ok(Manager {
                name: name.to_owned(),
                is_named: true,
            });
        }
        let agent = headers
            .get(header::USER_AGENT)
            .and_then(|agent| agent.to_str().ok());
        let program = agent
            .and_then(|agent| agent.split('/').next())
            .unwrap_or_default();
        let program: String = program.chars().take(limits::MANAGER_BYTES).collect();
        let name = if program.is_empty() {
            PROGRAM.to_owned()
        } else {
            program
        };
        Ok(Manager {
            name,
            is_named: false,
        })
    }

    /// What an apply says besides its body: who applies, which has to be said, and whether what is another's is taken.
    pub(crate) fn apply(&self, headers: &HeaderMap) -> Answer<(Manager, bool)> {
        let manager = self.manager(headers)?;
        if !manager.is_named {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(Failure::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
        }
        Ok((manager, self.flag("force")))
    }

    /// The page that a `continue` token stands for.
    pub(crate) fn page(&self) -> Answer<Option<Continue>> {
        let read = |token: &str| {
            let known = (token.len() <= limits::CONTINUE_BYTES)
                .then(|| token.split_once(':'))
                .flatten();
            let page = known.and_then(|(revision, key)| {
                Some(Continue {
                    revision: revision.parse().ok()?,
                    after: Key::from_text(key),
                })
            });
            page.ok_or_else(|| Failure::bad_request("continue key is not valid"))
        };
        self.text("continue").map(read).transpose()
    }

    /// The form that the Accept header asks for.
    pub(crate) fn form(&self, headers: &HeaderMap) -> Answer<Form> {
        let include = match self.text("includeObject") {
            None | Some("Metadata") => Include::Metadata,
            Some("None") => Include::Nothing,
            Some("Object") => Include::Object,
            Some(other) => {
                return Err(Failure::bad_request(format!(
                    "invalid value for includeObject: {other:?}"
                )));
            }
        };
        let mut wanted = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .peekable();
        if wanted.peek().is_none() {
            return Ok(Form::Whole);
        }
        let mut forms = wanted
            .flat_map(|value| value.split(','))
            .filter_map(|media| form_of(media, include));
        forms.next().ok_or_else(Failure::not_acceptable)
    }
}

impl Continue {
    pub(crate) fn token(&self) -> String {
        format!("{}:{}", self.revision, self.after)
    }
}

/// The form that one media type asks for; none where it is one that we do not make.
fn form_of(media: &str, include: Include) -> Option<Form> {
    let mut parts = media.split(';').map(str::trim);
    if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
        return None;
    }
    let (mut kind, mut group, mut version) = (None, None, None);
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("as", value)) => kind = Some(value),
            Some(("g", value)) => group = Some(value),
            Some(("v", value)) => version = Some(value),
            _ => {}
        }
    }
    match (kind, group, version) {
        (None, _, _) => Some(Form::Whole),
        (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Some(Form::Table(include)),
        (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => {
            Some(Form::Metadata)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn form(accept: &'static str) -> Result<Form, u16> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
        Params::default()
            .form(&headers)
            .map_err(|failure| failure.code().as_u16())
    }

    #[test]
    fn the_first_form_that_can_be_made_is_made() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(kubectl), Ok(Form::Table(Include::Metadata)));
        assert_eq!(
            form("application/vnd.kubernetes.protobuf,application/json"),
            Ok(Form::Whole)
        );
        assert_eq!(
            form("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
            Ok(Form::Metadata)
        );
        assert_eq!(form("*/*"), Ok(Form::Whole));
        assert_eq!(form("application/vnd.kubernetes.protobuf"), Err(406));
    }

    #[test]
    fn parameters_of_no_meaning_are_bad_requests() {
        let params = |query: &str| Params::of(&format!("/x?{query}").parse().unwrap()).unwrap();
        assert_eq!(
            params("limit=5&continue=7:a/b").page().unwrap().unwrap().token(),
            "7:a/b"
        );
        assert_eq!(
            params("limit=999999999").limit().unwrap(),
            Some(limits::LIST_PAGE)
        );
        assert!(params("limit=many").limit().is_err());
        assert!(params("continue=x").page().is_err());
        assert!(params("dryRun=Some").dry_run().is_err());
        assert!(params("fieldValidation=Lax").unknown_fields().is_err());
        assert!(params("resourceVersion=-1").revision().is_err());
        assert_eq!(
            params("timeoutSeconds=999999").lasts().unwrap(),
            limits::WATCH_LONGEST
        );
    }
}
