//! Lost writes, duplicates, and what nobody wrote.

use super::*;

#[tokio::test]
async fn a_version_that_is_definitely_older_means_that_the_newer_writes_are_lost() {
    let mut world = World::new().await;
    world.wrote(0, 10, Some(20));
    world.wrote(1, 21, Some(30));
    world.wrote(2, 31, Some(40));
    world.wrote(3, 41, None);
    world.apply(0).await;
    let audit = world.audit();
    assert_eq!((audit.acknowledged, audit.lost), (3, 2));
    assert_eq!(audit.examples[0], "record 0: version 1 was acknowledged, but version 0 is there");
}

#[tokio::test]
async fn of_two_writes_that_overlapped_either_may_be_the_last() {
    for last in [1, 2] {
        let mut world = World::new().await;
        world.wrote(0, 10, Some(20));
        world.wrote(1, 30, Some(50));
        // In the same microsecond is not before.
        world.wrote(2, 50, Some(60));
        for version in [0, 3 - last, last] {
            world.apply(version).await;
        }
        assert_eq!(world.counts(), (0, 0, 0), "version {last} is the last");
    }
}

#[tokio::test]
async fn an_unacknowledged_write_may_be_applied_late_or_never() {
    for applied in [&[0, 2][..], &[0, 1, 2], &[0, 2, 1]] {
        let mut world = World::new().await;
        world.wrote(0, 10, Some(20));
        world.wrote(1, 30, None);
        world.wrote(2, 40, Some(50));
        world.wrote_session("phone", 60, None);
        for version in applied {
            world.apply(*version).await;
        }
        assert_eq!(world.counts(), (0, 0, 0), "{applied:?}");
        world.apply_session("s", "phone").await;
        assert_eq!(world.counts(), (0, 0, 0), "{applied:?} and the session");
    }
}

#[tokio::test]
async fn what_is_not_there_at_all_is_lost_if_it_was_acknowledged() {
    let mut world = World::new().await;
    world.wrote(0, 10, Some(20));
    world.wrote(1, 30, None);
    world.wrote_session("phone", 10, Some(20));
    world.wrote_session("tablet", 10, Some(20));
    world.apply_session("s", "tablet").await;
    let audit = world.audit();
    assert_eq!((audit.lost, audit.duplicated, audit.stale), (2, 0, 0));
    assert_eq!(audit.examples[0], "record 0: version 0 was acknowledged, but nothing is there");
    assert_eq!(audit.examples[1], "the session of phone was acknowledged, but user 1 does not have it");
}

#[tokio::test]
async fn a_value_that_nobody_wrote_is_a_finding() {
    for foreign in [value(9), value(0).replace(r#""record":0"#, r#""record":1"#), "hello".into()] {
        let mut world = World::new().await;
        world.wrote(0, 10, Some(20));
        world.apply(0).await;
        assert_eq!(world.counts(), (0, 0, 0));
        world.apply_value("foreign", foreign).await;
        assert_eq!(world.counts(), (1, 0, 0));
    }
}

#[tokio::test]
async fn others_than_the_load_generator_may_write_too() {
    let mut world = World::new().await;
    world.wrote(0, 10, Some(20));
    world.apply(0).await;
    world.apply_session("walk", "browser").await;
    world.storage.write(None, Write::Record { user: 1, name: "greeting".into(), value: "hi".into() }).await.unwrap();
    assert_eq!(world.counts(), (0, 0, 0));
}

#[tokio::test]
async fn a_write_that_was_applied_twice_is_found_acknowledged_or_not() {
    for acknowledged in [None, Some(20)] {
        let mut world = World::new().await;
        world.wrote(0, 10, acknowledged);
        world.wrote_session("phone", 10, acknowledged);
        // The key does its work.
        for _ in 0..2 {
            world.apply(0).await;
            world.apply_session("s", "phone").await;
        }
        assert_eq!(world.counts(), (0, 0, 0));
        // A write that is applied again without its key: what a database does that does not know it any more.
        let again = Write::Record { user: 1, name: "r0".into(), value: value(0) };
        world.storage.write(None, again).await.unwrap();
        assert_eq!(world.counts(), (0, 1, 0));
        world.apply_session("other", "phone").await;
        assert_eq!(world.counts(), (0, 2, 0));
    }
}

#[tokio::test]
async fn keys_that_the_database_may_have_deleted_are_not_missed() {
    let mut world = World::new().await;
    world.wrote(0, 10, Some(20));
    let hours = u64::from(crate::storage::APPLIED_KEPT) * 1_000_000;
    world.wrote(1, hours + 10, Some(hours + 20));
    // The first one's key is gone by now.
    world.storage.write(None, Write::Record { user: 1, name: "r0".into(), value: value(0) }).await.unwrap();
    world.apply(1).await;
    assert_eq!(world.counts(), (0, 0, 0));
    world.storage.write(None, Write::Record { user: 1, name: "r0".into(), value: value(1) }).await.unwrap();
    assert_eq!(world.counts(), (0, 1, 0), "three writes by two are one too many whatever was deleted");
}

#[tokio::test]
async fn a_journal_that_contradicts_itself_is_an_error() {
    let world = World::new().await;
    let database = world.folder.path().join("database.sqlite");
    let twice = [record(1, 10, None), record(1, 20, None)];
    assert!(audit(&twice, &[], &database, None, &STALENESS, world.folder.path()).is_err());
    let nowhere = world.folder.path().join("nothing.sqlite");
    assert!(audit(&[], &[], &nowhere, None, &STALENESS, world.folder.path()).is_err());
    assert!(!nowhere.exists());
}
