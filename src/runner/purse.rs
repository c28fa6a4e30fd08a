//! The threads of a run: dealt out to ready tasks, lent on while others need none.

use std::sync::Mutex;

/// The threads of a run, lent to its tasks. What is free while no task waits is lent to those that run, as they ask;
/// what they have above one thread they give back, as they ask, when a task waits.
pub(super) struct Purse {
    state: Mutex<Threads>,
    /// Called when threads have become free while tasks waited for some.
    freed: Box<dyn Fn() + Send + Sync>,
}

#[derive(Debug)]
struct Threads {
    free: usize,
    /// Tasks that could be started if there were threads.
    n_waiting: usize,
}

impl Purse {
    /// A purse with so many threads; `freed` is called when some have become free while tasks waited for them.
    pub fn new(threads: usize, freed: impl Fn() + Send + Sync + 'static) -> Purse {
        Purse { state: Mutex::new(Threads { free: threads, n_waiting: 0 }), freed: Box::new(freed) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Threads> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Which of the ready tasks are to be started now, each with its share of the free threads.
    pub fn share_out(&self, ready: &[usize]) -> Vec<(usize, usize)> {
        let mut state = self.state();
        let shares = shares(state.free, ready);
        state.free -= shares.iter().map(|(_, threads)| threads).sum::<usize>();
        state.n_waiting = ready.len() - shares.len();
        shares
    }

    /// How many threads a task may use that has so many: one more or one fewer.
    pub fn adjust(&self, lent: usize) -> usize {
        let mut state = self.state();
        if state.n_waiting > state.free && lent > 1 {
            state.free += 1;
            (self.freed)();
            lent - 1
        } else if state.n_waiting < state.free {
            state.free -= 1;
            lent + 1
        } else {
            lent
        }
    }

    pub fn give_back(&self, lent: usize) {
        self.state().free += lent;
    }
}

/// Free threads, shared out among the ready tasks: one each while there are more tasks than threads, else evenly, the
/// first ones getting what is left over.
fn shares(free: usize, ready: &[usize]) -> Vec<(usize, usize)> {
    let (each, left) = match ready.len() {
        0 => (0, 0),
        n => (free / n, free % n),
    };
    ready.iter().enumerate().map(|(k, &i)| (i, each + usize::from(k < left))).take_while(|(_, n)| *n > 0).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::{Purse, shares};

    #[test]
    fn idle_threads_are_lent_to_running_tasks_and_come_back_when_others_wait() {
        let (sender, messages) = mpsc::channel();
        let purse = Purse::new(4, move || sender.send(()).unwrap());
        assert_eq!(purse.share_out(&[0, 1]), [(0, 2), (1, 2)]);
        assert_eq!(purse.adjust(2), 2, "nothing is free");
        purse.give_back(2);
        assert_eq!((purse.adjust(2), purse.adjust(3), purse.adjust(4)), (3, 4, 4));
        assert_eq!(purse.share_out(&[2]), []);
        assert_eq!((purse.adjust(4), purse.adjust(3)), (3, 3), "one for the task that waits");
        assert_eq!(messages.try_recv(), Ok(()));
        assert_eq!(purse.share_out(&[2]), [(2, 1)]);
        assert_eq!(purse.share_out(&[3, 4, 5]), []);
        assert_eq!((purse.adjust(3), purse.adjust(2), purse.adjust(1)), (2, 1, 1), "a task keeps one");
    }

    #[test]
    fn threads_are_shared_out() {
        for (free, ready, expected) in [
            (2, vec![], vec![]),
            (2, vec![0], vec![(0, 2)]),
            (2, vec![0, 1, 2], vec![(0, 1), (1, 1)]),
            (7, vec![3, 4, 5], vec![(3, 3), (4, 2), (5, 2)]),
            (0, vec![1], vec![]),
        ] {
            assert_eq!(shares(free, &ready), expected, "{free} among {ready:?}");
        }
    }
}
