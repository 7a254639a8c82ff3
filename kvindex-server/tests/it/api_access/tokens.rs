//! Which token may make which call.

use serde_json::json;

use super::rig::{ALL, Answer, Guarded, WAYS, every_call, token};
use crate::api_server::Server;

fn tokens() -> String {
    [
        token("root", ALL, "*", ""),
        token("reader", "read", "*", ""),
        token("publisher", "publish", "*", ""),
        token("admin", "admin", "*", ""),
        token("admin-of-a", "admin", "a", ""),
        token("all-of-a", ALL, "a", ""),
        token("late", ALL, "*", "expires = \"2020-01-01T00:00:00Z\""),
    ]
    .concat()
}

fn code(answer: &Answer) -> &str {
    answer.as_ref().map_or_else(|refusal| refusal.code.as_str(), |_| "ok")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_known_token_no_call_is_answered() {
    let node = Guarded::start(&tokens()).await;
    for way in WAYS {
        for (call, request) in every_call() {
            for unknown in ["", "guess", "late", "root2", "roo"] {
                let refused = node.call(way, unknown, call, request.clone()).await.unwrap_err();
                assert_eq!(refused.code, "unauthenticated", "{way:?} {call} {unknown}: {refused:?}");
            }
        }
    }
    assert!(node.metric("root", "kvindex_api_refused_total{reason=\"unauthenticated\"}").await >= 120);
    for path in ["/openapi.json", "/metrics", "/no/such/route", "/v1/watch"] {
        assert_eq!(node.raw("", "GET", path, "").await.0, 401, "{path}");
    }
    for path in ["/healthz", "/readyz", "/ui", "/ui/app.js"] {
        assert_eq!(node.raw("", "GET", path, "").await.0, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_is_needed_for_each_call_and_none_includes_another() {
    let node = Guarded::start(&tokens()).await;
    for way in WAYS {
        for (call, request) in every_call() {
            let needs = match call {
                "match" | "match_batch" | "explain" | "list_workers" | "hot_prefixes" => "reader",
                "publish" => "publisher",
                _ => "admin",
            };
            for name in ["reader", "publisher", "admin"] {
                let answer = node.call(way, name, call, request.clone()).await;
                let what = format!("{way:?} {call} by {name}: {answer:?}");
                if name == needs {
                    assert_ne!(code(&answer), "permission_denied", "{what}");
                } else {
                    let refused = answer.unwrap_err();
                    assert_eq!(refused.code, "permission_denied", "{what}");
                    let right =
                        ["read", "publish", "admin"].into_iter().find(|right| needs.starts_with(right));
                    assert!(
                        refused.message.contains(right.unwrap()) && refused.message.contains(name),
                        "{what}"
                    );
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_and_metrics_are_for_who_is_over_every_tenant() {
    let node = Guarded::start(&tokens()).await;
    for way in WAYS {
        for call in ["cluster_status", "remove_node", "set_voter", "hand_over"] {
            let request = every_call().into_iter().find(|(name, _)| *name == call).unwrap().1;
            let refused = node.call(way, "all-of-a", call, request.clone()).await.unwrap_err();
            assert_eq!(refused.code, "permission_denied", "{refused:?}");
            assert!(refused.message.contains("every tenant"), "{refused:?}");
            let allowed = node.call(way, "admin", call, request).await.unwrap_err();
            assert_eq!(allowed.code, "failed_precondition", "the node is alone: {allowed:?}");
        }
    }
    for (name, status) in [("root", 200), ("admin", 200), ("reader", 403), ("all-of-a", 403), ("", 401)] {
        assert_eq!(node.raw(name, "GET", "/metrics", "").await.0, status, "{name:?}");
    }
    let open = Guarded::with(&tokens(), |config| config.access.metrics_open = true).await;
    assert_eq!(open.raw("", "GET", "/metrics", "").await.0, 200);
    assert_eq!(open.raw("", "GET", "/v1/workers", "").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_every_call_is_answered_to_everyone() {
    let server = Server::start().await;
    assert_eq!(server.http("GET", "/v1/workers", "").await.0, 200);
    assert_eq!(server.http("GET", "/metrics", "").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_by_the_tokens_of_the_file() {
    let node = Guarded::start(&tokens()).await;
    for way in WAYS {
        node.call(way, "reader", "list_workers", json!({})).await.unwrap();
        node.call(way, "reader", "cluster_status", json!({})).await.unwrap_err();
        node.call(way, "made-up", "list_workers", json!({})).await.unwrap_err();
    }
    let count = async |outcome: &str| {
        let series = format!("kvindex_access_calls_total{{token=\"reader\",outcome=\"{outcome}\"}}");
        node.metric("root", &series).await
    };
    assert_eq!((count("answered").await, count("denied").await), (2, 2));
    let (_, _, text) = node.raw("root", "GET", "/metrics", "").await;
    assert!(!text.contains("made-up"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_is_no_start() {
    use kvindex_server::{App, StartError};
    let file = super::rig::AccessFile::new("[[tokens]]\nname = \"x\"\n");
    let config = crate::api_server::config(|config| config.access.file = Some(file.path.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = App::start(config, listener).await.unwrap_err();
    assert!(
        matches!(error, StartError::Access(_)) && error.to_string().contains("tokens[0].sha256"),
        "{error}"
    );
}
