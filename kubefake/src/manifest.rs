//! Manifests: YAML files of pods and services, as a person writes them for kubectl.

use anyhow::{Context, bail};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::objects::{Key, Resource, text};

/// The objects of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    objects: BTreeMap<Key, Value>,
}

impl Manifest {
    /// Reads one or more YAML documents; a `List` is taken apart. `namespace` is that of objects that name none.
    ///
    /// # Errors
    /// When the text is no YAML, or an object is of another kind, has no name, or is there twice.
    pub fn parse(text_of_file: &str, namespace: &str) -> anyhow::Result<Self> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text_of_file).context("this is no YAML")?;
        let mut objects = BTreeMap::new();
        for document in documents.into_iter().filter(|document| !document.is_null()) {
            let items = match (text(&document, "/kind"), document.get("items").and_then(Value::as_array)) {
                ("List", Some(items)) => items.clone(),
                _ => vec![document],
            };
            for item in items {
                let key = key(&item, namespace)?;
                let name = format!("{}/{}", key.namespace, key.name);
                if objects.insert(key, item).is_some() {
                    bail!("{name} is there twice");
                }
            }
        }
        Ok(Self { objects })
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.objects.iter()
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        self.objects.contains_key(key)
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

fn key(object: &Value, namespace: &str) -> anyhow::Result<Key> {
    let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
    let Some(resource) = Resource::ALL.into_iter().find(|resource| resource.kind() == kind) else {
        bail!("{kind:?} {name:?}: only Pod, Service and EndpointSlice are served");
    };
    if name.is_empty() {
        bail!("a {kind} has no metadata.name");
    }
    let own = text(object, "/metadata/namespace");
    Ok(Key::new(resource, if own.is_empty() { namespace } else { own }, name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn documents_and_lists_are_read_and_mistakes_named() {
        let text = "kind: Pod\nmetadata: {name: a}\n---\nkind: List\nitems:\n- kind: Service\n  metadata: {name: s, \
                    namespace: other}\n";
        let manifest = Manifest::parse(text, "ns").unwrap();
        let keys: Vec<String> =
            manifest.objects().map(|(key, _)| format!("{}/{}", key.namespace, key.name)).collect();
        assert_eq!(keys, ["ns/a", "other/s"]);
        for (text, part) in [
            ("kind: Deployment\nmetadata: {name: d}", "only Pod"),
            ("kind: Pod", "no metadata.name"),
            ("kind: Pod\nmetadata: {name: a}\n---\nkind: Pod\nmetadata: {name: a}", "twice"),
            ("a: [", "no YAML"),
        ] {
            let error = format!("{:#}", Manifest::parse(text, "ns").unwrap_err());
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
