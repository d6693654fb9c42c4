//! [`Versions`]: what makes an invalidation stick, although a load that began before it is still under way.
//!
//! One clock ticks at every invalidation. A load notes the clock as it begins; its entry carries that *stamp*. An
//! invalidation by tag writes its tick into the tag's slot, one of a fixed number chosen by hash, and an entry whose stamp is
//! older than the slot of any of its tags is dead, whenever it was written. Two tags that share a slot invalidate each other's
//! entries: a needless load, never a stale answer. So memory stays constant whatever tags come from outside.
//!
//! A key needs no slot: a load of it that is under way is known by name (see [`super::single_flight`]).

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use crate::cores::sync::atomic::{AtomicU64, Ordering};

/// The number of slots for tags. At 100 invalidations of different tags in the life of an entry with one tag, it has a
/// chance of 2.4 % to be dropped for nothing. (A model needs no more than one.)
const SLOTS: u16 = if cfg!(mainstay_loom) { 1 } else { 4096 };

/// When the load of an entry began, and which slots its tags have.
#[derive(Clone, Default)]
pub(crate) struct Stamp {
    began: u64,
    // Most entries have no tags, and then nothing is allocated.
    tags: Option<Box<[u16]>>,
}

/// The clock of invalidations and the slots of tags.
pub(crate) struct Versions {
    clock: AtomicU64,
    cleared: AtomicU64,
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

/// The tags of one answer, named as it is stored; see [`CacheBuilder::tags`](super::CacheBuilder::tags).
///
/// # Examples
///
/// ```
/// use mainstay::cache::Tags;
///
/// struct Order { customer: u64 }
///
/// fn tag(order: &Order, tags: &mut Tags<'_>) {
///     tags.add(&format!("customer:{}", order.customer));
/// }
/// # let _ = tag;
/// ```
pub struct Tags<'a> {
    versions: &'a Versions,
    slots: Vec<u16>,
}

// === impl Stamp ===

impl Stamp {
    /// The time at which the load of the entry began.
    pub(crate) const fn began(&self) -> u64 {
        self.began
    }
}

// === impl Versions ===

impl Versions {
    pub(crate) fn new() -> Self {
        Self {
            clock: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The time a load notes before it begins.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Kills every entry with `tag` whose load began before this returns.
    pub(crate) fn invalidate(&self, tag: &str) {
        let tick = self.tick();
        self.slots[usize::from(self.slot(tag))].fetch_max(tick, Ordering::SeqCst);
    }

    /// Kills every entry whose load began before this returns.
    pub(crate) fn clear(&self) {
        let tick = self.tick();
        self.cleared.fetch_max(tick, Ordering::SeqCst);
    }

    /// Whether nothing was invalidated that concerns an entry with this stamp.
    #[inline]
    pub(crate) fn is_current(&self, stamp: &Stamp) -> bool {
        if stamp.began < self.cleared.load(Ordering::Acquire) {
            return false;
        }
        match &stamp.tags {
            None => true,
            Some(tags) => tags.iter().all(|slot| stamp.began >= self.slots[usize::from(*slot)].load(Ordering::Acquire)),
        }
    }

    /// An empty list of tags.
    pub(crate) const fn tags(&self) -> Tags<'_> {
        Tags { versions: self, slots: Vec::new() }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below SLOTS")]
    fn slot(&self, tag: &str) -> u16 {
        (self.hasher.hash_one(tag) % u64::from(SLOTS)) as u16
    }
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versions").field("clock", &self.clock).finish_non_exhaustive()
    }
}

// === impl Tags ===

impl Tags<'_> {
    /// Adds a tag. Only its hash is kept.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// let layer = CacheLayer::builder("users")
    ///     .key(|id: &u32| Some(*id))
    ///     .tags(|id: &u32, _user: &String, tags| tags.add(&format!("team:{}", id / 100)))
    ///     .build()?;
    /// layer.handle().invalidate_tag("team:7");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn add(&mut self, tag: &str) {
        let slot = self.versions.slot(tag);
        if !self.slots.contains(&slot) {
            self.slots.push(slot);
        }
    }

    pub(crate) fn stamp(self, began: u64) -> Stamp {
        Stamp { began, tags: (!self.slots.is_empty()).then(|| self.slots.into_boxed_slice()) }
    }
}

