//! Errors that carry a rejection through boxes, lifts and spawned tasks.
