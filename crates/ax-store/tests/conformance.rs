//! Every backend keeps the law of `Blobs`.

#![expect(clippy::unwrap_used, reason = "a test")]

use ax_core::id::Namespace;
use ax_store::{Blobs, conformance};
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use std::sync::Arc;

macro_rules! suite {
    ($backend:ident, $open:expr, [$($promise:ident),*]) => {
        mod $backend {
            use super::*;
            $(
                #[tokio::test]
                async fn $promise() {
                    let (blobs, _kept) = $open;
                    conformance::$promise(&blobs).await;
                }
            )*
        }
    };
}

fn local() -> (Blobs, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Blobs::local(&dir.path().join("deep/blobs")).unwrap(), dir)
}

suite!(memory, (Blobs::memory(), ()), [same, once, tenants, whole, large, collected, race]);
suite!(local, local(), [same, once, tenants, whole, large, collected, race]);

fn object(namespace: &Namespace, hex: &str) -> String {
    format!("v1/{namespace}/{}/{hex}", &hex[..2])
}

#[tokio::test]
async fn damage_in_memory_is_found() {
    let store = Arc::new(InMemory::new());
    let blobs = Blobs::new(store.clone());
    let damage = async |namespace: &Namespace, hex: &str, wrong: Bytes| {
        store.put(&Path::from(object(namespace, hex)), wrong.into()).await.unwrap();
    };
    conformance::verified(&blobs, damage).await;
}

#[tokio::test]
async fn damage_in_a_local_directory_is_found() {
    let (blobs, dir) = local();
    let damage = async |namespace: &Namespace, hex: &str, wrong: Bytes| {
        let path = dir.path().join("deep/blobs").join(object(namespace, hex));
        std::fs::write(path, wrong).unwrap();
    };
    conformance::verified(&blobs, damage).await;
}
