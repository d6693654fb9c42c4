//! The faults.
//!
//! Left out, because no model can see them:
//!
//! * Weaker orders between operations of which one is a read-modify-write of the same atomic: `loom`, like every machine, lets
//!   it read the latest value (`SeqCst` of an endpoint's flights, the slots of a ring).
//! * `SeqCst` against `AcqRel`: `loom` takes the one for the other.
//! * Orders that a lock makes up for: the version of a pool's snapshot, whose reader takes the lock of the snapshot next; the
//!   mark of an invalidated flight, around which the store is locked.
//! * Spurious failures of `compare_exchange_weak`: in `loom` there are none.

use super::Mutant;

const COUNTERS: &str = "src/cores/counters.rs";
const EWMA: &str = "src/cores/ewma.rs";
const RING: &str = "src/budget/ring.rs";
const WINDOW: &str = "src/budget/window.rs";
const LEDGER: &str = "src/budget/ledger.rs";
const IN_FLIGHT: &str = "src/budget/in_flight.rs";
const ENDPOINT: &str = "src/balance/endpoint.rs";
const REGISTRY: &str = "src/balance/registry.rs";
const POOL_HANDLE: &str = "src/balance/handle.rs";
const VERSIONS: &str = "src/cache/versions.rs";
const SINGLE_FLIGHT: &str = "src/cache/single_flight.rs";
const SHARED: &str = "src/circuit_breaker/shared.rs";
const STATE: &str = "src/circuit_breaker/state.rs";
const PROBES: &str = "src/circuit_breaker/probes.rs";

