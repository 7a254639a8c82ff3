//! TLS on all doors, by rustls: the public port and the metrics with a certificate of the server and, if wanted, of
//! the client; the peer port always with both. Certificates are reloaded while the node runs.

mod explain;
mod files;
mod reload;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::address::HostPort;
use super::metrics::NetMetrics;
use crate::config::TlsConfig;
pub(crate) use explain::explained;
use files::{Contents, Material};
pub use files::{Files, Named, TlsError};
use reload::Kept;

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They must.
    #[default]
    Require,
    /// One that is shown is checked.
    Optional,
}

impl ClientAuth {
    /// Each with its word in a configuration; the default first.
    pub const ALL: [(&'static str, Self); 2] = [("require", Self::Require), ("optional", Self::Optional)];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::Optional => "optional",
        }
    }
}

/// The first byte of every TLS connection: a handshake record.
pub(crate) const HANDSHAKE: u8 = 0x16;

/// What HTTP versions are spoken, best first.
const PUBLIC_ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
const PEER_ALPN: [&[u8]; 1] = [b"h2"];

fn provider() -> Arc<CryptoProvider> {
    // Named here and not the process's default: another library may set that.
    Arc::new(ring::default_provider())
}

/// Reads the certificates of each kind of door that has some, as a node does when it starts; answers when each ends.
#[must_use]
pub fn examine_certificates(config: &TlsConfig) -> Vec<(&'static str, Result<SystemTime, TlsError>)> {
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let public = config.public.as_ref().map(|tls| {
        let ends = tls.files.read().and_then(|contents| doors(&contents, tls.client_auth));
        ("public", ends.map(|(_, ends)| time(ends)))
    });
    let peer = config.peer.as_ref().map(|tls| {
        let ends = tls.files.read().and_then(|contents| ends(&contents));
        ("peer", ends.map(|(_, ends)| time(ends)))
    });
    public.into_iter().chain(peer).collect()
}

/// The public port's side, and the metrics'.
#[derive(Debug, Clone)]
pub(crate) struct PublicTls(Arc<Kept<Doors>>);

#[derive(Debug)]
struct Doors {
    public: Arc<ServerConfig>,
    metrics: Arc<ServerConfig>,
}

impl PublicTls {
    /// Reads the files, and looks at them again until `stopping`.
    pub(crate) fn load(
        files: &Files,
        auth: ClientAuth,
        metrics: &NetMetrics,
        stopping: watch::Receiver<bool>,
    ) -> Result<Self, TlsError> {
        let kept = Kept::load("public", files, metrics, move |contents| doors(contents, auth))?;
        kept.watch(stopping);
        Ok(Self(kept))
    }

    /// For the next connection to the public port.
    pub(crate) fn public(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.current().public))
    }

    /// For the next connection to the metrics' port, which never demands a certificate: who probes a node or reads
    /// its metrics often has none.
    pub(crate) fn metrics(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.current().metrics))
    }
}

fn doors(contents: &Contents, auth: ClientAuth) -> Result<(Doors, i64), TlsError> {
    let material = contents.material()?;
    let public = server_config(contents, &material, auth, &PUBLIC_ALPN)?;
    let metrics = server_config(contents, &material, ClientAuth::Optional, &PUBLIC_ALPN)?;
    Ok((Doors { public, metrics }, material.ends))
}

fn server_config(
    contents: &Contents,
    material: &Material,
    auth: ClientAuth,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| contents.cert_file().wrong(error.to_string()))?;
    let builder = match &material.roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider());
            let verifier = match auth {
                ClientAuth::Require => verifier,
                ClientAuth::Optional => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|error| contents.ca_file().wrong(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(material.chain.clone(), material.key.clone_key())
        .map_err(|error| contents.cert_file().wrong(bad_pair(&error)))?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

fn bad_pair(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "the private key is not this certificate's".into(),
        other => format!("the certificate and its key cannot be used: {other}"),
    }
}

/// Both sides of links between nodes.
#[derive(Debug, Clone)]
pub struct PeerTls {
    kept: Arc<Kept<Ends>>,
    /// The name that every peer's certificate carries, instead of its address.
    name: Option<ServerName<'static>>,
}

#[derive(Debug)]
struct Ends {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl PeerTls {
    /// Reads the files, and looks at them again until `stopping`.
    pub(crate) fn load(
        files: &Files,
        name: Option<&str>,
        metrics: &NetMetrics,
        stopping: watch::Receiver<bool>,
    ) -> Result<Self, TlsError> {
        let name = name.map(server_name).transpose()?;
        let kept = Kept::load("peer", files, metrics, ends)?;
        kept.watch(stopping);
        Ok(Self { kept, name })
    }

    /// Encrypts a connection that this node made, and checks that `address`, or the name that all peers share, is
    /// whom it reached.
    pub(crate) async fn connect(
        &self,
        address: &str,
        stream: TcpStream,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                name_of(address).ok_or_else(|| io::Error::other(format!("{address} has no name to check")))?
            }
        };
        let connector = TlsConnector::from(Arc::clone(&self.kept.current().client));
        connector.connect(name, stream).await
    }

    /// Encrypts a connection that another node made, and checks its certificate.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.kept.current().server));
        let stream = acceptor.accept(stream).await?;
        if let Some(name) = &self.name {
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            check_name(shown, name).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        Ok(stream)
    }
}

fn ends(contents: &Contents) -> Result<(Ends, i64), TlsError> {
    let material = contents.material()?;
    let server = server_config(contents, &material, ClientAuth::Require, &PEER_ALPN)?;
    let roots = material.roots.clone().unwrap_or_else(rustls::RootCertStore::empty);
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| contents.cert_file().wrong(error.to_string()))?;
    let mut client = builder
        .with_root_certificates(roots)
        .with_client_auth_cert(material.chain.clone(), material.key.clone_key())
        .map_err(|error| contents.cert_file().wrong(bad_pair(&error)))?;
    client.alpn_protocols = PEER_ALPN.iter().map(|protocol| protocol.to_vec()).collect();
    Ok((Ends { server, client: Arc::new(client) }, material.ends))
}

/// A name that a certificate can carry: a host name may have an underscore and this may not.
fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    let wrong = |error: InvalidDnsNameError| Named::new("peer_tls_name", name).wrong(error.to_string());
    ServerName::try_from(name.to_owned()).map_err(wrong)
}

/// What the certificate at `address` must carry: the host without brackets, interface or the dot at the end.
fn name_of(address: &str) -> Option<ServerName<'static>> {
    let host = HostPort::parse(address).ok()?.host;
    let text = host.ip().map_or_else(|| host.to_look_up(), |ip| ip.to_string());
    ServerName::try_from(text.trim_end_matches('.').to_owned()).ok()
}

fn check_name(shown: Option<&CertificateDer<'_>>, name: &ServerName<'_>) -> Result<(), rustls::Error> {
    let shown = shown.ok_or(rustls::Error::NoCertificatesPresented)?;
    verify_server_name(&ParsedCertificate::try_from(shown)?, name)
}

#[cfg(test)]
#[path = "tls_test.rs"]
mod tests;
