//! A network inside the process: nodes can be cut off from each other, in either direction.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kvindex_core::replication::{Replica, Transport, TransportError};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Wires {
    replicas: Mutex<BTreeMap<String, Weak<Replica>>>,
    cut: Mutex<BTreeSet<(String, String)>>,
}

impl Wires {
    pub(crate) fn join(&self, address: &str, replica: &Arc<Replica>) {
        self.replicas.lock().insert(address.into(), Arc::downgrade(replica));
    }

    pub(crate) fn leave(&self, address: &str) {
        self.replicas.lock().remove(address);
    }

    /// Nothing goes to or from this node any more.
    pub(crate) fn isolate(&self, address: &str, others: &[&str]) {
        let mut cut = self.cut.lock();
        for other in others {
            cut.insert((address.into(), (*other).into()));
            cut.insert(((*other).into(), address.into()));
        }
    }

    pub(crate) fn heal(&self) {
        self.cut.lock().clear();
    }

    fn find(&self, from: &str, to: &str) -> Option<Arc<Replica>> {
        let cut = self.cut.lock().contains(&(from.into(), to.into()));
        let replica = self.replicas.lock().get(to).and_then(Weak::upgrade);
        replica.filter(|_| !cut)
    }
}

#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) wires: Arc<Wires>,
    pub(crate) own: String,
}

impl Transport for Wire {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        let late = TransportError::Timeout { address: address.into(), after: timeout };
        async move {
            let unreachable =
                || TransportError::Unreachable { address: address.into(), reason: "nobody is there".into() };
            let replica = self.wires.find(&self.own, address).ok_or_else(unreachable)?;
            let answer = tokio::time::timeout(timeout, replica.handle(&request)).await.map_err(|_| late)?;
            // The way back may be cut meanwhile.
            self.wires.find(address, &self.own).ok_or_else(unreachable)?;
            Ok(answer)
        }
        .boxed()
    }
}
