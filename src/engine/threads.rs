//! The worker pool: threads that share out one piece of work at a time and park in between.
//!
//! Work is divided by index, statically and contiguously; nobody steals. A sum never depends on who computed which
//! part: that is for the callers to keep, by cutting sums at places that depend on the shape only. So the number of
//! threads may change from one piece of work to the next, as other tasks begin and end.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::cache::Caches;
use super::isa::Isa;
use super::kernel::Kernels;

/// How long a thread waits for its turn before it parks. To wake a parked thread takes some 35 microseconds on a
/// virtual machine, twice in each piece of work, and who wakes late lets the other park: with 20 microseconds, pieces
/// of 100 that lie 50 apart took 134 each, from 100 on they took 100 (Sapphire Rapids, 2 processors). A step has gaps
/// as long, and this is still far too short to take a core from a neighbour.
const PATIENCE: Duration = Duration::from_micros(200);

/// How long threads are kept busy until each has a processor of its own: that took 4 to 25 ms in six starts (Zen 5, 2
/// processors, Linux 6.18).
const SETTLING: Duration = Duration::from_millis(50);

/// Rounds of waiting between two looks at the clock.
const ROUNDS: u32 = 32;

thread_local! {
    /// Set while this thread works for some pool: a nested call then runs inline.
    static IS_WORKING: Cell<bool> = const { Cell::new(false) };
    /// What to ask before each piece of work that this thread gives out: see [`stoppable`].
    static STOP: Cell<Option<*const Ask<'static>>> = const { Cell::new(None) };
}

type Ask<'a> = dyn Fn() -> bool + 'a;

