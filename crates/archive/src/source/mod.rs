//! Where an archive is stored, and how it is read: a bucket, or a folder with a copy of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::aws::{Aws, Bucket, CallFailure, FailureKind};
use crate::layout::{Layout, MalformedPrefix};

/// How much of a file is read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Where an archive is stored.
///
/// Keys are those below the archive's prefix: they start with `v1/`.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder with a copy of everything below the prefix.
    Folder(PathBuf),
    /// A bucket.
    Bucket {
        /// The bucket.
        bucket: Bucket,
        /// The key prefix of the archive: empty, or ending in `/`.
        prefix: String,
    },
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The location is malformed.
    #[error("`{location}` is not an archive location; use s3://bucket/prefix/ or a folder")]
    Location {
        /// The location as given.
        location: String,
        /// What is wrong with the prefix; `None` if there is no bucket name.
        #[source]
        source: Option<MalformedPrefix>,
    },
    /// No Region is configured.
    #[error(
        "no AWS Region is configured to read {location} with: set AWS_REGION, or `region` for the profile in ~/.aws/config"
    )]
    NoRegion {
        /// The location as given.
        location: String,
    },
    /// A folder or a file cannot be read.
    #[error("failed to read {}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A call to S3 failed.
    #[error("failed to read s3://{bucket}/{key}")]
    Bucket {
        /// The bucket.
        bucket: String,
        /// The key, or the prefix that was listed.
        key: String,
        /// The cause.
        #[source]
        source: Box<CallFailure>,
    },
    /// Nothing is stored there.
    #[error(
        "there is no archive in {location}: nothing is stored below v1/ there; give the bucket and its prefix, or the folder that contains v1/"
    )]
    NoArchive {
        /// The location.
        location: String,
    },
}

impl Unreadable {
    /// Returns why one object cannot be read, if the others may be readable all the same: it is encrypted
    /// with another key, in a storage class that must be restored first, or not for this caller.
    ///
    /// # Errors
    /// Returns the error itself if it is about more than this object: a connection, or credentials.
    pub(crate) fn of_one_object(self) -> Result<String, Self> {
        match &self {
            Self::Folder { source, .. } => Ok(source.to_string()),
            Self::Bucket { source, .. }
                if matches!(source.kind, FailureKind::Denied | FailureKind::Permanent) =>
            {
                Ok(source.to_string())
            }
            _ => Err(self),
        }
    }
}

impl Source {
    /// Finds the archive at a location that a user gave: `s3://bucket/prefix/` or a folder. Credentials and
    /// Region come from the environment.
    ///
    /// # Errors
    /// Fails if the location is malformed, or no Region is configured for a bucket. Whether an archive is
    /// there is checked when it is read.
    pub async fn at(location: &str) -> Result<Self, Unreadable> {
        let Some(rest) = location.strip_prefix("s3://") else {
            return Ok(Self::Folder(location.into()));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let mut prefix = prefix.to_owned();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let malformed = |source| Unreadable::Location {
            location: location.to_owned(),
            source,
        };
        prefix
            .parse::<Layout>()
            .map_err(|error| malformed(Some(error)))?;
        if bucket.is_empty() {
            return Err(malformed(None));
        }
        let aws = Aws::from_environment().await;
        if aws.config().region().is_none() {
            let location = location.to_owned();
            return Err(Unreadable::NoRegion { location });
        }
        let bucket = Bucket::new(aws.config(), bucket);
        Ok(Self::Bucket { bucket, prefix })
    }

    /// Returns the location as a user would write it.
    pub fn location(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Bucket { bucket, prefix } => format!("s3://{}/{prefix}", bucket.name()),
        }
    }

    /// Lists every key that starts with `root`, which ends in `/`, with the object's size in bytes.
    pub(crate) async fn list(&self, root: &str) -> Result<BTreeMap<String, u64>, Unreadable> {
        match self {
            Self::Folder(folder) => list_folder(folder, root),
            Self::Bucket { bucket, prefix } => {
                let root = format!("{prefix}{root}");
                let listed = bucket.list(&root).await;
                let listed = listed.map_err(|source| Unreadable::Bucket {
                    bucket: bucket.name().to_owned(),
                    key: root,
                    source: Box::new(source),
                })?;
                let below = |(key, bytes): (String, u64)| (key[prefix.len()..].to_owned(), bytes);
                Ok(listed.into_iter().map(below).collect())
            }
        }
    }

    /// Reads a whole object; `None` if there is none.
    pub(crate) async fn read(&self, key: &str) -> Result<Option<Vec<u8>>, Unreadable> {
        let extend = |bytes: &mut Vec<u8>, chunk: &[u8]| bytes.extend_from_slice(chunk);
        let read = self.fold(key, None, Vec::new, extend).await?;
        Ok(read.map(|(bytes, _)| bytes))
    }

    /// Reads an object chunk by chunk into a value that `start` makes anew for each attempt. Returns the
    /// value and the object's version; `None` if there is no object.
    pub(crate) async fn fold<T>(
        &self,
        key: &str,
        version_id: Option<&str>,
        start: impl Fn() -> T,
        mut each: impl FnMut(&mut T, &[u8]),
    ) -> Result<Option<(T, Option<String>)>, Unreadable> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(key);
                let mut folded = start();
                match read_file(&path, |chunk| each(&mut folded, chunk)) {
                    Ok(()) => Ok(Some((folded, None))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(Unreadable::Folder { path, source }),
                }
            }
            Self::Bucket { bucket, prefix } => {
                let key = format!("{prefix}{key}");
                match bucket.fold(&key, version_id, start, each).await {
                    Ok(read) => Ok(read.map(|(folded, facts)| (folded, facts.version_id))),
                    Err(failure) if version_id.is_some() && is_no_version(&failure) => Ok(None),
                    Err(source) => Err(Unreadable::Bucket {
                        bucket: bucket.name().to_owned(),
                        key,
                        source: Box::new(source),
                    }),
                }
            }
        }
    }
}

/// Whether S3 reports that an object has no such version: the ID is unknown, is that of a delete marker, or
/// cannot be an ID.
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

/// Lists the files below a folder of the archive. A link to a folder is not followed: it is listed like a file, which is not
/// part of an archive.
fn list_folder(folder: &Path, root: &str) -> Result<BTreeMap<String, u64>, Unreadable> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Unreadable::Folder { path, source }
    };
    // A folder that does not exist is an error; one without `v1` is not an archive.
    fs::read_dir(folder).map_err(failed(folder))?;
    let path = folder.join(root);
    let mut listed = BTreeMap::new();
    let mut folders = match path.is_dir() {
        true => vec![(path, root.to_owned())],
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
                // A link without a target has no size but its own.
                let size = fs::metadata(&path).or_else(|_| entry.metadata());
                listed.insert(key, size.map_err(failed(&path))?.len());
            }
        }
    }
    Ok(listed)
}
