//! The HTTP client that all SDK clients share: which certificates it trusts, and which proxy it uses.
//!
//! Reading the system's root certificates, well over a hundred, takes several times as long as the rest of
//! the start, and the SDK would read them again for each client. AWS's own hosts need only Amazon's five, so
//! the client starts with those. If they do not suffice (in other partitions of AWS, at a custom endpoint,
//! behind a proxy that inspects TLS), the first connection fails; from then on the system's roots are
//! trusted instead. The SDK sends the call again and does not notice.
//!
//! No host is trusted that the system would reject, provided the system trusts Amazon's roots.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are honoured as by curl, except for this host and
//! its link: credentials from a container or an instance never pass through a proxy.

use std::env;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
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

/// If one of these is set, only the roots it names are trusted.
const CHOSEN_ROOTS: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// If none of these is set, there is no proxy.
const PROXIES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Makes the client. What can be done before its first call is done here.
pub(super) fn client() -> SharedHttpClient {
    let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let has_own_roots = CHOSEN_ROOTS.iter().any(|name| env::var_os(name).is_some());
    let connect = |proxy: ProxyConfig| match has_own_roots {
        true => SharedHttpConnector::new(connector(TrustStore::default(), proxy)),
        false => SharedHttpConnector::new(AmazonFirst::new(TrustStore::default(), proxy)),
    };
    let direct = connect(ProxyConfig::disabled());
    shared(match PROXIES.iter().any(is_set) {
        false => direct,
        true => SharedHttpConnector::new(ByHost {
            direct,
            by_proxy: connect(ProxyConfig::from_env()),
        }),
    })
}

fn shared(connector: SharedHttpConnector) -> SharedHttpClient {
    http_client_fn(move |_, _| connector.clone())
}

fn connector(roots: TrustStore, proxy: ProxyConfig) -> Connector {
    let settings = HttpConnectorSettings::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .build();
    let builder = Connector::builder()
        .connector_settings(settings)
        .proxy_config(proxy)
        .tls_provider(Provider::Rustls(CryptoMode::Ring));
    match TlsContext::builder().with_trust_store(roots).build() {
        Ok(context) => builder.tls_context(context).build(),
        // No builder of a context fails; the default one trusts the system's roots.
        Err(_) => builder.build(),
    }
}

/// Connects to this host and its link directly, and to any other host as the proxy's variables say.
#[derive(Debug)]
struct ByHost {
    direct: SharedHttpConnector,
    by_proxy: SharedHttpConnector,
}

impl HttpConnector for ByHost {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        match is_near(host_of(request.uri())) {
            true => self.direct.call(request),
            false => self.by_proxy.call(request),
        }
    }
}

