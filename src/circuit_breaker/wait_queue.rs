//! [`WaitQueue`]: the calls that wait for a circuit, first in, first out. Pure: it takes `now` and returns what to wake.
//!
//! A waiter is *released* when the circuit has room for its call: it leaves the queue and gets a turn, which ends with its call,
//! with its departure, or when it lapses. There are never more turns than there is room, so that a call with a turn finds a
//! slot, and a place that is not used goes to the next waiter in order.
//!
//! Time moves the circuit only when something looks. The first waiter looks when the next thing is due; each waiter behind it
//! does so a little later than the one before, so that one wake-up suffices as long as waiters respond, and a waiter that
//! does not (its task or its runtime is gone, but its service is kept) delays the others by milliseconds.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The longest time from a waiter's release to its call. It covers the wake-up of a task, and an inner service that has to
/// connect before it is ready; a waiter that needs longer goes back into the queue.
pub(super) const TURN: Duration = Duration::from_millis(500);

/// How much later each waiter looks than the one before it.
const STAGGER: Duration = Duration::from_millis(10);

/// The most steps of [`STAGGER`].
const MOST_STEPS: u32 = 100;

/// The queue. `W` wakes a waiter.
#[derive(Debug)]
pub(super) struct WaitQueue<W> {
    /// Those who wait, by their numbers, which are given in the order of arrival.
    waiting: BTreeMap<u64, Waiting<W>>,
    /// Those who were released and have not called yet, and when their turns lapse: the first to lapse first.
    turns: VecDeque<(u64, Instant)>,
    last_number: u64,
    /// The generation of the circuit that the turns are for.
    generation: u64,
    /// Calls that a ramp has admitted in this generation and that were not made yet.
    earned: usize,
    /// What the first waiter has to look out for.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Waiting<W> {
    /// When it gives up; `None` is beyond the end of time.
    until: Option<Instant>,
    /// When it looks by itself.
    looks: Option<Instant>,
    /// Taken when it is woken; the waiter leaves another when it looks.
    waker: Option<W>,
}

/// How many calls a circuit has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Waiting makes no sense: every call is admitted, or every call is rejected.
    NoQueue,
    /// For so many calls.
    Slots(usize),
    /// For those that a ramp has admitted.
    Earned,
}

/// What a circuit is to the calls that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) generation: u64,
    pub(super) room: Room,
    /// When time alone changes something next, if that is known.
    pub(super) due: Option<Instant>,
}

// === impl WaitQueue ===

