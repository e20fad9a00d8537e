//! What may be a name, a label, an annotation or a finalizer: Kubernetes' rules, in Kubernetes' words.

const SUBDOMAIN_LONGEST: usize = 253;
const LABEL_LONGEST: usize = 63;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn too_long(longest: usize) -> String {
    format!("must be no more than {longest} characters")
}

/// First and last character alphanumeric, `inner` ones between.
fn framed(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [only] => edge(*only),
        [first, middle @ .., last] => edge(*first) && edge(*last) && middle.iter().all(|byte| inner(*byte)),
    }
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    framed(text, lower, |byte| lower(byte) || byte == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_word(text: &str) -> bool {
    framed(
        text,
        |byte| byte.is_ascii_alphanumeric(),
        |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
    )
}

fn problems(text: &str, longest: usize, fits: bool, rule: &str) -> Vec<String> {
    let length = (text.len() > longest).then(|| too_long(longest));
    length
        .into_iter()
        .chain((!fits).then(|| rule.to_owned()))
        .collect()
}

/// Why `name` cannot be an object's name; empty when it can.
pub(crate) fn subdomain_problems(name: &str) -> Vec<String> {
    problems(name, SUBDOMAIN_LONGEST, is_subdomain(name), SUBDOMAIN)
}

/// Why `name` cannot be a namespace's name.
pub(crate) fn label_problems(name: &str) -> Vec<String> {
    problems(name, LABEL_LONGEST, is_label(name), LABEL)
}

/// Why `value` cannot be a label's value.
pub(crate) fn value_problems(value: &str) -> Vec<String> {
    problems(value, LABEL_LONGEST, value.is_empty() || is_word(value), VALUE)
}

/// Why `key` cannot be the key of a label or an annotation, or a finalizer: `[prefix/]name`.
pub(crate) fn qualified_problems(key: &str) -> Vec<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if name.contains('/') {
        return vec![format!(
            "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        )];
    }
    let mut found = Vec::new();
    match prefix {
        Some("") => found.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            found.extend(
                subdomain_problems(prefix)
                    .into_iter()
                    .map(|text| format!("prefix part {text}")),
            );
        }
        None => {}
    }
    let rule = if name.is_empty() {
        "must be non-empty"
    } else {
        QUALIFIED
    };
    found.extend(
        problems(name, LABEL_LONGEST, is_word(name), rule)
            .into_iter()
            .map(|t| format!("name part {t}")),
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        assert!(subdomain_problems("vmi-alpine.example").is_empty());
        assert_eq!(
            subdomain_problems(&"a".repeat(300)),
            ["must be no more than 253 characters"]
        );
        assert_eq!(subdomain_problems("Alpine"), [SUBDOMAIN]);
        assert_eq!(subdomain_problems(""), [SUBDOMAIN]);
        assert_eq!(subdomain_problems("a..b"), [SUBDOMAIN]);
        assert_eq!(subdomain_problems("../etc"), [SUBDOMAIN]);
        assert_eq!(label_problems("a.b"), [LABEL]);
    }

    #[test]
    fn label_keys_may_have_a_prefix() {
        assert!(qualified_problems("kubevirt.io/nodeName").is_empty());
        assert!(qualified_problems("app").is_empty());
        assert_eq!(qualified_problems("/app"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_problems("a/b/c").len(), 1);
        assert_eq!(qualified_problems("a/"), ["name part must be non-empty"]);
    }

    #[test]
    fn label_values_may_be_empty() {
        assert!(value_problems("").is_empty());
        assert!(value_problems("a_b.c-1").is_empty());
        assert_eq!(value_problems("-a"), [VALUE]);
        assert_eq!(
            value_problems(&"x".repeat(64)),
            ["must be no more than 63 characters"]
        );
    }
}