pub(crate) const MUTANTS: &[Mutant] = &[
    // === counters and averages ===
    Mutant {
        name: "the shared stripe is counted on without a read-modify-write",
        file: COUNTERS,
        text: "None => self.shared.0[which].fetch_add(1, Ordering::Relaxed).wrapping_add(1),",
        fault: "None => self.shared.count(which),",
        model: "cores::counters::model::no_count_is_lost_or_doubled_whoever_shares_a_stripe",
    },
    Mutant {
        name: "two threads get one slot",
        file: COUNTERS,
        text: "NEXT.fetch_add(1, Ordering::Relaxed)",
        fault: "NEXT.load(Ordering::Relaxed)",
        model: "cores::counters::model::no_count_is_lost_or_doubled_whoever_shares_a_stripe",
    },
    Mutant {
        name: "a slot is handed on that was not given back",
        file: COUNTERS,
        text: "lock(&FREE).pop()",
        fault: "lock(&FREE).last().copied()",
        model: "cores::counters::model::a_stripe_that_is_handed_on_keeps_what_its_last_owner_counted",
    },
    Mutant {
        name: "a sample overwrites what came between",
        file: EWMA,
        text: "match self.0.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {",
        fault: "self.0.store(after, Ordering::Relaxed);\n            match Ok::<u64, u64>(before) {",
        model: "cores::ewma::model::of_samples_at_once_the_peak_is_kept",
    },
    // === budgets ===
    Mutant {
        name: "what leaves the window is read and emptied in two steps",
        file: RING,
        text: "let left = self.slot(slot).swap(0, Ordering::Relaxed);",
        fault: "let left = self.slot(slot).load(Ordering::Relaxed);\n            self.slot(slot).store(0, Ordering::Relaxed);",
        model: "budget::ring::model::what_was_added_leaves_once_however_late_it_was_noted",
    },
    Mutant {
        name: "two threads begin a slot at once",
        file: RING,
        text: "        let _beginning = lock(&self.beginning);\n",
        fault: "",
        model: "budget::ring::model::no_two_take_the_last_of_a_limit_as_a_slot_begins",
    },
    Mutant {
        name: "a slot is begun by who finds it begun",
        file: RING,
        text: "        if current <= newest {\n            return newest;\n        }\n",
        fault: "",
        model: "budget::ring::model::no_two_take_the_last_of_a_limit_as_a_slot_begins",
    },
    Mutant {
        name: "a slot is published before it is empty",
        file: RING,
        text: "        let begun = ",
        fault: "        self.newest.store(current, Ordering::Release);\n        let begun = ",
        model: "budget::ring::model::no_two_take_the_last_of_a_limit_as_a_slot_begins",
    },
    Mutant {
        name: "a limit is checked before it is added to",
        file: RING,
        text: "let added = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();",
        fault: "let sum = self.sum.load(Ordering::Relaxed);\n        let added = fits(sum).is_some();\n        self.sum.store(fits(sum).unwrap_or(sum), Ordering::Relaxed);",
        model: "budget::ring::model::no_two_take_the_last_of_a_limit",
    },
    Mutant {
        name: "what is taken back is taken by two who saw it",
        file: RING,
        text: ".any(|slot| self.slot(slot).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok());",
        fault: ".any(|slot| one_less(self.slot(slot).load(Ordering::Relaxed)).map(|left| self.slot(slot).store(left, Ordering::Relaxed)).is_some());",
        model: "budget::ring::model::what_is_taken_back_is_taken_once_as_its_slot_leaves",
    },
    Mutant {
        name: "credit lapses to a sum that is out of date",
        file: WINDOW,
        text: "match self.credit.compare_exchange_weak(credit, earned, Ordering::Relaxed, Ordering::Acquire) {",
        fault: "match Ok::<i64, i64>(self.credit.fetch_min(earned, Ordering::Relaxed)) {",
        model: "budget::window::model::what_is_earned_while_older_credit_lapses_does_not_lapse_with_it",
    },
    Mutant {
        name: "older credit passes for what is being noted",
        file: WINDOW,
        text: "        self.lapse(current);\n        let amount",
        fault: "        let amount",
        model: "budget::window::model::what_is_earned_while_older_credit_lapses_does_not_lapse_with_it",
    },
    Mutant {
        name: "credit is seen before what earned it",
        file: WINDOW,
        text: "self.credit.fetch_add(amount, Ordering::Release);",
        fault: "self.credit.fetch_add(amount, Ordering::Relaxed);",
        model: "budget::ledger::model::no_two_spend_what_one_call_earned",
    },
    Mutant {
        name: "a token is spent by two who saw it",
        file: WINDOW,
        text: "self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()",
        fault: "spend(self.credit.load(Ordering::Relaxed)).map(|left| self.credit.store(left, Ordering::Relaxed)).is_some()",
        model: "budget::window::model::no_two_spend_the_same_token",
    },
    Mutant {
        name: "a refund goes to the reserve and to the credit",
        file: WINDOW,
        text: "        if !self.drawn.take_back(now) {",
        fault: "        self.drawn.take_back(now);\n        {",
        model: "budget::window::model::what_is_given_back_can_be_spent_again_once",
    },
    Mutant {
        name: "calls are entered again that another thread has entered",
        file: LEDGER,
        text: "let entered = self.entered.fetch_max(sent, Ordering::Relaxed);",
        fault: "let entered = self.entered.swap(sent, Ordering::Relaxed);",
        model: "budget::ledger::model::each_call_is_entered_once_whoever_enters_it",
    },
    Mutant {
        name: "calls are entered by all who see them",
        file: LEDGER,
        text: "let entered = self.entered.fetch_max(sent, Ordering::Relaxed);",
        fault: "let entered = self.entered.load(Ordering::Relaxed);\n        self.entered.store(sent, Ordering::Relaxed);",
        model: "budget::ledger::model::each_call_is_entered_once_whoever_enters_it",
    },
    Mutant {
        name: "the last room is taken by two who saw it",
        file: IN_FLIGHT,
        text: "self.extra.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()",
        fault: "fits(self.extra.load(Ordering::Relaxed)).map(|extra| self.extra.store(extra, Ordering::Relaxed)).is_some()",
        model: "budget::in_flight::model::no_two_take_the_same_room_and_what_ended_makes_room_once",
    },
    // === a pool ===
    Mutant {
        name: "retiring forgets a call that begins",
        file: ENDPOINT,
        text: "self.flights.0.fetch_or(RETIRED, Ordering::SeqCst);",
        fault: "self.flights.0.store(self.flights.0.load(Ordering::SeqCst) | RETIRED, Ordering::SeqCst);",
        model: "balance::model::a_drained_endpoint_leaves_with_its_last_call_and_takes_none_after",
    },
    Mutant {
        name: "a call looks whether the endpoint is retired, and then begins",
        file: ENDPOINT,
        text: "let before = endpoint.flights.0.fetch_add(PICK + 1, Ordering::SeqCst);",
        fault: "let before = endpoint.flights.0.load(Ordering::SeqCst);\n        endpoint.flights.0.fetch_add(PICK + 1, Ordering::SeqCst);",
        model: "balance::model::a_drained_endpoint_leaves_with_its_last_call_and_takes_none_after",
    },
    Mutant {
        name: "a call that is refused stays in flight",
        file: ENDPOINT,
        text: "        if before & RETIRED != 0 {\n            flight.land();",
        fault: "        if before & RETIRED != 0 {\n            flight.ended = true;",
        model: "balance::model::a_drained_endpoint_leaves_with_its_last_call_and_takes_none_after",
    },
    Mutant {
        name: "of two failures at once one is not counted",
        file: ENDPOINT,
        text: "let streak = self.streak.fetch_add(1, Ordering::Relaxed).saturating_add(1);",
        fault: "let streak = self.streak.load(Ordering::Relaxed).saturating_add(1);\n        self.streak.store(streak, Ordering::Relaxed);",
        model: "balance::model::failures_in_a_row_eject_once_however_they_come",
    },
    Mutant {
        name: "a row of failures ejects only at the very moment in which it is long enough",
        file: ENDPOINT,
        text: "if streak >= ejection.consecutive_failures",
        fault: "if streak == ejection.consecutive_failures",
        model: "balance::model::a_straggler_ejects_nothing",
    },
    Mutant {
        name: "a straggler lifts an ejection",
        file: REGISTRY,
        text: "            if !member.endpoint.is_generation(generation) {\n                return false;\n            }\n",
        fault: "            let _ = generation;\n",
        model: "balance::model::a_straggler_lifts_no_ejection",
    },
    Mutant {
        name: "a straggler ejects",
        file: REGISTRY,
        text: "if !member.endpoint.is_generation(generation) || member",
        fault: "if generation == u32::MAX || member",
        model: "balance::model::a_straggler_ejects_nothing",
    },
    Mutant {
        name: "an endpoint is ejected twice",
        file: REGISTRY,
        text: "if !member.endpoint.is_generation(generation) || member.standing.ejection.span(now).is_some() {",
        fault: "if generation == u32::MAX {",
        model: "balance::model::failures_in_a_row_eject_once_however_they_come",
    },
    Mutant {
        name: "a version is published before its snapshot",
        file: REGISTRY,
        text: "        let before = std::mem::replace(&mut *lock(&self.published)",
        fault: "        self.version.fetch_add(1, Ordering::Release);\n        let before = std::mem::replace(&mut *lock(&self.published)",
        model: "balance::model::whoever_sees_a_version_gets_a_snapshot_at_least_as_new",
    },
    Mutant {
        name: "an endpoint is retired before a snapshot without it is published",
        file: REGISTRY,
        text: "            if changed {\n                self.publish(&mut members, &mut notices);\n            }\n",
        fault: "            members.retiring.drain(..).for_each(|endpoint| endpoint.retire());\n            if changed {\n                self.publish(&mut members, &mut notices);\n            }\n",
        model: "balance::model::a_pick_finds_an_endpoint_as_long_as_there_is_one",
    },
    Mutant {
        name: "a pick that was turned away does not look for a newer snapshot",
        file: REGISTRY,
        text: "            if self.version() == version {\n                return None;\n            }\n",
        fault: "            if self.version() >= version {\n                return None;\n            }\n",
        model: "balance::model::a_pick_finds_an_endpoint_as_long_as_there_is_one",
    },
    Mutant {
        name: "the end of a drain takes out whatever has the key",
        file: REGISTRY,
        text: ".copied().filter(|place| self.list[*place].endpoint.id == endpoint.id)",
        fault: ".copied()",
        model: "balance::model::a_drained_endpoint_is_gone_when_the_wait_for_it_is_over_and_its_successor_stays",
    },
    Mutant {
        name: "a drain is over before the endpoint is gone",
        file: POOL_HANDLE,
        text: "this.endpoint.is_idle() && this.endpoint.has_left()",
        fault: "this.endpoint.is_idle()",
        model: "balance::model::a_drained_endpoint_is_gone_when_the_wait_for_it_is_over_and_its_successor_stays",
    },
    Mutant {
        name: "the last call of a drained endpoint does not let it go",
        file: ENDPOINT,
        text: "Some(registry) if !endpoint.has_left() => registry.drained(endpoint),",
        fault: "Some(registry) if endpoint.has_left() => registry.drained(endpoint),",
        model: "balance::model::a_drained_endpoint_leaves_with_its_last_call_and_takes_none_after",
    },
    // === the cache ===
    Mutant {
        name: "a load sees a tick and not what was written before it",
        file: VERSIONS,
        text: "self.clock.fetch_add(1, Ordering::SeqCst) + 1",
        fault: "self.clock.fetch_add(1, Ordering::Relaxed) + 1",
        model: "cache::versions::model::no_entry_outlives_an_invalidation_that_its_load_did_not_see",
    },
    Mutant {
        name: "two invalidations have one tick",
        file: VERSIONS,
        text: "self.clock.fetch_add(1, Ordering::SeqCst) + 1",
        fault: "let tick = self.clock.load(Ordering::SeqCst) + 1;\n        self.clock.store(tick, Ordering::SeqCst);\n        tick",
        model: "cache::versions::model::no_entry_outlives_an_invalidation_that_its_load_did_not_see",
    },
    Mutant {
        name: "an older invalidation overwrites a newer one",
        file: VERSIONS,
        text: "fetch_max(tick, Ordering::SeqCst);\n    }\n\n    /// Kills every entry whose",
        fault: "store(tick, Ordering::SeqCst);\n    }\n\n    /// Kills every entry whose",
        model: "cache::versions::model::no_entry_outlives_an_invalidation_that_its_load_did_not_see",
    },
    Mutant {
        name: "an older clearing overwrites a newer one",
        file: VERSIONS,
        text: "self.cleared.fetch_max(tick, Ordering::SeqCst);",
        fault: "self.cleared.store(tick, Ordering::SeqCst);",
        model: "cache::versions::model::no_entry_outlives_a_clearing_that_its_load_did_not_see",
    },
    Mutant {
        name: "a flight is called off with a caller on board",
        file: SINGLE_FLIGHT,
        text: "Phase::Waiting if state.callers == 0 && !state.kept => {",
        fault: "Phase::Waiting => {",
        model: "cache::single_flight::model::a_flight_is_called_off_or_flown_and_whoever_joins_it_gets_its_end",
    },
    Mutant {
        name: "a flight that was called off is joined",
        file: SINGLE_FLIGHT,
        text: "            Phase::Waiting => false,\n",
        fault: "            Phase::Waiting | Phase::CalledOff => false,\n",
        model: "cache::single_flight::model::a_flight_is_called_off_or_flown_and_whoever_joins_it_gets_its_end",
    },
    Mutant {
        name: "a flight is not marked when its key is invalidated",
        file: SINGLE_FLIGHT,
        text: "            let mut state = lock(&flight.state);\n            state.invalidated = true;\n",
        fault: "            let mut state = lock(&flight.state);\n",
        model: "cache::single_flight::model::an_invalidation_sticks_although_a_load_or_a_refresh_of_the_key_is_under_way",
    },
    Mutant {
        name: "a refresh replaces a flight whose answer is being stored",
        file: SINGLE_FLIGHT,
        text: "slot.flight.is_some() || slot.aloft >= MAX_LOADS_PER_KEY",
        fault: "slot.aloft > 0",
        model: "cache::single_flight::model::an_invalidation_sticks_although_a_load_or_a_refresh_of_the_key_is_under_way",
    },
    Mutant {
        name: "an invalidated answer that is being stored stays alive",
        file: SINGLE_FLIGHT,
        text: "            if let Phase::Landed(Landing::Loaded(entry)) = &state.phase {\n                entry.kill();\n            }\n",
        fault: "",
        model: "cache::single_flight::model::an_invalidation_sticks_although_a_load_or_a_refresh_of_the_key_is_under_way",
    },
    Mutant {
        name: "an answer whose flight gave way to another stays alive",
        file: SINGLE_FLIGHT,
        text: "                entry.kill();\n                state.invalidated = true;\n                return None;\n",
        fault: "                let _ = entry;\n                return None;\n",
        model: "cache::single_flight::model::what_gave_way_to_another_flight_is_not_stored_after_an_invalidation",
    },
    Mutant {
        name: "an answer that lands after the invalidation of its key stays alive",
        file: SINGLE_FLIGHT,
        text: "                if let Landing::Loaded(entry) = &landing {\n                    entry.kill();\n                }\n",
        fault: "",
        model: "cache::single_flight::model::who_boards_after_an_invalidation_gets_no_answer_of_before",
    },
    Mutant {
        name: "a call joins an invalidated flight as if it were not",
        file: SINGLE_FLIGHT,
        text: "            Phase::Loading if state.invalidated && aloft < MAX_LOADS_PER_KEY => return None,\n            Phase::Loading => state.invalidated,\n",
        fault: "            Phase::Loading => false,\n",
        model: "cache::single_flight::model::who_boards_after_an_invalidation_gets_no_answer_of_before",
    },
    Mutant {
        name: "an old answer that was found after the mark stands in",
        file: SINGLE_FLIGHT,
        text: "            state.invalidated |= matches!(state.phase, Phase::Waiting);\n            state.kill_stand_in();\n",
        fault: "            state.invalidated |= matches!(state.phase, Phase::Waiting);\n",
        model: "cache::single_flight::model::what_was_invalidated_stands_in_for_no_later_call",
    },
    Mutant {
        name: "an old answer that was found before the mark stands in",
        file: SINGLE_FLIGHT,
        text: "        if !state.invalidated {\n            state.stand_in = Some(entry);\n        }\n",
        fault: "        state.stand_in = Some(entry);\n",
        model: "cache::single_flight::model::what_was_invalidated_stands_in_for_no_later_call",
    },
    Mutant {
        name: "what a store elsewhere had before an invalidation lands",
        file: SINGLE_FLIGHT,
        text: "                if unless_invalidated {\n                    return false;\n                }\n",
        fault: "                let _ = unless_invalidated;\n",
        model: "cache::single_flight::model::what_a_store_elsewhere_had_is_not_for_callers_after_an_invalidation",
    },
    Mutant {
        name: "wakers are taken before the flight has landed",
        file: SINGLE_FLIGHT,
        text: "        let woken = {\n            let mut state = lock(&self.state);",
        fault: "        let early = mem::take(&mut lock(&self.state).wakers);\n        early.into_iter().flatten().for_each(Waker::wake);\n        let woken = {\n            let mut state = lock(&self.state);\n            state.wakers.clear();",
        model: "cache::single_flight::model::whoever_waits_sees_the_landing_or_is_woken_by_it",
    },
    // === the breaker ===
    Mutant {
        name: "the generation is not checked under the lock",
        file: STATE,
        text: "        if origin.generation != self.generation {\n            return None;\n        }\n",
        fault: "",
        model: "circuit_breaker::shared::model::a_window_holds_the_verdicts_of_its_generation_and_no_others",
    },
    Mutant {
        name: "the state is published before what belongs to it",
        file: SHARED,
        text: "        store(&self.refuse_until, refuse_until, Ordering::Release);",
        fault: "        store(&self.stamp, self.stamp_of(machine).word(), Ordering::Release);\n        store(&self.refuse_until, refuse_until, Ordering::Release);",
        model: "circuit_breaker::shared::model::who_sees_a_circuit_open_sees_until_when_and_why",
    },
    Mutant {
        name: "the state is published without what belongs to it",
        file: SHARED,
        text: "        store(&self.stamp, self.stamp_of(machine).word(), Ordering::Release);",
        fault: "        store(&self.stamp, self.stamp_of(machine).word(), Ordering::Relaxed);",
        model: "circuit_breaker::shared::model::who_sees_a_circuit_open_sees_until_when_and_why",
    },
    Mutant {
        name: "the state is read without what belongs to it",
        file: SHARED,
        text: "        Stamp::from_word(self.stamp.load(Ordering::Acquire))",
        fault: "        Stamp::from_word(self.stamp.load(Ordering::Relaxed))",
        model: "circuit_breaker::shared::model::who_sees_a_circuit_open_sees_until_when_and_why",
    },
    Mutant {
        name: "what was folded is folded again",
        file: SHARED,
        text: "let new = all.wrapping_sub(std::mem::replace(&mut locked.folded, all));",
        fault: "let new = all.wrapping_sub(locked.folded);",
        model: "circuit_breaker::shared::model::every_verdict_is_in_a_time_window_once",
    },
    Mutant {
        name: "what was absorbed is not folded",
        file: SHARED,
        text: "        locked.machine.add_successes(new, now);",
        fault: "        let _ = (new, now);",
        model: "circuit_breaker::shared::model::every_verdict_is_in_a_time_window_once",
    },
    Mutant {
        name: "a success is absorbed whatever generation is being counted",
        file: SHARED,
        text: "self.stamp.load(Ordering::Acquire) == ticket.word | CLEAN",
        fault: "self.load().payload() & CLEAN != 0",
        model: "circuit_breaker::shared::model::a_window_holds_the_verdicts_of_its_generation_and_no_others",
    },
    Mutant {
        name: "a ticket forgets which slot it holds",
        file: SHARED,
        text: "Self { word: stamp.word() & !TIMED | (slot as u64 + 1) << SLOT_SHIFT, started: Some(started) }",
        fault: "Self { word: stamp.word() & !TIMED | ((slot & 0) as u64 + 1) << SLOT_SHIFT, started: Some(started) }",
        model: "circuit_breaker::shared::model::no_three_probes_share_two_slots_and_none_is_lost",
    },
    Mutant {
        name: "a slot is given to a probe though another has it",
        file: PROBES,
        text: "let index = match self.slots.iter().position(|&slot| slot == Slot::Free) {",
        fault: "let index = match Some(0) {",
        model: "circuit_breaker::shared::model::no_two_probes_share_one_slot_and_it_is_not_lost",
    },
    Mutant {
        name: "a slot that was given back is not free",
        file: PROBES,
        text: "self.slots[slot as usize] = Slot::Free;\n    }\n\n    /// Counts a probe",
        fault: "self.slots[slot as usize] = Slot::Spent;\n    }\n\n    /// Counts a probe",
        model: "circuit_breaker::shared::model::no_two_probes_share_one_slot_and_it_is_not_lost",
    },
    Mutant {
        name: "a probe that was given up has a say",
        file: PROBES,
        text: "self.slots.get(slot as usize) == Some(&Slot::Taken(since))",
        fault: "matches!(self.slots.get(slot as usize), Some(Slot::Taken(_)) if since < since + self.deadline)",
        model: "circuit_breaker::shared::model::a_probe_that_never_ends_gives_its_slot_up_in_time",
    },
    Mutant {
        name: "probes that are out when the circuit opens stay out",
        file: STATE,
        text: "                // A probe that is still out is a straggler now.\n                self.probes.clear();\n",
        fault: "",
        model: "circuit_breaker::shared::model::no_three_probes_share_two_slots_and_none_is_lost",
    },
    Mutant {
        name: "a change of state begins no new generation",
        file: STATE,
        text: "let from = std::mem::replace(&mut self.state, to);\n        self.generation += 1;",
        fault: "let from = std::mem::replace(&mut self.state, to);",
        model: "circuit_breaker::shared::model::a_straggler_of_an_older_generation_changes_nothing",
    },
    Mutant {
        name: "an answer that takes no lock leaves the calls without one in the count",
        file: STATE,
        text: "            && self.unanswered.is_clean()\n",
        fault: "",
        model: "circuit_breaker::shared::model::an_answer_keeps_the_circuit_closed_although_it_takes_no_lock",
    },
    Mutant {
        name: "what was absorbed is no answer",
        file: STATE,
        text: "            self.unanswered.add_answers(calls, now);\n",
        fault: "",
        model: "circuit_breaker::shared::model::an_answer_keeps_the_circuit_closed_although_it_takes_no_lock",
    },
    Mutant {
        name: "an abandoned call is counted as one that failed",
        file: "src/circuit_breaker/breaker.rs",
        text: "self.calls.add(End::Abandoned as usize);",
        fault: "self.calls.add(End::Failure as usize);",
        model: "circuit_breaker::handle::model::every_call_is_accounted_for_once",
    },
];
