//! The claim: a run with nothing to do over 10,000 loose files takes about as long as 10,000 stats.

use std::fs;
use std::time::{Duration, Instant};

use convoy::store::{Access, Place, Store};

const FILES: usize = 10_000;
const CLASSES: usize = 10;

fn median(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..15)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let images = temp.path().join("images");
    for i in 0..FILES {
        let folder = images.join(format!("class-{}", i % CLASSES));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(format!("{i:05}.png")), i.to_string().repeat(100)).expect("a file");
    }
    // Past the grain of the file system's clock, so that stamps are settled.
    std::thread::sleep(Duration::from_millis(200));
    let digest = || {
        let store = Store::open(&temp.path().join(".convoy"), temp.path(), Access::Write).expect("a store");
        store.digest_sources(&[Place::Folder(images.clone())], &|_| ()).expect("a digest")
    };
    let start = Instant::now();
    let first = digest();
    let cold = start.elapsed();
    let again = median(|| assert_eq!(digest(), first));
    let stats = median(|| {
        for i in 0..FILES {
            let path = images.join(format!("class-{}", i % CLASSES)).join(format!("{i:05}.png"));
            fs::metadata(path).expect("a file");
        }
    });
    println!("{FILES} files: first {cold:.1?}, again {again:.1?}; as many stats, one after the other, {stats:.1?}");
}
