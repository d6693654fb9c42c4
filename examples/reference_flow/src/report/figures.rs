//! How figures are written, the same in the terminal and on the page.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::audit::Audit;
use crate::measured::Phase;

/// Stands where there is nothing to give a figure of.
pub(super) const NONE: &str = "-";

/// Two digits, cut, not rounded: 100.00 % means that nothing is missing.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return NONE.into();
    }
    let hundredths = u128::from(part) * 10_000 / u128::from(whole);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

/// No digits, cut.
pub(super) fn whole_percent(part: u64, whole: u64) -> String {
    if whole == 0 { NONE.into() } else { format!("{} %", u128::from(part) * 100 / u128::from(whole)) }
}

/// At most eight characters, up to 100 000 s.
pub(super) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        // Not 1.0: what rounds up to 1000.0 ms is a second.
        seconds if seconds < 0.999_95 => format!("{:.1} ms", seconds * 1000.0),
        seconds if seconds < 100.0 => format!("{seconds:.2} s"),
        seconds => format!("{seconds:.0} s"),
    }
}

/// 1234567 is 1 234 567.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut spaced = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            spaced.push(' ');
        }
        spaced.push(digit);
    }
    spaced
}

pub(super) fn success(phase: &Phase) -> String {
    percent(phase.succeeded, phase.offered)
}

/// A quantile of the phase; without requests there is none.
pub(super) fn latency(phase: &Phase, quantile: Duration) -> String {
    if phase.offered == 0 { NONE.into() } else { time(quantile) }
}

pub(super) fn amplification(phase: &Phase) -> String {
    if phase.counts.forwarded == 0 { NONE.into() } else { format!("{:.2}", phase.amplification()) }
}

pub(super) fn hits(phase: &Phase) -> String {
    whole_percent(phase.hits, phase.reads)
}

pub(super) fn share(phase: &Phase, server: &str) -> String {
    whole_percent(phase.servers.get(server).copied().unwrap_or_default(), phase.servers.values().sum())
}

/// The most frequent first.
pub(super) fn by_count(counts: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let mut sorted: Vec<_> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sorted
}

/// What became of the writes: what it is, and the figure.
pub(super) fn writes(audit: &Audit) -> Vec<(&'static str, String)> {
    let backup = audit.restored.as_ref().map_or("there was none".into(), |restored| {
        format!(
            "{} acknowledged before it began, {} of them missing, {} foreign, integrity: {}",
            count(restored.acknowledged),
            count(restored.missing),
            count(restored.foreign),
            restored.integrity
        )
    });
    vec![
        ("acknowledged", count(audit.acknowledged)),
        ("lost", count(audit.lost)),
        ("duplicated", count(audit.duplicated)),
        ("stale reads", count(audit.stale)),
        ("backup restored", backup),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_cut_so_that_100_means_all() {
        assert_eq!(percent(1_000_000, 1_000_000), "100.00 %");
        assert_eq!(percent(999_999, 1_000_000), "99.99 %");
        assert_eq!(percent(29, 10_000), "0.29 %");
        assert_eq!(percent(u64::MAX - 1, u64::MAX), "99.99 %");
        assert_eq!((percent(0, 0), whole_percent(0, 0)), ("-".into(), "-".into()));
        assert_eq!(whole_percent(999, 1000), "99 %");
    }

    #[test]
    fn a_time_keeps_to_its_column() {
        assert_eq!(time(Duration::from_micros(1_234)), "1.2 ms");
        assert_eq!(time(Duration::from_micros(999_949)), "999.9 ms");
        assert_eq!(time(Duration::from_micros(999_960)), "1.00 s");
        assert_eq!(time(Duration::from_millis(12_345)), "12.35 s");
        assert!(
            [0, 1, 999_999, 99_999_999, 3_600_000_000]
                .into_iter()
                .all(|micros| { time(Duration::from_micros(micros)).len() <= 8 })
        );
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1 000", "1 234 567"]);
    }
}
