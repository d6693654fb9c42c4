//! Counts and gauges of layers that share a name.
