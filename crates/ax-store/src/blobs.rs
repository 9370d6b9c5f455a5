//! The store itself: how it is opened, and what is known of the blobs in it.

use crate::error::{OpenError, StoreError, failed};
use crate::id::BlobId;
use crate::layout::{self, Place};
use crate::local::Local;
use ax_core::id::Namespace;
use ax_core::time::Timestamp;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::RwLock;

/// Puts and removals of one blob exclude each other through one of this many locks.
const SHARDS: usize = 64;

/// Content-addressed blobs, per namespace. A clone is another handle of the same store.
///
/// # Law
///
/// Each promise has a conformance test of the same number in [`crate::conformance`].
///
/// 1. **Same.** What is read is, byte for byte, what was put under that name.
/// 2. **Once.** The same content in one namespace is kept and counted once.
/// 3. **Tenants.** A blob of one namespace is not in another, also if the content is the same.
/// 4. **Whole.** A content that broke off, or is too large, leaves nothing to be seen.
/// 5. **Large.** Contents of any size are taken in and given out in bounded memory.
/// 6. **Collected.** A collection removes what is neither live nor young, and nothing else.
/// 7. **Race.** A content that is put while it is being collected is there afterwards.
/// 8. **Verified.** Damage is an error that names the blob, before the last byte is given out.
///
/// And of the local directory: what `put` returned survives the loss of power.
///
/// # One process
///
/// Promise 7 holds among the handles of one store. Two processes may put and get in the same place
/// at any time, but only the one that owns the logs may collect (`docs/adr/0004-blobs.md`).
#[derive(Clone, Debug)]
pub struct Blobs {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Set if the store is a local directory, which has a durability and leftovers of its own.
    pub(crate) local: Option<Local>,
    /// A put publishes under a shared lock, a removal looks and removes under an exclusive one.
    shards: Vec<RwLock<()>>,
    /// The names of the uploads of this process that are under way.
    uploads: Mutex<HashSet<String>>,
    /// Makes names of uploads differ from those of other processes.
    nonce: u64,
    upload_next: AtomicU64,
    pub(crate) counting: Counting,
}

/// What is known of a blob without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its name.
    pub id: BlobId,
    /// The length that is kept, in bytes.
    pub bytes: u64,
    /// When it was last put, by the clock of the store.
    pub modified_at: Timestamp,
}

/// What a namespace keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The number of blobs.
    pub count: u64,
    /// The sum of their lengths, in bytes.
    pub bytes: u64,
}

/// What this store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blobs that were put.
    pub puts: u64,
    /// Their lengths, in bytes.
    pub put_bytes: u64,
    /// Blobs that were opened for reading.
    pub gets: u64,
}

/// Counts it.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    puts: AtomicU64,
    put_bytes: AtomicU64,
    gets: AtomicU64,
}

impl Counting {
    pub(crate) fn put(&self, bytes: u64) {
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.put_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) {
        self.gets.fetch_add(1, Ordering::Relaxed);
    }
}

/// Keeps an upload from being taken for an abandoned one.
#[derive(Debug)]
pub(crate) struct UnderWay {
    inner: Arc<Inner>,
    pub(crate) name: String,
}

