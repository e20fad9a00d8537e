//! What a request's path is about, by Kubernetes' rules.

/// The parts of a path under `/api` or `/apis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) resource: &'a str,
    pub(crate) name: Option<&'a str>,
    pub(crate) subresource: Option<&'a str>,
}

/// Takes a path apart; `None` where it is about no resource.
pub(crate) fn parse(path: &str) -> Option<Target<'_>> {
    let mut parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    if parts.last() == Some(&"") {
        parts.pop();
    }
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    // `namespaces/x` is the namespace itself, and so are its subresources; all else below it is in that namespace.
    let (namespace, rest) = match rest {
        ["namespaces", namespace, inner @ ..] if !matches!(inner, [] | ["status" | "finalize"]) => {
            (Some(*namespace), inner)
        }
        _ => (None, rest),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (*resource, None, None),
        [resource, name] => (*resource, Some(*name), None),
        [resource, name, subresource] => (*resource, Some(*name), Some(*subresource)),
        _ => return None,
    };
    Some(Target {
        group,
        version,
        namespace,
        resource,
        name,
        subresource,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts<'a> = (
        &'a str,
        &'a str,
        Option<&'a str>,
        &'a str,
        Option<&'a str>,
        Option<&'a str>,
    );

    fn parts(path: &str) -> Option<Parts<'_>> {
        parse(path).map(|t| (t.group, t.version, t.namespace, t.resource, t.name, t.subresource))
    }

    #[test]
    fn paths_are_taken_apart_as_in_kubernetes() {
        let vmis = "virtualmachineinstances";
        assert_eq!(
            parts("/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances/a"),
            Some(("kubevirt.io", "v1", Some("default"), vmis, Some("a"), None))
        );
        assert_eq!(
            parts("/apis/kubevirt.io/v1/virtualmachineinstances"),
            Some(("kubevirt.io", "v1", None, vmis, None, None))
        );
        assert_eq!(
            parts("/api/v1/namespaces"),
            Some(("", "v1", None, "namespaces", None, None))
        );
        assert_eq!(
            parts("/api/v1/namespaces/a"),
            Some(("", "v1", None, "namespaces", Some("a"), None))
        );
        assert_eq!(
            parts("/api/v1/namespaces/a/status"),
            Some(("", "v1", None, "namespaces", Some("a"), Some("status")))
        );
        assert_eq!(
            parts("/api/v1/namespaces/a/events"),
            Some(("", "v1", Some("a"), "events", None, None))
        );
        assert_eq!(
            parts("/api/v1/nodes/n/status"),
            Some(("", "v1", None, "nodes", Some("n"), Some("status")))
        );
        assert_eq!(parts("/api/v1"), None);
        assert_eq!(parts("/apis/kubevirt.io"), None);
        assert_eq!(parts("/api/v1/nodes/n/status/x"), None);
    }
}