/// Returns the host of a URI without port or brackets; empty if there is none.
fn host_of(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Whether a host is this one, or an address of its link: where containers and instances get credentials.
///
/// Source: <https://docs.aws.amazon.com/sdkref/latest/guide/feature-imds-credentials.html>
fn is_near(host: &str) -> bool {
    match host.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unicast_link_local() || address == IMDS_V6
        }
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// The instance metadata service over IPv6, `fd00:ec2::254`.
const IMDS_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Connects with Amazon's roots, and with others once a host's certificate leads to none of them.
#[derive(Debug)]
struct AmazonFirst {
    amazon: Connector,
    other_roots: TrustStore,
    proxy: ProxyConfig,
    /// Made once a host needs it.
    others: Arc<OnceLock<Connector>>,
}

impl AmazonFirst {
    fn new(other_roots: TrustStore, proxy: ProxyConfig) -> Self {
        let amazon = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
        Self {
            amazon: connector(amazon, proxy.clone()),
            other_roots,
            proxy,
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
        let others = Arc::clone(&self.others);
        let (roots, proxy) = (self.other_roots.clone(), self.proxy.clone());
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            if let Err(failure) = &answer
                && is_about_a_certificate(failure)
            {
                others.get_or_init(|| connector(roots, proxy));
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

/// Returns an error's cause. An I/O error that wraps another one does not return it as its source.
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
    use crate::domain::digest::hex;

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

    /// Starts a server with a certificate of its own that finds nothing. Returns its endpoint, the
    /// certificate, and whether each handshake succeeded.
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
        let (report, handshakes) = channel();
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
                if report.send(is_trusted).is_err() {
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
        let config = loader(shared(SharedHttpConnector::new(AmazonFirst::new(
            others,
            ProxyConfig::disabled(),
        ))))
        .endpoint_url(endpoint)
        .region("us-east-1")
        .credentials_provider(Credentials::new("AKIA", "secret", None, None, "test"))
        .load()
        .await;
        let bucket = Bucket::new(&config, "archive");
        for _ in 0..2 {
            assert!(bucket.get("nothing").await.unwrap().is_none());
        }
        // Only the very first connection failed.
        let handshakes: Vec<bool> = handshakes.iter().take(3).collect();
        assert_eq!(handshakes, [false, true, true]);
    }

    #[tokio::test]
    async fn a_host_that_no_root_certifies_is_not_reached() {
        let (endpoint, _, handshakes) = https_server();
        let (_, others, _) = https_server();
        let connector = AmazonFirst::new(
            TrustStore::empty().with_pem_certificate(others),
            ProxyConfig::disabled(),
        );
        for _ in 0..3 {
            let answer = connector.call(HttpRequest::get(&endpoint).unwrap()).await;
            assert!(is_about_a_certificate(&answer.unwrap_err()));
        }
        assert!(!handshakes.iter().take(3).any(|is_trusted| is_trusted));
    }

    /// Starts a proxy that tunnels one connection after the other to `target`. Returns its address and the
    /// first line of each request.
    fn proxy(target: String) -> (String, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (report, requests) = channel();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    client.read_exact(&mut byte).unwrap();
                    asked.push(byte[0]);
                }
                let asked = String::from_utf8(asked).unwrap();
                let first = asked.lines().next().unwrap_or_default().to_owned();
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let mut server = std::net::TcpStream::connect(&target).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut server, &mut client);
                    let _ = client.shutdown(std::net::Shutdown::Write);
                });
                if report.send(first).is_err() {
                    return;
                }
            }
        });
        (address, requests)
    }

    #[tokio::test]
    async fn a_host_is_reached_through_a_proxy_and_with_the_other_roots_where_it_needs_them() {
        let (endpoint, certificate, handshakes) = https_server();
        let port = endpoint.rsplit(':').next().unwrap().to_owned();
        let (address, requests) = proxy(format!("127.0.0.1:{port}"));
        let others = TrustStore::empty().with_pem_certificate(certificate);
        let by_proxy = AmazonFirst::new(others, ProxyConfig::all(address).unwrap());
        for _ in 0..2 {
            let request = HttpRequest::get(&endpoint).unwrap();
            let _ = by_proxy.call(request).await;
        }
        let answer = by_proxy.call(HttpRequest::get(&endpoint).unwrap()).await;
        assert_eq!(answer.unwrap().status().as_u16(), 404);
        let requests: Vec<String> = requests.iter().take(3).collect();
        assert_eq!(
            requests,
            vec![format!("CONNECT localhost:{port} HTTP/1.1"); 3]
        );
        assert_eq!(handshakes.iter().take(2).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn this_host_and_its_link_are_never_asked_through_a_proxy() {
        for uri in [
            "http://127.0.0.1:4566/x?y",
            "http://localhost/",
            "https://s3.localhost:4566",
            "http://[::1]:80/",
            "http://169.254.169.254/latest/meta-data/",
            "http://169.254.170.2",
            "http://[fd00:ec2::254]/latest/",
        ] {
            assert!(is_near(host_of(uri)), "{uri}");
        }
        for uri in [
            "https://s3.eu-west-1.amazonaws.com/archive?list-type=2",
            "https://localhost.example.com/",
            "https://notlocalhost/",
            "http://10.0.0.1/",
            "https://user@127.0.0.1.example.com/",
            "",
        ] {
            assert!(!is_near(host_of(uri)), "{uri}");
        }
    }
}
