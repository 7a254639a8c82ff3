//! Texts of others on their way to a terminal. Worker ids, labels, a node's messages are not ours: a control character
//! in one could move the cursor, forge a line or set a title, so it is shown instead of obeyed.

use std::borrow::Cow;

/// Where a text on one line ends up: line ends are shown as well.
pub(crate) fn name(text: &str) -> Cow<'_, str> {
    shown(text, is_harmful)
}

/// A text of several lines.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    shown(text, |c| c != '\n' && is_harmful(c))
}

/// JSON without the characters that JSON allows and a terminal obeys. They stand only in its strings, where their
/// escapes mean the same.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) {
            // None is beyond 16 bits.
            escaped += &format!("\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

fn shown(text: &str, harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if harmful(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Controls of either set, line and paragraph separators, and what turns the direction of a text.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(name("w\u{1b}[2J\nb"), "w\\u{1b}[2J\\u{a}b");
        assert_eq!(lines("w\u{9b}2J\nb\u{202e}c"), "w\\u{9b}2J\nb\\u{202e}c");
        assert_eq!(name("Wörker-0 日本"), "Wörker-0 日本");
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let text = serde_json::to_string("a\u{9b}b\u{1b}c\u{202e}é").unwrap();
        assert!(text.contains('\u{9b}'));
        let escaped = json(&text);
        assert!(!escaped.contains(is_harmful), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), "a\u{9b}b\u{1b}c\u{202e}é");
    }
}
