//! What a request's path is about, as roles name it.

use http::Method;

use crate::access::Wanted;
use crate::evictions;
use crate::subresources::{GROUP, VERSIONS};

/// Below a version, what anybody may ask.
const OPEN_BELOW: [&str; 3] = ["version", "healthz", "guestfs"];
/// Elsewhere.
const OPEN: [&str; 8] = [
    "/",
    "/apis",
    "/healthz",
    "/livez",
    "/readyz",
    "/openapi/v2",
    "/openapi/v3",
    evictions::PATH,
];
/// Below which everything is open.
const OPEN_TREE: &str = "/openapi/v3/";
/// The subresource that has a port and a protocol behind it, of which roles know nothing.
const PORTFORWARD: &str = "portforward";

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What anybody may know.
    Open,
    /// Something of a machine.
    Of(Wanted),
    /// Nothing that there is.
    Nothing,
}

// === impl Asked ===

impl Asked {
    pub(super) fn of(method: &Method, path: &str) -> Self {
        if OPEN.contains(&path) || path.starts_with(OPEN_TREE) {
            return Self::Open;
        }
        // No name of ours needs an escape, so one is there to have a path read in two ways.
        if path.contains('%') {
            return Self::Nothing;
        }
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match segments.as_slice() {
            ["apis", GROUP] => Self::Open,
            ["apis", GROUP, version] if VERSIONS.contains(version) => Self::Open,
            ["apis", GROUP, version, word] if VERSIONS.contains(version) && OPEN_BELOW.contains(word) => {
                Self::Open
            }
            ["apis", GROUP, version, "namespaces", rest @ ..] if VERSIONS.contains(version) => {
                wanted(method, version, rest).map_or(Self::Nothing, Self::Of)
            }
            _ => Self::Nothing,
        }
    }
}

fn wanted(method: &Method, version: &str, rest: &[&str]) -> Option<Wanted> {
    let verb = match *method {
        Method::GET => "get",
        Method::PUT => "update",
        Method::POST => "create",
        _ => return None,
    };
    if rest.iter().any(|segment| segment.is_empty()) {
        return None;
    }
    let (namespace, resource, name, below) = match rest {
        [namespace, resource] => (namespace, resource, "", &[][..]),
        [namespace, resource, name, below @ ..] if !below.is_empty() => (namespace, resource, *name, below),
        _ => return None,
    };
    let subresource = match below {
        [PORTFORWARD, ..] => PORTFORWARD.to_owned(),
        below => below.join("/"),
    };
    Some(Wanted {
        verb,
        group: GROUP,
        version: version.to_owned(),
        namespace: (*namespace).to_owned(),
        resource: (*resource).to_owned(),
        name: name.to_owned(),
        subresource,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "/apis/subresources.kubevirt.io/v1";

    fn get(path: &str) -> Asked {
        Asked::of(&Method::GET, &format!("{BASE}{path}"))
    }

    fn of(asked: Asked) -> Option<(&'static str, String, String, String)> {
        match asked {
            Asked::Of(wanted) => Some((wanted.verb, wanted.resource, wanted.name, wanted.subresource)),
            Asked::Open | Asked::Nothing => None,
        }
    }

    #[test]
    fn a_path_is_named_as_roles_name_it() {
        let start = Asked::of(
            &Method::PUT,
            &format!("{BASE}/namespaces/ns/virtualmachines/vm/start"),
        );
        let words = |words: (&'static str, &str, &str, &str)| {
            Some((
                words.0,
                words.1.to_owned(),
                words.2.to_owned(),
                words.3.to_owned(),
            ))
        };
        assert_eq!(of(start), words(("update", "virtualmachines", "vm", "start")));
        let port = get("/namespaces/ns/virtualmachineinstances/a/portforward/22/tcp");
        assert_eq!(
            of(port),
            words(("get", "virtualmachineinstances", "a", "portforward"))
        );
        let volume = get("/namespaces/ns/virtualmachineinstances/a/sev/query");
        assert_eq!(
            of(volume),
            words(("get", "virtualmachineinstances", "a", "sev/query"))
        );
        let expand = Asked::of(&Method::PUT, &format!("{BASE}/namespaces/ns/expand-vm-spec"));
        assert_eq!(of(expand), words(("update", "expand-vm-spec", "", "")));
    }

    #[test]
    fn only_what_the_group_says_of_itself_is_open() {
        let open = ["", "/version", "/healthz", "/guestfs"];
        assert!(open.iter().all(|path| get(path) == Asked::Open));
        let elsewhere = [
            "/launcher-eviction-validate",
            "/",
            "/apis",
            "/openapi/v2",
            "/openapi/v3/apis/x/v1",
            "/readyz",
        ];
        assert!(
            elsewhere
                .iter()
                .all(|path| Asked::of(&Method::GET, path) == Asked::Open)
        );
    }

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_not_there() {
        let paths = [
            "/namespaces/ns/virtualmachines/%6Fk/start",
            "/namespaces//virtualmachines/vm/start",
            "/namespaces/ns/virtualmachines/vm",
            "/namespaces/ns/virtualmachines/vm/start/",
            "/version/",
            "/nonsense",
        ];
        assert!(paths.iter().all(|path| get(path) == Asked::Nothing));
        let deleted = Asked::of(
            &Method::DELETE,
            &format!("{BASE}/namespaces/ns/virtualmachines/vm/start"),
        );
        assert_eq!(deleted, Asked::Nothing);
    }
}
