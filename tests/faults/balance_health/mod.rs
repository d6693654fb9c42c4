//! Pools and health.

mod balance;
mod health;
