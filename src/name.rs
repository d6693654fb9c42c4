//! [`Name`]: what an operator calls a layer.

use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex};

use crate::cores::lock::lock;

/// The name of a layer, pool, probe or cache: it stands in every refusal, event, span and metric of that part.
///
/// Made from a `&'static str` it costs nothing to copy; made from a `String` it is shared, never copied. Names are chosen by
/// the operator, never by what comes from outside: each name is a metrics label. The names of layers stand in
/// refusals, which must be small and cheap to make; so one copy of each is kept for the life of the process, once for each text.
///
/// # Examples
///
/// ```
/// use mainstay::Name;
///
/// let fixed = Name::from("users-db");
/// let made = Name::from(format!("shard-{}", 7));
/// assert_eq!(&*fixed, "users-db");
/// assert_eq!(made.to_string(), "shard-7");
/// ```
#[derive(Clone)]
pub struct Name(Repr);

#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Name {
    /// A name known at compile time; usable in constants.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::Name;
    ///
    /// const USERS: Name = Name::from_static("users");
    /// assert_eq!(USERS.as_str(), "users");
    /// ```
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        Self(Repr::Static(name))
    }

    /// The text of the name.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::Name::from("a").as_str(), "a");
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(name) => name,
            Repr::Shared(name) => name,
        }
    }

    /// The name as it stands in refusals: without a count, and never dropped. The same text is the same name.
    pub(crate) fn kept(&self) -> &'static Self {
        static KEPT: LazyLock<Mutex<HashSet<&'static Name>>> = LazyLock::new(Mutex::default);
        let mut kept = lock(&KEPT);
        if let Some(name) = kept.get(self) {
            return name;
        }
        let name: &'static Self = Box::leak(Box::new(self.clone()));
        kept.insert(name);
        name
    }
}

// === impl Name ===

impl From<&'static str> for Name {
    fn from(name: &'static str) -> Self {
        Self::from_static(name)
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self(Repr::Shared(name.into()))
    }
}

impl From<Arc<str>> for Name {
    fn from(name: Arc<str>) -> Self {
        Self(Repr::Shared(name))
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Name {}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn a_name_is_kept_once_whatever_it_was_made_from() {
        let kept = Name::from("kept once").kept();
        assert_eq!(kept, &Name::from("kept once"));
        assert!(ptr::eq(kept, Name::from("kept once".to_owned()).kept()));
        assert!(!ptr::eq(kept, Name::from("kept too").kept()));
    }
}
