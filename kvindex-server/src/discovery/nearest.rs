//! What labels there are instead, when a selector selects nothing: the values of its keys, or the key most like it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::selector::{Selector, Test};

/// How much two keys must be alike for one to be taken for the other.
const ALIKE: f64 = 0.8;
/// Values that are shown of one key.
const SHOWN: usize = 5;

/// One term of a selector, and what there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NearTerm {
    /// The term.
    pub term: String,
    /// How many pass it.
    pub matching: usize,
    /// What there is, for people; empty when many pass it.
    pub there_is: String,
}

/// Compares a selector term by term with the labels that there are.
#[must_use]
pub(crate) fn nearest(selector: &Selector, all: &[&BTreeMap<String, String>]) -> Vec<NearTerm> {
    let mut values: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for (key, value) in all.iter().flat_map(|labels| labels.iter()) {
        *values.entry(key).or_default().entry(value).or_default() += 1;
    }
    let near = |term: &super::selector::Term| {
        let matching = all.iter().filter(|labels| term.holds(labels)).count();
        let there_is = if matching > 0 { String::new() } else { instead(&term.key, &term.test, &values) };
        NearTerm { term: term.to_string(), matching, there_is }
    };
    selector.terms().iter().map(near).collect()
}

fn instead(key: &str, test: &Test, values: &BTreeMap<&str, BTreeMap<&str, usize>>) -> String {
    if values.is_empty() {
        return "there are no labels at all".into();
    }
    if let Some(there) = values.get(key) {
        let wanted = match test {
            Test::In(wanted) => wanted.iter().next().map_or("", String::as_str),
            _ => "",
        };
        let mut there: Vec<(&str, usize)> = there.iter().map(|(value, count)| (*value, *count)).collect();
        let likeness = |value: &str| strsim::jaro_winkler(value, wanted);
        there.sort_by(|a, b| likeness(b.0).total_cmp(&likeness(a.0)).then(b.1.cmp(&a.1)));
        let more = there.len().saturating_sub(SHOWN);
        let mut shown: Vec<String> =
            there.iter().take(SHOWN).map(|(value, count)| format!("{key}={value} ({count})")).collect();
        if more > 0 {
            shown.push(format!("{more} more values"));
        }
        return format!("there is {}", shown.join(", "));
    }
    // Fleets differ in a key's prefix more than in its name.
    let name = |key: &str| key.rsplit('/').next().unwrap_or(key).to_ascii_lowercase();
    let likeness = |known: &str| strsim::jaro_winkler(&name(known), &name(key));
    let alike = values.keys().filter(|known| likeness(known) >= ALIKE);
    match alike.max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(known) => {
            let shown = values.get(known).and_then(|values| values.keys().next()).unwrap_or(&"");
            format!("there is no label {key}; is it {known} (such as {known}={shown})?")
        }
        None => {
            let keys: Vec<&str> = values.keys().copied().take(SHOWN).collect();
            format!("there is no label {key}, nor one like it; there is {}", keys.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told(selector: &str, pods: &[&[(&str, &str)]]) -> Vec<(usize, String)> {
        let pods: Vec<BTreeMap<String, String>> = pods
            .iter()
            .map(|labels| labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
            .collect();
        let near = nearest(&selector.parse().unwrap(), &pods.iter().collect::<Vec<_>>());
        near.into_iter().map(|term| (term.matching, term.there_is)).collect()
    }

    #[test]
    fn a_wrong_value_shows_the_values_that_there_are_the_most_alike_first() {
        let pods: [&[(&str, &str)]; 3] =
            [&[("app", "proxy")], &[("app", "vllm-prefill")], &[("app", "proxy")]];
        let near = told("app=vllm", &pods);
        assert_eq!(near, [(0, "there is app=vllm-prefill (1), app=proxy (2)".into())]);
    }

    #[test]
    fn a_wrong_key_shows_the_key_most_like_it() {
        let pods: [&[(&str, &str)]; 1] = [&[("openfuyao.com/pdRole", "prefill"), ("app", "vllm")]];
        let near = told("openfuyao.com/pdrole=prefill,app=vllm", &pods);
        assert_eq!(near[0].0, 0);
        assert!(
            near[0].1.contains("is it openfuyao.com/pdRole (such as openfuyao.com/pdRole=prefill)?"),
            "{near:?}"
        );
        assert_eq!(near[1], (1, String::new()));
        let near = told("quite-different", &pods);
        assert!(near[0].1.ends_with("there is app, openfuyao.com/pdRole"), "{near:?}");
        assert_eq!(told("app=x", &[])[0].1, "there are no labels at all");
    }
}
