//! A server on loopback that answers as S3 does for one bucket, or as a proxy before it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::archive::PREFIX;

pub(crate) const BUCKET: &str = "archive";

/// An answer: the status, further headers, the body.
pub(crate) type Answer = (u16, String, Vec<u8>);

/// A running server.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    /// The request lines, in order.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves the files of a folder, and for the keys that contain one of these texts the answer beside it.
    pub(crate) fn start(folder: &Path, answers: &[(&'static str, Answer)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (folder, answers) = (folder.to_owned(), answers.to_vec());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (folder, answers) = (folder.clone(), answers.clone());
                let log = Arc::clone(&log);
                std::thread::spawn(move || serve(connection.unwrap(), &folder, &answers, &log));
            }
        });
        Self { endpoint, asked }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// An error as S3 writes it.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    (status, String::new(), body.into_bytes())
}

fn serve(
    mut connection: TcpStream,
    folder: &Path,
    answers: &[(&str, Answer)],
    log: &Mutex<Vec<String>>,
) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let line = head.lines().next().unwrap().to_owned();
        let uri = line.split(' ').nth(1).unwrap().to_owned();
        log.lock().unwrap().push(line);
        let (status, headers, body) = answer(&uri, folder, answers);
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n");
        let sent = connection.write_all(head.as_bytes());
        if sent.and_then(|()| connection.write_all(&body)).is_err() {
            return;
        }
    }
}

fn answer(uri: &str, folder: &Path, answers: &[(&str, Answer)]) -> Answer {
    let path = uri.split("://").last().unwrap();
    let path = path.split_once('/').unwrap().1;
    let path = path.replace("%3D", "=");
    let known = answers.iter().find(|(text, _)| path.contains(text));
    if let Some((_, answer)) = known {
        return answer.clone();
    }
    let path = path.strip_prefix(BUCKET).unwrap_or("/");
    if path.contains("list-type=2") {
        return (200, String::new(), listing(folder).into_bytes());
    }
    let key = path.split('?').next().unwrap().trim_start_matches('/');
    let file = key.strip_prefix(PREFIX).map(|key| folder.join(key));
    match file.and_then(|file| std::fs::read(file).ok()) {
        Some(body) => (200, "ETag: \"x\"\r\n".to_owned(), body),
        None => error(404, "NoSuchKey", "there is none"),
    }
}

fn listing(folder: &Path) -> String {
    let objects: String = files(folder)
        .into_iter()
        .map(|(key, size)| {
            format!("<Contents><Key>{PREFIX}{key}</Key><Size>{size}</Size></Contents>")
        })
        .collect();
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{objects}</ListBucketResult>"
    )
}

fn files(folder: &Path) -> BTreeMap<String, u64> {
    let mut files = BTreeMap::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = path.strip_prefix(folder).unwrap().to_str().unwrap();
                let size = std::fs::metadata(&path).unwrap().len();
                files.insert(key.to_owned(), size);
            }
        }
    }
    files
}
