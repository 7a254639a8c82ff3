//! Label and field selectors as the API server reads them. Written apart from kvindex's own, so that a mistake in
//! one is not a mistake in both.

use serde_json::Value;

use crate::objects::text;

/// What a request selects.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    labels: Vec<(String, Op)>,
    fields: Vec<(String, bool, String)>,
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Clone)]
enum Op {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

impl Selection {
    pub(crate) fn parse(labels: &str, fields: &str, namespace: Option<String>) -> Result<Self, String> {
        let labels: Result<Vec<_>, _> = requirements(labels).iter().map(|text| requirement(text)).collect();
        let fields: Result<Vec<_>, _> =
            fields.split(',').filter(|text| !text.is_empty()).map(field).collect();
        Ok(Self { labels: labels?, fields: fields?, namespace })
    }

    /// Whether everything is selected.
    pub(crate) fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn takes(&self, object: &Value) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace == text(object, "/metadata/namespace"))
            && self.labels.iter().all(|(key, op)| passes(object, key, op))
            && self.fields.iter().all(|(path, equal, value)| (text(object, path) == value) == *equal)
    }
}

fn passes(object: &Value, key: &str, op: &Op) -> bool {
    let value = object.get("metadata").and_then(|m| m.get("labels")?.get(key)?.as_str());
    match op {
        Op::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
        Op::NotIn(values) => value.is_none_or(|value| values.iter().all(|v| v != value)),
        Op::Exists => value.is_some(),
        Op::Missing => value.is_none(),
    }
}

/// At commas, but not at those between parentheses.
fn requirements(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0_i32);
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn requirement(text: &str) -> Result<(String, Op), String> {
    let list = |text: &str| text.split(',').map(|value| value.trim().to_owned()).collect();
    let op = if let Some((head, values)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        match head.trim().rsplit_once(' ') {
            Some((key, "in")) => Some((key, Op::In(list(values)))),
            Some((key, "notin")) => Some((key, Op::NotIn(list(values)))),
            _ => None,
        }
    } else if let Some((key, value)) = text.split_once("!=") {
        Some((key, Op::NotIn(list(value))))
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        Some((key, Op::In(list(value))))
    } else if let Some(key) = text.strip_prefix('!') {
        Some((key, Op::Missing))
    } else {
        Some((text, Op::Exists))
    };
    let is_value =
        |value: &String| value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let is_key = |key: &str| !key.is_empty() && is_value(&key.replacen('/', "", 1));
    match op {
        Some((key, op)) if is_key(key.trim()) && op.values().iter().all(is_value) => {
            Ok((key.trim().to_owned(), op))
        }
        _ => Err(format!("unable to parse requirement: {text}")),
    }
}

impl Op {
    fn values(&self) -> &[String] {
        match self {
            Self::In(values) | Self::NotIn(values) => values,
            Self::Exists | Self::Missing => &[],
        }
    }
}

fn field(text: &str) -> Result<(String, bool, String), String> {
    let (path, equal, value) = match text.split_once("!=") {
        Some((path, value)) => (path, false, value),
        None => match text.split_once("==").or_else(|| text.split_once('=')) {
            Some((path, value)) => (path, true, value),
            None => return Err(format!("invalid field selector: {text}")),
        },
    };
    match path {
        "metadata.name" | "metadata.namespace" | "spec.nodeName" | "status.phase" => {
            Ok((format!("/{}", path.replace('.', "/")), equal, value.to_owned()))
        }
        _ => Err(format!("field label not supported: {path}")),
    }
}