impl Blobs {
    /// Keeps blobs in any object store. Whether a `put` is durable is up to that store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self::build(store, None)
    }

    /// Keeps blobs in memory, for tests and simulations. Needs no tokio runtime.
    pub fn memory() -> Self {
        Self::build(Arc::new(InMemory::new()), None)
    }

    /// Returns what this store has done since it was opened.
    pub fn counters(&self) -> Counters {
        let Counting { puts, put_bytes, gets } = &self.inner.counting;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters { puts: count(puts), put_bytes: count(put_bytes), gets: count(gets) }
    }

    /// Keeps blobs in a directory, which is made if there is none. Each is durable when `put`
    /// returns: file and directories are synced.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError`] if the directory cannot be made or read.
    pub fn local(dir: &Path) -> Result<Self, OpenError> {
        let (local, store) = Local::open(dir)?;
        Ok(Self::build(Arc::new(store), Some(local)))
    }

    /// Keeps blobs where a URL says: `file:///dir`, `memory:`, and with the feature `s3` also
    /// `s3://bucket/prefix` and the `https` forms of S3-compatible services.
    ///
    /// The options are those of the object store library, for example `aws_region`,
    /// `aws_endpoint`, `aws_access_key_id`.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError`] if the URL or an option is not understood.
    pub fn from_url<K, V>(
        url: &str,
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, OpenError>
    where
        K: AsRef<str>,
        V: Into<String>,
    {
        let refuse = |reason: String| OpenError::Url { url: url.to_owned(), reason };
        let parsed = url::Url::parse(url).map_err(|error| refuse(error.to_string()))?;
        match parsed.scheme() {
            "memory" => return Ok(Self::memory()),
            "file" => {
                let path = parsed.to_file_path();
                return Self::local(&path.map_err(|()| refuse("it has a host".to_owned()))?);
            }
            _ => {}
        }
        let (store, prefix) = object_store::parse_url_opts(&parsed, options)
            .map_err(|source| OpenError::Store { location: without_user(parsed), source })?;
        Ok(Self::new(Arc::new(PrefixStore::new(store, prefix))))
    }

    fn build(store: Arc<dyn ObjectStore>, local: Option<Local>) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::new(())).collect();
        let nonce = RandomState::new().hash_one(0u8);
        let upload_next = AtomicU64::new(0);
        let uploads = Mutex::default();
        let counting = Counting::default();
        let inner = Inner { store, local, shards, uploads, nonce, upload_next, counting };
        Self { inner: Arc::new(inner) }
    }

    /// Returns what is known of a blob; `None` if it is not in this namespace.
    ///
    /// A removal that is under way comes first: what is found here is removed only by one that asks
    /// again whether it is live.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] if the store fails.
    pub async fn stat(
        &self,
        namespace: &Namespace,
        id: &BlobId,
    ) -> Result<Option<Stat>, StoreError> {
        let _shared = self.inner.shard(id).read().await;
        self.head(namespace, id).await
    }

    /// Looks a blob up. The caller has its lock, or need not have it.
    pub(crate) async fn head(
        &self,
        namespace: &Namespace,
        id: &BlobId,
    ) -> Result<Option<Stat>, StoreError> {
        match self.inner.store.head(&layout::blob(namespace, id)).await {
            Ok(meta) => Ok(Some(stat(*id, &meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(format!("look for {id}"))(error)),
        }
    }

    /// Lists the blobs of a namespace, in no particular order. One that is put or removed
    /// meanwhile may or may not be in it.
    pub fn list(&self, namespace: &Namespace) -> BoxStream<'static, Result<Stat, StoreError>> {
        self.places(namespace)
            .try_filter_map(|(place, meta)| async move {
                Ok(match place {
                    Place::Blob(id) => Some(stat(id, &meta)),
                    Place::Staging(_) | Place::Foreign => None,
                })
            })
            .boxed()
    }

    /// Counts the blobs of a namespace and their bytes. Takes a listing.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] if the store fails.
    pub async fn usage(&self, namespace: &Namespace) -> Result<Usage, StoreError> {
        let mut usage = Usage::default();
        let mut blobs = self.list(namespace);
        while let Some(blob) = blobs.try_next().await? {
            usage.count += 1;
            usage.bytes += blob.bytes;
        }
        Ok(usage)
    }

    /// Returns the namespaces that have, or once had, a blob here.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] if the store fails.
    pub async fn namespaces(&self) -> Result<Vec<Namespace>, StoreError> {
        let version = object_store::path::Path::from(layout::VERSION);
        let found = self.inner.store.list_with_delimiter(Some(&version)).await;
        let found = match found {
            Ok(found) => found.common_prefixes,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(failed("list the namespaces")(error)),
        };
        let names = found.iter().filter_map(|path| Namespace::new(path.filename()?).ok());
        Ok(names.collect())
    }

    /// Lists everything that is kept for a namespace, blobs or not.
    pub(crate) fn places(
        &self,
        namespace: &Namespace,
    ) -> BoxStream<'static, Result<(Place, ObjectMeta), StoreError>> {
        let doing = format!("list the blobs of {namespace}");
        self.inner
            .store
            .list(Some(&layout::namespace(namespace)))
            .map_ok(|meta| (layout::place(&meta.location), meta))
            .map_err(move |error| failed(doing.clone())(error))
            .boxed()
    }
}

impl Inner {
    /// Returns the lock that puts and removals of this blob share.
    pub(crate) fn shard(&self, id: &BlobId) -> &RwLock<()> {
        &self.shards[usize::from(id.0[0]) % SHARDS]
    }

    /// Names an upload and marks it as under way.
    pub(crate) fn begin_upload(self: &Arc<Self>) -> UnderWay {
        let number = self.upload_next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{:016x}-{number}", self.nonce);
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        UnderWay { inner: Arc::clone(self), name }
    }

    /// Whether an upload of this name is under way in this process.
    pub(crate) fn is_under_way(&self, name: &str) -> bool {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.inner.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// Converts what the library knows of an object.
pub(crate) fn stat(id: BlobId, meta: &ObjectMeta) -> Stat {
    Stat { id, bytes: meta.size, modified_at: modified_at(meta) }
}

/// When the object was last written; a time before 1970 counts as 1970.
pub(crate) fn modified_at(meta: &ObjectMeta) -> Timestamp {
    Timestamp::from_millis(u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0))
}

/// The URL without what may be a secret in it.
fn without_user(mut url: url::Url) -> String {
    url.set_query(None);
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        return url.scheme().to_owned();
    }
    url.to_string()
}
