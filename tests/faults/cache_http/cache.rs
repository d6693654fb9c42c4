//! Invalidation, single flight, and what may be shared or stored.
