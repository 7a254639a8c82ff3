//! Encryption of the connection to a node: what checks the node's certificate, what this client shows, and errors that
//! say what to look at.

use std::error::Error;
use std::fmt;
use std::io;

use tokio_rustls::rustls::{self, AlertDescription, CertificateError, InvalidMessage};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, Uri};

/// What a client brings to a handshake.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) server_name: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key must not end in a log.
        f.debug_struct("Tls")
            .field("ca", &self.ca.is_some())
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

impl Tls {
    pub(crate) fn is_unset(&self) -> bool {
        *self == Self::default()
    }

    /// For an `https` address; the error says what is missing.
    pub(crate) fn config(&self, uri: &Uri) -> Result<ClientTlsConfig, String> {
        let ca = self.ca.as_ref().ok_or("https needs the CA that signed the node's certificate")?;
        // An IPv6 address stands in brackets in a URI and without them in a certificate.
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = self.server_name.as_deref().unwrap_or(host);
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(name);
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        Ok(config)
    }
}

/// What to look at, if the error or one of its causes comes from TLS.
pub(crate) fn explained(error: &(dyn Error + 'static)) -> Option<String> {
    let (mut next, mut texts) = (Some(error), String::new());
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.map(|inner| inner as &(dyn Error + 'static));
        let tls = error.downcast_ref().or_else(|| inner.and_then(|inner| inner.downcast_ref()));
        if let Some(tls) = tls {
            return Some(words(tls));
        }
        texts.push_str(&error.to_string());
        next = inner.or_else(|| error.source());
    }
    by_text(&texts)
}

fn words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "the node's certificate is not signed by this CA".into(),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => format!("the node's certificate expired ({error})"),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("the node's certificate is for another name ({error})"),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the node does not speak TLS there: use http://".into()
        }
        rustls::Error::AlertReceived(alert) => {
            of_alert(*alert).unwrap_or_else(|| format!("the node ends the TLS handshake: {error}"))
        }
        other => format!("TLS: {other}"),
    }
}

fn of_alert(alert: AlertDescription) -> Option<String> {
    let text = match alert {
        AlertDescription::CertificateRequired => "the node demands a client certificate",
        AlertDescription::UnknownCA => "the node does not trust the CA of the client certificate",
        AlertDescription::CertificateExpired => "the node says that the client certificate expired",
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "the node refuses the client certificate"
        }
        _ => return None,
    };
    Some(text.into())
}

/// HTTP/2's errors keep only the text of what broke their connection.
fn by_text(texts: &str) -> Option<String> {
    let alerts = [
        ("CertificateRequired", AlertDescription::CertificateRequired),
        ("UnknownCA", AlertDescription::UnknownCA),
        ("CertificateExpired", AlertDescription::CertificateExpired),
        ("BadCertificate", AlertDescription::BadCertificate),
    ];
    // HTTP/2's word for a connection that should have been encrypted.
    if texts.contains("minimum requirements") {
        return Some("the node speaks TLS there: use https://".into());
    }
    // All three are one and the same: which it is depends on who writes when the other is gone.
    if ["connection closed", "broken pipe", "connection reset"].iter().any(|end| texts.contains(end)) {
        // Either side may see the end before the reason: TLS 1.3 refuses a certificate when the client thinks that it is
        // connected, and HTTP drops what was said last.
        let why = "the node may have stopped, speak TLS (use https://), or demand another client certificate";
        return Some(format!("connection closed; {why}"));
    }
    let found = alerts.iter().find(|(word, _)| texts.contains(&format!("fatal alert: {word}")));
    found.and_then(|(_, alert)| of_alert(*alert))
}
