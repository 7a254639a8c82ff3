//! What makes nodes a cluster. So far: the link between them, one call of bytes to bytes over one HTTP/2
//! connection a peer. What the bytes say is decided elsewhere.

mod link;
mod link_socket;
mod service;
mod transport;

pub use link::LinkSettings;
pub use service::{Door, PeerHandler, serve_peers};
pub use transport::GrpcTransport;

#[cfg(test)]
mod link_test;
#[cfg(test)]
mod transport_test;
