//! Where an archive lies, and how it is read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::aws::{Aws, Bucket, CallFailure, ReadAttempts};
use crate::layout::{MalformedPrefix, Prefix, hex};

/// What is read of a file at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Objects up to this size are held between being measured and being read line by line; larger ones are
/// read twice. Few targets have more: it is the gzip of some 40,000 reports.
const HELD_BYTES: usize = 4 * 1024 * 1024;

/// Where an archive lies.
///
/// Objects are told by their key below the archive's prefix, which starts with `v1/`.
#[derive(Clone, Debug)]
pub enum Archive {
    /// A folder with a copy of all that the prefix holds.
    Folder(PathBuf),
    /// A bucket.
    Bucket {
        /// The bucket.
        bucket: Bucket,
        /// The key prefix of the archive: empty, or ending in `/`.
        prefix: String,
    },
}

/// Why nothing can be said about an archive.
#[derive(Debug, thiserror::Error)]
pub enum CouldNotLook {
    /// The location of a bucket is none.
    #[error("`{location}` is not the place of an archive: s3://bucket/prefix/ or a folder")]
    Location {
        /// The location as it was given.
        location: String,
        /// What is wrong with the prefix; `None` where there is no bucket.
        #[source]
        source: Option<MalformedPrefix>,
    },
    /// A folder or a file can't be read.
    #[error("failed to read {}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// S3 failed, or refused.
    #[error("failed to read s3://{bucket}/{key}")]
    Bucket {
        /// The bucket.
        bucket: String,
        /// The key, or the prefix that was listed.
        key: String,
        /// Why.
        #[source]
        source: Box<CallFailure>,
    },
    /// There is nothing to look at.
    #[error(
        "there is no archive in {location}: nothing lies below v1/ there; give the bucket and its prefix, or the folder that v1/ lies in"
    )]
    NoArchive {
        /// The place.
        location: String,
    },
}

/// An object, measured.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
    /// Its bytes, where they are few.
    pub(crate) held: Option<Vec<u8>>,
    /// Its version; `None` in a folder and in a bucket without versions.
    pub(crate) version_id: Option<String>,
}

#[derive(Default)]
struct Measuring {
    digest: Sha256,
    bytes: u64,
    held: Option<Vec<u8>>,
}

impl Archive {
    /// Finds the archive that a person names: `s3://bucket/prefix/` or a folder. Credentials and Region
    /// come from the environment.
    ///
    /// # Errors
    /// Fails when the location is malformed; whether anything is there is seen when it is read.
    pub async fn at(location: &str) -> Result<Self, CouldNotLook> {
        let Some(rest) = location.strip_prefix("s3://") else {
            return Ok(Self::Folder(location.into()));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let mut prefix = prefix.to_owned();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let malformed = |source| CouldNotLook::Location {
            location: location.to_owned(),
            source,
        };
        prefix
            .parse::<Prefix>()
            .map_err(|error| malformed(Some(error)))?;
        if bucket.is_empty() {
            return Err(malformed(None));
        }
        let bucket = Aws::from_environment().await.bucket(bucket);
        Ok(Self::Bucket { bucket, prefix })
    }

    /// The place in words.
    pub fn location(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Bucket { bucket, prefix } => format!("s3://{}/{prefix}", bucket.name()),
        }
    }

    /// Every key, with the object's size in bytes.
    pub(crate) async fn list(&self) -> Result<BTreeMap<String, u64>, CouldNotLook> {
        match self {
            Self::Folder(folder) => list_folder(folder),
            Self::Bucket { bucket, prefix } => {
                let root = format!("{prefix}v1/");
                let listed = bucket.list(&root).await;
                let listed = listed.map_err(|source| CouldNotLook::Bucket {
                    bucket: bucket.name().to_owned(),
                    key: root,
                    source: Box::new(source),
                })?;
                let below = |(key, bytes): (String, u64)| (key[prefix.len()..].to_owned(), bytes);
                Ok(listed.into_iter().map(below).collect())
            }
        }
    }

