//! Label selectors as operators write them (`a=b,c!=d,e in (f,g),!h`), read, matched and taken apart: `kube` can send
//! one to a server but neither reads it nor says which of its terms a pod failed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// Longest name of a label and longest value, as Kubernetes has them.
const MAX_NAME: usize = 63;
/// Longest prefix of a label's key.
const MAX_PREFIX: usize = 253;

/// Terms that all must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
}

/// One term of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The label it is about.
    pub key: String,
    /// What must be true of it.
    pub test: Test,
}

/// What a term asks of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// It is there with one of these values.
    In(BTreeSet<String>),
    /// It is not there, or with none of these values.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is not there.
    Missing,
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{term:?} {reason}; write terms such as a=b, a!=b, a in (b,c), a notin (b,c), a or !a, with commas between"
)]
pub struct SelectorError {
    term: String,
    reason: String,
}

impl Selector {
    /// Whether all terms hold.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.terms.iter().all(|term| term.holds(labels))
    }

    /// The terms that do not hold.
    pub fn failing<'a>(&'a self, labels: &'a BTreeMap<String, String>) -> impl Iterator<Item = &'a Term> {
        self.terms.iter().filter(|term| !term.holds(labels))
    }

    /// All terms, as written.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }
}

impl Term {
    /// Whether labels pass this term.
    #[must_use]
    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match &self.test {
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let terms: Result<Vec<Term>, _> = split(text)?.into_iter().map(term).collect();
        Ok(Self { terms: terms? })
    }
}

/// Takes the text apart at commas that stand in no parentheses.
fn split(text: &str) -> Result<Vec<&str>, SelectorError> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        match (character, inside) {
            ('(', false) => inside = true,
            (')', true) => inside = false,
            ('(', true) | (')', false) => return Err(error(text, "has parentheses that do not pair")),
            (',', false) => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(error(text, "has parentheses that do not pair"));
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn term(text: &str) -> Result<Term, SelectorError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(error(text, "is empty"));
    }
    if let Some(key) = text.strip_prefix('!') {
        return named(text, key, Test::Missing);
    }
    if let Some((head, values)) = text.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
        let mut words = head.split_whitespace();
        let values = one_of(text, values)?;
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => named(text, key, Test::In(values)),
            (Some(key), Some("notin"), None) => named(text, key, Test::NotIn(values)),
            _ => Err(error(text, "must say `in` or `notin` before its values")),
        };
    }
    for (sign, negative) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = text.split_once(sign) {
            let values = BTreeSet::from([checked(text, value.trim())?]);
            return named(text, key, if negative { Test::NotIn(values) } else { Test::In(values) });
        }
    }
    named(text, text, Test::Exists)
}

fn one_of(text: &str, values: &str) -> Result<BTreeSet<String>, SelectorError> {
    values.split(',').map(|value| checked(text, value.trim())).collect()
}

fn named(text: &str, key: &str, test: Test) -> Result<Term, SelectorError> {
    let key = key.trim();
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if name.is_empty() || !is_name(name) {
        return Err(error(text, &format!("has the key {key:?}, which is no label's")));
    }
    if prefix.is_some_and(|prefix| prefix.is_empty() || prefix.len() > MAX_PREFIX || !is_domain(prefix)) {
        return Err(error(text, &format!("has the key {key:?}, whose prefix is no domain")));
    }
    Ok(Term { key: key.to_owned(), test })
}

fn checked(text: &str, value: &str) -> Result<String, SelectorError> {
    if !value.is_empty() && !is_name(value) {
        let reason = format!(
            "has the value {value:?}, but a label's has at most {MAX_NAME} letters, digits, '-', '_' and '.', and \
             begins and ends with a letter or digit"
        );
        return Err(error(text, &reason));
    }
    Ok(value.to_owned())
}

fn is_name(text: &str) -> bool {
    let ends = |end: Option<char>| end.is_some_and(|character| character.is_ascii_alphanumeric());
    text.len() <= MAX_NAME
        && ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_domain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
}

fn error(term: &str, reason: &str) -> SelectorError {
    SelectorError { term: term.to_owned(), reason: reason.to_owned() }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
        let key = &self.key;
        match &self.test {
            Test::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Test::In(values) => write!(f, "{key} in ({})", list(values)),
            Test::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", list(values)),
            Test::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            Test::Exists => f.write_str(key),
            Test::Missing => write!(f, "!{key}"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, term) in self.terms.iter().enumerate() {
            write!(f, "{}{term}", if number > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn selectors_match_as_the_api_server_says() {
        let pod = labels(&[("app", "vllm"), ("openfuyao.com/pdRole", "prefill"), ("empty", "")]);
        for (text, matches) in [
            ("app=vllm", true),
            ("app == vllm", true),
            ("app=vllm,openfuyao.com/pdRole=prefill", true),
            ("app=vllm,openfuyao.com/pdRole=decode", false),
            ("app!=vllm", false),
            ("other!=vllm", true), // a label that is not there differs from everything
            ("app in (sglang, vllm)", true),
            ("app notin (sglang,vllm)", false),
            ("other notin (a)", true),
            ("app", true),
            ("other", false),
            ("!other", true),
            ("!app", false),
            ("empty=", true),
            ("other=", false),
        ] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.matches(&pod), matches, "{text}");
            assert_eq!(selector.failing(&pod).count() == 0, matches, "{text}");
            assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector, "{text} printed");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_with_the_term_at_fault() {
        for (text, part) in [
            ("", "\"\" is empty"),
            ("a=b,", "\"\" is empty"),
            ("a=b c", "\"b c\""),
            ("a in b", "\"a in b\""),
            ("a among (b)", "`in` or `notin`"),
            ("a in (b", "parentheses"),
            ("a in ((b))", "parentheses"),
            ("-a=b", "key \"-a\""),
            ("Not A Domain/a=b", "prefix"),
            ("a=Qwen/Qwen3-8B", "value \"Qwen/Qwen3-8B\""),
        ] {
            let message = text.parse::<Selector>().unwrap_err().to_string();
            assert!(message.contains(part), "{text:?}: {message}");
        }
    }
}
