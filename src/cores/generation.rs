//! [`Stamp`]: a state and the generation it belongs to, in one word.
//!
//! What admits a call gives it the stamp of that moment, and whoever comes back with a verdict shows it. When the generation
//! has moved on, the verdict speaks of a time that is over: a straggler admitted before a trip can neither close the circuit
//! nor decide a probe. Both parts are in one `u64` so that one atomic load sees them together.

/// The bits below the generation: what the owner of the stamp puts there.
const PAYLOAD_BITS: u32 = 6;
const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;

/// A generation, and six bits of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

// === impl Stamp ===

impl Stamp {
    /// The stamp of `generation` with `payload`, of which the lowest six bits are kept.
    pub(crate) const fn new(generation: u64, payload: u64) -> Self {
        Self((generation << PAYLOAD_BITS) | (payload & PAYLOAD))
    }

    /// The stamp in `word`, as written by [`word`](Self::word).
    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The stamp as one word.
    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    /// The generation; it wraps after 2^58, some 9 years of one change a nanosecond.
    pub(crate) const fn generation(self) -> u64 {
        self.0 >> PAYLOAD_BITS
    }

    /// The six bits of state.
    pub(crate) const fn payload(self) -> u64 {
        self.0 & PAYLOAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_keeps_both_parts() {
        let stamp = Stamp::new(77, 0b1010);
        assert_eq!((stamp.generation(), stamp.payload()), (77, 0b1010));
        assert_eq!(Stamp::from_word(stamp.word()), stamp);
        assert_eq!(Stamp::new(1, 0xff).generation(), 1, "a payload never reaches the generation");
    }
}
