//! What happens in each phase, in one sentence.

pub(super) fn explain(phase: &str) -> &'static str {
    match phase {
        "steady" => "Nothing is wrong: servers, caches and the database are all well.",
        "server-killed" => "One application server is killed in the middle of its requests, without a word to anyone.",
        "server-frozen" => "One application server stops dead: its connections stay open, but nothing comes back.",
        "server-slow" => "One application server still answers correctly, but far later than the others.",
        "server-failing" => "One application server answers quickly, but with errors.",
        "database-stalled" => {
            "The database takes queries and answers none of them; what the caches hold is all there is."
        }
        "cache-failing" => "The store behind the cache fails every call, so values have to come from the database.",
        "cache-hanging" => "The store behind the cache never answers, so whoever waits for it waits in vain.",
        "cache-empty" => "Everything cached is thrown away at once, and all reads want the database at the same time.",
        "scaling" => "Application servers join and leave while the load goes on.",
        "database-killed" => "The database is killed at work, and has to come back with all it had acknowledged.",
        "burst" => "Far more requests come than the flow can answer; some of them have to be turned away.",
        "recovered" => "All disasters are over: the flow has to be as good as it was before the first.",
        _ => "A part of the schedule that this page has no words for.",
    }
}

/// Whether nothing is made to go wrong in it.
pub(super) fn is_calm(phase: &str) -> bool {
    matches!(phase, "steady" | "recovered")
}