    /// Reads an object and measures it; `None` when there is none.
    pub(crate) async fn fetch(
        &self,
        key: &str,
        version_id: Option<&str>,
    ) -> Result<Option<Fetched>, CouldNotLook> {
        let start = || Measuring {
            held: Some(Vec::new()),
            ..Measuring::default()
        };
        let measure = |measuring: &mut Measuring, chunk: &[u8]| {
            measuring.digest.update(chunk);
            measuring.bytes += chunk.len() as u64;
            if let Some(held) = &mut measuring.held {
                match held.len() + chunk.len() <= HELD_BYTES {
                    true => held.extend_from_slice(chunk),
                    false => measuring.held = None,
                }
            }
        };
        let read = self.fold(key, version_id, start, measure).await?;
        Ok(read.map(|(measuring, version_id)| Fetched {
            sha256: hex(&measuring.digest.finalize()),
            bytes: measuring.bytes,
            held: measuring.held,
            version_id,
        }))
    }

    /// Reads an object whole, whatever its size; `None` when there is none.
    pub(crate) async fn read(&self, key: &str) -> Result<Option<Vec<u8>>, CouldNotLook> {
        let read = self.fold(key, None, Vec::new, |bytes, chunk| {
            bytes.extend_from_slice(chunk)
        });
        Ok(read.await?.map(|(bytes, _)| bytes))
    }

    /// Reads an object chunk by chunk into something that is started anew with each attempt; `None` when
    /// there is no object.
    pub(crate) async fn fold<T>(
        &self,
        key: &str,
        version_id: Option<&str>,
        start: impl Fn() -> T,
        mut each: impl FnMut(&mut T, &[u8]),
    ) -> Result<Option<(T, Option<String>)>, CouldNotLook> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(key);
                let mut folded = start();
                match read_file(&path, |chunk| each(&mut folded, chunk)) {
                    Ok(()) => Ok(Some((folded, None))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(CouldNotLook::Folder { path, source }),
                }
            }
            Self::Bucket { bucket, prefix } => {
                let key = format!("{prefix}{key}");
                let mut attempts = ReadAttempts::default();
                loop {
                    let mut folded = start();
                    let read = bucket
                        .read(&key, version_id, |chunk| each(&mut folded, chunk))
                        .await;
                    match read {
                        Ok(None) => return Ok(None),
                        Ok(Some(facts)) => return Ok(Some((folded, facts.version_id))),
                        Err(failure) if version_id.is_some() && is_no_version(&failure) => {
                            return Ok(None);
                        }
                        Err(failure) => {
                            if let Err(source) = attempts.again_after(failure) {
                                let bucket = bucket.name().to_owned();
                                return Err(CouldNotLook::Bucket {
                                    bucket,
                                    key,
                                    source: Box::new(source),
                                });
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Whether S3 says that an object has no such version: none of this ID, one that is a delete marker, or
/// a text that can't be the ID of one.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
fn is_no_version(failure: &CallFailure) -> bool {
    matches!(
        failure.code.as_str(),
        "NoSuchVersion" | "MethodNotAllowed" | "InvalidArgument"
    )
}

fn read_file(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(()),
            read => each(&chunk[..read]),
        }
    }
}

/// Lists the files below `v1/`. A link to a folder is not followed: it is listed like a file, which the
/// archive knows nothing of.
fn list_folder(folder: &Path) -> Result<BTreeMap<String, u64>, CouldNotLook> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CouldNotLook::Folder { path, source }
    };
    // A folder that isn't there is told of; one without `v1` is no archive.
    fs::read_dir(folder).map_err(failed(folder))?;
    let root = folder.join("v1");
    let mut listed = BTreeMap::new();
    let mut folders = match root.is_dir() {
        true => vec![(root, "v1/".to_owned())],
        false => Vec::new(),
    };
    while let Some((path, key)) = folders.pop() {
        for entry in fs::read_dir(&path).map_err(failed(&path))? {
            let entry = entry.map_err(failed(&path))?;
            let path = entry.path();
            let key = format!("{key}{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(failed(&path))?.is_dir() {
                folders.push((path, key + "/"));
            } else {
                let bytes = fs::metadata(&path).map_err(failed(&path))?.len();
                listed.insert(key, bytes);
            }
        }
    }
    Ok(listed)
}
