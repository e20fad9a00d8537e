//! What is promised of the registries file: it means what it means elsewhere, or it is refused.

use super::*;

fn file(text: &str) -> Result<Registries, String> {
    Registries::parse(Path::new("registries.conf"), text).map_err(|error| error.to_string())
}

/// Where an image is asked for by this file.
fn asked(text: &str, registry: &str, repository: &str, digest: Option<&str>) -> Option<Vec<String>> {
    let sources = file(text).unwrap().sources(Named {
        registry,
        repository,
        tag: digest.is_none().then_some("1"),
        digest,
    })?;
    let shown = |source: Source| format!("{:?} {}/{}", source.trust, source.registry, source.repository);
    Some(sources.into_iter().map(shown).collect())
}

const MIRRORED: &str = r#"
unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "docker.io/library"
location = "hub.example:5000/lib"
[[registry.mirror]]
location = "one.example/a"
insecure = true
[[registry.mirror]]
location = "two.example"
pull-from-mirror = "digest-only"

[[registry]]
location = "docker.io"
"#;

#[test]
fn mirrors_are_asked_in_their_order_and_what_stands_for_the_registry_last() {
    let by_tag = asked(MIRRORED, "docker.io", "library/alpine", None).unwrap();
    assert_eq!(
        by_tag,
        [
            "Anybody one.example/a/alpine",
            "Signed hub.example:5000/lib/alpine"
        ]
    );
    let by_digest = asked(MIRRORED, "docker.io", "library/alpine", Some("sha256:0")).unwrap();
    assert_eq!(by_digest[1], "Signed two.example/alpine");
}

#[test]
fn the_longest_prefix_counts_and_ends_at_a_slash() {
    let other = asked(MIRRORED, "docker.io", "team/alpine", None).unwrap();
    assert_eq!(other, ["Signed docker.io/team/alpine"]);
    let alike = asked(MIRRORED, "docker.io", "libraryx/alpine", None).unwrap();
    assert_eq!(alike, ["Signed docker.io/libraryx/alpine"]);
    assert_eq!(asked(MIRRORED, "docker.io.example", "a", None), None);
}

#[test]
fn one_image_can_be_a_prefix_and_a_star_stands_for_all_hosts_below() {
    let text = "[[registry]]\nprefix = \"r.example/a/b\"\nlocation = \"s.example/c\"\n\
                [[registry]]\nprefix = \"*.inner.example\"\ninsecure = true\n";
    assert_eq!(
        asked(text, "r.example", "a/b", None).unwrap(),
        ["Signed s.example/c"]
    );
    assert_eq!(
        asked(text, "x.inner.example:5000", "a", None).unwrap(),
        ["Anybody x.inner.example:5000/a"]
    );
    assert_eq!(asked(text, "inner.example", "a", None), None);
}

#[test]
fn nobody_is_asked_for_what_is_blocked() {
    let text = "[[registry]]\nprefix = \"bad.example\"\nblocked = true\n";
    assert_eq!(asked(text, "bad.example", "a", None), Some(Vec::new()));
}

#[test]
fn what_would_mean_another_image_is_refused_where_it_stands() {
    let refused = |text: &str| file(text).unwrap_err();
    assert_eq!(
        refused("[[registry]]\nprefix = \"a\"\nmirror-of = \"b\"\n"),
        "'registries.conf', line 3: unknown field `mirror-of`, expected one of `prefix`, `location`, `insecure`, \
         `blocked`, `mirror-by-digest-only`, `mirror`"
    );
    assert!(refused("unqualified-search-registries = [\"quay.io\"]").contains("can only be"));
    assert!(refused("[aliases]\n").contains("unknown field `aliases`"));
    assert!(refused("[[registry]]\nprefix = \"https://a\"\n").contains("is not HOST[:PORT][/PATH]"));
    assert!(refused("[[registry]]\nblocked = true\n").contains("neither prefix nor location"));
    assert!(refused("[[registry]]\nprefix = \"a.*\"\n").contains("is no prefix"));
    let twice = "[[registry]]\nprefix = \"a\"\n[[registry]]\nlocation = \"a/\"\n";
    assert!(refused(twice).ends_with("there are two registries 'a'"));
}
