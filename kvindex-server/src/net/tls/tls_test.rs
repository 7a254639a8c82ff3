//! Real handshakes over loopback: who is let in, what is said to those who are not, and certificates that change.
#![allow(clippy::unwrap_used)]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::reload::Look;
use super::*;
use crate::net::certificates::{Authority, Files as Folder, Signed};

fn files(folder: &Folder, with_ca: bool) -> Files {
    Files {
        cert: Named::new("tls_cert", folder.path("cert.pem")),
        key: Named::new("tls_key", folder.path("key.pem")),
        ca: with_ca.then(|| Named::new("tls_client_ca", folder.path("ca.pem"))),
    }
}

fn never() -> watch::Receiver<bool> {
    // Kept for ever: a dropped sender ends what waits for it.
    Box::leak(Box::new(watch::channel(false).0)).subscribe()
}

fn public(folder: &Folder, auth: Option<ClientAuth>) -> Result<PublicTls, TlsError> {
    let auth_or = auth.unwrap_or_default();
    PublicTls::load(&files(folder, auth.is_some()), auth_or, &NetMetrics::default(), never())
}

fn peer(folder: &Folder, name: Option<&str>) -> PeerTls {
    PeerTls::load(&files(folder, true), name, &NetMetrics::default(), never()).unwrap()
}

