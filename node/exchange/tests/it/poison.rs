//! Three of four providers lie about every chunk.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use dockercomp_exchange::FetchOptions;
use dockercomp_store::Want;

use crate::support::{MIB, Nature, World, files, within};

/// What was logged, as text.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads files again and again until told to stop. The number of bytes, over all readings, that
/// were neither right nor not written yet.
fn watch(files: Vec<(PathBuf, Vec<u8>)>, stop: &AtomicBool) -> (usize, usize) {
    let (mut n_wrong, mut n_readings) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        for (path, right) in &files {
            let Ok(bytes) = std::fs::read(path) else { continue };
            n_readings += 1;
            n_wrong +=
                bytes.iter().zip(right).filter(|(is, right)| **is != 0 && is != right).count();
        }
    }
    (n_wrong, n_readings)
}

#[tokio::test]
async fn liars_are_named_and_dropped_and_nothing_of_theirs_is_ever_stored() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // For this thread, on which the runtime of this test runs.
    let _logging = tracing::subscriber::set_default(subscriber);

    let world = World::default();
    let files = files(4, 16 * MIB);
    let mut liars = Vec::new();
    for _ in 0..3 {
        liars.push(world.provider(&files, Nature::Flips).await.0);
    }
    let (honest, root) = world.provider(&files, Nature::Honest).await;
    let node = world.node();

    let data = node.dir.join("store/data").join(root.to_string());
    let watched: Vec<_> =
        files.iter().map(|(path, bytes)| (data.join(path), bytes.clone())).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let watching = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || watch(watched, &stop)
    });

    let providers: Vec<_> = liars.iter().chain([&honest]).map(|node| node.id).collect();
    let exchange = node.exchange();
    let fetching = exchange.fetch(root, Want::All, providers, FetchOptions::default());
    let fetched = within(fetching).await.expect("one honest provider");
    stop.store(true, Ordering::Relaxed);
    let (n_wrong, n_readings) = watching.join().expect("no panic");

    assert_eq!(n_wrong, 0, "bytes of a liar were in the store");
    assert!(n_readings > 0, "nothing was watched");
    node.assert_holds(&root, &files);
    let named: BTreeSet<_> = fetched.liars.iter().copied().collect();
    assert_eq!(named, liars.iter().map(|liar| liar.id).collect());
    assert_eq!(fetched.bytes_by_peer.keys().collect::<Vec<_>>(), [&honest.id]);
    let log = String::from_utf8(log.0.lock().expect("not poisoned").clone()).expect("text");
    for liar in &liars {
        let lines = log.lines().filter(|line| line.contains(&liar.id.to_string()));
        let named = lines.filter(|line| line.contains("WARN") && line.contains("lied")).count();
        assert_eq!(named, 1, "{} is named {named} times in the log", liar.id);
        let asked = liar.served.len();
        assert!(asked <= crate::support::quick().blocks_per_peer, "a liar was asked again");
    }
}
