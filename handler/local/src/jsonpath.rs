//! The small JSON path that printer columns and selectable fields are written in:
//! `.status.phase`, `.status.interfaces[0].ipAddress`, `.status.conditions[?(@.type=='Ready')].status`,
//! `.metadata.labels['kubevirt.io/nodeName']`, `.spec.names[*]`. A path in any other form is refused when it is read.

use serde_json::Value;

/// A path that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
    Every,
    /// `[?(@.field=="value")]`
    Where(JsonPath, String),
}

impl JsonPath {
    /// Reads a path; `None` where it is of a form that is not supported.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = if let Some(after) = rest.strip_prefix('.') {
                field(after)?
            } else {
                bracket(rest.strip_prefix('[')?)?
            };
            steps.push(step);
            rest = after;
        }
        (!steps.is_empty()).then_some(Self(steps))
    }

    /// The first value the path leads to.
    pub(crate) fn find<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        walk(&self.0, value)
    }
}

fn walk<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value);
    };
    match step {
        Step::Field(name) => walk(rest, value.get(name)?),
        Step::Index(index) => walk(rest, value.get(index)?),
        Step::Every => value.as_array()?.iter().find_map(|item| walk(rest, item)),
        Step::Where(path, wanted) => {
            let mut items = value.as_array()?.iter();
            items
                .find(|item| path.find(item).and_then(Value::as_str) == Some(wanted))
                .and_then(|i| walk(rest, i))
        }
    }
}

fn field(text: &str) -> Option<(Step, &str)> {
    let end = text.find(['.', '[']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (!name.is_empty() && name.chars().all(plain)).then(|| (Step::Field(name.to_owned()), rest))
}

fn bracket(text: &str) -> Option<(Step, &str)> {
    if let Some(text) = text.strip_prefix("?(@") {
        let (condition, rest) = text.split_once(")]")?;
        let (path, wanted) = condition.split_once("==")?;
        return Some((
            Step::Where(JsonPath::parse(path)?, quoted(wanted.trim())?.to_owned()),
            rest,
        ));
    }
    if let Some(text) = text.strip_prefix(['\'', '"']) {
        let end = text.find(['\'', '"'])?;
        let rest = text[end + 1..].strip_prefix(']')?;
        return Some((Step::Field(text[..end].to_owned()), rest));
    }
    let (inside, rest) = text.split_once(']')?;
    let step = if inside == "*" {
        Step::Every
    } else {
        Step::Index(inside.parse().ok()?)
    };
    Some((step, rest))
}

fn quoted(text: &str) -> Option<&str> {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\''))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn found(path: &str) -> Option<Value> {
        let object = json!({
            "metadata": {"labels": {"kubevirt.io/nodeName": "n1"}},
            "status": {
                "phase": "Running",
                "interfaces": [{"ipAddress": "10.0.2.2"}],
                "conditions": [{"type": "Paused", "status": "False"}, {"type": "Ready", "status": "True"}],
            },
        });
        JsonPath::parse(path).unwrap().find(&object).cloned()
    }

    #[test]
    fn printer_columns_of_kubevirt_are_found() {
        assert_eq!(found(".status.phase"), Some(json!("Running")));
        assert_eq!(found(".status.interfaces[0].ipAddress"), Some(json!("10.0.2.2")));
        assert_eq!(
            found(".status.conditions[?(@.type=='Ready')].status"),
            Some(json!("True"))
        );
        assert_eq!(found(".status.conditions[?(@.type==\"Live\")].status"), None);
        assert_eq!(found(".status.interfaces[*].ipAddress"), Some(json!("10.0.2.2")));
        assert_eq!(
            found(".metadata.labels['kubevirt.io/nodeName']"),
            Some(json!("n1"))
        );
        assert_eq!(found(".spec.nothing"), None);
    }

    #[test]
    fn other_forms_are_refused() {
        assert_eq!(JsonPath::parse(""), None);
        assert_eq!(JsonPath::parse("status"), None);
        assert_eq!(JsonPath::parse(".."), None);
        assert_eq!(JsonPath::parse(".a[?(@.b>1)]"), None);
        assert_eq!(JsonPath::parse(".a[-1]"), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = JsonPath::parse(&text);
        }
    }
}
