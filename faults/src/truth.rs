//! The nodes' answers beside the engines' own, at the end of a row: asked and judged exactly as the demo does.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kvindex_client::v1;
use kvindex_client::v1::query_service_client::QueryServiceClient;
use kvindex_faults::cluster::Channel;
use kvindex_recording::{Bar, Checkpoint, Header};
use tonic::Code;

use crate::ask;
use crate::tally::{Compared, Tally};
use crate::verdict::Verdict;

/// How long a busy node may go on refusing, and between two tries.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(50);
const QUESTIONS_A_CALL: usize = 100;
/// A batch of answers is larger than the 4 MiB that gRPC clients take by default.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Asks a node everything that a checkpoint knows the answers to.
pub(crate) async fn compare(
    node: Channel,
    header: &Header,
    checkpoint: &Checkpoint,
) -> anyhow::Result<Verdict> {
    let mut client = QueryServiceClient::new(node).max_decoding_message_size(MAX_ANSWER_BYTES);
    let mut tally = Tally::default();
    let queries = checkpoint.queries.iter().enumerate();
    let questions: Vec<_> = queries.flat_map(|(place, query)| ask::questions(header, place, query)).collect();
    let mut questions = questions.into_iter().peekable();
    while questions.peek().is_some() {
        let some: Vec<_> = questions.by_ref().take(QUESTIONS_A_CALL).collect();
        let requests: Vec<_> = some.iter().filter_map(|question| question.request.clone()).collect();
        let asked = requests.len();
        let results = asked_until_taken(&mut client, v1::MatchBatchRequest { requests }).await?.results;
        if results.len() != asked || results.iter().any(|result| result.response.is_none()) {
            bail!("the node refused a question");
        }
        let mut answers = results.into_iter().filter_map(|result| result.response);
        for question in some {
            let answer = question.request.as_ref().and_then(|_| answers.next());
            count(header, checkpoint, &question, answer.as_ref(), &mut tally);
        }
    }
    Ok(Verdict::of(&tally, Bar::of(&header.case)))
}

/// A node that has no time says so at once, and is asked again.
async fn asked_until_taken(
    client: &mut QueryServiceClient<Channel>,
    batch: v1::MatchBatchRequest,
) -> anyhow::Result<v1::MatchBatchResponse> {
    let began = Instant::now();
    loop {
        match client.match_batch(batch.clone()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if status.code() == Code::ResourceExhausted && began.elapsed() < PATIENCE => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(status) => return Err(status).context("match batch"),
        }
    }
}

fn count(
    header: &Header,
    checkpoint: &Checkpoint,
    question: &ask::Question,
    answer: Option<&v1::MatchResponse>,
    tally: &mut Tally,
) {
    let Some(query) = checkpoint.queries.get(question.query) else { return };
    for index in &question.engines {
        let (Some(engine), Some(own)) = (header.engines.get(*index), query.engines.get(*index)) else {
            continue;
        };
        tally.count(Compared {
            way: question.way,
            checkpoint: checkpoint.checkpoint.to_string(),
            query: question.query,
            worker: engine.name.clone(),
            engine: question.way.own_tokens(own, engine),
            node: ask::said_of(answer, &engine.name),
        });
    }
}
