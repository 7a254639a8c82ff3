//! Doubts by their names in answers: a node of another version may know more of them.

use kvindex_core::Doubt;

/// Why answers with this doubt may differ; nothing where this binary does not know it.
pub(super) fn sentence(name: &str) -> &'static str {
    Doubt::from_name(name).map_or("", Doubt::sentence)
}

/// Whether the doubt can be why an answer is too high or, otherwise, too low. One that this binary does not know
/// can.
pub(super) fn explains(name: &str, too_high: bool) -> bool {
    let allows = |doubt: Doubt| if too_high { doubt.may_be_too_long() } else { doubt.may_be_too_short() };
    Doubt::from_name(name).is_none_or(allows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_explains_one_direction_or_both() {
        let both = |name| (explains(name, true), explains(name, false));
        assert_eq!(both("hidden_identity"), (true, false));
        assert_eq!(both("unplaced_blocks"), (false, true));
        assert_eq!(both("content_hashes"), (true, true));
        assert_eq!(both("of another version"), (true, true));
        assert_eq!(sentence("of another version"), "");
    }
}
