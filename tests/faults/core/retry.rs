//! Retries: when to stop, when to wait, what is repeated.
