//! Monitors and what happens after their end.