/// A client that trusts `ca` and shows `identity`.
fn client(ca: &Authority, identity: Option<&Signed>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.unwrap().with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(signed) => {
            let chain = vec![CertificateDer::from_pem_slice(signed.cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

/// One byte there and one back: only then has a TLS 1.3 client heard whether its certificate was taken.
async fn there_and_back(
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    name: &str,
) -> (Result<(), String>, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let said = |error: io::Error| explained(&error).unwrap_or_else(|| error.to_string());
    let serves = async {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.shutdown().await
    };
    let asks = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = connector.connect(name, stream).await?;
        stream.write_u8(7).await?;
        assert_eq!(stream.read_u8().await?, 7);
        Ok(())
    };
    let (served, asked) = tokio::join!(serves, asks);
    (served.map_err(said), asked.map_err(said))
}

#[tokio::test]
async fn clients_with_the_right_ca_and_name_are_served() {
    let ca = Authority::new("ca");
    let folder = Folder::of(&ca.sign(&["index.test", "127.0.0.1"]), &ca);
    let tls = public(&folder, None).unwrap();
    for name in ["index.test", "127.0.0.1"] {
        assert_eq!(there_and_back(tls.public(), client(&ca, None), name).await, (Ok(()), Ok(())), "{name}");
    }
}

#[tokio::test]
async fn a_client_learns_in_words_why_it_does_not_trust_the_node() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let folder = Folder::of(&ca.sign(&["index.test"]), &ca);
    let tls = public(&folder, None).unwrap();
    let (_, asked) = there_and_back(tls.public(), client(&other, None), "index.test").await;
    assert_eq!(asked.unwrap_err(), "its certificate is not signed by the CA that is trusted here");
    let (served, asked) = there_and_back(tls.public(), client(&ca, None), "elsewhere.test").await;
    let asked = asked.unwrap_err();
    assert!(asked.contains("another name") && asked.contains("index.test"), "{asked}");
    assert!(served.unwrap_err().contains("refuses our certificate"));
}

#[tokio::test]
async fn where_a_certificate_is_demanded_only_the_cas_own_enter() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let folder = Folder::of(&ca.sign(&["index.test"]), &ca);
    let own = ca.sign(&["router"]);
    let foreign = other.sign(&["router"]);
    let old = ca.sign_until(&["router"], (2021, 1, 1));
    let required = public(&folder, Some(ClientAuth::Require)).unwrap();
    let asks =
        |tls: TlsAcceptor, shown: Option<&Signed>| there_and_back(tls, client(&ca, shown), "index.test");
    assert_eq!(asks(required.public(), Some(&own)).await, (Ok(()), Ok(())));
    let (served, asked) = asks(required.public(), None).await;
    assert!(served.unwrap_err().contains("showed no certificate"));
    assert_eq!(asked.unwrap_err(), "it demands a client certificate");
    let (served, asked) = asks(required.public(), Some(&foreign)).await;
    assert!(served.unwrap_err().contains("not signed by the CA"));
    assert!(asked.unwrap_err().contains("refuses our certificate"));
    let (served, asked) = asks(required.public(), Some(&old)).await;
    assert!(served.unwrap_err().contains("expired"));
    assert!(asked.unwrap_err().contains("our certificate expired"));
    // Optional: none is fine, a foreign one is not. The metrics' door is always so.
    let optional = public(&folder, Some(ClientAuth::Optional)).unwrap();
    for tls in [optional.public(), required.metrics()] {
        assert_eq!(asks(tls.clone(), None).await, (Ok(()), Ok(())));
        assert_eq!(asks(tls.clone(), Some(&own)).await, (Ok(()), Ok(())));
        assert!(asks(tls, Some(&foreign)).await.0.is_err());
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_the_reason() {
    let ca = Authority::new("ca");
    let good = ca.sign(&["index.test"]);
    let refused = |change: &dyn Fn(&Folder), said: &[&str]| {
        let folder = Folder::of(&good, &ca);
        change(&folder);
        let error = public(&folder, Some(ClientAuth::Require)).unwrap_err().to_string();
        said.iter().for_each(|said| assert!(error.contains(said), "{said:?} in {error}"));
    };
    refused(&|f| f.write("cert.pem", "no"), &["tls_cert", "cert.pem", "no certificate in PEM"]);
    refused(&|f| f.write("key.pem", &good.cert), &["tls_key", "key.pem", "no private key in PEM"]);
    refused(&|f| f.write("ca.pem", ""), &["tls_client_ca", "no certificate in PEM"]);
    refused(&|f| f.write("key.pem", &ca.sign(&["x"]).key), &["tls_cert", "not this certificate's"]);
    refused(&|f| std::fs::remove_file(f.path("key.pem")).unwrap(), &["tls_key", "cannot read it"]);
    let old = ca.sign_until(&["index.test"], (2021, 1, 1));
    refused(&|f| f.put(&old), &["tls_cert", "expired on", "2021"]);
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections_and_a_bad_one_is_not_taken() {
    let (ca, next) = (Authority::new("ca"), Authority::new("next"));
    let folder = Folder::of(&ca.sign(&["index.test"]), &ca);
    let tls = public(&folder, None).unwrap();
    let works =
        async |ca: &Authority| there_and_back(tls.public(), client(ca, None), "index.test").await.1.is_ok();
    assert_eq!(tls.0.look(), Look::Same);
    // Half of a rotation: the new certificate with the old key.
    let new = next.sign(&["index.test"]);
    folder.write("cert.pem", &new.cert);
    let Look::Refused(error) = tls.0.look() else { panic!("a mismatched pair was taken") };
    assert!(error.reason.contains("not this certificate's"), "{error}");
    assert_eq!(tls.0.look(), Look::Same, "told once");
    assert!(works(&ca).await && !works(&next).await);
    // The other half.
    folder.write("key.pem", &new.key);
    assert_eq!(tls.0.look(), Look::Taken);
    assert!(works(&next).await && !works(&ca).await);
    // Bad again, and back to what serves.
    folder.write("key.pem", "");
    assert!(matches!(tls.0.look(), Look::Refused(_)));
    folder.write("key.pem", &new.key);
    assert_eq!(tls.0.look(), Look::Same);
    assert!(works(&next).await);
}

/// Two nodes; answers what each end says.
async fn between(
    acceptor: &PeerTls,
    dialler: &PeerTls,
    host: &str,
) -> (Result<(), String>, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let said = |error: io::Error| explained(&error).unwrap_or_else(|| error.to_string());
    let serves = async {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.shutdown().await
    };
    let asks = async {
        let stream = TcpStream::connect(address).await?;
        let mut stream = dialler.connect(&format!("{host}:{}", address.port()), stream).await?;
        stream.write_u8(7).await?;
        stream.read_u8().await.map(|_| ())
    };
    let (served, asked) = tokio::join!(serves, asks);
    (served.map_err(said), asked.map_err(said))
}

#[tokio::test]
async fn nodes_check_each_other() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let folder = |signed: &Signed| Folder::of(signed, &ca);
    let by_address = folder(&ca.sign(&["127.0.0.1", "node-1.test"]));
    let node = peer(&by_address, None);
    for host in ["127.0.0.1", "node-1.test", "node-1.test."] {
        assert_eq!(between(&node, &node, host).await, (Ok(()), Ok(())), "{host}");
    }
    let (_, asked) = between(&node, &node, "node-2.test").await;
    assert!(asked.unwrap_err().contains("another name"));
    // A certificate of another CA, on either end.
    let stranger = Folder::of(&other.sign(&["127.0.0.1"]), &ca);
    let stranger = peer(&stranger, None);
    let (served, asked) = between(&node, &stranger, "127.0.0.1").await;
    assert!(served.unwrap_err().contains("not signed by the CA"));
    assert!(asked.is_err());
    let (_, asked) = between(&stranger, &node, "127.0.0.1").await;
    assert!(asked.unwrap_err().contains("not signed by the CA"));
}

#[tokio::test]
async fn one_name_for_all_nodes_is_checked_at_both_ends() {
    let ca = Authority::new("ca");
    let shared = Folder::of(&ca.sign(&["peers.test"]), &ca);
    let node = peer(&shared, Some("peers.test"));
    assert_eq!(between(&node, &node, "127.0.0.1").await, (Ok(()), Ok(())));
    // The CA signed it, for somebody else: a client of the public port, say.
    let client = Folder::of(&ca.sign(&["router.test", "127.0.0.1"]), &ca);
    let client = peer(&client, Some("peers.test"));
    let (served, _) = between(&node, &client, "127.0.0.1").await;
    assert!(served.unwrap_err().contains("another name"));
    let (_, asked) = between(&client, &node, "127.0.0.1").await;
    assert!(asked.unwrap_err().contains("another name"));
}
