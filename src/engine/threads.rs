//! The worker pool: a fixed number of threads that share out one piece of work at a time and park in between.
//!
//! Work is divided by index, statically and contiguously; nobody steals. A sum never depends on who computed which
//! part: that is for the callers to keep, by cutting sums at places that depend on the shape only.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

use super::cache::Caches;
use super::isa::Isa;
use super::kernel::Kernels;

/// Rounds of waiting before a thread parks. About 20 microseconds on the machines measured: longer than the gaps between
/// two kernels of one step, and far too short to take a core from a neighbour.
const SPINS: u32 = 600;

thread_local! {
    /// Set while this thread works for some pool: a nested call then runs inline.
    static IS_WORKING: Cell<bool> = const { Cell::new(false) };
}

type Job<'a> = dyn Fn(usize) + Sync + 'a;

/// The engine: an instruction set and a pool of threads. Cloning is cheap; clones share the pool.
#[derive(Clone)]
pub struct Engine {
    pool: Arc<Pool>,
    /// A pool of no workers, for work that is too small to share.
    alone: Arc<Pool>,
    isa: Isa,
    caches: Caches,
    choice: Choice,
}

/// How work is blocked. Plans choose by shape and caches; tests force choices, to see that they never show in a bit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    /// Vectors across a register tile, at most.
    pub(super) nr: usize,
    /// Whether weights are packed all at once, or one panel at a time.
    pub(super) packs_first: Option<bool>,
    /// Rows of an image that are swept at once.
    pub(super) rows: Option<usize>,
    /// Images that are swept at once.
    pub(super) images: Option<usize>,
    /// Steps of a dense layer's chains between stores.
    pub(super) steps: Option<usize>,
    /// Multiply-adds from which work is shared out between threads.
    pub(super) least_shared: u64,
}

impl Default for Choice {
    fn default() -> Choice {
        Choice { nr: usize::MAX, packs_first: None, rows: None, images: None, steps: None, least_shared: 1 << 20 }
    }
}

struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// Held while a piece of work runs; whoever finds it held does its own work inline.
    is_busy: Mutex<()>,
}

