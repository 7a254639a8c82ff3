//! Compiles the protocol files in pure Rust, so that no machine needs a protoc, and puts JSON and OpenAPI
//! on the same messages: one definition serves gRPC and HTTP.

const JSON: &str = "#[derive(serde::Serialize, serde::Deserialize, utoipa::ToSchema)]";

/// The package that has a JSON form; what nodes say among themselves has none.
const PUBLIC: &str = ".kvindex.v1";

/// Messages that callers send: a mistyped field must be an error, not silently ignored.
const REQUESTS: [&str; 19] = [
    "ClusterStatusRequest",
    "RemoveNodeRequest",
    "SetVoterRequest",
    "HandOverRequest",
    "Prompt",
    "PromptItem",
    "MatchRequest",
    "MatchBatchRequest",
    "MatchStreamRequest",
    "ExplainRequest",
    "ListWorkersRequest",
    "HotPrefixesRequest",
    "WatchRequest",
    "RegisterRequest",
    "UnregisterRequest",
    "PublishRequest",
    "PublishEvent",
    "BlockExtraKeys",
    "ExtraKey",
];

/// Byte fields, which JSON carries as base64.
const BYTES: [&str; 4] =
    ["Prompt.token_ids_le", "PublishEvent.token_ids_le", "PublishRequest.payload", "ExtraKey.digest"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "kvindex/v1/query.proto",
        "kvindex/v1/ingest.proto",
        "kvindex/v1/cluster.proto",
        "kvindex/peer/v1/peer.proto",
        "dialects/sglang.proto",
        "dialects/llmd.proto",
    ];
    println!("cargo:rerun-if-changed=kvindex");
    println!("cargo:rerun-if-changed=dialects");
    let descriptors = protox::compile(files, ["."])?;
    let mut build = tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .message_attribute(PUBLIC, JSON)
        .message_attribute(PUBLIC, "#[serde(default)]")
        .enum_attribute(PUBLIC, JSON)
        .enum_attribute(PUBLIC, "#[serde(rename_all = \"lowercase\")]");
    for name in REQUESTS {
        build = build.message_attribute(format!(".kvindex.v1.{name}"), "#[serde(deny_unknown_fields)]");
    }
    for field in BYTES {
        let path = format!(".kvindex.v1.{field}");
        build = build
            .field_attribute(&path, "#[serde(with = \"crate::json::base64_bytes\")]")
            .field_attribute(&path, "#[schema(value_type = String, format = Byte)]");
    }
    build
        .field_attribute(".kvindex.v1.Trust.state", "#[serde(with = \"crate::json::trust_state\")]")
        .field_attribute(".kvindex.v1.Trust.state", "#[schema(value_type = TrustState)]")
        .compile_fds(descriptors)?;
    Ok(())
}
