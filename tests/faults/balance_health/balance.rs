//! Picks, weights, drains and updates of a pool.
