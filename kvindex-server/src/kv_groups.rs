//! KV-cache groups as operators write them, for engines whose events do not tell what kind their groups are.

use serde::{Deserialize, Serialize};

use kvindex_core::limits::MAX_BLOCK_SIZE;
use kvindex_core::{Group, GroupKind, GroupSpec};

use crate::workers::{FieldError, word};

/// Most groups of one worker: the most elaborate hybrid models have a dozen.
const MAX_GROUPS: usize = 64;

/// One group as written; see `KvCacheGroup` in `query.proto`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // documented once, in the protocol file
pub struct RawGroup {
    pub group_idx: u32,
    pub kind: String,
    pub block_size: u32,
    pub sliding_window: u32,
}

/// Checks all groups of a worker; answers them in order of their numbers.
pub(crate) fn check(groups: &[RawGroup]) -> Result<Vec<GroupSpec>, FieldError> {
    if groups.len() > MAX_GROUPS {
        return Err(FieldError::new("groups", format!("{} groups, the limit is {MAX_GROUPS}", groups.len())));
    }
    let checked: Result<Vec<GroupSpec>, FieldError> =
        groups.iter().enumerate().map(|(i, group)| check_one(i, group)).collect();
    let mut checked = checked?;
    checked.sort_by_key(|group| group.group);
    if let Some(twice) = checked.windows(2).find(|pair| pair[0].group == pair[1].group) {
        return Err(FieldError::new("groups", format!("group_idx {} is listed twice", twice[0].group)));
    }
    Ok(checked)
}

fn check_one(i: usize, raw: &RawGroup) -> Result<GroupSpec, FieldError> {
    let field = |name: &str| format!("groups[{i}].{name}");
    let group = u16::try_from(raw.group_idx).map_err(|_| {
        let message = format!("is {}, the limit is {}", raw.group_idx, u16::MAX);
        FieldError::new(field("group_idx"), message)
    })?;
    let kinds = [
        ("full_attention", GroupKind::Full),
        ("sliding_window", GroupKind::SlidingWindow),
        ("mamba", GroupKind::Mamba),
    ];
    let kind = word(&field("kind"), &raw.kind, &kinds)?;
    if !(1..=MAX_BLOCK_SIZE).contains(&raw.block_size) {
        let message = format!("is {}, must be from 1 to {MAX_BLOCK_SIZE}", raw.block_size);
        return Err(FieldError::new(field("block_size"), message));
    }
    match (kind, raw.sliding_window) {
        (GroupKind::SlidingWindow, 0) => Err(FieldError::new(
            field("sliding_window"),
            "is missing: how many tokens the window reaches back",
        )),
        (GroupKind::SlidingWindow, _) | (_, 0) => Ok(GroupSpec {
            group: Group(group),
            kind,
            block_size: raw.block_size,
            sliding_window: Some(raw.sliding_window).filter(|window| *window > 0),
        }),
        _ => Err(FieldError::new(field("sliding_window"), format!("means nothing for {}", raw.kind))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn group(group_idx: u32, kind: &str, block_size: u32, sliding_window: u32) -> RawGroup {
        RawGroup { group_idx, kind: kind.into(), block_size, sliding_window }
    }

    #[test]
    fn groups_come_out_in_order() {
        let groups = check(&[group(1, "sliding_window", 16, 48), group(0, "full_attention", 32, 0)]).unwrap();
        assert_eq!(groups[0].kind, GroupKind::Full);
        assert_eq!((groups[1].group, groups[1].sliding_window), (Group(1), Some(48)));
    }

    #[test]
    fn mistakes_are_named() {
        for (groups, error) in [
            (vec![group(0, "linear", 16, 0)], "groups[0].kind: is \"linear\""),
            (vec![group(70_000, "mamba", 16, 0)], "groups[0].group_idx: is 70000"),
            (vec![group(0, "mamba", 0, 0)], "groups[0].block_size: is 0"),
            (vec![group(0, "sliding_window", 16, 0)], "groups[0].sliding_window: is missing"),
            (vec![group(0, "mamba", 16, 8)], "groups[0].sliding_window: means nothing"),
            (vec![group(0, "mamba", 16, 0), group(0, "mamba", 16, 0)], "groups: group_idx 0 is listed twice"),
            (vec![group(0, "mamba", 16, 0); 65], "groups: 65 groups, the limit is 64"),
        ] {
            let found = check(&groups).unwrap_err().to_string();
            assert!(found.starts_with(error), "{found}");
        }
    }
}
