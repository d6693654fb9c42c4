//! Waiting for a circuit, and what its rejections say.