impl<W> WaitQueue<W> {
    pub(super) const fn new() -> Self {
        Self { waiting: BTreeMap::new(), turns: VecDeque::new(), last_number: 0, generation: 0, earned: 0, due: None }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many calls go before one that comes now: those that wait, and those that were released.
    pub(super) fn ahead(&mut self, generation: u64, now: Instant) -> usize {
        self.begin(generation);
        self.lapse(now);
        self.waiting.len() + self.turns.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.turns.is_empty()
    }

    /// A ramp admits one call more.
    pub(super) fn earn(&mut self, generation: u64) {
        self.begin(generation);
        self.earned += 1;
    }

    /// Gives a newcomer the next number.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Puts a waiter in its place by its number, without anything to wake it; returns what would have done so before.
    pub(super) fn enter(&mut self, number: u64, until: Option<Instant>) -> Option<W> {
        let entered = Waiting { until, looks: None, waker: None };
        self.waiting.insert(number, entered).and_then(|before| before.waker)
    }

    /// Leaves what wakes a waiter that has entered. Returns when it has to look by itself, if ever.
    pub(super) fn wait(&mut self, number: u64, waker: W) -> Option<Instant> {
        let before = self.waiting.range(..number).take(MOST_STEPS as usize).count();
        let later = STAGGER * u32::try_from(before).unwrap_or(MOST_STEPS);
        let due = self.due.and_then(|due| due.checked_add(later));
        let waiting = self.waiting.get_mut(&number)?;
        waiting.looks = due.into_iter().chain(waiting.until).min();
        waiting.waker = Some(waker);
        waiting.looks
    }

    /// Takes a waiter out, whether it waits or has its turn. Returns what would have woken it.
    pub(super) fn leave(&mut self, number: u64) -> Option<W> {
        if let Some(waiting) = self.waiting.remove(&number) {
            return waiting.waker;
        }
        self.take_turn(number);
        None
    }

    /// Whether the waiter may call.
    pub(super) fn has_turn_in(&mut self, number: u64, generation: u64, now: Instant) -> bool {
        self.begin(generation);
        self.lapse(now);
        self.turns.iter().any(|(turn, _)| *turn == number)
    }

    /// Ends the turn of a waiter that calls now; whether it had one.
    pub(super) fn use_turn(&mut self, number: u64, generation: u64, now: Instant) -> bool {
        self.begin(generation);
        self.lapse(now);
        let had = self.take_turn(number);
        if had {
            self.earned = self.earned.saturating_sub(1);
        }
        had
    }

    /// Releases as many as there is room for, in order, and returns what wakes them. The first of the others is woken with
    /// them if it would look too late for what is due next.
    pub(super) fn settle(&mut self, view: View, now: Instant) -> Vec<W> {
        self.begin(view.generation);
        self.lapse(now);
        let room = match view.room {
            Room::NoQueue => {
                self.turns.clear();
                self.due = None;
                return std::mem::take(&mut self.waiting).into_values().filter_map(|waiting| waiting.waker).collect();
            }
            Room::Slots(slots) => slots,
            Room::Earned => self.earned,
        };
        let mut woken = Vec::new();
        while self.turns.len() < room
            && let Some((number, waiting)) = self.waiting.pop_first()
        {
            // One that should have given up by now finds that out when it looks, if it ever does.
            if waiting.until.is_none_or(|until| now < until) {
                self.turns.push_back((number, now.checked_add(TURN).unwrap_or(now)));
            }
            woken.extend(waiting.waker);
        }
        let lapses = self.turns.front().map(|(_, lapses)| *lapses);
        self.due = view.due.filter(|due| *due > now).into_iter().chain(lapses).min();
        if let Some(due) = self.due
            && let Some(mut first) = self.waiting.first_entry()
            && first.get().looks.is_none_or(|looks| looks > due)
        {
            woken.extend(first.get_mut().waker.take());
        }
        woken
    }

    /// Turns of another generation are void: their owners look again, and find their places by their numbers.
    fn begin(&mut self, generation: u64) {
        if self.generation != generation {
            self.generation = generation;
            self.turns.clear();
            self.earned = 0;
        }
    }

    fn lapse(&mut self, now: Instant) {
        while self.turns.front().is_some_and(|(_, lapses)| *lapses <= now) {
            self.turns.pop_front();
        }
    }

    fn take_turn(&mut self, number: u64) -> bool {
        let found = self.turns.iter().position(|(turn, _)| *turn == number);
        found.is_some_and(|index| self.turns.remove(index).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A queue whose waiters are woken by letters.
    struct Scene {
        queue: WaitQueue<char>,
        start: Instant,
        view: View,
    }

    fn scene(room: Room) -> Scene {
        #[allow(clippy::disallowed_methods, reason = "an origin to count from")]
        let start = Instant::now();
        Scene { queue: WaitQueue::new(), start, view: View { generation: 1, room, due: None } }
    }

    impl Scene {
        /// Letters enter in order, and give up after `seconds`.
        fn enter(&mut self, letters: &str, seconds: u32) -> Vec<u64> {
            letters.chars().map(|letter| self.enter_one(letter, seconds)).collect()
        }

        fn enter_one(&mut self, letter: char, seconds: u32) -> u64 {
            let number = self.queue.next_number();
            assert_eq!(self.queue.enter(number, Some(self.start + seconds * SECOND)), None);
            self.settle(0);
            self.waits(number, letter);
            number
        }

        fn waits(&mut self, number: u64, letter: char) -> Option<Instant> {
            self.queue.wait(number, letter)
        }

        fn settle(&mut self, millis: u64) -> String {
            let view = self.view;
            self.queue.settle(view, self.at(millis)).into_iter().collect()
        }

        fn has_turn(&self, number: u64) -> bool {
            self.queue.turns.iter().any(|(turn, _)| *turn == number)
        }

        fn ahead(&mut self) -> usize {
            let (generation, now) = (self.view.generation, self.at(1));
            self.queue.ahead(generation, now)
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn calls(&mut self, number: u64, millis: u64) -> bool {
            let now = self.at(millis);
            self.queue.use_turn(number, self.view.generation, now)
        }
    }

    #[test]
    fn as_many_as_there_is_room_for_are_released_in_order_and_no_more_before_they_call() {
        let mut scene = scene(Room::Slots(0));
        let numbers = scene.enter("abcde", 60);
        assert_eq!((scene.queue.len(), scene.settle(0).as_str()), (5, ""));
        scene.view.room = Room::Slots(2);
        assert_eq!(
            scene.settle(1),
            "abc",
            "two are released, and the third has to look out for the lapse of their turns"
        );
        assert_eq!((scene.queue.len(), scene.ahead()), (3, 5));
        assert_eq!(scene.settle(1), "");
        // The first has called, and holds the slot that its turn was for.
        assert!(scene.has_turn(numbers[0]) && scene.calls(numbers[0], 1));
        scene.view.room = Room::Slots(1);
        assert_eq!(scene.settle(1), "");
        // The slot is free again.
        scene.view.room = Room::Slots(2);
        assert_eq!(scene.settle(1), "d", "the third is awake; the fourth is the first of the others");
        assert!(scene.has_turn(numbers[2]) && !scene.has_turn(numbers[3]));
    }

    #[test]
    fn one_that_leaves_gives_its_turn_to_the_next() {
        let mut scene = scene(Room::Slots(1));
        let first = scene.queue.next_number();
        scene.queue.enter(first, None);
        assert_eq!(scene.settle(0), "");
        assert!(scene.has_turn(first), "a newcomer is released at once");
        let numbers = scene.enter("bcd", 60);
        assert_eq!(scene.queue.leave(numbers[1]), Some('c'));
        scene.queue.leave(first);
        assert_eq!(scene.settle(0), "bd");
        assert!(scene.has_turn(numbers[0]));
        scene.queue.leave(numbers[0]);
        scene.settle(0);
        assert!(scene.has_turn(numbers[2]));
        scene.queue.leave(numbers[2]);
        assert!(scene.queue.is_empty());
    }

    #[test]
    fn a_turn_that_is_not_used_lapses_and_goes_to_the_next() {
        let mut scene = scene(Room::Slots(1));
        let numbers = scene.enter("ab", 60);
        assert!(scene.has_turn(numbers[0]));
        assert_eq!(scene.waits(numbers[1], 'b'), Some(scene.at(500)), "the next looks out for it");
        assert_eq!(scene.settle(499), "");
        assert_eq!(scene.settle(500), "b");
        assert!(!scene.calls(numbers[0], 500), "too late");
        assert!(scene.calls(numbers[1], 500));
        assert!(!scene.calls(numbers[1], 500), "once");
    }

    #[test]
    fn a_turn_can_be_used_until_it_lapses_but_not_in_another_generation() {
        let mut scene = scene(Room::Slots(2));
        let numbers = scene.enter("ab", 60);
        assert!(scene.calls(numbers[0], 499));
        scene.view = View { generation: 2, room: Room::Slots(0), due: None };
        assert!(!scene.calls(numbers[1], 499));
    }

    #[test]
    fn where_there_is_no_queue_all_are_woken_in_order() {
        let mut scene = scene(Room::Slots(0));
        scene.enter("abc", 60);
        scene.view.room = Room::NoQueue;
        assert_eq!(scene.settle(0), "abc");
        assert!(scene.queue.is_empty());
        assert_eq!(scene.settle(0), "");
    }

    #[test]
    fn one_whose_turn_is_void_finds_its_place_again() {
        let mut scene = scene(Room::Slots(2));
        let numbers = scene.enter("ab", 60);
        scene.enter("c", 60);
        assert_eq!(scene.queue.len(), 1);
        scene.view = View { generation: 2, room: Room::Slots(0), due: None };
        scene.settle(0);
        for (number, letter) in numbers.iter().zip("ab".chars()) {
            assert_eq!(scene.queue.enter(*number, None), None);
            scene.waits(*number, letter);
        }
        scene.view.room = Room::Slots(3);
        assert_eq!(scene.settle(0), "abc");
    }

    #[test]
    fn the_first_looks_when_something_is_due_and_the_others_a_little_later() {
        let mut scene = scene(Room::Slots(0));
        scene.view.due = Some(scene.at(5_000));
        let numbers = scene.enter("abc", 60);
        let looks = |scene: &mut Scene| [0, 1, 2].map(|nth| scene.waits(numbers[nth], 'x'));
        assert_eq!(looks(&mut scene), [5_000, 5_010, 5_020].map(|at| Some(scene.at(at))));
        // It is due sooner: the first has to know, the others need not.
        scene.view.due = Some(scene.at(3_000));
        assert_eq!(scene.settle(1), "x");
        assert_eq!(scene.settle(1), "", "it is awake");
        assert_eq!(looks(&mut scene), [3_000, 3_010, 3_020].map(|at| Some(scene.at(at))));
        // It is due later: the first finds that out when it looks.
        scene.view.due = Some(scene.at(4_000));
        assert_eq!(scene.settle(1), "");
        // The first leaves: the next one takes over.
        scene.view.due = Some(scene.at(3_000));
        scene.queue.leave(numbers[0]);
        assert_eq!(scene.settle(1), "x");
        assert_eq!(scene.waits(numbers[1], 'b'), Some(scene.at(3_000)));
        // What is due in the past is nothing to look out for.
        assert_eq!(scene.settle(3_000), "");
        assert_eq!(scene.waits(numbers[1], 'b'), Some(scene.at(60_000)));
    }

    #[test]
    fn one_that_looks_soon_enough_is_not_woken_when_the_one_before_is_released() {
        let mut scene = scene(Room::Slots(0));
        scene.view.due = Some(scene.at(5_000));
        scene.enter("abc", 60);
        scene.view = View { room: Room::Slots(1), ..scene.view };
        assert_eq!(
            scene.settle(5_000),
            "a",
            "the second looks ten milliseconds later, and the turn does not lapse before"
        );
    }

    #[test]
    fn one_that_gives_up_sooner_looks_then() {
        let mut scene = scene(Room::Slots(0));
        scene.view.due = Some(scene.at(5_000));
        let number = scene.enter_one('a', 2);
        assert_eq!(scene.waits(number, 'a'), Some(scene.at(2_000)));
    }

    #[test]
    fn one_that_should_have_given_up_takes_no_turn() {
        let mut scene = scene(Room::Slots(0));
        scene.enter("a", 1);
        let later = scene.enter("b", 2);
        scene.view.room = Room::Slots(1);
        assert_eq!(scene.settle(1_000), "ab");
        assert!(scene.has_turn(later[0]));
        assert_eq!(scene.queue.len(), 0);
    }

    #[test]
    fn a_ramp_releases_those_it_has_admitted_and_an_unused_admission_stays() {
        let mut scene = scene(Room::Earned);
        let numbers = scene.enter("ab", 60);
        assert_eq!(scene.settle(0), "");
        scene.queue.earn(1);
        assert_eq!(scene.settle(0), "ab");
        assert!(scene.has_turn(numbers[0]) && !scene.has_turn(numbers[1]));
        scene.queue.leave(numbers[0]);
        scene.settle(0);
        assert!(scene.calls(numbers[1], 0));
        let late = scene.enter("c", 60);
        assert!(!scene.has_turn(late[0]), "it was used");
        scene.queue.earn(2);
        scene.view.generation = 3;
        scene.settle(0);
        assert!(!scene.has_turn(late[0]), "it was for another generation");
    }
}
