//! Terminates TLS in front of a server on loopback, with a certificate of its own.
//!
//!     tls PORT CERTIFICATE
//!
//! Writes the certificate to the file, prints the port it listens on, and forwards every connection to PORT.

use std::error::Error;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, certificate] = arguments.as_slice() else {
        return Err("give the port to forward to and the file for the certificate".into());
    };
    let behind = ("127.0.0.1", port.parse::<u16>()?);
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(certificate, cert.pem())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (outside, _) = listener.accept().await?;
        outside.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // If a client disconnects, its connection ends.
            if let Ok(mut outside) = acceptor.accept(outside).await
                && let Ok(mut inside) = TcpStream::connect(behind).await
            {
                let _ = inside.set_nodelay(true);
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}