/// The work of [`stoppable`] was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Calls `f`, which ends in the middle once `is_stopped`: that is asked before each piece of work that `f` has an engine do on this
/// thread, which then unwinds. Nothing half-computed can be returned; what `f` had in hand is dropped.
///
/// # Errors
/// If it was stopped.
pub fn stoppable<T>(is_stopped: &dyn Fn() -> bool, f: impl FnOnce() -> T) -> Result<T, Stopped> {
    struct Reset(Option<*const Ask<'static>>);
    impl Drop for Reset {
        fn drop(&mut self) {
            STOP.set(self.0);
        }
    }
    // SAFETY: only the lifetime is erased, and the pointer is gone from `STOP` before this function ends, however it does.
    let erased = unsafe { std::mem::transmute::<*const Ask<'_>, *const Ask<'static>>(is_stopped) };
    let reset = Reset(STOP.replace(Some(erased)));
    // What unwinding leaves half-done is dropped with `f`; a panic goes on as one.
    let outcome = catch_unwind(AssertUnwindSafe(f));
    drop(reset);
    match outcome {
        Ok(done) => Ok(done),
        Err(payload) if payload.is::<Stopped>() => Err(Stopped),
        Err(payload) => resume_unwind(payload),
    }
}

/// Unwinds out of [`stoppable`] if this thread is to stop.
fn look() {
    let Some(ask) = STOP.get() else { return };
    // SAFETY: `stoppable`, whose closure this is called from, keeps what it points to alive.
    if unsafe { (*ask)() } && !thread::panicking() {
        resume_unwind(Box::new(Stopped));
    }
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
    /// Threads to use now, the caller's included.
    threads: AtomicUsize,
    /// The most threads that there may ever be.
    capacity: usize,
    /// Those that were started. Locked while a piece of work runs; whoever finds it locked does its own work inline.
    workers: Mutex<Vec<Worker>>,
}

struct Worker {
    seat: Arc<Seat>,
    handle: JoinHandle<()>,
}

/// Where a worker waits.
#[derive(Default)]
struct Seat {
    /// Counts the pieces of work that this worker has a part of; when it sees a new number, it runs `job`.
    turn: AtomicU64,
    is_parked: AtomicBool,
}

struct Shared {
    piece: UnsafeCell<Option<Piece>>,
    /// Who waits for the work to end; read by the last worker to finish.
    caller: UnsafeCell<Option<Thread>>,
    n_pending: AtomicUsize,
    is_closing: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whether threads are more than processors: whoever waits without parking then keeps another from working.
    is_crowded: AtomicBool,
}

/// Some calls of one closure, dealt out to `n_workers` and the caller.
#[derive(Clone, Copy)]
struct Piece {
    job: *const Job<'static>,
    n_parts: usize,
    n_workers: usize,
}

impl Piece {
    /// The calls of one worker; the caller is worker 0.
    fn parts(&self, worker: usize) -> impl Iterator<Item = usize> {
        (worker..self.n_parts).step_by(self.n_workers + 1)
    }
}

// SAFETY: `piece` and `caller` are written only by the thread that holds `workers` while no worker is at work
// (`n_pending` is 0), and read by workers only between the store of their `turn` and their decrement of `n_pending`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `piece` is to a `Sync` closure that outlives the call that stored it.
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
        Engine::with_capacity(threads, threads, isa)
    }

    /// An engine of so many threads now, whose number may change ([`Engine::set_threads`]) up to `capacity`: plans keep
    /// scratch for so many.
    ///
    /// # Panics
    /// As [`Engine::with_isa`] does.
    pub fn with_capacity(threads: usize, capacity: usize, isa: Isa) -> Engine {
        assert!(isa.is_available(), "this processor has no {isa}");
        let pool = Arc::new(Pool::new(capacity.max(threads).max(1)));
        pool.set_threads(threads);
        let alone = Arc::new(Pool::new(1));
        Engine { pool, alone, isa, caches: Caches::detect(), choice: Choice::default() }
    }

    /// Threads that share the work now, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads.load(Ordering::Relaxed)
    }

    /// The most threads that may ever share the work.
    pub fn capacity(&self) -> usize {
        self.pool.capacity
    }

    /// Uses so many threads from the next piece of work on, at least one and at most the capacity; clones do as well.
    /// No bit of any result depends on it.
    pub fn set_threads(&self, threads: usize) {
        self.pool.set_threads(threads);
    }

    /// The instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Keeps all threads busy for a while. A thread that has slept is often woken on the processor of whoever wakes it,
    /// and the system spreads the two some milliseconds later: whoever measures threads side by side first calls this.
    pub fn settle(&self) {
        let start = Instant::now();
        while self.threads() > 1 && start.elapsed() < SETTLING {
            self.measure_peak();
        }
    }

    /// Floating-point operations per second that all threads reach together when nothing touches memory, measured now,
    /// in about a tenth of a millisecond. Kernels are rated as a share of it.
    pub fn measure_peak(&self) -> f64 {
        let kernels = self.kernels();
        let start = Instant::now();
        let done = Mutex::new(0.0);
        self.run(self.threads(), |_| {
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

    /// Calls `f(0)` to `f(n_parts - 1)`, each once, side by side as far as there are threads, and returns when all have
    /// been. A call from inside another call, or while another thread uses the pool, runs them in turn on the calling
    /// thread.
    pub fn run(&self, n_parts: usize, f: impl Fn(usize) + Sync) {
        look();
        self.pool.run(n_parts, &f);
    }

    /// Cuts `0..n_items` into one contiguous range per thread and calls `f(range, worker)` for those that are not
    /// empty. `worker` is below [`Engine::capacity`], and no two calls at one time share it.
    pub fn parallel_for(&self, n_items: usize, f: impl Fn(Range<usize>, usize) + Sync) {
        let threads = self.threads();
        if n_items <= 1 || threads == 1 {
            look();
            if n_items > 0 {
                f(0..n_items, 0);
            }
            return;
        }
        self.run(threads, |worker| {
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

/// Multiply-adds of a thread between two looks at whether to stop: some 50 ms, or 10.
const BETWEEN_LOOKS: u64 = 1 << 28;

impl Engine {
    /// How many chunks of so many multiply-adds are worked on between two looks at whether to stop, by all threads.
    pub fn chunks_between_looks(&self, multiply_adds: u64) -> usize {
        self.threads() * (BETWEEN_LOOKS / multiply_adds.max(1)).max(1) as usize
    }

    /// [`Engine::for_each_chunk`], some chunks at a time: `is_stopped` is asked before each time, and ends it. A chunk
    /// takes `multiply_adds`. Returns whether all chunks were visited.
    pub fn for_each_chunk_until<T: Send>(
        &self,
        data: &mut [T],
        chunk_len: usize,
        multiply_adds: u64,
        is_stopped: &dyn Fn() -> bool,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) -> bool {
        let together = self.chunks_between_looks(multiply_adds);
        data.chunks_mut(chunk_len.saturating_mul(together)).enumerate().all(|(i, data)| {
            let goes_on = !is_stopped();
            if goes_on {
                self.for_each_chunk(data, chunk_len, |at, chunk| f(i * together + at, chunk));
            }
            goes_on
        })
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
    fn new(capacity: usize) -> Pool {
        let shared = Arc::new(Shared {
            piece: UnsafeCell::new(None),
            caller: UnsafeCell::new(None),
            n_pending: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            panic: Mutex::new(None),
            is_crowded: AtomicBool::new(false),
        });
        Pool { shared, threads: AtomicUsize::new(1), capacity, workers: Mutex::default() }
    }

    /// A worker catches every panic of a job, and the caller's own leave the list as it was.
    fn workers(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_threads(&self, threads: usize) {
        let threads = threads.clamp(1, self.capacity);
        if self.threads.load(Ordering::Relaxed) == threads {
            return;
        }
        let mut workers = self.workers();
        for idx in workers.len() + 1..threads {
            let (shared, seat) = (Arc::clone(&self.shared), Arc::new(Seat::default()));
            let own = Arc::clone(&seat);
            let handle = thread::Builder::new().name(format!("engine-{idx}")).spawn(move || {
                IS_WORKING.set(true);
                shared.work(idx, &own);
            });
            // Where no thread can be had, the others do its work.
            let Ok(handle) = handle else { break };
            workers.push(Worker { seat, handle });
        }
        let processors = thread::available_parallelism().map_or(1, usize::from);
        self.shared.is_crowded.store(threads > processors, Ordering::Relaxed);
        self.threads.store(threads, Ordering::Relaxed);
    }

    fn run(&self, n_parts: usize, f: &Job<'_>) {
        let inline = || (0..n_parts).for_each(f);
        let most = n_parts.min(self.threads.load(Ordering::Relaxed)).saturating_sub(1);
        if most == 0 || IS_WORKING.get() {
            return inline();
        }
        let Ok(started) = self.workers.try_lock() else { return inline() };
        let workers = &started[..most.min(started.len())];
        let shared = &*self.shared;
        // SAFETY: the lifetime is erased, and this function does not return before all workers are done with `f`.
        let job = unsafe { std::mem::transmute::<*const Job<'_>, *const Job<'static>>(f) };
        let piece = Piece { job, n_parts, n_workers: workers.len() };
        // SAFETY: no worker is at work (`n_pending` is 0, as `workers` was free), so nobody reads these cells.
        unsafe {
            *shared.piece.get() = Some(piece);
            *shared.caller.get() = Some(thread::current());
        }
        shared.n_pending.store(workers.len(), Ordering::Relaxed);
        for Worker { seat, handle } in workers {
            seat.turn.fetch_add(1, Ordering::SeqCst);
            if seat.is_parked.load(Ordering::SeqCst) {
                handle.thread().unpark();
            }
        }
        IS_WORKING.set(true);
        let own = catch_unwind(AssertUnwindSafe(|| piece.parts(0).for_each(f)));
        IS_WORKING.set(false);
        while !shared.waits_for(|| shared.n_pending.load(Ordering::Acquire) == 0) {
            thread::park();
        }
        let theirs = shared.panic.lock().map_or(None, |mut panic| panic.take());
        if let Some(panic) = own.err().or(theirs) {
            // Not held by an unwinding thread: poisoned, it would leave all later work to the caller alone.
            drop(started);
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::SeqCst);
        for Worker { seat, handle } in self.workers().drain(..) {
            seat.turn.fetch_add(1, Ordering::SeqCst);
            handle.thread().unpark();
            // A worker catches every panic of a job, so joining cannot fail.
            let _ = handle.join();
        }
    }
}

impl Shared {
    /// Waits for `is_due` for a while without parking; whether it came.
    fn waits_for(&self, is_due: impl Fn() -> bool) -> bool {
        let is_crowded = self.is_crowded.load(Ordering::Relaxed);
        let mut start = None;
        loop {
            for _ in 0..ROUNDS {
                if is_due() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if is_crowded || start.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return false;
            }
            // Whom we wait for may have been put on our own processor: without this, pieces of 0.1 ms took 1.3 then.
            thread::yield_now();
        }
    }

    fn work(&self, idx: usize, seat: &Seat) {
        let mut seen = 0;
        loop {
            while !self.waits_for(|| seat.turn.load(Ordering::Acquire) != seen) {
                seat.is_parked.store(true, Ordering::SeqCst);
                if seat.turn.load(Ordering::SeqCst) == seen {
                    thread::park();
                }
                seat.is_parked.store(false, Ordering::SeqCst);
            }
            seen += 1;
            if self.is_closing.load(Ordering::SeqCst) {
                return;
            }
            // SAFETY: the turn has come, so `piece` and `caller` are set and stay so until `n_pending` is 0.
            let (piece, caller) = unsafe { (*self.piece.get(), (*self.caller.get()).clone()) };
            if let Some(piece) = piece {
                // SAFETY: `run` keeps the closure alive until `n_pending` is 0.
                let outcome = catch_unwind(AssertUnwindSafe(|| piece.parts(idx).for_each(unsafe { &*piece.job })));
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
        engine.run(3, |_| {
            engine.parallel_for(10, |range, _| {
                count.fetch_add(range.len(), Ordering::Relaxed);
            });
        });
        assert_eq!(count.into_inner(), 30);
    }

    #[test]
    fn the_number_of_threads_may_change_between_pieces_and_every_part_is_run_once() {
        let engine = Engine::with_capacity(1, 6, Isa::detect());
        for threads in [1, 3, 6, 2, 9, 1, 5] {
            engine.set_threads(threads);
            assert_eq!(engine.threads(), threads.min(6));
            // More parts than threads: whoever planned for more of them meanwhile loses nothing.
            for n_parts in [1, 2, 4, 7] {
                let runs: Vec<AtomicUsize> = (0..n_parts).map(|_| AtomicUsize::new(0)).collect();
                engine.run(n_parts, |i| {
                    runs[i].fetch_add(1, Ordering::Relaxed);
                });
                let runs: Vec<usize> = runs.into_iter().map(AtomicUsize::into_inner).collect();
                assert_eq!(runs, vec![1; n_parts], "{threads} threads");
            }
        }
    }

    #[test]
    fn a_panic_in_a_worker_reaches_the_caller_and_the_pool_lives_on() {
        let engine = Engine::new(4);
        for culprit in 0..4 {
            let outcome = catch_unwind(AssertUnwindSafe(|| engine.run(4, |i| assert_ne!(i, culprit, "on purpose"))));
            assert!(outcome.is_err());
            assert!(!engine.pool.workers.is_poisoned(), "the pool would work inline from now on");
        }
        let count = AtomicUsize::new(0);
        engine.run(4, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 4);
    }

    #[test]
    fn work_that_is_told_to_stop_ends_before_its_next_piece_and_gives_nothing() {
        for threads in [1, 3] {
            let engine = Engine::new(threads);
            let n_done = AtomicUsize::new(0);
            let work = || {
                for _ in 0..10 {
                    engine.parallel_for(8, |range, _| {
                        n_done.fetch_add(range.len(), Ordering::Relaxed);
                    });
                }
                "all of it"
            };
            assert_eq!(stoppable(&|| n_done.load(Ordering::Relaxed) >= 24, work), Err(Stopped));
            assert_eq!(n_done.load(Ordering::Relaxed), 24);
            // Outside nobody is asked, nor by another one's question.
            assert_eq!(stoppable(&|| false, || stoppable(&|| false, work)), Ok(Ok("all of it")));
            assert_eq!(work(), "all of it");
            let panic = catch_unwind(AssertUnwindSafe(|| stoppable(&|| false, || panic!("on purpose"))));
            assert!(panic.is_err_and(|payload| payload.is::<&str>()));
        }
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
