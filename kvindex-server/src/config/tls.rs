//! The keys of encryption. Half a configuration is refused: a node that was meant to be encrypted must not start
//! without.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::{Config, ConfigError, RawConfig, Shown, text};
use crate::net::{ClientAuth, Files, Host, Named};

/// Encryption.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default)]
pub struct RawTls {
    /// Certificate of the public port and the metrics, PEM, with what leads to its CA [default: no TLS].
    #[arg(long, value_name = "PATH")]
    pub tls_cert: Option<String>,
    /// Its private key, PEM.
    #[arg(long, value_name = "PATH")]
    pub tls_key: Option<String>,
    /// CA of clients' certificates, PEM; with it clients show one [default: none is asked for].
    #[arg(long, value_name = "PATH")]
    pub tls_client_ca: Option<String>,
    /// Whether clients must show a certificate: require or optional [default: require].
    #[arg(long, value_name = "WORD")]
    pub tls_client_auth: Option<String>,
    /// Certificate of this node for the others, PEM, for servers and clients alike [default: no TLS].
    #[arg(long, value_name = "PATH")]
    pub peer_tls_cert: Option<String>,
    /// Its private key, PEM.
    #[arg(long, value_name = "PATH")]
    pub peer_tls_key: Option<String>,
    /// CA of the nodes' certificates, PEM, and of nobody else's.
    #[arg(long, value_name = "PATH")]
    pub peer_tls_ca: Option<String>,
    /// Name that every node's certificate carries [default: the address by which it is reached].
    #[arg(long, value_name = "NAME")]
    pub peer_tls_name: Option<String>,
}

/// How connections are encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The public port and the metrics; `None` for not.
    pub public: Option<PublicTlsConfig>,
    /// Between nodes; `None` for not.
    pub peer: Option<PeerTlsConfig>,
}

/// Encryption of the public port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicTlsConfig {
    /// Certificate, key, and the CA of clients where they are asked for a certificate.
    pub files: Files,
    /// Whether they must show one.
    pub client_auth: ClientAuth,
}

/// Encryption between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTlsConfig {
    /// Certificate, key and CA.
    pub files: Files,
    /// What every node's certificate carries; `None` for its address.
    pub name: Option<String>,
}

impl Checker<'_> {
    pub(super) fn tls(&self, all: &RawConfig) -> Result<TlsConfig, ConfigError> {
        let raw = &all.tls;
        Ok(TlsConfig { public: self.public_tls(raw)?, peer: self.peer_tls(raw)? })
    }

    fn public_tls(&self, raw: &RawTls) -> Result<Option<PublicTlsConfig>, ConfigError> {
        let cert = given("tls_cert", raw.tls_cert.as_ref());
        let key = given("tls_key", raw.tls_key.as_ref());
        let ca = given("tls_client_ca", raw.tls_client_ca.as_ref());
        let asked = raw.tls_client_auth.as_deref().filter(|word| !word.is_empty());
        let client_auth = self.word("tls_client_auth", asked, &ClientAuth::ALL)?;
        if let (None, Some(word)) = (&ca, asked) {
            let reason = "needs tls_client_ca, by which clients' certificates are checked";
            return Err(self.invalid("tls_client_auth", word, reason));
        }
        match (cert, key) {
            (Some(cert), Some(key)) => {
                Ok(Some(PublicTlsConfig { files: Files { cert, key, ca }, client_auth }))
            }
            (None, None) => match ca {
                None => Ok(None),
                Some(ca) => Err(self.lacks(&ca, "tls_cert and tls_key")),
            },
            (Some(cert), None) => Err(self.lacks(&cert, "tls_key")),
            (None, Some(key)) => Err(self.lacks(&key, "tls_cert")),
        }
    }

    fn peer_tls(&self, raw: &RawTls) -> Result<Option<PeerTlsConfig>, ConfigError> {
        let files = [
            given("peer_tls_cert", raw.peer_tls_cert.as_ref()),
            given("peer_tls_key", raw.peer_tls_key.as_ref()),
            given("peer_tls_ca", raw.peer_tls_ca.as_ref()),
        ];
        let name = raw.peer_tls_name.clone().filter(|name| !name.is_empty());
        let [cert, key, ca] = match files {
            [Some(cert), Some(key), Some(ca)] => [cert, key, ca],
            files => {
                let told = files.into_iter().flatten().next();
                let told = told.or_else(|| name.as_ref().map(|name| Named::new("peer_tls_name", name)));
                return match told {
                    None => Ok(None),
                    Some(told) => Err(self.lacks(
                        &told,
                        "all of peer_tls_cert, peer_tls_key and peer_tls_ca: nodes show each other certificates",
                    )),
                };
            }
        };
        if let Some(name) = &name
            && !matches!(Host::parse(name), Ok(Host::Name(_) | Host::Ip(_)))
        {
            return Err(self.invalid("peer_tls_name", name, "must be a host name or an IP address"));
        }
        Ok(Some(PeerTlsConfig { files: Files { cert, key, ca: Some(ca) }, name }))
    }

    fn lacks(&self, told: &Named, needed: &str) -> ConfigError {
        self.invalid(told.key, &told.path.display().to_string(), &format!("needs {needed}"))
    }
}

fn given(key: &'static str, path: Option<&String>) -> Option<Named> {
    path.filter(|path| !path.is_empty()).map(|path| Named::new(key, path))
}

/// The values in effect.
pub(super) fn shown(config: &Config) -> Shown {
    let (public, peer) = (config.tls.public.as_ref(), config.tls.peer.as_ref());
    let path = |named: Option<&Named>| text(named.map_or_else(String::new, |n| n.path.display().to_string()));
    // Without a CA nobody is asked for a certificate.
    let asked = public.filter(|tls| tls.files.ca.is_some());
    let public_files = public.map(|tls| &tls.files);
    let peer_files = peer.map(|tls| &tls.files);
    vec![
        ("tls_cert", path(public_files.map(|files| &files.cert))),
        ("tls_key", path(public_files.map(|files| &files.key))),
        ("tls_client_ca", path(public_files.and_then(|files| files.ca.as_ref()))),
        ("tls_client_auth", text(asked.map_or("", |tls| tls.client_auth.name()))),
        ("peer_tls_cert", path(peer_files.map(|files| &files.cert))),
        ("peer_tls_key", path(peer_files.map(|files| &files.key))),
        ("peer_tls_ca", path(peer_files.and_then(|files| files.ca.as_ref()))),
        ("peer_tls_name", text(peer.and_then(|tls| tls.name.as_deref()).unwrap_or_default())),
    ]
}
