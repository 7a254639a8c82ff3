//! The status page at `/ui`: files that are the same on every node, built into the binary and served to everyone. They
//! hold no data; the page asks the calls of the API, with a token that whoever looks at it gives.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::LazyLock;

/// Nothing from elsewhere, nothing inline, nothing said to elsewhere; and no text becomes markup, whatever a worker
/// is called.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// What goes with every file. Browsers ask each time whether it is still the same, so that a node's page is that of its
/// release.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-cache"),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, type and content of every file.
static FILES: [(&str, &str, &str); 8] = [
    ("/ui", "text/html; charset=utf-8", include_str!("index.html")),
    ("/ui/style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("/ui/app.js", SCRIPT, include_str!("app.js")),
    ("/ui/calls.js", SCRIPT, include_str!("calls.js")),
    ("/ui/draw.js", SCRIPT, include_str!("draw.js")),
    ("/ui/fleet.js", SCRIPT, include_str!("fleet.js")),
    ("/ui/explain.js", SCRIPT, include_str!("explain.js")),
    ("/ui/icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// The page's routes.
pub(crate) fn router() -> Router {
    static TAGS: LazyLock<[String; FILES.len()]> =
        LazyLock::new(|| FILES.each_ref().map(|(_, _, content)| tag_of(content)));
    let page = Router::new().route("/ui/", get(async || Redirect::permanent("../ui")));
    FILES.iter().zip(TAGS.iter()).fold(page, |routes, ((path, kind, content), tag)| {
        routes.route(path, get(async move |headers: HeaderMap| file(&headers, kind, tag, content)))
    })
}

fn file(asked: &HeaderMap, kind: &'static str, tag: &'static str, content: &'static str) -> Response {
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|tags| tags.split(',')).any(|known| is_same(known.trim(), tag));
    let head = [(header::CONTENT_TYPE, kind), (header::ETAG, tag)];
    if is_known {
        return (StatusCode::NOT_MODIFIED, HEADERS, head).into_response();
    }
    (HEADERS, head, content).into_response()
}

/// Proxies that compress make tags weak.
fn is_same(known: &str, tag: &str) -> bool {
    known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
}

fn tag_of(content: &str) -> String {
    let digest = Sha256::digest(content.as_bytes());
    digest.iter().take(8).fold(String::from('"'), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }) + "\""
}
