//! The least that reading and archiving the reports can cost: it fetches each page, scans it for the next
//! token and discards it; then it gzips a file with the lines that the function has archived.
//!
//!     loop ENDPOINT LINES

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use quick_xml::Reader;
use quick_xml::events::Event;

/// The local AWS reads the caller and the Region from this header, and does not verify the signature.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIA111122223333/20261122/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0";

/// The size of the pieces that are read and compressed: a few hundred lines.
const CHUNK_BYTES: usize = 64 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, lines] = arguments.as_slice() else {
        return Err("give the endpoint and the file with the lines".into());
    };
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let (mut pages, mut page_bytes) = (0, 0);
    let mut token: Option<String> = None;
    loop {
        let next = token.map_or_else(String::new, |token| format!("&NextToken={token}"));
        let form =
            format!("Action=DescribeImageUsageReports&Version=2016-11-15&MaxResults=1000{next}");
        let request = Request::post(endpoint)
            .header("authorization", AUTHORIZATION)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))?;
        let answer = client.request(request).await?;
        if !answer.status().is_success() {
            return Err(format!("the local AWS answers {}", answer.status()).into());
        }
        let page = answer.into_body().collect().await?.to_bytes();
        pages += 1;
        page_bytes += page.len();
        token = next_token(&page)?;
        if token.is_none() {
            break;
        }
    }
    let (line_bytes, gzip_bytes) = gzip(lines)?;
    println!(
        "{{\"pages\":{pages},\"page_bytes\":{page_bytes},\"line_bytes\":{line_bytes},\"gzip_bytes\":{gzip_bytes}}}"
    );
    Ok(())
}

/// Scans a whole page. Its tokens consist of characters that a form does not escape.
fn next_token(page: &[u8]) -> Result<Option<String>, Box<dyn Error>> {
    let mut reader = Reader::from_reader(page);
    let (mut token, mut inside) = (None, false);
    loop {
        match reader.read_event()? {
            Event::Start(start) => inside = start.name().as_ref() == "nextToken",
            Event::Text(text) if inside => token = Some(text.to_string()),
            Event::End(_) => inside = false,
            Event::Eof => return Ok(token),
            _ => {}
        }
    }
}

fn gzip(lines: &str) -> Result<(usize, usize), Box<dyn Error>> {
    let mut file = File::open(lines)?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut line_bytes = 0;
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok((line_bytes, gzip.finish()?.len())),
            length => {
                gzip.write_all(&chunk[..length])?;
                line_bytes += length;
            }
        }
    }
}
