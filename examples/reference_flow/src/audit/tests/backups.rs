//! Backups, restored and compared; and what a careless database loses.

use super::*;

#[tokio::test]
async fn a_backup_is_restored_served_and_compared_up_to_its_time() {
    let mut world = World::new().await;
    world.wrote(0, 10, Some(20));
    world.wrote_session("phone", 10, Some(20));
    // Under way while the backup was made: it may be in it, or not.
    world.wrote(1, 90, Some(150));
    world.wrote_session("tablet", 90, Some(150));
    world.wrote(2, 210, Some(220));
    world.apply(0).await;
    world.apply_session("s1", "phone").await;
    world.back_up(100, 200).await;
    for version in [1, 2] {
        world.apply(version).await;
    }
    world.apply_session("s2", "tablet").await;
    let expected = Restored { acknowledged: 2, missing: 0, foreign: 0, integrity: "ok".into() };
    assert_eq!(world.audit().restored, Some(expected.clone()));
    assert_eq!(world.counts(), (0, 0, 0));

    // The same backup, said to be of a later time: it should have both of the writes that are acknowledged by then.
    world.backup.as_mut().unwrap().began = Moment(151);
    let audit = world.audit();
    assert_eq!(audit.restored, Some(Restored { acknowledged: 4, missing: 2, ..expected }));
    assert_eq!(audit.examples[0], "backup: record 0: version 1 was acknowledged, but version 0 is there");
    assert_eq!((audit.lost, audit.examples.len()), (0, 2));
}

#[tokio::test]
async fn content_that_is_newer_than_the_backup_is_foreign_to_it() {
    let mut world = World::new().await;
    world.wrote(0, 10, Some(20));
    world.wrote(1, 200, Some(230));
    world.wrote_session("phone", 200, None);
    for version in [0, 1] {
        world.apply(version).await;
    }
    world.apply_session("s", "phone").await;
    world.back_up(100, 200).await;
    let expected = Restored { acknowledged: 1, missing: 0, foreign: 0, integrity: "ok".into() };
    assert_eq!(world.audit().restored, Some(expected.clone()));
    world.backup.as_mut().unwrap().ended = Moment(199);
    let audit = world.audit();
    assert_eq!(audit.restored, Some(Restored { foreign: 2, ..expected }));
    assert_eq!(audit.examples[1], "backup: the session of phone was sent later");
}

#[tokio::test]
async fn a_backup_that_cannot_be_restored_is_a_finding() {
    let mut world = World::new().await;
    world.wrote(0, 10, Some(20));
    world.apply(0).await;
    world.back_up(100, 200).await;
    let path = world.backup.as_ref().unwrap().path.clone();
    let whole = std::fs::read(&path).unwrap();
    for broken in [&b"no database at all, but as long as its header would be"[..], &whole[..whole.len() / 2]] {
        std::fs::write(&path, broken).unwrap();
        let audit = world.audit();
        let restored = audit.restored.unwrap();
        assert_eq!((restored.acknowledged, restored.missing), (1, 1));
        assert_ne!(restored.integrity, "ok");
        assert!(audit.examples[0].starts_with("backup: ") || audit.examples[0].starts_with("the backup"));
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(world.audit().restored.unwrap().missing, 1);
}

#[tokio::test]
async fn what_a_careless_database_loses_in_a_crash_is_found() {
    let mut world = World::of(Storage::open_careless).await;
    world.wrote(0, 10, Some(20));
    world.wrote_session("phone", 10, Some(20));
    world.apply(0).await;
    world.apply_session("s", "phone").await;
    world.back_up(30, 40).await;
    world.wrote(1, 50, Some(60));
    world.wrote_session("tablet", 50, Some(60));
    world.apply(1).await;
    world.apply_session("t", "tablet").await;
    // Without an orderly end: what is open is not committed, which is also what a kill leaves. The first writes may have been
    // committed by now, if half a second has passed.
    let audit = world.audit();
    assert!((1..=4).contains(&audit.lost), "{audit:?}");
    assert_eq!(audit.restored.unwrap().missing, 2);
}
