//! Routes one request: asks the index who holds the longest prefix of a prompt, and falls back to another choice
//! when the index does not know. The index informs; the router decides.
//!
//! `cargo run -p kvindex-client --example route_request -- http://127.0.0.1:9590 llama 1,2,3,4`

use std::error::Error;

use kvindex_client::v1::{TrustState, WorkerMatch};
use kvindex_client::{Answer, Client, ClientConfig, PromptTokens};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, model, tokens] = arguments.as_slice() else {
        return Err("usage: route_request SERVER MODEL TOKEN,TOKEN,…".into());
    };
    let tokens: Vec<u32> = tokens.split(',').map(|id| id.trim().parse()).collect::<Result<_, _>>()?;
    let client = Client::connect(ClientConfig::new(server.as_str()))?;

    let answer = client.match_tokens(&PromptTokens::new(model.as_str(), &tokens)).await;
    match &answer {
        Answer::Known(response) => match best(&response.workers) {
            Some(worker) => println!(
                "send to {} rank {} at {}: it holds {} of {} tokens",
                worker.worker_id,
                worker.dp_rank,
                worker.address.as_deref().unwrap_or("(no address registered)"),
                worker.matched_tokens,
                response.prompt_tokens,
            ),
            None => println!("no worker holds any of it: send to the least loaded"),
        },
        Answer::Unknown { reason } => println!("send to the least loaded: {reason}"),
    }
    Ok(())
}

/// The worker with most matched tokens. Among equals, one whose stream is live; answers come sorted by matched
/// tokens, and a real router would weigh load as well.
fn best(workers: &[WorkerMatch]) -> Option<&WorkerMatch> {
    let most = workers.first().map(|worker| worker.matched_tokens).filter(|tokens| *tokens > 0)?;
    let mut equals = workers.iter().take_while(|worker| worker.matched_tokens == most);
    let is_live =
        |worker: &&WorkerMatch| worker.trust.as_ref().is_some_and(|trust| trust.state() == TrustState::Live);
    equals.clone().find(is_live).or_else(|| equals.next())
}
