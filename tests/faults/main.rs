//! One test or more for each fault that was found by running other people's bug reports on this library.
//!
//! A module per list and family; the number in a test's name is the entry of its list. Each of these tests failed on the code
//! of before the fix, or pins behaviour that turned out to be right.

mod balance_health;
mod cache_http;
mod core;
