//! The server: listens, stops listening and comes back with what it had, and lets a test change the world under it.

use anyhow::Context;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};

use crate::access::Access;
use crate::controllers;
use crate::faults::{Blow, Faults};
use crate::http::{GRACE, service};
use crate::manifest::Manifest;
use crate::objects::{Key, Resource, text};
use crate::status::Refusal;
use crate::store::{Part, Store};

/// Everything that requests and controllers share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) store: Mutex<Store>,
    pub(crate) access: Mutex<Access>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) blows: broadcast::Sender<Blow>,
    pub(crate) requests: AtomicU64,
}

impl World {
    /// Deletes as the API server does: a pod on a node terminates first.
    pub(crate) fn delete(self: &Arc<Self>, key: &Key, grace_s: Option<u64>) -> Result<Arc<Value>, Refusal> {
        let mut store = self.store.lock();
        let bound = store.get(key).is_some_and(|object| !text(object, "/spec/nodeName").is_empty());
        let grace = grace_s.unwrap_or(GRACE.as_secs());
        if key.resource != Resource::Pods || !bound || grace == 0 {
            return store.remove(key);
        }
        let terminating = store.terminate(key, grace)?;
        let (world, key) = (Arc::downgrade(self), key.clone());
        let uid = text(&terminating, "/metadata/uid").to_owned();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(grace)).await;
            let Some(world) = world.upgrade() else { return };
            let mut store = world.store.lock();
            if store.get(&key).is_some_and(|object| text(object, "/metadata/uid") == uid) {
                let _ = store.remove(&key); // it is there
            }
        });
        Ok(terminating)
    }
}

/// A running stand-in. It ends when it is dropped.
#[derive(Debug)]
pub struct Fake {
    world: Arc<World>,
    address: SocketAddr,
    listening: Option<JoinHandle<()>>,
    controllers: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop();
        self.controllers.abort();
    }
}

impl Fake {
    /// Listens; port 0 lets the system choose.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(listen: SocketAddr) -> anyhow::Result<Self> {
        let world = Arc::new(World {
            store: Mutex::new(Store::new()),
            access: Mutex::default(),
            faults: Mutex::default(),
            blows: broadcast::channel(16).0,
            requests: AtomicU64::new(0),
        });
        let controllers = tokio::spawn(controllers::run(Arc::clone(&world)));
        let mut fake = Self { world, address: listen, listening: None, controllers };
        fake.listen().await?;
        Ok(fake)
    }

    /// Listens again where it listened before, with all it had.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn listen(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await;
        let listener = listener.with_context(|| format!("cannot listen on {}", self.address))?;
        self.address = listener.local_addr()?;
        self.listening = Some(tokio::spawn(accept(listener, Arc::clone(&self.world))));
        Ok(())
    }

    /// Stops listening and breaks every connection. What it has stays.
    pub fn stop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.world.requests.load(Ordering::Relaxed)
    }

    /// Changes who may do what.
    pub fn allow(&self, access: Access) {
        *self.world.access.lock() = access;
    }

    /// Changes what goes wrong.
    pub fn fail(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.world.faults.lock());
    }

    /// Breaks every open watch.
    pub fn cut_watches(&self) {
        self.blow(Blow::Cut);
    }

    /// Breaks every open watch in the middle of a line.
    pub fn cut_watches_in_a_line(&self) {
        self.blow(Blow::HalfLine);
    }

    /// Tells every open watch that its version has expired.
    pub fn expire_watches(&self) {
        self.blow(Blow::Expire);
    }

    /// Tells every open watch of an error.
    pub fn fail_watches(&self, code: u16) {
        self.blow(Blow::Error(code));
    }

    fn blow(&self, blow: Blow) {
        // Nobody listens: then nobody watches.
        let _ = self.world.blows.send(blow);
    }

    /// Forgets the changes so far: a watch cannot begin from an earlier version any more.
    pub fn compact(&self) {
        self.world.store.lock().compact();
    }

    /// Puts an object with its status in place, or replaces it, as if controllers and a kubelet had done their work.
    ///
    /// # Panics
    /// Never: what is there is replaced, what is not is created.
    pub fn put(&self, key: &Key, object: Value) {
        let mut store = self.world.store.lock();
        if store.get(key).is_some() {
            drop(store.replace(key, object, Part::All));
        } else {
            drop(store.create(key, object));
        }
    }

    /// Puts a pod in place as a kubelet would run it: what is not said of its status is made up.
    pub fn run(&self, key: &Key, pod: &Value) {
        let known = self.get(key);
        self.put(key, controllers::as_kubelet(key, pod, known.as_ref()));
    }

    /// An object as it is.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Value> {
        self.world.store.lock().get(key).map(|object| (**object).clone())
    }

    /// Deletes an object; a pod on a node terminates for its grace first. Answers whether it was there.
    #[must_use]
    pub fn delete(&self, key: &Key, grace_s: u64) -> bool {
        self.world.delete(key, Some(grace_s)).is_ok()
    }

    /// Makes the world what a manifest says: what it had from the last one and has no more is deleted.
    pub fn apply(&self, manifest: &Manifest, last: &Manifest) {
        for (key, object) in manifest.objects() {
            self.run(key, object);
        }
        for (key, _) in last.objects().filter(|(key, _)| !manifest.has(key)) {
            let _ = self.delete(key, 1);
        }
    }

    /// A kubeconfig that names this server.
    #[must_use]
    pub fn kubeconfig(&self, namespace: &str, token: Option<&str>) -> String {
        let user = token.map_or_else(|| json!({}), |token| json!({"token": token}));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "fake", "user": user}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": namespace}}],
        });
        format!("{config:#}\n")
    }

    /// Writes such a kubeconfig.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path, namespace: &str, token: Option<&str>) -> anyhow::Result<()> {
        std::fs::write(path, self.kubeconfig(namespace, token))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

async fn accept(listener: TcpListener, world: Arc<World>) {
    // Aborted with this task: then every connection breaks.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let answer = service_fn(service(Arc::clone(&world)));
                connections.spawn(async move {
                    // A client that goes away is no failure of this server.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
