//! Cache-aside.

mod config;
mod cooldown;
mod core;
mod entry;
mod future;
mod gate;
mod handle;
mod key;
mod layer;
mod limit;
mod load;
mod miss;
mod policy;
mod served;
mod service;
mod single_flight;
pub mod store;
mod versions;

pub use config::CacheConfig;
pub use entry::Entry;
pub use future::CacheFuture;
pub use handle::{CacheHandle, CacheStatistics};
pub use key::{CacheKey, key_fn};
pub use layer::{CacheBuilder, CacheLayer, Custom, InMemory, MakeStore, NoKey, Weighted};
pub use served::{Served, StaleReason};
pub use service::Cache;
#[doc(inline)]
pub use store::{Lookup, MemoryStore, Store, StoreError};
pub use versions::Tags;
