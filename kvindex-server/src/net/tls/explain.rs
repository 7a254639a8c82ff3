//! TLS errors in words that say what to look at. rustls names what went wrong, not what to do about it.

use std::error::Error;
use std::io;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, InvalidMessage};

/// What to look at, if the error comes from TLS: the error itself and all that caused it are searched.
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
        // An io::Error's source is its content's source: the content itself would be left out.
        next = inner.or_else(|| error.source());
    }
    by_text(&texts)
}

fn words(error: &rustls::Error) -> String {
    use AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(error) => certificate(error),
        rustls::Error::NoCertificatesPresented => "it showed no certificate, and one is demanded here".into(),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS there".into()
        }
        rustls::Error::AlertReceived(Alert::CertificateRequired) => "it demands a client certificate".into(),
        rustls::Error::AlertReceived(Alert::UnknownCA) => {
            "it refuses our certificate: not signed by the CA it trusts".into()
        }
        rustls::Error::AlertReceived(Alert::CertificateExpired) => {
            "it says that our certificate expired".into()
        }
        rustls::Error::AlertReceived(
            Alert::BadCertificate | Alert::CertificateUnknown | Alert::UnsupportedCertificate,
        ) => format!("it refuses our certificate ({error})"),
        rustls::Error::AlertReceived(Alert::HandshakeFailure | Alert::ProtocolVersion) => {
            format!("no TLS version or cipher in common ({error})")
        }
        other => format!("TLS: {other}"),
    }
}

/// HTTP/2's errors keep only the text of what broke their connection.
fn by_text(texts: &str) -> Option<String> {
    if texts.contains("minimum requirements") {
        return Some("it speaks TLS there: set peer_tls_cert, peer_tls_key and peer_tls_ca".into());
    }
    let alerts = [
        ("CertificateRequired", AlertDescription::CertificateRequired),
        ("UnknownCA", AlertDescription::UnknownCA),
        ("CertificateExpired", AlertDescription::CertificateExpired),
        ("BadCertificate", AlertDescription::BadCertificate),
    ];
    let found = alerts.iter().find(|(word, _)| texts.contains(&format!("fatal alert: {word}")));
    found.map(|(_, alert)| words(&rustls::Error::AlertReceived(*alert)))
}

fn certificate(error: &CertificateError) -> String {
    use CertificateError as Bad;
    match error {
        Bad::UnknownIssuer => "its certificate is not signed by the CA that is trusted here".into(),
        Bad::Expired | Bad::ExpiredContext { .. } => format!("its certificate expired ({error})"),
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            format!("its certificate is not valid yet, are the clocks right? ({error})")
        }
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            format!("its certificate is for another name ({error})")
        }
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            format!(
                "its certificate is not for this use: servers need serverAuth, clients clientAuth ({error})"
            )
        }
        other => format!("its certificate is refused: {other}"),
    }
}
