//! The HTTP client that all SDK clients share, and whose certificates it takes.
//!
//! Reading the system's root certificates, well over a hundred, takes several times as long as the rest of
//! the start, and the SDK would read them again for each client. AWS's own hosts need none but Amazon's
//! five, so the client starts with those. Where they don't do (in other partitions of AWS, at an endpoint
//! of somebody's own, behind a proxy that inspects TLS), the first connection fails; from then on the
//! system's roots are trusted instead, and the SDK, which sends the call again, doesn't notice.
//!
//! So nobody is trusted whom the system doesn't trust, as long as the system trusts Amazon.

use std::env;
use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;

/// A TCP and TLS handshake that takes longer has lost packets: a new one is faster.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The roots of Amazon Trust Services, which certifies the hosts of AWS.
///
/// Source: <https://www.amazontrust.com/repository/>, which recommends all five of them.
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon_roots.pem");

/// Where somebody says which roots the system has: theirs are meant then, and no others.
const CHOSEN_ROOTS: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Makes the client; what can be done before its first call is done here.
pub(super) fn client() -> SharedHttpClient {
    let chosen = CHOSEN_ROOTS.iter().any(|name| env::var_os(name).is_some());
    let of_the_system = TrustStore::default();
    shared(match chosen {
        true => SharedHttpConnector::new(connector(of_the_system)),
        false => SharedHttpConnector::new(AmazonFirst::new(of_the_system)),
    })
}

fn shared(connector: SharedHttpConnector) -> SharedHttpClient {
    http_client_fn(move |_, _| connector.clone())
}

fn connector(roots: TrustStore) -> Connector {
    let settings = HttpConnectorSettings::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .build();
    let builder = Connector::builder()
        .connector_settings(settings)
        .tls_provider(Provider::Rustls(CryptoMode::Ring));
    match TlsContext::builder().with_trust_store(roots).build() {
        Ok(context) => builder.tls_context(context).build(),
        // No builder of a context fails; the default one trusts the system's roots.
        Err(_) => builder.build(),
    }
}

/// Connects with Amazon's roots, and with others once a host's certificate leads to none of those.
#[derive(Debug)]
struct AmazonFirst {
    amazon: Connector,
    other_roots: TrustStore,
    /// There once a host needs it.
    others: Arc<OnceLock<Connector>>,
}

impl AmazonFirst {
    fn new(other_roots: TrustStore) -> Self {
        Self {
            amazon: connector(TrustStore::empty().with_pem_certificate(AMAZON_ROOTS)),
            other_roots,
            others: Arc::default(),
        }
    }
}

impl HttpConnector for AmazonFirst {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if let Some(others) = self.others.get() {
            return others.call(request);
        }
        let answer = self.amazon.call(request);
        let (others, roots) = (Arc::clone(&self.others), self.other_roots.clone());
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            if let Err(failure) = &answer
                && is_about_a_certificate(failure)
            {
                others.get_or_init(|| connector(roots));
            }
            answer
        })
    }
}

fn is_about_a_certificate(failure: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(failure), |error| cause(*error)).any(|error| {
        matches!(
            error.downcast_ref(),
            Some(rustls::Error::InvalidCertificate(_))
        )
    })
}

/// An I/O error that wraps another one doesn't give it as its source.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as _),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};

    use aws_credential_types::Credentials;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::aws::Bucket;
    use crate::aws::client::loader;
    use crate::layout::hex;

    #[test]
    fn the_roots_have_the_keys_that_amazon_publishes() {
        // Source: <https://www.amazontrust.com/repository/>, SHA-256 of the subject public key info.
        let published = [
            "fbe3018031f9586bcbf41727e417b7d1c45c2f47f93be372a17b96b50757d5a2",
            "7f4296fc5b6a4e3b35d3c369623e364ab1af381d8fa7121533c9d6c633ea2461",
            "36abc32656acfc645c61b71613c4bf21c787f5cabbee48348d58597803d7abc9",
            "f7ecded5c66047d28ed6466b543c40e0743abe81d109254dcf845d4c2c7853c5",
            "2b071c59a0a0ae76b0eadb2bad23bad4580b69c3601b630c2eaf0613afa83f92",
        ];
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(AMAZON_ROOTS) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let keys = roots.roots.iter().map(|root| {
            // An anchor leaves out the header of the sequence: its tag and its length.
            let key = root.subject_public_key_info.as_ref();
            let header = match u8::try_from(key.len()) {
                Ok(length @ ..0x80) => vec![0x30, length],
                Ok(length) => vec![0x30, 0x81, length],
                Err(_) => {
                    let [high, low] = u16::try_from(key.len()).unwrap().to_be_bytes();
                    vec![0x30, 0x82, high, low]
                }
            };
            hex(&Sha256::digest([&header, key].concat()))
        });
        assert_eq!(keys.collect::<Vec<_>>(), published);
    }

    /// A server with a certificate of its own, to which nothing is found; tells of each handshake, and
    /// gives its endpoint and the certificate.
    fn https_server() -> (String, Vec<u8>, Receiver<bool>) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let (tell, handshakes) = channel();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut connection = StreamOwned::new(tls, connection.unwrap());
                let mut asked = [0; 4096];
                let is_trusted = connection.read(&mut asked).is_ok_and(|length| length > 0);
                let answer =
                    b"HTTP/1.1 404 Not Found\r\nContent-Length: 44\r\nConnection: close\r\n\r\n\
                    <Error><Code>NoSuchKey</Code></Error>       ";
                let _ = connection.write_all(answer);
                connection.conn.send_close_notify();
                let _ = connection.flush();
                if tell.send(is_trusted).is_err() {
                    return;
                }
            }
        });
        (endpoint, cert.pem().into_bytes(), handshakes)
    }

    #[tokio::test]
    async fn a_host_that_amazon_did_not_certify_is_reached_with_the_other_roots() {
        let (endpoint, certificate, handshakes) = https_server();
        let others = TrustStore::empty().with_pem_certificate(certificate);
        let config = loader(shared(SharedHttpConnector::new(AmazonFirst::new(others))))
            .endpoint_url(endpoint)
            .region("us-east-1")
            .credentials_provider(Credentials::new("AKIA", "secret", None, None, "test"))
            .load()
            .await;
        let bucket = Bucket::new(&config, "archive");
        for _ in 0..2 {
            assert!(bucket.get("nothing").await.unwrap().is_none());
        }
        // Only the first connection of all was made for nothing.
        let handshakes: Vec<bool> = handshakes.iter().take(3).collect();
        assert_eq!(handshakes, [false, true, true]);
    }

    #[tokio::test]
    async fn a_host_that_nobody_certified_is_not_reached() {
        let (endpoint, _, handshakes) = https_server();
        let (_, others, _) = https_server();
        let connector = AmazonFirst::new(TrustStore::empty().with_pem_certificate(others));
        for _ in 0..3 {
            let answer = connector.call(HttpRequest::get(&endpoint).unwrap()).await;
            assert!(is_about_a_certificate(&answer.unwrap_err()));
        }
        assert!(!handshakes.iter().take(3).any(|is_trusted| is_trusted));
    }
}
