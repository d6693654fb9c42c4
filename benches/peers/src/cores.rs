//! Threads pinned to a core each, where the system lets us: else two threads may share one, and what they get done together says
//! nothing about what they share.

/// The cores of the two threads; none where threads cannot be pinned, or only one core is ours.
#[cfg(target_os = "linux")]
pub(crate) fn two() -> Option<[usize; 2]> {
    use nix::sched::{CpuSet, sched_getaffinity};
    use nix::unistd::Pid;

    let ours = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let mut cores = (0..CpuSet::count()).filter(|&core| ours.is_set(core).unwrap_or(false));
    Some([cores.next()?, cores.next()?])
}

/// Keeps the calling thread on `core`.
#[cfg(target_os = "linux")]
pub(crate) fn pin(core: usize) {
    use nix::sched::{CpuSet, sched_setaffinity};
    use nix::unistd::Pid;

    let mut only = CpuSet::new();
    only.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only)).expect("one of the cores that are ours");
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn two() -> Option<[usize; 2]> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_: usize) {}
