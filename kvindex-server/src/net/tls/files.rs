//! Certificates, keys and CAs as they lie in files: read whole, taken apart, and refused with the file's key and path
//! in the message.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use xxhash_rust::xxh3::Xxh3;

/// A file that a key of the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The key.
    pub key: &'static str,
    /// The path.
    pub path: PathBuf,
}

/// Why certificates cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {}: {reason}", path.display())]
pub struct TlsError {
    /// The key that names the file.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// A certificate with its key, and the CA that the other end's certificate must be signed by, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, with what leads to its CA.
    pub cert: Named,
    /// Its key.
    pub key: Named,
    /// The CA of the other end.
    pub ca: Option<Named>,
}

/// What is in the files.
#[derive(Debug)]
pub(super) struct Contents {
    cert: (Named, Vec<u8>),
    key: (Named, Vec<u8>),
    ca: Option<(Named, Vec<u8>)>,
}

/// The files taken apart.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) roots: Option<RootCertStore>,
    /// When the certificate ends, in seconds since 1970.
    pub(super) ends: i64,
}

impl Named {
    /// A file and the key that names it.
    #[must_use]
    pub fn new(key: &'static str, path: impl AsRef<Path>) -> Self {
        Self { key, path: path.as_ref().to_owned() }
    }

    pub(super) fn wrong(&self, reason: impl Into<String>) -> TlsError {
        TlsError { key: self.key, path: self.path.clone(), reason: reason.into() }
    }

    fn read(&self) -> Result<(Self, Vec<u8>), TlsError> {
        let bytes =
            std::fs::read(&self.path).map_err(|error| self.wrong(format!("cannot read it: {error}")))?;
        Ok((self.clone(), bytes))
    }
}

impl Files {
    /// Reads all of them.
    pub(super) fn read(&self) -> Result<Contents, TlsError> {
        Ok(Contents {
            cert: self.cert.read()?,
            key: self.key.read()?,
            ca: self.ca.as_ref().map(Named::read).transpose()?,
        })
    }
}

impl Contents {
    /// Equal for equal contents: modification times change without them, and symbolic links the other way round.
    pub(super) fn digest(&self) -> u64 {
        let mut hash = Xxh3::new();
        for (_, bytes) in [Some(&self.cert), Some(&self.key), self.ca.as_ref()].into_iter().flatten() {
            hash.update(&bytes.len().to_le_bytes());
            hash.update(bytes);
        }
        hash.digest()
    }

    pub(super) fn material(&self) -> Result<Material, TlsError> {
        let (file, bytes) = &self.cert;
        let chain = certificates(file, bytes)?;
        let ends = check_time(file, &chain)?;
        let (file, bytes) = &self.key;
        let key = PrivateKeyDer::from_pem_slice(bytes)
            .map_err(|_| file.wrong("holds no private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)"))?;
        let roots = self.ca.as_ref().map(|(file, bytes)| roots(file, bytes)).transpose()?;
        Ok(Material { chain, key, roots, ends })
    }

    pub(super) fn cert_file(&self) -> &Named {
        &self.cert.0
    }

    pub(super) fn ca_file(&self) -> &Named {
        self.ca.as_ref().map_or(&self.cert.0, |(file, _)| file)
    }
}

fn certificates(file: &Named, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(file.wrong("holds no certificate in PEM")),
        Err(error) => Err(file.wrong(format!("is no PEM: {error}"))),
    }
}

/// The end of the certificate, which must be now or later, and its beginning earlier.
fn check_time(file: &Named, chain: &[CertificateDer<'_>]) -> Result<i64, TlsError> {
    let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| file.wrong(format!("holds no certificate: {error}")))?;
    let valid = leaf.validity();
    let (begins, ends) = (valid.not_before, valid.not_after);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if ends.timestamp() < now {
        return Err(file.wrong(format!("the certificate expired on {ends}")));
    }
    if begins.timestamp() > now {
        return Err(file.wrong(format!("the certificate is valid from {begins} on; is the clock right?")));
    }
    Ok(ends.timestamp())
}

fn roots(file: &Named, bytes: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, bytes)? {
        roots.add(certificate).map_err(|error| file.wrong(format!("is no CA certificate: {error}")))?;
    }
    Ok(roots)
}
