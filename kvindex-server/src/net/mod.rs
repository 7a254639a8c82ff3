//! The network: how addresses are written, listened on and dialled, what each door does before the first request, and
//! how other nodes are reached. It knows HTTP and TLS, and nothing of what is served.

mod address;
mod answer;
mod dial;
mod door;
mod first;
mod gate;
mod listen;
mod metrics;
mod own;
mod path;
mod socket;
mod tls;

#[cfg(test)]
#[path = "../../tests/it/certificates.rs"]
mod certificates;

pub use address::{AddressError, Host, HostPort, Reach, canonical};
pub(crate) use answer::and_before;
pub(crate) use dial::{DialError, dial, race, resolve};
pub use door::Connected;
pub(crate) use door::{Door, Lock, Patience, is_known, serve};
pub(crate) use first::{First, look, send_away};
pub(crate) use gate::{Gate, Pass};
pub use listen::listen;
pub use metrics::NetMetrics;
pub use own::{IpFamily, own_address, told};
pub use path::{Path, PathState, Signal};
pub(crate) use socket::tune_peer;
pub use tls::{ClientAuth, Files, Named, PeerTls, TlsError, examine_certificates};
pub(crate) use tls::{PublicTls, explained};
