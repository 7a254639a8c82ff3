//! What a shard answers to raft's own messages.

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use openraft::storage::Snapshot;

use super::container::unpack;
use super::ids::ShardId;
use super::progress::Progress;
use super::raft::{LogId, Raft, Vote};
use super::state::ShardState;
use super::wire::{Request, Response, WireVote};

type Group = openraft::Raft<Raft, ShardState>;

/// Append, vote and transfer.
pub(crate) async fn raft(group: &Group, progress: &Progress, request: Request) -> Response {
    match request {
        Request::Append { vote, previous, entries, commit } => {
            let (vote, commit): (Vote, Option<LogId>) = (vote.into(), commit.map(Into::into));
            // Until then a new leader does not know what earlier ones have committed.
            let knows = commit.is_some_and(|at| at.leader_id.term == vote.leader_id.term);
            let rpc = AppendEntriesRequest {
                vote,
                prev_log_id: previous.map(Into::into),
                entries: entries.into_iter().map(Into::into).collect(),
                leader_commit: commit,
            };
            match group.append_entries(rpc).await {
                Ok(answer) => {
                    let answer: Response = answer.into();
                    if knows && !matches!(answer, Response::HigherVote(_)) {
                        progress.heard(commit.map(|at| at.index));
                    }
                    answer
                }
                Err(error) => Response::Failed(error.to_string()),
            }
        }
        Request::Vote { vote, last, transfer, trial } => {
            let mut rpc = VoteRequest::new(vote.into(), last.map(Into::into));
            rpc.leadership_transfer = transfer;
            let answer = if trial { group.pre_vote(rpc).await } else { group.vote(rpc).await };
            answer.map_or_else(|error| Response::Failed(error.to_string()), Into::into)
        }
        Request::Transfer { vote, to, last } => {
            let rpc = TransferLeaderRequest::new(vote.into(), to, last.map(Into::into));
            match group.handle_transfer_leader(rpc).await {
                Ok(Ok(())) => Response::Transferring,
                Ok(Err(refused)) => Response::Failed(refused.to_string()),
                Err(fatal) => Response::Failed(fatal.to_string()),
            }
        }
        _ => Response::Failed("another kind of request".into()),
    }
}

/// A snapshot that is complete.
pub(crate) async fn snapshot(group: &Group, shard: ShardId, vote: WireVote, bytes: Bytes) -> Response {
    let meta = match unpack(shard, &bytes) {
        Ok((meta, _)) => meta,
        Err(error) => return Response::Failed(format!("the snapshot cannot be used: {error}")),
    };
    match group.install_full_snapshot(vote.into(), Snapshot { meta, snapshot: bytes }).await {
        Ok(answer) => Response::SnapshotTaken(Some((&answer.vote).into())),
        Err(fatal) => Response::Failed(fatal.to_string()),
    }
}
