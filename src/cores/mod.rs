//! Pure parts shared by the families: no tokio, no tower, no metrics; `now` and random draws are arguments.

