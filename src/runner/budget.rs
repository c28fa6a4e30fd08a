//! How many tasks run side by side: no more than are asked for, and no more than fit into memory. One may always run.
//!
//! What a task takes is its stage's to say ([`Stage::price`](crate::stages::Stage::price)), what there is the system's
//! (`memory.rs`) or the user's. When tasks start depends on it; no byte of theirs does.

use std::collections::BTreeMap;

use crate::memory::{self, Room, bytes};
use crate::stages::Price;

/// What a task takes beside what its stage says: stacks, tables, what an allocator keeps.
const PER_TASK: u64 = 8 << 20;
/// And each of its threads.
const PER_THREAD: u64 = 2 << 20;

/// What is shared out among tasks.
pub(super) struct Budget {
    /// Tasks side by side.
    jobs: usize,
    /// Threads of all tasks.
    threads: u64,
    room: Option<Room>,
    running: BTreeMap<usize, Price>,
}

impl Budget {
    /// The budget of a run that begins: `memory` bytes for this process, or what the system leaves.
    pub fn new(jobs: Option<usize>, threads: usize, memory: Option<u64>) -> Budget {
        let room = match memory {
            Some(most) => Some(Room { bytes: most.saturating_sub(memory::resident()), limit: "by `--memory`" }),
            // Others take memory, too: a tenth is left to them.
            None => memory::left().map(|room| Room { bytes: room.bytes / 10 * 9, ..room }),
        };
        Budget { jobs: jobs.unwrap_or(usize::MAX), threads: threads as u64, room, running: BTreeMap::new() }
    }

    /// Nothing is limited.
    pub fn none() -> Budget {
        Budget { jobs: usize::MAX, threads: 1, room: None, running: BTreeMap::new() }
    }

    /// Whether prices decide anything.
    pub fn is_limited(&self) -> bool {
        self.room.is_some()
    }

    /// Of the `ready` tasks, in their order, those that may be started beside the ones that run.
    pub fn admitted(&self, ready: Vec<usize>, price: &mut dyn FnMut(usize) -> Price) -> Vec<usize> {
        let mut own: Vec<Price> = self.running.values().copied().collect();
        let mut admitted = Vec::new();
        for task in ready {
            if own.len() >= self.jobs {
                break;
            }
            if let Some(room) = self.room {
                own.push(price(task));
                // In order: a large task is not passed by smaller ones for ever.
                if own.len() > 1 && self.taken(&own) > room.bytes {
                    break;
                }
            } else {
                own.push(Price::default());
            }
            admitted.push(task);
        }
        admitted
    }

    /// What tasks take together. Threads are lent from one to another, so that those of the hungriest count once each.
    fn taken(&self, prices: &[Price]) -> u64 {
        let own: u64 = prices.iter().map(|price| price.bytes.saturating_add(PER_TASK)).fold(0, u64::saturating_add);
        let per_thread = prices.iter().map(|price| price.per_thread).max().unwrap_or(0).saturating_add(PER_THREAD);
        // The first thread of each is in its own figure.
        let others = self.threads.saturating_sub(prices.len() as u64);
        own.saturating_add(per_thread.saturating_mul(others))
    }

    /// What is said of a task that does not fit even alone.
    pub fn complaint(&self, price: Price) -> Option<String> {
        let room = self.room?;
        let taken = self.taken(&[price]);
        (taken > room.bytes).then(|| {
            format!(
                "needs some {} of memory, and {} are left ({}): it runs by itself, and may fail",
                bytes(taken),
                bytes(room.bytes),
                room.limit
            )
        })
    }

    /// A task has been started.
    pub fn start(&mut self, task: usize, price: Price) {
        self.running.insert(task, price);
    }

    /// It has ended.
    pub fn end(&mut self, task: usize) {
        self.running.remove(&task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn budget(jobs: Option<usize>, memory: u64) -> Budget {
        let mut budget = Budget::new(jobs, 1, None);
        budget.room = Some(Room { bytes: memory * MIB, limit: "by a test" });
        budget
    }

    #[test]
    fn tasks_are_admitted_in_order_as_far_as_they_fit_and_one_always_is() {
        let mut prices = |task: usize| Price { bytes: [10, 20, 30, 1000][task] * MIB, per_thread: 0 };
        let all = || vec![0, 1, 2, 3];
        // Eight more for each of them.
        assert_eq!(budget(None, 47).admitted(all(), &mut prices), [0, 1]);
        assert_eq!(budget(None, 45).admitted(all(), &mut prices), [0]);
        assert_eq!(budget(Some(1), 500).admitted(all(), &mut prices), [0]);
        assert_eq!(budget(Some(3), 5000).admitted(all(), &mut prices), [0, 1, 2]);
        // Too large for all there is: alone, and said.
        let mut own = budget(None, 500);
        assert_eq!(own.admitted(vec![3, 0], &mut prices), [3]);
        let said = own.complaint(prices(3)).unwrap();
        assert!(said.starts_with("needs some 1008.0 MiB of memory, and 500.0 MiB are left (by a test)"), "{said}");
        assert_eq!(own.complaint(prices(2)), None);
        own.start(0, prices(0));
        assert!(own.admitted(vec![3, 1], &mut prices).is_empty(), "nothing passes what waits");
        assert_eq!(own.admitted(vec![1, 3], &mut prices), [1]);
        own.end(0);
        assert_eq!(own.admitted(vec![3, 1], &mut prices), [3]);
    }

    #[test]
    fn threads_that_may_be_lent_are_counted_once() {
        let mut own = budget(None, 1000);
        own.threads = 4;
        let price = Price { bytes: 10 * MIB, per_thread: 5 * MIB };
        assert_eq!(own.taken(&[price]), 18 * MIB + 3 * 7 * MIB);
        assert_eq!(own.taken(&[price, price]), 36 * MIB + 2 * 7 * MIB);
    }
}
