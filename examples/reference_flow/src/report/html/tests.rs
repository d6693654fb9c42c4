use super::*;
use crate::report::tests::{empty, report};

const EVIL: &str = "<img src=x onerror='alert(1)'> & \"more\"";

#[test]
fn text_is_escaped() {
    assert_eq!(escape("<a href='\"&\"'>"), "&lt;a href=&#39;&quot;&amp;&quot;&#39;&gt;");
    let mut report = report();
    report.ours.phases[1].name = EVIL.into();
    report.ours.phases[1].servers.insert(EVIL.into(), 1);
    report.ours.total.failures.insert(EVIL.into(), 1);
    report.demands[1].name = EVIL.into();
    report.demands[1].figure = EVIL.into();
    report.audit.examples = vec![EVIL.into()];
    report.audit.restored.as_mut().expect("a backup").integrity = EVIL.into();
    let page = page(&[report.clone(), report], 0);
    assert!(!page.contains("<img") && !page.contains("onerror='"));
    assert!(page.matches("&lt;img").count() >= 10);
}

#[test]
fn the_verdict_comes_first_and_names_what_was_not_met() {
    let mut report = report();
    let bad = page(std::slice::from_ref(&report), 0);
    let place = |text: &str| bad.find(text).unwrap_or_else(|| panic!("{text} is not there"));
    assert!(place("1 of 2 demands NOT met") < place("<li>no write is lost: <b>1 &lt;lost&gt;</b></li>"));
    assert!(place("<li>no write is lost") < place("<svg"));
    assert!(!bad.contains("All runs"));
    report.demands[1].met = true;
    let good = page(&[report.clone(), report], 1);
    assert!(good.contains("All 2 demands were met") && good.contains("7, shown on this page"));
}

#[test]
fn nothing_comes_from_elsewhere() {
    let page = page(&[report()], 0);
    for outside in ["http:", "https:", "src=", "<link", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn an_empty_run_has_a_page_without_nan() {
    for page in [page(&[empty()], 0), page(&[], 0)] {
        assert!(!page.contains("NaN") && !page.contains(">inf"), "{page}");
    }
    assert!(page(&[], 0).contains("There is no run to report."));
}

#[test]
fn nearly_all_is_not_100_percent() {
    let page = page(&[report()], 0);
    let [_, killed] = page.split("<b>server-killed</b>").collect::<Vec<_>>()[..] else { panic!("one such phase") };
    let row = killed.split("</tr>").nth(1).expect("ours");
    assert!(row.contains(r#"<tr class="ours">"#) && row.contains("<td>99.99 %</td>"), "{row}");
}

#[test]
fn every_phase_of_the_schedule_is_explained() {
    let names = "steady server-killed server-frozen server-slow server-failing database-stalled cache-failing \
                 cache-hanging cache-empty scaling database-killed burst recovered";
    let sentences: std::collections::BTreeSet<_> = names.split_whitespace().map(explain::explain).collect();
    assert_eq!(sentences.len(), 13);
    assert!(!sentences.contains(explain::explain("unknown")));
}
