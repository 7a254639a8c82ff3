//! The way to a real node, which can be cut, held or slowed: what a client meets when a machine fails.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the way does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// What the node says comes so much later.
    Slow(Duration),
    /// Connections are taken and held, and nothing comes: as of a process that is stopped.
    Held,
    /// Connections are closed, and new ones refused: as of a process that was killed.
    Cut,
}

/// A port that leads to a node.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    way: watch::Sender<Way>,
}

impl Link {
    pub(crate) async fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, changes) = watch::channel(Way::Open);
        tokio::spawn(listen(listener, node, changes));
        Self { address, way }
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn listen(mut listener: TcpListener, node: SocketAddr, mut way: watch::Receiver<Way>) {
    let address = listener.local_addr().unwrap();
    loop {
        if *way.borrow_and_update() == Way::Cut {
            drop(listener);
            if way.wait_for(|way| *way != Way::Cut).await.is_err() {
                return;
            }
            listener = TcpListener::bind(address).await.unwrap();
        }
        tokio::select! {
            accepted = listener.accept() => {
                let (near, _) = accepted.unwrap();
                let mut cut = way.clone();
                let way = way.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = carry(near, node, way) => {}
                        _ = cut.wait_for(|way| *way == Way::Cut) => {}
                    }
                });
            }
            changed = way.changed() => if changed.is_err() { return },
        }
    }
}

async fn carry(mut near: TcpStream, node: SocketAddr, mut way: watch::Receiver<Way>) {
    let Ok(mut far) = TcpStream::connect(node).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.split(), far.split());
    let back = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_far.read(&mut bytes).await {
            let now = *way.borrow_and_update();
            match now {
                Way::Slow(by) => tokio::time::sleep(by).await,
                Way::Held if way.wait_for(|way| *way != Way::Held).await.is_err() => return,
                _ => {}
            }
            if to_near.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    // Whichever side ends, ends both.
    tokio::select! {
        _ = tokio::io::copy(&mut from_near, &mut to_far) => {}
        () = back => {}
    }
}
