//! Flags of `register` for what an engine's events leave open.

use clap::Args;
use kvindex_client::v1;

#[derive(Debug, Args)]
pub(crate) struct EngineArgs {
    /// KV-cache group of a hybrid model, as GROUP:KIND:BLOCK_SIZE or GROUP:KIND:BLOCK_SIZE:WINDOW, KIND one of full_attention,
    /// sliding_window, mamba; repeatable; for engines that do not announce kinds (vLLM 0.20 and 0.21)
    #[arg(long = "kv-group", value_name = "GROUP", value_parser = parse_group)]
    groups: Vec<v1::KvCacheGroup>,
    /// What AllBlocksCleared clears: device or all_tiers [default: device]
    #[arg(long, value_name = "POLICY")]
    cleared: Option<String>,
    /// Whether requests may carry what the events do not show, such as SGLang's extra_key: possible or unused
    /// [default: possible]
    #[arg(long, value_name = "WORD")]
    hidden_identity: Option<String>,
    /// Blocks that an offload tier uses only together [default: learned from the events]
    #[arg(long, value_name = "BLOCKS")]
    offload_chunk: Option<u32>,
}

impl EngineArgs {
    /// Writes the flags into a registration.
    pub(crate) fn fill(self, request: &mut v1::RegisterRequest) {
        request.groups = self.groups;
        request.cleared = self.cleared.unwrap_or_default();
        request.hidden_identity = self.hidden_identity.unwrap_or_default();
        request.offload_chunk = self.offload_chunk.unwrap_or(0);
    }
}

fn parse_group(text: &str) -> Result<v1::KvCacheGroup, String> {
    let mut parts = text.split(':');
    let mut part = |what: &str| parts.next().ok_or_else(|| format!("{text:?} has no {what}"));
    let number =
        |what: &str, text: &str| text.parse::<u32>().map_err(|_| format!("{what}: {text:?} is not a number"));
    let group = v1::KvCacheGroup {
        group_idx: number("group", part("group")?)?,
        kind: part("kind")?.to_owned(),
        block_size: number("block size", part("block size")?)?,
        sliding_window: parts.next().map_or(Ok(0), |window| number("window", window))?,
    };
    match parts.next() {
        None => Ok(group),
        Some(more) => Err(format!("{text:?}: {more:?} is one part too many")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn groups_are_read() {
        let window = parse_group("1:sliding_window:16:1024").unwrap();
        assert_eq!((window.group_idx, window.block_size, window.sliding_window), (1, 16, 1024));
        assert_eq!(parse_group("0:full_attention:32").unwrap().sliding_window, 0);
        for (text, error) in [
            ("0", "has no kind"),
            ("x:mamba:16", "group: \"x\" is not a number"),
            ("0:mamba", "has no block size"),
            ("0:mamba:16:1:2", "one part too many"),
        ] {
            let found = parse_group(text).unwrap_err();
            assert!(found.contains(error), "{found}");
        }
    }
}
