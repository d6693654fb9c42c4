//! What it takes to count the instructions of a call: a service that the compiler cannot see through, the loop that calls it,
//! and callgrind.
//!
//! `tools/instructions` counts our own layers with it, `benches/peers` ours and others'.

pub mod bare;
pub mod callgrind;
pub mod subject;
