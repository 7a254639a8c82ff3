//! What labels of engines say, in the spellings that fleets use.

/// The role of an engine that serves whole requests.
pub(crate) const AGGREGATE: &str = "aggregate";
/// The role of an engine that only decodes: its prefix cache is off, so it announces nothing.
pub(crate) const DECODE: &str = "decode";
/// The role of an engine that only prefills.
pub(crate) const PREFILL: &str = "prefill";

/// The role that a label says. An absent one means the whole engine, and so do the spellings that InferNex has.
pub(crate) fn role(label: Option<&str>) -> String {
    let text = label.unwrap_or("").trim().to_ascii_lowercase();
    match text.as_str() {
        "" | "aggregated" | "aggregate" | "aggreagted" => AGGREGATE.into(),
        _ => text,
    }
}

/// Whether it is one that means something here.
pub(crate) fn is_known(role: &str) -> bool {
    matches!(role, AGGREGATE | DECODE | PREFILL)
}

/// The engine that a label says: vLLM when it says nothing; the text when it is none that is understood.
pub(crate) fn engine(label: Option<&str>) -> Result<&'static str, String> {
    let text = label.unwrap_or("").trim();
    match text.to_ascii_lowercase().as_str() {
        // The plugin for Ascend announces as vLLM does.
        "" | "vllm" | "vllm-ascend" => Ok("vllm"),
        "sglang" => Ok("sglang"),
        _ => Err(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_engines_are_read_in_every_spelling() {
        for label in
            [None, Some(""), Some("aggregated"), Some("aggregate"), Some("aggreagted"), Some("Aggregated")]
        {
            assert_eq!(role(label), AGGREGATE, "{label:?}");
        }
        assert_eq!((role(Some("prefill")), role(Some("Decode"))), ("prefill".into(), "decode".into()));
        assert!(is_known(PREFILL) && !is_known(&role(Some("proxy"))));
        assert_eq!(engine(Some("vLLM-Ascend")), Ok("vllm"));
        assert_eq!((engine(None), engine(Some("SGLang"))), (Ok("vllm"), Ok("sglang")));
        assert_eq!(engine(Some("mindie")), Err("mindie".into()));
    }
}
