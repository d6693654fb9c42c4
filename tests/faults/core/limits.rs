//! Timeouts, deadlines, readiness and the ambient context.
