//! Label selectors (`app=web,tier in (a, b),!legacy,cores>2`) and field selectors (`metadata.name=a`), read strictly and bounded.

use serde_json::{Map, Value};

use crate::jsonpath::JsonPath;
use crate::limits;
use crate::names;
use crate::status::{Answer, Failure};

/// What the labels of an object must be like; all requirements have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Missing,
    In(Vec<String>),
    /// Holds as well where the label is missing.
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

impl LabelSelector {
    /// Reads a selector; an empty one selects everything.
    pub(crate) fn parse(text: &str) -> Answer<Self> {
        check_length(text)?;
        let mut requirements = Vec::new();
        for part in split_outside_parens(text) {
            requirements.push(requirement(part.trim()).ok_or_else(|| unparsable(text))?);
            if requirements.len() > limits::SELECTOR_REQUIREMENTS {
                return Err(Failure::bad_request(
                    "the label selector has too many requirements",
                ));
            }
        }
        requirements.iter().try_for_each(Requirement::check)?;
        Ok(Self(requirements))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object's labels meet every requirement.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
        self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: Option<&Map<String, Value>>) -> bool {
        let value = labels
            .and_then(|labels| labels.get(&self.key))
            .and_then(Value::as_str);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|unwanted| unwanted != value)),
            Test::Above(bound) => number().is_some_and(|number| number > *bound),
            Test::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }

    fn check(&self) -> Answer<()> {
        let values = match &self.test {
            Test::In(values) | Test::NotIn(values) => values.as_slice(),
            _ => &[],
        };
        let mut problems = names::qualified_problems(&self.key);
        problems.extend(values.iter().flat_map(|value| names::value_problems(value)));
        match problems.first() {
            Some(problem) => Err(Failure::bad_request(format!(
                "unable to parse requirement on {:?}: {problem}",
                self.key
            ))),
            None => Ok(()),
        }
    }
}

fn check_length(text: &str) -> Answer<()> {
    if text.len() > limits::SELECTOR_BYTES {
        return Err(Failure::bad_request("the selector is too long"));
    }
    Ok(())
}

fn unparsable(text: &str) -> Failure {
    Failure::bad_request(format!("unable to parse the selector {text:?}"))
}

/// Parts between commas, where commas inside of parentheses do not count. Nothing at all has no parts.
fn split_outside_parens(text: &str) -> Vec<&str> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let mut inside = false;
    text.split(move |c| {
        inside = (inside || c == '(') && c != ')';
        c == ',' && !inside
    })
    .collect()
}

