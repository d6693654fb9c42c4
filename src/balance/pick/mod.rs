//! Who is next: places in a list, by a draw or a counter. Pure; the loads are the caller's.

pub(crate) mod p2c;
pub(crate) mod round_robin;
