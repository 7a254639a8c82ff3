//! The OpenAPI document, made from the handlers and the protocol's messages.

use std::sync::LazyLock;
use utoipa::OpenApi;

use super::http;

#[derive(OpenApi)]
#[openapi(
    info(title = "kvindex", description = "Which worker holds how long a prefix of a prompt."),
    paths(
        http::find,
        http::find_batch,
        http::explain,
        http::list_workers,
        http::hot_prefixes,
        http::register,
        http::unregister,
        http::publish,
        http::watch,
        http::cluster_status,
        http::remove_node,
        http::set_voter,
        http::hand_over,
        http::metrics,
        http::healthz,
        http::readyz,
        openapi_json,
    )
)]
struct Document;

/// This document.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "OpenAPI 3.1", body = String)))]
#[allow(dead_code)] // names the route for the document; `http.rs` serves it
fn openapi_json() {}

/// The document as JSON, printed once.
pub(super) fn document() -> &'static str {
    static PRINTED: LazyLock<String> = LazyLock::new(|| {
        // Plain structs cannot fail to print; an empty document would be caught by the test that reads it.
        Document::openapi().to_json().unwrap_or_default()
    });
    &PRINTED
}
