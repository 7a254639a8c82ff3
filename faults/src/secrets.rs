//! What locks the doors of a cluster of processes: certificates of two authorities, made here, and tokens, made by the
//! program itself. Clients of the cluster get what opens them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde::Deserialize;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, ClientTlsConfig};
use tonic::{Request, Status};

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Every right over every tenant.
    Operator,
    /// Asks, about every tenant.
    Router,
    /// Every right over [`TENANT`] alone.
    Tenant,
}

/// The tenant that has a token of its own.
pub const TENANT: &str = "glutton";

impl Role {
    const ALL: [Self; 3] = [Self::Operator, Self::Router, Self::Tenant];

    /// Name, rights and tenants of its token.
    fn entry(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Operator => ("operator", "read,publish,admin", "*"),
            Self::Router => ("router", "read", "*"),
            Self::Tenant => ("tenant", "read,publish,admin", TENANT),
        }
    }
}

/// Who signs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// A certificate and its key for these hosts, for servers and clients alike.
    fn sign(&self, hosts: &[String]) -> anyhow::Result<(String, String)> {
        let mut params = CertificateParams::new(hosts.to_vec())?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

/// Certificates and tokens of one cluster, as files that its nodes read.
pub struct Secrets {
    folder: PathBuf,
    hosts: Vec<String>,
    /// Of the public ports, and of the nodes among themselves.
    authorities: [(&'static str, Authority); 2],
    tokens: Vec<(Role, String)>,
    client: Arc<ClientConfig>,
}

/// What `kvindex token new` prints for programs.
#[derive(Deserialize)]
struct Made {
    token: String,
    entry: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "secrets in {}", self.folder.display())
    }
}

impl Secrets {
    /// Certificates for nodes on these hosts, and a token for each role, in a folder.
    pub(crate) fn make(program: &Path, folder: &Path, hosts: Vec<String>) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let authorities = [("public", Authority::new("clients")?), ("peer", Authority::new("nodes")?)];
        for (door, authority) in &authorities {
            fs::write(folder.join(format!("{door}-ca.pem")), &authority.pem)?;
        }
        let (mut tokens, mut access) = (Vec::new(), String::new());
        for role in Role::ALL {
            let made = token(program, role)?;
            access += &made.entry;
            tokens.push((role, made.token));
        }
        fs::write(folder.join("access.toml"), access)?;
        let client = client_config(&authorities[0].1.pem)?;
        let secrets = Self { folder: folder.to_owned(), hosts, authorities, tokens, client };
        secrets.renew()?;
        Ok(secrets)
    }

    /// Other certificates and keys by the same authorities, in the place of those that are there.
    pub fn renew(&self) -> anyhow::Result<()> {
        for (door, authority) in &self.authorities {
            let (certificate, key) = authority.sign(&self.hosts)?;
            for (what, text) in [("cert", certificate), ("key", key)] {
                let (path, beside) = (self.path(door, what), self.folder.join("new"));
                fs::write(&beside, text)?;
                fs::rename(&beside, &path).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn path(&self, door: &str, what: &str) -> PathBuf {
        self.folder.join(format!("{door}-{what}.pem"))
    }

    /// What a node is started with.
    pub(crate) fn flags(&self) -> Vec<String> {
        let file = |flag: &str, path: PathBuf| [flag.to_owned(), path.display().to_string()];
        let flags = [
            file("--tls-cert", self.path("public", "cert")),
            file("--tls-key", self.path("public", "key")),
            file("--peer-tls-cert", self.path("peer", "cert")),
            file("--peer-tls-key", self.path("peer", "key")),
            file("--peer-tls-ca", self.path("peer", "ca")),
            file("--access-file", self.folder.join("access.toml")),
        ];
        flags.into_iter().flatten().collect()
    }

    /// How a gRPC client checks a node.
    pub(crate) fn grpc(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.authorities[0].1.pem))
    }

    /// How a plain HTTP client does.
    pub(crate) fn http(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// What stands in a role's `authorization` header.
    pub(crate) fn bearer(&self, role: Role) -> anyhow::Result<String> {
        let (_, token) = self.tokens.iter().find(|(of, _)| *of == role).context("the role has no token")?;
        Ok(format!("Bearer {token}"))
    }
}

fn token(program: &Path, role: Role) -> anyhow::Result<Made> {
    let (name, rights, tenants) = role.entry();
    let mut command = Command::new(program);
    command.args(["token", "new", "--name", name, "--rights", rights, "--tenants", tenants]);
    let done = command.args(["--output", "json"]).output().context("kvindex token new")?;
    ensure!(done.status.success(), "kvindex token new: {}", String::from_utf8_lossy(&done.stderr).trim());
    serde_json::from_slice(&done.stdout).context("what kvindex token new prints")
}

fn client_config(ca: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Puts a token on every call, if there is one.
#[derive(Debug, Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    pub(crate) fn new(header: &str) -> anyhow::Result<Self> {
        let mut value: MetadataValue<Ascii> = header.parse().context("the token")?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}
