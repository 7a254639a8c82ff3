//! A shard's way to the same shard on other nodes.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, v2::RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::envelope::{Envelope, ReplyError};
use super::ids::{NodeAddress, NodeId};
use super::promises::Promises;
use super::raft::{LogId, Raft, StoredMembership, Vote};
use super::state::ShardSnapshot;
use super::transport::{Transport, TransportError};
use super::wire::{Request, Response};

/// Bytes of a snapshot in one request.
const SNAPSHOT_PART: usize = 1 << 20;

/// Who speaks, and through what.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) envelope: Envelope,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) transfers: Arc<AtomicU64>,
    /// Where nodes are, by the last membership that was applied: a link outlives its node's moves.
    pub(crate) addresses: Addresses,
    promises: Promises,
}

/// Addresses of a shard's members, kept by its state machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses(Arc<Mutex<BTreeMap<NodeId, String>>>);

impl Addresses {
    pub(crate) fn learn(&self, members: &StoredMembership) {
        let known = members.nodes().map(|(node, address)| (*node, address.peer.clone()));
        *self.0.lock() = known.collect();
    }

    fn of(&self, node: NodeId) -> Option<String> {
        self.0.lock().get(&node).cloned()
    }
}

impl Network {
    pub(crate) fn new(envelope: Envelope, transport: Arc<dyn Transport>, addresses: Addresses) -> Self {
        Self { envelope, transport, transfers: Arc::default(), addresses, promises: Promises::default() }
    }

    pub(crate) fn to(&self, target: NodeId, address: &NodeAddress) -> PeerLink {
        PeerLink { network: self.clone(), target, address: address.peer.clone() }
    }
}

/// Why a peer gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Reply(#[from] ReplyError),
    #[error("an answer of another kind came")]
    Kind,
    #[error("it lacks entries that it had acknowledged, up to {0}; it has to join anew")]
    WentBack(LogId),
}

/// The same shard on one other node.
#[derive(Debug, Clone)]
pub(crate) struct PeerLink {
    network: Network,
    target: NodeId,
    /// Where it was when the link was made.
    address: String,
}

impl PeerLink {
    pub(crate) async fn call(&self, request: &Request, timeout: Duration) -> Result<Response, CallError> {
        let bytes = self.network.envelope.request(self.target, request);
        let moved = self.network.addresses.of(self.target);
        let address = moved.as_ref().unwrap_or(&self.address);
        let answer = self.network.transport.call(address, bytes, timeout).await?;
        Ok(Envelope::response(&answer)?)
    }

    async fn rpc<T>(
        &self,
        request: &Request,
        kind: RPCTypes,
        option: &RPCOption,
        read: impl FnOnce(Response) -> Option<T>,
    ) -> Result<T, RPCError<Raft>> {
        let timeout = option.hard_ttl();
        let answer = self.call(request, timeout).await;
        match answer.and_then(|response| read(response).ok_or(CallError::Kind)) {
            Ok(answer) => Ok(answer),
            Err(CallError::Transport(TransportError::Timeout { .. })) => Err(RPCError::Timeout(Timeout {
                action: kind,
                id: self.network.envelope.from,
                target: self.target,
                timeout,
            })),
            Err(error) => Err(RPCError::Unreachable(Unreachable::new(&error))),
        }
    }

    /// Tells a follower that it has lost what it acknowledged. openraft hears of a node that cannot be reached: it
    /// takes the answer itself for impossible.
    async fn refuse_who_went_back(&self, promised: LogId, timeout: Duration) -> RPCError<Raft> {
        let told = self.call(&Request::WentBack { had: promised.into() }, timeout).await;
        let told = told.map(|_| "it knows").unwrap_or("it could not be told");
        let error = CallError::WentBack(promised);
        let shard = self.network.envelope.shard;
        tracing::error!(%shard, node = %self.target, %error, told, "a follower's log went back");
        RPCError::Unreachable(Unreachable::new(&error))
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: Bytes, timeout: Duration) -> Result<Vote, CallError> {
        let transfer = self.network.transfers.fetch_add(1, Ordering::Relaxed);
        let total = snapshot.len() as u64;
        let mut offset = 0;
        loop {
            let end = (offset + SNAPSHOT_PART).min(snapshot.len());
            let part = snapshot.slice(offset..end);
            let request =
                Request::Snapshot { vote: (&vote).into(), transfer, offset: offset as u64, total, part };
            match self.call(&request, timeout).await? {
                Response::SnapshotTaken(None) if end < snapshot.len() => offset = end,
                Response::SnapshotTaken(Some(vote)) => return Ok(vote.into()),
                // The receiver restarted, or heard of another transfer meanwhile: openraft asks again later.
                _ => return Err(CallError::Kind),
            }
        }
    }
}

impl RaftNetworkFactory<Raft> for Network {
    type Network = PeerLink;

    async fn new_client(&mut self, target: NodeId, node: &NodeAddress) -> PeerLink {
        self.to(target, node)
    }
}

impl RaftNetworkV2<Raft> for PeerLink {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Raft>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Raft>, RPCError<Raft>> {
        let (vote, previous) = (rpc.vote, rpc.prev_log_id);
        let end = rpc.entries.last().map(|entry| entry.log_id).or(previous);
        // Asked before the request is sent: what is acknowledged meanwhile says nothing about the state it finds.
        let promised = self.network.promises.of(self.target, &vote);
        let answer = self.rpc(&rpc.into(), RPCTypes::AppendEntries, &option, Response::into_append).await?;
        match &answer {
            AppendEntriesResponse::Success => self.network.promises.note(self.target, &vote, end),
            AppendEntriesResponse::PartialSuccess(at) => {
                self.network.promises.note(self.target, &vote, *at);
            }
            AppendEntriesResponse::Conflict => {
                if let Some(promised) = promised.filter(|promised| previous <= Some(*promised)) {
                    return Err(self.refuse_who_went_back(promised, option.hard_ttl()).await);
                }
            }
            AppendEntriesResponse::HigherVote(_) => {}
        }
        Ok(answer)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Raft>,
        option: RPCOption,
    ) -> Result<VoteResponse<Raft>, RPCError<Raft>> {
        self.rpc(&Request::vote(&rpc, false), RPCTypes::Vote, &option, Response::into_vote).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Raft>,
        option: RPCOption,
    ) -> Result<VoteResponse<Raft>, RPCError<Raft>> {
        self.rpc(&Request::vote(&rpc, true), RPCTypes::Vote, &option, Response::into_vote).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: ShardSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Raft>, StreamingError<Raft>> {
        let last = snapshot.meta.last_log_id;
        let sending = self.send_snapshot(vote, snapshot.snapshot, option.hard_ttl()).boxed();
        match select(sending, cancel.boxed()).await {
            Either::Left((Ok(answered), _)) => {
                if answered == vote {
                    self.network.promises.note(self.target, &vote, last);
                }
                Ok(SnapshotResponse::new(answered))
            }
            Either::Left((Err(error), _)) => Err(StreamingError::Network(NetworkError::new(&error))),
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Raft>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Raft>, RPCError<Raft>> {
        let request = Request::Transfer {
            vote: rpc.from_leader().into(),
            to: *rpc.to_node_id(),
            last: rpc.last_log_id().copied().map(Into::into),
        };
        let read = |response| matches!(response, Response::Transferring).then_some(Ok(()));
        self.rpc(&request, RPCTypes::TransferLeader, &option, read).await
    }
}
