//! Maps of blobs, and what happens when one shrinks under a run: a message with the file's name and exit code 5.
//!
//! To touch a page of a map whose file has become shorter raises SIGBUS, which ends a process without a word. The
//! handler looks the address up among the maps of this process, says which file it is and ends it; an address that is
//! not ours is left to whoever handled the signal before.

use std::fs::File;
use std::io;
use std::path::Path;

/// The bytes of a file, mapped.
pub(super) struct Map {
    map: memmap2::Mmap,
    #[cfg(unix)]
    slot: &'static guard::Slot,
}

impl Map {
    /// Maps `file`, whose path is `path`.
    #[expect(unsafe_code, reason = "mapping is what keeps a data set of gigabytes out of memory")]
    pub(super) fn of(file: &File, path: &Path) -> io::Result<Map> {
        // SAFETY: blobs are written once, made read-only and then only renamed or unlinked, which leaves a map as it
        // is; nobody but the store writes below `cas/`. If somebody else shortens one, the handler ends the process.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        #[cfg(unix)]
        {
            let slot = guard::watch(&map, path);
            Ok(Map { map, slot })
        }
        #[cfg(not(unix))]
        {
            let _ = path;
            Ok(Map { map })
        }
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(unix)]
impl Drop for Map {
    fn drop(&mut self) {
        guard::forget(self.slot);
    }
}

/// The maps of this process, and the handler. What the handler does is safe in a signal handler: it reads atomics,
/// writes and ends the process.
#[cfg(unix)]
mod guard {
    use std::ffi::{c_int, c_void};
    use std::path::Path;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
    use std::sync::{Mutex, Once};

    /// A map: where it begins, where it ends (0: none), and what to say. Slots live for ever, since a handler may be
    /// reading them, and are used again.
    pub(in super::super) struct Slot {
        start: AtomicUsize,
        end: AtomicUsize,
        message: AtomicPtr<Vec<u8>>,
        next: AtomicPtr<Slot>,
    }

    static FIRST: AtomicPtr<Slot> = AtomicPtr::new(std::ptr::null_mut());
    /// Slots without a map.
    static FREE: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());
    static INSTALL: Once = Once::new();
    static EARLIER: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

    /// The exit code of a store that holds something corrupt.
    const CORRUPT: c_int = 5;

    pub(super) fn watch(map: &[u8], path: &Path) -> &'static Slot {
        INSTALL.call_once(install);
        let message = format!(
            "error: the file `{}` became shorter while it was read, or its disk failed\n  help: run again; what was \
             finished is kept, and a damaged file is computed anew\n",
            path.display()
        );
        let mut free = super::super::unpoisoned(&FREE);
        let slot = free.pop().unwrap_or_else(|| {
            let slot = Box::leak(Box::new(Slot {
                start: AtomicUsize::new(0),
                end: AtomicUsize::new(0),
                message: AtomicPtr::new(std::ptr::null_mut()),
                next: AtomicPtr::new(FIRST.load(Ordering::Acquire)),
            }));
            FIRST.store(slot, Ordering::Release);
            slot
        });
        let start = map.as_ptr() as usize;
        slot.message.store(Box::into_raw(Box::new(message.into_bytes())), Ordering::Release);
        slot.start.store(start, Ordering::Release);
        slot.end.store(start + map.len(), Ordering::Release);
        slot
    }

    #[expect(unsafe_code, reason = "what the slot owned is given back")]
    pub(super) fn forget(slot: &'static Slot) {
        slot.end.store(0, Ordering::Release);
        let message = slot.message.swap(std::ptr::null_mut(), Ordering::AcqRel);
        if !message.is_null() {
            // SAFETY: from `Box::into_raw` in `watch`, and taken out by this call alone. Nobody touches a map that is
            // being dropped, so no handler is about to say this message.
            drop(unsafe { Box::from_raw(message) });
        }
        super::super::unpoisoned(&FREE).push(slot);
    }

    #[expect(unsafe_code, reason = "a handler of a signal is installed through the C library")]
    fn install() {
        // SAFETY: both structures are plain data; the handler has the signature that SA_SIGINFO asks for, and the old
        // action is kept for ever before the new one can run... it may run in between, and then finds none.
        unsafe {
            let earlier = Box::leak(Box::new(std::mem::zeroed::<libc::sigaction>()));
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), earlier) == 0 {
                EARLIER.store(earlier, Ordering::Release);
            }
            let mut action = std::mem::zeroed::<libc::sigaction>();
            action.sa_sigaction = handle as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    }

    #[expect(unsafe_code, reason = "what a handler of a signal may do, it does through the C library")]
    extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: `info` is what the kernel handed over. Slots are never freed, and a message is only freed once its
        // map is being dropped, when nobody touches it any more. `write`, `_exit` and `sigaction` are
        // async-signal-safe.
        unsafe {
            let address = (*info).si_addr() as usize;
            let mut slot = FIRST.load(Ordering::Acquire);
            while let Some(found) = slot.as_ref() {
                let (start, end) = (found.start.load(Ordering::Acquire), found.end.load(Ordering::Acquire));
                if start <= address && address < end {
                    if let Some(message) = found.message.load(Ordering::Acquire).as_ref() {
                        libc::write(2, message.as_ptr().cast(), message.len());
                    }
                    libc::_exit(CORRUPT);
                }
                slot = found.next.load(Ordering::Acquire);
            }
            match EARLIER.load(Ordering::Acquire).as_ref() {
                Some(earlier) if earlier.sa_sigaction != libc::SIG_DFL && earlier.sa_sigaction != libc::SIG_IGN => {
                    if earlier.sa_flags & libc::SA_SIGINFO != 0 {
                        let earlier: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                            std::mem::transmute(earlier.sa_sigaction);
                        earlier(signal, info, context);
                    } else {
                        let earlier: extern "C" fn(c_int) = std::mem::transmute(earlier.sa_sigaction);
                        earlier(signal);
                    }
                }
                _ => {
                    // As if there were no handler: the access is tried again, and ends the process.
                    let mut default = std::mem::zeroed::<libc::sigaction>();
                    default.sa_sigaction = libc::SIG_DFL;
                    libc::sigaction(signal, &raw const default, std::ptr::null_mut());
                }
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const CHILD: &str = "CONVOY_TEST_SHRINK";

    /// Not a test of its own: what the test below starts this program for.
    #[test]
    fn child() {
        let Some(path) = std::env::var_os(CHILD) else { return };
        let path = Path::new(&path);
        drop(Map::of(&File::open(path).unwrap(), path).unwrap());
        let map = Map::of(&File::open(path).unwrap(), path).unwrap();
        File::options().write(true).open(path).unwrap().set_len(0).unwrap();
        let sum: u64 = map.as_ref().iter().map(|&byte| u64::from(byte)).sum();
        panic!("read {sum}");
    }

    #[test]
    fn a_map_that_shrinks_is_told_with_its_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("blob");
        std::fs::write(&path, vec![1; 100_000]).unwrap();
        let ended = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::mapped::tests::child", "--nocapture"])
            .env(CHILD, &path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(5), "{text}");
        assert!(text.contains(&format!("the file `{}` became shorter", path.display())), "{text}");
    }
}