struct Worker {
    sleeper: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

struct Shared {
    /// Counts pieces of work; a worker that sees a new number runs `job`.
    turn: AtomicU64,
    job: UnsafeCell<Option<*const Job<'static>>>,
    /// Who waits for the work to end; read by the last worker to finish.
    caller: UnsafeCell<Option<Thread>>,
    n_pending: AtomicUsize,
    is_closing: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` and `caller` are written only by the thread that holds `is_busy` while no worker is at work
// (`n_pending` is 0), and read by workers only between the release store of `turn` and their decrement of `n_pending`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `job` is to a `Sync` closure that outlives the call that stored it.
unsafe impl Send for Shared {}

impl Engine {
    /// An engine of so many threads (at least one; the caller's own counts) on the fastest instruction set there is.
    pub fn new(threads: usize) -> Engine {
        Engine::with_isa(threads, Isa::detect())
    }

    /// An engine on a given instruction set.
    ///
    /// # Panics
    /// If this processor lacks it: `Isa::from_str` checks what a user asks for.
    pub fn with_isa(threads: usize, isa: Isa) -> Engine {
        assert!(isa.is_available(), "this processor has no {isa}");
        let pool = Arc::new(Pool::new(threads.max(1)));
        let alone = Arc::new(Pool::new(1));
        Engine { pool, alone, isa, caches: Caches::detect(), choice: Choice::default() }
    }

    /// Threads that share the work, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.workers.len() + 1
    }

    /// The instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Floating-point operations per second that all threads reach together when nothing touches memory, measured now,
    /// in about a tenth of a millisecond. Kernels are rated as a share of it.
    pub fn measure_peak(&self) -> f64 {
        let kernels = self.kernels();
        let start = Instant::now();
        let done = Mutex::new(0.0);
        self.run(|_| {
            // SAFETY: the table is that of an instruction set that this processor has.
            let flops = unsafe { (kernels.probe)(20_000) };
            if let Ok(mut done) = done.lock() {
                *done += flops;
            }
        });
        let seconds = start.elapsed().as_secs_f64();
        done.into_inner().unwrap_or(0.0) / seconds
    }

    pub(super) fn kernels(&self) -> &'static Kernels {
        Kernels::of(self.isa)
    }

    /// Cache sizes that work is blocked by.
    pub fn caches(&self) -> Caches {
        self.caches
    }

    pub(super) fn choice(&self) -> Choice {
        self.choice
    }

    /// The same engine with forced choices.
    #[cfg(test)]
    pub(super) fn with_choice(mut self, choice: Choice) -> Engine {
        self.choice = choice;
        self
    }

    /// This engine for work of so many multiply-adds: on the caller's thread alone if waking the others would cost more
    /// than they save. A million takes some 10 microseconds, as long as a parked thread takes to wake (measured on a
    /// 128 -> 10 dense layer of 64 samples: 76 GFLOP/s alone, 7 on two threads).
    pub(super) fn sized(&self, multiply_adds: u64) -> Engine {
        let pool = if multiply_adds < self.choice.least_shared { &self.alone } else { &self.pool };
        Engine { pool: Arc::clone(pool), ..self.clone() }
    }

    /// Calls `f(0)` to `f(threads - 1)`, each once, side by side, and returns when all have. A call from inside another
    /// call, or while another thread uses the pool, runs them in turn on the calling thread.
    pub fn run(&self, f: impl Fn(usize) + Sync) {
        self.pool.run(&f);
    }

    /// Cuts `0..n_items` into one contiguous range per thread and calls `f(range, worker)` for those that are not empty.
    /// `worker` is below [`Engine::threads`], and no two calls at one time share it.
    pub fn parallel_for(&self, n_items: usize, f: impl Fn(Range<usize>, usize) + Sync) {
        let threads = self.threads();
        if n_items <= 1 || threads == 1 {
            if n_items > 0 {
                f(0..n_items, 0);
            }
            return;
        }
        self.run(|worker| {
            let range = part(n_items, threads, worker);
            if !range.is_empty() {
                f(range, worker);
            }
        });
    }

    /// Cuts `data` into chunks of `chunk_len` values (the last may be shorter) and calls `f(i, chunk)` for each.
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], chunk_len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        assert!(chunk_len > 0, "chunks of no values");
        let len = data.len();
        let base = Shares(data.as_mut_ptr());
        self.parallel_for(len.div_ceil(chunk_len), |range, _| {
            for i in range {
                let start = i * chunk_len;
                // SAFETY: chunk `i` is visited once and chunks do not overlap; `start + len` stays within `data`.
                let chunk = unsafe { base.slice(start, chunk_len.min(len - start)) };
                f(i, chunk);
            }
        });
    }
}

/// A pointer that threads may share because each of them touches its own part of what it points to.
#[derive(Clone, Copy)]
pub(super) struct Shares<T>(pub(super) *mut T);

// SAFETY: whoever makes a `Shares` promises, at each use, that threads touch disjoint parts.
unsafe impl<T: Send> Send for Shares<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shares<T> {}

impl<T> Shares<T> {
    /// The pointer itself (a method, so that closures capture the wrapper and not its field).
    pub(super) fn get(self) -> *mut T {
        self.0
    }

    /// The `len` values from `start` on.
    ///
    /// # Safety
    /// They lie within what this was made of, and nobody else touches them meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn slice<'a>(&self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// The `i`-th of `n_parts` contiguous parts of `0..n_items`, equal within one item.
pub(super) fn part(n_items: usize, n_parts: usize, i: usize) -> Range<usize> {
    n_items * i / n_parts..n_items * (i + 1) / n_parts
}

impl Pool {
    fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            turn: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            caller: UnsafeCell::new(None),
            n_pending: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let workers = (1..threads)
            .map(|idx| {
                let sleeper = Arc::new(AtomicBool::new(false));
                let (shared, flag) = (Arc::clone(&shared), Arc::clone(&sleeper));
                let handle = thread::Builder::new().name(format!("engine-{idx}")).spawn(move || {
                    IS_WORKING.set(true);
                    shared.work(idx, &flag);
                });
                Worker { sleeper, handle: handle.ok() }
            })
            .filter(|worker| worker.handle.is_some())
            .collect();
        Pool { shared, workers, is_busy: Mutex::new(()) }
    }

    fn run(&self, f: &Job<'_>) {
        let n_workers = self.workers.len();
        let inline = || (0..=n_workers).for_each(f);
        if n_workers == 0 || IS_WORKING.get() {
            return inline();
        }
        let Ok(_busy) = self.is_busy.try_lock() else { return inline() };
        let shared = &*self.shared;
        // SAFETY: no worker is at work (`n_pending` is 0, as `is_busy` was free), so nobody reads these cells; the
        // lifetime is erased, and this function does not return before all workers are done with `f`.
        unsafe {
            *shared.job.get() = Some(std::mem::transmute::<*const Job<'_>, *const Job<'static>>(f));
            *shared.caller.get() = Some(thread::current());
        }
        shared.n_pending.store(n_workers, Ordering::Relaxed);
        shared.turn.fetch_add(1, Ordering::SeqCst);
        for worker in &self.workers {
            if worker.sleeper.load(Ordering::SeqCst)
                && let Some(handle) = &worker.handle
            {
                handle.thread().unpark();
            }
        }
        IS_WORKING.set(true);
        let own = catch_unwind(AssertUnwindSafe(|| f(0)));
        IS_WORKING.set(false);
        let mut spins = 0;
        while shared.n_pending.load(Ordering::Acquire) > 0 {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                thread::park();
            }
        }
        let theirs = shared.panic.lock().map_or(None, |mut panic| panic.take());
        if let Some(panic) = own.err().or(theirs) {
            drop(_busy);
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::SeqCst);
        self.shared.turn.fetch_add(1, Ordering::SeqCst);
        for worker in &mut self.workers {
            if let Some(handle) = worker.handle.take() {
                handle.thread().unpark();
                // A worker catches every panic of a job, so joining cannot fail.
                let _ = handle.join();
            }
        }
    }
}

impl Shared {
    fn work(&self, idx: usize, sleeper: &AtomicBool) {
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while self.turn.load(Ordering::Acquire) == seen {
                if spins < SPINS {
                    spins += 1;
                    std::hint::spin_loop();
                    continue;
                }
                sleeper.store(true, Ordering::SeqCst);
                if self.turn.load(Ordering::SeqCst) == seen {
                    thread::park();
                }
                sleeper.store(false, Ordering::SeqCst);
            }
            seen += 1;
            if self.is_closing.load(Ordering::SeqCst) {
                return;
            }
            // SAFETY: the turn has come, so `job` and `caller` are set and stay so until `n_pending` is 0.
            let (job, caller) = unsafe { (*self.job.get(), (*self.caller.get()).clone()) };
            if let Some(job) = job {
                // SAFETY: `run` keeps the closure alive until `n_pending` is 0.
                let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(idx) }));
                if let Err(payload) = outcome
                    && let Ok(mut panic) = self.panic.lock()
                {
                    *panic = Some(payload);
                }
            }
            if self.n_pending.fetch_sub(1, Ordering::AcqRel) == 1
                && let Some(caller) = caller
            {
                caller.unpark();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_visited_once_whatever_the_threads() {
        for threads in [1, 2, 3, 5, 8] {
            let engine = Engine::new(threads);
            for n_items in [0, 1, 2, 7, 100] {
                let mut visits = vec![0u32; n_items];
                for _ in 0..20 {
                    engine.for_each_chunk(&mut visits, 3, |_, chunk| chunk.iter_mut().for_each(|v| *v += 1));
                }
                assert!(visits.iter().all(|&v| v == 20), "{threads} threads, {n_items} items: {visits:?}");
            }
        }
    }

    #[test]
    fn a_nested_call_runs_inline_and_visits_everything() {
        let engine = Engine::new(3);
        let count = AtomicUsize::new(0);
        engine.run(|_| {
            engine.parallel_for(10, |range, _| {
                count.fetch_add(range.len(), Ordering::Relaxed);
            });
        });
        assert_eq!(count.into_inner(), 30);
    }

    #[test]
    fn a_panic_in_a_worker_reaches_the_caller_and_the_pool_lives_on() {
        let engine = Engine::new(4);
        for culprit in 0..4 {
            let outcome = catch_unwind(AssertUnwindSafe(|| engine.run(|i| assert_ne!(i, culprit, "on purpose"))));
            assert!(outcome.is_err());
        }
        let count = AtomicUsize::new(0);
        engine.run(|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 4);
    }

    #[test]
    fn clones_may_be_used_from_several_threads_at_once() {
        let engine = Engine::new(2);
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        engine.clone().parallel_for(9, |range, _| {
                            count.fetch_add(range.len(), Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 4 * 200 * 9);
    }
}