impl fmt::Debug for Tags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tags").field("count", &self.slots.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(versions: &Versions, tags: &[&str]) -> Stamp {
        let mut list = versions.tags();
        tags.iter().for_each(|tag| list.add(tag));
        list.stamp(versions.now())
    }

    #[test]
    fn an_invalidated_tag_kills_what_began_before_and_nothing_after() {
        let versions = Versions::new();
        let before = stamp(&versions, &["user:7", "team:1"]);
        let bare = stamp(&versions, &[]);
        assert!(versions.is_current(&before));

        versions.invalidate("team:1");
        assert!(!versions.is_current(&before));
        assert!(versions.is_current(&bare));
        assert!(versions.is_current(&stamp(&versions, &["team:1"])));
    }

    #[test]
    fn clearing_kills_everything_that_began_before() {
        let versions = Versions::new();
        let before = stamp(&versions, &[]);
        versions.clear();
        assert!(!versions.is_current(&before));
        assert!(versions.is_current(&stamp(&versions, &[])));
    }

    #[test]
    fn any_number_of_tags_needs_no_more_memory() {
        let versions = Versions::new();
        (0..100_000).for_each(|tag| versions.invalidate(&format!("from-outside:{tag}")));
        assert_eq!(versions.slots.len(), usize::from(SLOTS));
    }
}

#[cfg(all(test, mainstay_loom))]
mod model {
    use std::sync::Arc;

    use super::*;
    use crate::cores::sync::model::{every_order, join, spawn, with_interruptions};

    fn stamp(versions: &Versions, began: u64) -> Stamp {
        let mut tags = versions.tags();
        tags.add("tag");
        tags.stamp(began)
    }

    /// What is behind the cache is written first, then the tag is invalidated. Whatever a load of that time read, its entry is
    /// dead afterwards if it read what was there before; one that began after all that is alive.
    #[test]
    fn no_entry_outlives_an_invalidation_that_its_load_did_not_see() {
        with_interruptions(3, || {
            let versions = Arc::new(Versions::new());
            let rows = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
            let writers = [0, 1].map(|row| {
                let (versions, rows) = (Arc::clone(&versions), Arc::clone(&rows));
                spawn(move || {
                    rows[row].store(1, Ordering::Relaxed);
                    versions.invalidate("tag");
                })
            });
            let loader = {
                let (versions, rows) = (Arc::clone(&versions), Arc::clone(&rows));
                spawn(move || {
                    let began = versions.now();
                    let read = [0, 1].map(|row| rows[row].load(Ordering::Relaxed));
                    (stamp(&versions, began), read)
                })
            };
            let (entry, read) = join(loader);
            writers.into_iter().for_each(join);
            assert!(read == [1, 1] || !versions.is_current(&entry), "it holds {read:?}");
            assert!(versions.is_current(&stamp(&versions, versions.now())));
        });
    }

    #[test]
    fn no_entry_outlives_a_clearing_that_its_load_did_not_see() {
        every_order(|| {
            let versions = Arc::new(Versions::new());
            let row = Arc::new(AtomicU64::new(0));
            let clearers = [(); 2].map(|()| {
                let (versions, row) = (Arc::clone(&versions), Arc::clone(&row));
                spawn(move || {
                    row.fetch_add(1, Ordering::Relaxed);
                    versions.clear();
                })
            });
            let began = versions.now();
            let read = row.load(Ordering::Relaxed);
            clearers.into_iter().for_each(join);
            assert!(read == 2 || !versions.is_current(&stamp(&versions, began)), "it holds {read}");
            assert!(versions.is_current(&stamp(&versions, versions.now())));
        });
    }
}
