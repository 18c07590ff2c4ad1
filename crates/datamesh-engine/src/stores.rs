//! Object stores for DataFusion, by way of our storage.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datamesh_iceberg::Storage;
use object_store::ObjectStore;
use url::Url;

use crate::error::wrap;

/// Finds the store of a URL. Whatever store the environment gives access to is found without being registered.
#[derive(Debug)]
pub(crate) struct Stores {
    storage: Storage,
    registered: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl Stores {
    pub(crate) fn new(storage: Storage) -> Self {
        Self { storage, registered: Mutex::default() }
    }
}

/// Scheme and authority.
fn root(url: &Url) -> String {
    url[..url::Position::BeforePath].to_owned()
}

impl ObjectStoreRegistry for Stores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner).insert(root(url), store)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner).get(&root(url)).cloned();
        match registered {
            Some(store) => Ok(store),
            None => self.storage.object_store(url.as_str()).map_err(wrap),
        }
    }
}