fn requirement(part: &str) -> Option<Requirement> {
    let made = |key: &str, test| {
        Some(Requirement {
            key: key.trim().to_owned(),
            test,
        })
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some(key) = part.strip_prefix('!') {
        return made(key, Test::Missing);
    }
    if let Some(set) = part.strip_suffix(')') {
        let (head, list) = set.split_once('(')?;
        let (key, operator) = head.trim().split_once(char::is_whitespace)?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        return match operator.trim() {
            "in" => made(key, Test::In(values)),
            "notin" => made(key, Test::NotIn(values)),
            _ => None,
        };
    }
    // The longer operators first: `!=` and `==` contain `=`.
    if let Some((key, value)) = part.split_once("!=") {
        made(key, Test::NotIn(one(value)))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        made(key, Test::In(one(value)))
    } else if let Some((key, bound)) = part.split_once('>') {
        made(key, Test::Above(bound.trim().parse().ok()?))
    } else if let Some((key, bound)) = part.split_once('<') {
        made(key, Test::Below(bound.trim().parse().ok()?))
    } else {
        made(part, Test::Exists)
    }
}

/// What some fields of an object must be.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldSelector(Vec<(JsonPath, bool, String)>);

impl FieldSelector {
    /// Reads a selector that may name `metadata.name`, `metadata.namespace` and the `others`.
    pub(crate) fn parse(text: &str, others: &[String]) -> Answer<Self> {
        check_length(text)?;
        let mut found = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (field, equal, value) = if let Some((field, value)) = part.split_once("!=") {
                (field, false, value)
            } else {
                let (field, value) = part
                    .split_once("==")
                    .or_else(|| part.split_once('='))
                    .ok_or_else(|| unparsable(text))?;
                (field, true, value)
            };
            let field = field.trim();
            let known =
                matches!(field, "metadata.name" | "metadata.namespace") || others.iter().any(|o| o == field);
            let path = JsonPath::parse(&format!(".{field}")).filter(|_| known);
            let path =
                path.ok_or_else(|| Failure::bad_request(format!("field label not supported: {field}")))?;
            found.push((path, equal, value.trim().to_owned()));
            if found.len() > limits::SELECTOR_REQUIREMENTS {
                return Err(Failure::bad_request(
                    "the field selector has too many requirements",
                ));
            }
        }
        Ok(Self(found))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the object's fields are as wanted; a missing field is an empty one.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, equal, wanted)| {
            let found = path.find(object);
            let same = match found {
                None | Some(Value::Null) => wanted.is_empty(),
                Some(Value::String(text)) => text == wanted,
                Some(other) => serde_json::from_str(wanted).is_ok_and(|wanted: Value| wanted == *other),
            };
            same == *equal
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn selects(selector: &str) -> bool {
        let object = json!({"metadata": {"name": "a", "labels": {"app": "web", "cores": "4", "kubevirt.io/nodeName": "n1"}}});
        LabelSelector::parse(selector).unwrap().matches(&object)
    }

    #[test]
    fn every_operator_selects() {
        let yes = [
            "",
            "app",
            "app=web",
            "app==web",
            "app!=db",
            "!db",
            "app in (db, web)",
            "app notin (db)",
            "cores>3",
            "cores<5",
            "kubevirt.io/nodeName=n1,app",
            "missing!=x",
            "missing notin (x)",
            " app = web , cores ",
        ];
        assert_eq!(yes.map(selects), [true; 14]);
        let no = [
            "db",
            "app=db",
            "app!=web",
            "!app",
            "app in (db)",
            "app notin (web,db)",
            "cores>4",
            "app>1",
            "missing=x",
        ];
        assert_eq!(no.map(selects), [false; 9]);
    }

    #[test]
    fn malformed_selectors_are_bad_requests() {
        let bad = [
            "=",
            "a b",
            "a in",
            "a in (b",
            "a=b=c d",
            "a>x",
            ",",
            "!",
            "-a",
            "a=b!",
            "a in (b) c",
        ];
        let codes = bad.map(|text| LabelSelector::parse(text).map_err(|failure| failure.code().as_u16()));
        assert_eq!(codes, bad.map(|_| Err(400)));
        assert!(LabelSelector::parse(&"a,".repeat(limits::SELECTOR_BYTES)).is_err());
    }

    #[test]
    fn field_selectors_know_only_their_fields() {
        let fields = ["involvedObject.name".to_owned()];
        let event =
            json!({"metadata": {"name": "e", "namespace": "default"}, "involvedObject": {"name": "a"}});
        let matches =
            |text: &str| FieldSelector::parse(text, &fields).map(|selector| selector.matches(&event));
        assert!(matches("metadata.name=e,involvedObject.name=a").unwrap());
        assert!(!matches("metadata.name!=e").unwrap());
        assert!(matches("involvedObject.name!=b").unwrap());
        assert_eq!(
            matches("spec.x=1").unwrap_err().message(),
            "field label not supported: spec.x"
        );
    }

    proptest! {
        #[test]
        fn label_selector_parser_never_panics(text in "[a-z!=<>(), in]{0,60}|.{0,60}") {
            let _ = LabelSelector::parse(&text);
        }

        #[test]
        fn field_selector_parser_never_panics(text in "[a-z!=., ]{0,60}|.{0,60}") {
            let _ = FieldSelector::parse(&text, &[]);
        }
    }
}
