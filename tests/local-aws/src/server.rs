//! A local AWS that listens on a port.

use crate::calls::Call;
use crate::dispatch::{self, Shared};
use crate::faults::{Fault, FaultKind, Faults, Service};
use crate::listener::Listener;
use crate::runtime_api::RuntimeApi;
use crate::s3::Store;
use crate::world::World;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A local AWS that listens until it is dropped.
#[derive(Debug)]
pub struct LocalAws {
    listener: Listener,
    archive_root: PathBuf,
    shared: Arc<Shared>,
    last_look: LastLook,
    // Declared last: the folder is removed after the server has stopped.
    _temporary_root: Option<TempDir>,
}

type Look = Box<dyn FnOnce(&Path) + Send + Sync>;

/// What to do with the folder of S3 once nothing changes it any more.
#[derive(Default)]
struct LastLook(Option<Look>);

impl fmt::Debug for LastLook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LastLook({})", self.0.is_some())
    }
}

/// Builds a [`LocalAws`].
#[derive(Debug)]
pub struct LocalAwsBuilder {
    world: World,
    port: u16,
    s3_root: Option<PathBuf>,
}

impl LocalAws {
    /// Starts a local AWS on a free port of 127.0.0.1, with S3 in a temporary folder.
    ///
    /// # Errors
    /// Fails if no port can be listened on, or the folder cannot be created.
    pub async fn start(world: World) -> io::Result<Self> {
        Self::builder(world).start().await
    }

    /// Starts a local AWS on a port of 127.0.0.1.
    ///
    /// # Errors
    /// Fails if the port cannot be listened on, or the folder cannot be created.
    pub async fn start_on(world: World, port: u16) -> io::Result<Self> {
        Self::builder(world).port(port).start().await
    }

    /// Starts to build a local AWS.
    pub fn builder(world: World) -> LocalAwsBuilder {
        LocalAwsBuilder {
            world,
            port: 0,
            s3_root: None,
        }
    }

    /// Returns the URL of the endpoint, without a slash at its end.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// Returns the folder of S3; its subfolders are the buckets.
    pub fn archive_root(&self) -> &Path {
        &self.archive_root
    }

    /// Returns the world that it answers from.
    pub fn world(&self) -> &World {
        &self.shared.world
    }

    /// Creates a bucket; an existing one stays as it is.
    ///
    /// # Errors
    /// Fails if the folder cannot be created.
    pub fn create_bucket(&self, name: &str) -> io::Result<()> {
        std::fs::create_dir_all(self.archive_root.join(name))
    }

    /// Returns the faults, to add some or to clear them.
    pub fn faults(&self) -> Faults {
        self.shared.faults.clone()
    }

    /// Enables EC2's token buckets, for every account and Region.
    pub fn enable_token_buckets(&self) {
        self.faults()
            .add(Fault::new(FaultKind::TokenBucket).in_service(Service::Ec2));
    }

    /// Returns the log of all requests, in the order of their responses.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.list()
    }

    /// Empties the log of requests.
    pub fn clear_calls(&self) {
        self.shared.calls.clear();
    }

    /// Starts the Runtime API of a function, which control requests can invoke by this name.
    ///
    /// It stops with the local AWS, or when another function of the same name is started.
    ///
    /// # Errors
    /// Fails if no port can be listened on.
    pub fn start_function(&self, name: &str) -> io::Result<Arc<RuntimeApi>> {
        self.shared.functions.start(&self.shared.world, name)
    }

    /// Sets what to do with the folder of S3 once the server has stopped, while the folder still
    /// exists. It is skipped if a test has already failed. A second call replaces the first.
    pub fn look_in_the_end(&mut self, look: impl FnOnce(&Path) + Send + Sync + 'static) {
        self.last_look = LastLook(Some(Box::new(look)));
    }
}

impl LocalAwsBuilder {
    /// Sets the port; by default, or with 0, a free one is used.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the folder of S3, which is created if it does not exist, and is kept in the end.
    ///
    /// By default a temporary one is used.
    pub fn s3_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.s3_root = Some(root.into());
        self
    }

    /// Starts the local AWS, on threads of its own.
    ///
    /// # Errors
    /// Fails if the port cannot be listened on, or the folder cannot be created.
    pub async fn start(self) -> io::Result<LocalAws> {
        let (root, temporary_root) = match self.s3_root {
            Some(root) => (root, None),
            None => {
                let folder = tempfile::Builder::new().prefix("local-aws-").tempdir()?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        std::fs::create_dir_all(&root)?;
        let root = root.canonicalize()?;
        let shared = Arc::new(Shared::new(self.world, Store::open(&root)?));
        let served = Arc::clone(&shared);
        let listener = Listener::start(self.port, move |stream| {
            dispatch::serve(Arc::clone(&served), stream)
        })?;
        Ok(LocalAws {
            listener,
            archive_root: root,
            shared,
            last_look: LastLook::default(),
            _temporary_root: temporary_root,
        })
    }
}

impl Drop for LocalAws {
    fn drop(&mut self) {
        self.listener.stop();
        self.shared.functions.stop();
        if let Some(look) = self.last_look.0.take()
            && !std::thread::panicking()
        {
            look(&self.archive_root);
        }
    }
}
