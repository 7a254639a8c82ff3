//! The status page's files: what goes with them, and that they are for everyone while what they ask for is not. What
//! the page does with it is tried in a browser by `.ci/page-checks`.

use ureq::http::HeaderMap;

use crate::api_server::{Server, config};

const FILES: [(&str, &str); 8] = [
    ("/ui", "text/html"),
    ("/ui/style.css", "text/css"),
    ("/ui/app.js", "text/javascript"),
    ("/ui/calls.js", "text/javascript"),
    ("/ui/draw.js", "text/javascript"),
    ("/ui/fleet.js", "text/javascript"),
    ("/ui/explain.js", "text/javascript"),
    ("/ui/icon.svg", "image/svg+xml"),
];

/// A GET with headers; redirects are not followed.
async fn get(server: &Server, path: &str, headers: &[(&'static str, String)]) -> (u16, HeaderMap, String) {
    let url = format!("http://{}{path}", server.running.local_addr());
    let headers = headers.to_vec();
    tokio::task::spawn_blocking(move || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let agent = agent.allow_non_standard_methods(true).build();
        let request = ureq::http::Request::builder().uri(url);
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let mut response = agent.new_agent().run(request.body(Vec::<u8>::new()).unwrap()).unwrap();
        let headers = response.headers().clone();
        (response.status().as_u16(), headers, response.body_mut().read_to_string().unwrap())
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_comes_with_a_policy_that_lets_nothing_else_in() {
    let server = Server::start().await;
    for (path, kind) in FILES {
        let (status, headers, text) = get(&server, path, &[]).await;
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
        assert!(status == 200 && !text.is_empty(), "{path}: {status}");
        assert!(header("content-type").starts_with(kind), "{path}: {headers:?}");
        let policy = header("content-security-policy");
        for part in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "trusted-types 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{path}: {policy}");
        assert_eq!((header("x-content-type-options"), header("referrer-policy")), ("nosniff", "no-referrer"));
        assert_eq!((header("cache-control"), header("x-frame-options")), ("no-cache", "DENY"));
        for elsewhere in
            ["//cdn", "https://", "http://", "innerHTML", "insertAdjacentHTML", "style=\"", "onclick="]
        {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(elsewhere), "{path} has {elsewhere}");
        }
    }
    let (_, _, page) = get(&server, "/ui", &[]).await;
    let named = page.split(['"', '\'']).filter(|word| word.starts_with("ui/"));
    for name in named {
        assert!(FILES.iter().any(|(path, _)| path.strip_prefix('/') == Some(name)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_browser_has_is_not_sent_again() {
    let server = Server::start().await;
    let mut tags = Vec::new();
    for (path, _) in FILES {
        let (_, headers, _) = get(&server, path, &[]).await;
        let tag = headers["etag"].to_str().unwrap().to_owned();
        assert!(tag.len() == 18 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".into()] {
            let (status, headers, text) = get(&server, path, &[("if-none-match", known)]).await;
            assert_eq!((status, text.as_str(), headers["etag"].to_str().unwrap()), (304, "", tag.as_str()));
            assert!(headers.contains_key("content-security-policy"));
        }
        let (status, ..) = get(&server, path, &[("if-none-match", "\"0123456789abcdef\"".into())]).await;
        assert_eq!(status, 200, "{path}");
        assert!(!tags.contains(&tag), "two files with the tag {tag}");
        tags.push(tag);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_found_with_a_slash_and_nothing_else_is_there() {
    let server = Server::start().await;
    let (status, headers, _) = get(&server, "/ui/", &[]).await;
    assert_eq!((status, headers["location"].to_str().unwrap()), (308, "../ui"));
    for path in ["/ui/mod.rs", "/ui/..%2fmod.rs", "/ui/app.js/", "/uix"] {
        assert_eq!(get(&server, path, &[]).await.0, 404, "{path}");
    }
    let (status, text) = server.http("POST", "/ui", "{}").await;
    assert!(status == 405 && text.contains("/ui does not take POST"), "{status} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_can_be_switched_off() {
    let server = Server::with(config(|config| config.net.ui = false)).await;
    for (path, _) in FILES {
        assert_eq!(get(&server, path, &[]).await.0, 404, "{path}");
    }
    assert_eq!(get(&server, "/v1/workers", &[]).await.0, 200);
}
