//! Work on the next item in the background while the caller works on this one.

use std::panic::resume_unwind;
use std::sync::mpsc::sync_channel;
use std::thread;

/// Calls `fill(i, slot)` and then `consume(i, slot)` for each `i` of `0..n_items`, in order, until `consume` fails.
///
/// With one slot both run on the calling thread in turn. With more, `fill` runs on a thread of its own, ahead of
/// `consume` by at most the number of slots, whose contents (and whatever they have allocated) go round and are in
/// `slots` again at the end, unless `consume` failed.
///
/// # Errors
/// The first error of `consume`.
///
/// # Panics
/// If there is no slot, and with the panics of `fill` and `consume`.
///
/// # Determinism
/// `fill` is called in the same order with any number of slots; what it writes must depend on `i` alone.
pub fn prefetch<T: Send, E>(
    slots: &mut Vec<T>,
    n_items: usize,
    mut fill: impl FnMut(usize, &mut T) + Send,
    mut consume: impl FnMut(usize, &T) -> Result<(), E>,
) -> Result<(), E> {
    assert!(!slots.is_empty(), "no slot to fill");
    if slots.len() == 1 || n_items < 2 {
        for i in 0..n_items {
            fill(i, &mut slots[0]);
            consume(i, &slots[0])?;
        }
        return Ok(());
    }
    thread::scope(|scope| {
        let n_slots = slots.len();
        // Channels with room for all slots: nobody waits to send.
        let (give_back, empty) = sync_channel(n_slots);
        let (hand_on, filled) = sync_channel(n_slots);
        for slot in slots.drain(..) {
            // The other end is in this function.
            let _ = give_back.send(slot);
        }
        let filler = scope.spawn(move || {
            for i in 0..n_items {
                let Ok(mut slot) = empty.recv() else { break };
                fill(i, &mut slot);
                if hand_on.send(slot).is_err() {
                    break;
                }
            }
            empty
        });
        for i in 0..n_items {
            // The filler ends early only by a panic, which comes up below.
            let Ok(slot) = filled.recv() else { break };
            consume(i, &slot)?;
            // Nobody takes it after the last item, but it stays in the channel.
            let _ = give_back.send(slot);
        }
        match filler.join() {
            Ok(empty) => slots.extend(empty.try_iter()),
            Err(panic) => resume_unwind(panic),
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn every_item_is_filled_and_then_consumed_in_order_and_slots_go_round() {
        for n_slots in [1, 2, 3] {
            for n_items in [0, 1, 2, 7] {
                let mut slots: Vec<Vec<usize>> = (0..n_slots).map(|_| Vec::with_capacity(4)).collect();
                let mut seen = Vec::new();
                let outcome = prefetch(
                    &mut slots,
                    n_items,
                    |i, slot| {
                        slot.clear();
                        slot.push(i * i);
                    },
                    |i, slot| {
                        seen.push((i, slot[0]));
                        Ok::<(), ()>(())
                    },
                );
                assert_eq!(outcome, Ok(()));
                assert_eq!(seen, (0..n_items).map(|i| (i, i * i)).collect::<Vec<_>>());
                assert_eq!(slots.len(), n_slots);
                assert!(slots.iter().all(|slot| slot.capacity() == 4), "slots come back as they are");
            }
        }
    }

    #[test]
    fn an_error_and_a_panic_end_it() {
        for n_slots in [1, 2] {
            let mut slots = vec![0usize; n_slots];
            let outcome = prefetch(&mut slots, 9, |i, slot| *slot = i, |i, _| if i < 3 { Ok(()) } else { Err(i) });
            assert_eq!(outcome, Err(3));
            let mut slots = vec![0usize; n_slots];
            let panic = catch_unwind(AssertUnwindSafe(|| {
                let fill = |i: usize, slot: &mut usize| {
                    assert_ne!(i, 2, "on purpose");
                    *slot = i;
                };
                prefetch(&mut slots, 9, fill, |_, _| Ok::<(), ()>(()))
            }));
            assert!(panic.is_err());
        }
    }
}
