//! Every call against a real node.

use kvindex_client::{Answer, CallError, PromptHashes, PromptTokens, UnknownReason, v1};

use crate::node::{self, blocks, store, tokens, worker};

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_hashes_find_the_longest_prefix() {
    let (_running, client) = node::start().await;
    store(&client, "a", 1).await;
    store(&client, "b", 3).await;
    let prompt = PromptTokens::new("llama", &tokens(64));
    let answer = client.match_tokens(&prompt).await.known().unwrap();
    assert_eq!(blocks(&answer), [("b", 3), ("a", 1)]);
    assert_eq!((answer.prompt_tokens, answer.workers[0].uncached_tokens), (64, 16));
    let by_engine = PromptHashes::engine("llama", 16, vec![100, 101]);
    let answer = client.match_hashes(&by_engine).await.known().unwrap();
    assert_eq!(blocks(&answer), [("b", 2), ("a", 1)]);
    for (prompt, expected) in [
        (PromptTokens::new("llama", &tokens(64)).cache_salt("s"), 0),
        (PromptTokens::new("llama", &tokens(64)).lora("l"), 0),
        (PromptTokens::new("llama", &tokens(64)).item("image", 0, 4), 0),
        (PromptTokens::new("llama", &tokens(64)).block_size(16), 3),
    ] {
        let answer = client.match_tokens(&prompt).await.known().unwrap();
        assert_eq!(answer.workers[0].matched_blocks, expected, "{prompt:?}");
    }
    let other_tenant = client.match_tokens(&prompt.clone().tenant("acme")).await.known().unwrap();
    assert!(other_tenant.workers.is_empty());
    let best = v1::MatchRequest { top_k: Some(1), ..(&prompt).into() };
    assert_eq!(blocks(&client.match_prompt(best).await.known().unwrap()), [("b", 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_each_question_by_itself() {
    let (_running, client) = node::start().await;
    store(&client, "a", 2).await;
    let good = PromptTokens::new("llama", &tokens(32));
    let no_block_size = PromptHashes::engine("llama", 0, vec![100]);
    let answers = client.match_batch(vec![(&good).into(), (&no_block_size).into(), (&good).into()]).await;
    assert_eq!(answers.len(), 3);
    assert!(matches!(&answers[0], Answer::Known(answer) if blocks(answer) == [("a", 2)]), "{answers:?}");
    let Answer::Unknown { reason: UnknownReason::Refused { code, message } } = &answers[1] else {
        panic!("{answers:?}");
    };
    assert_eq!(code, "invalid_argument");
    assert!(message.contains("block_size"), "{message}");
    assert!(matches!(&answers[2], Answer::Known(_)), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_question_is_unknown_and_names_the_field() {
    let (_running, client) = node::start().await;
    let answer = client.match_tokens(&PromptTokens::new("", &tokens(32))).await;
    let Answer::Unknown { reason } = answer else { panic!("{answer:?}") };
    assert!(
        matches!(&reason, UnknownReason::Refused { code, .. } if code == "invalid_argument"),
        "{reason:?}"
    );
    assert!(reason.to_string().contains("model"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_registered_listed_explained_and_forgotten() {
    let (_running, client) = node::start().await;
    store(&client, "a", 2).await;
    assert_eq!(client.register(worker("a")).await.unwrap().outcome, "unchanged");
    let differs = v1::RegisterRequest { role: Some("decode".into()), ..worker("a") };
    let error = client.register(differs).await.unwrap_err();
    assert!(!error.is_retryable());
    assert!(matches!(error, CallError::Refused { code: tonic::Code::AlreadyExists, .. }), "{error:?}");
    let listed = client.list_workers(v1::ListWorkersRequest::default()).await.unwrap();
    assert_eq!(listed.workers.iter().map(|w| w.streams[0].blocks).collect::<Vec<_>>(), [2]);
    let prompt = PromptTokens::new("llama", &tokens(48));
    let request =
        v1::ExplainRequest { prompt: Some(prompt.message().clone()), ..v1::ExplainRequest::default() };
    let explained = client.explain(request).await.unwrap();
    assert_eq!((explained.workers[0].broke_at, &*explained.workers[0].reason), (Some(2), "never_stored"));
    assert!(client.unregister("a").await.unwrap());
    assert!(!client.unregister("a").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_what_happens_after_it_began_and_ends_with_the_node() {
    let (running, client) = node::start().await;
    let mut watcher = client.watch(v1::WatchRequest::default()).await.unwrap();
    store(&client, "a", 2).await;
    let stored = loop {
        let event = watcher.next().await.unwrap().unwrap();
        if event.kind == "stored" {
            break event;
        }
    };
    assert_eq!((stored.worker_id.as_str(), stored.count, stored.seq), ("a", 2, Some(0)));
    running.shutdown().await.unwrap();
    while let Ok(Some(_)) = watcher.next().await {}
}
