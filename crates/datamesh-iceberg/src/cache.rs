//! A cache of what never changes: manifest lists and manifests, by location.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Parsed metadata files, by location, within a bound of bytes. The least recently used go first.
///
/// Nothing is ever invalidated: a location names the same bytes for as long as it exists.
pub struct TableCache {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<String, Entry>,
    /// Locations by the moment of their last use.
    order: BTreeMap<u64, String>,
    bytes: usize,
    moment: u64,
}

struct Entry {
    value: Arc<dyn Any + Send + Sync>,
    bytes: usize,
    used: u64,
}

impl fmt::Debug for TableCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableCache").field("limit", &self.limit).field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl TableCache {
    /// An empty cache that holds at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// How many bytes it holds, by the estimates of those who put them in.
    pub fn bytes(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    pub(crate) fn get<T: Any + Send + Sync>(&self, location: &str) -> Option<Arc<T>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.moment += 1;
        let moment = state.moment;
        let entry = state.entries.get_mut(location)?;
        let value = entry.value.clone().downcast::<T>().ok()?;
        let before = std::mem::replace(&mut entry.used, moment);
        state.order.remove(&before);
        state.order.insert(moment, location.to_owned());
        Some(value)
    }

    /// Keeps a value that takes about `bytes`. What is larger than the whole cache is not kept.
    pub(crate) fn put<T: Any + Send + Sync>(&self, location: &str, value: Arc<T>, bytes: usize) {
        if bytes > self.limit {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.moment += 1;
        let used = state.moment;
        if let Some(old) = state.entries.insert(location.to_owned(), Entry { value, bytes, used }) {
            state.order.remove(&old.used);
            state.bytes -= old.bytes;
        }
        state.order.insert(used, location.to_owned());
        state.bytes += bytes;
        while state.bytes > self.limit {
            let Some((_, oldest)) = state.order.pop_first() else { break };
            if let Some(entry) = state.entries.remove(&oldest) {
                state.bytes -= entry.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_go_first() {
        let cache = TableCache::new(100);
        for name in ["a", "b"] {
            cache.put(name, Arc::new(name.to_owned()), 40);
        }
        assert_eq!(cache.get::<String>("a").as_deref().map(String::as_str), Some("a"));
        cache.put("c", Arc::new("c".to_owned()), 40);
        assert!(cache.get::<String>("b").is_none(), "b was used longest ago");
        assert!(cache.get::<String>("a").is_some() && cache.get::<String>("c").is_some());
        assert_eq!(cache.bytes(), 80);
        cache.put("huge", Arc::new(1_u8), 101);
        assert_eq!(cache.bytes(), 80, "what does not fit is not kept");
        cache.put("a", Arc::new("a".to_owned()), 10);
        assert_eq!(cache.bytes(), 50);
        assert!(cache.get::<u8>("a").is_none(), "a location has one type");
    }
}
