//! How old an answer may be.

use super::*;

#[tokio::test]
async fn a_read_is_stale_once_a_newer_write_was_acknowledged_for_long_enough() {
    let mut world = World::new().await;
    world.wrote(0, 10, Some(20));
    world.wrote(1, 30, Some(40));
    world.apply(0).await;
    world.apply(1).await;
    world.read(1, 500, "miss");
    world.read(0, 139, "hit");
    world.read(0, 1039, "stale");
    assert_eq!(world.counts(), (0, 0, 0));
    world.read(0, 140, "hit");
    world.read(0, 1040, "stale");
    let audit = world.audit();
    assert_eq!((audit.lost, audit.duplicated, audit.stale), (0, 0, 2));
    assert_eq!(audit.examples[0], "a read of record 0 got version 0 more than 100µs after version 1");

    let failed = Sample { failure: Some("a wrong body".into()), ..world.reads[3].clone() };
    world.reads = vec![failed];
    assert_eq!(world.counts(), (0, 0, 0), "a failure is counted elsewhere");
    world.read(7, 50, "miss");
    assert_eq!(world.counts(), (0, 0, 1), "nobody wrote version 7");
}

#[tokio::test]
async fn a_read_of_a_write_that_overlapped_the_newer_one_is_not_stale() {
    let mut world = World::new().await;
    world.wrote(0, 10, Some(35));
    // Sent first, acknowledged last: for the writes after it, it is not definitely older.
    world.wrote(1, 30, Some(200));
    world.wrote(2, 40, Some(50));
    world.wrote(3, 60, None);
    for version in [0, 2, 1] {
        world.apply(version).await;
    }
    for version in [1, 2, 3] {
        world.read(version, 9_000, "hit");
    }
    assert_eq!(world.counts(), (0, 0, 0));
    // Only version 2 makes this stale, also once version 1 is the one that was acknowledged last.
    world.read(0, 150, "hit");
    world.read(0, 300, "hit");
    assert_eq!(world.counts(), (0, 0, 2));
}
