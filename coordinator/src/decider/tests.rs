//! Durable first, visible second.
//!
//! A `kill -9` hardly ever shows that answers come too early: what the kernel was handed
//! survives it, and between an answer and the write there are microseconds. Here the write is
//! held up for as long as it takes to look.

use std::pin::pin;
use std::sync::mpsc as blocking;

use dockercomp_coordinator_core::Config;
use dockercomp_protocol::content::block_cid;
use dockercomp_protocol::envelope;
use dockercomp_protocol::statement::Charter;
use dockercomp_store::Options;
use libp2p_identity::Keypair;

use super::*;
use crate::journal::tests::spec;
use crate::journal::{Rhythm, recover};
use crate::receipts::Seal;

/// Turns that everything else gets before a look says that nothing came.
const TURNS: usize = 1000;

fn decider(store: &Store) -> (Decider, Handle, mpsc::UnboundedReceiver<Effect>) {
    let [owner, key] =
        [1, 2].map(|seed| Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are a seed"));
    let project = owner.public().to_peer_id();
    let coordinator = key.public().to_peer_id();
    let charter = Charter { v: 1, project, name: "p".into(), coordinator };
    let seal = Arc::new(Seal { key, charter: envelope::seal(&owner, &charter) });
    let (core, journal) =
        recover(store, Rhythm::default(), Config::default()).expect("an empty journal");
    let (log, _) = Log::load(store, project, seal).expect("an empty log");
    let clock = Clock::from(core.last_record_at());
    Decider::new(core, journal, clock, store.clone(), log)
}

#[test]
fn nobody_hears_of_a_decision_before_it_is_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Options::default()).expect("a store");
    // One thread decides and answers, one writes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (decider, handle, mut effects) = decider(&store);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(decider.run(shutdown.clone()));
        let (let_go, held_up) = blocking::channel::<()>();
        tokio::task::spawn_blocking(move || held_up.recv());

        let n_before = store.next_record();
        let (job, spec) = (block_cid(b"job"), Box::new(spec()));
        let mut told = pin!(handle.tell(Event::JobAdded { job, spec, units: 1000, seed: [7; 32] }));
        let mut looked = pin!(handle.look(|core| core.jobs().count()));
        let turns = async {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            told = &mut told => panic!("{told:?} was told before it was written"),
            seen = &mut looked => panic!("{seen:?} jobs were seen before one was written"),
            () = turns => {}
        }
        assert!(effects.try_recv().is_err(), "work was announced before it was written");
        assert_eq!(store.next_record(), n_before, "the write was not held up");

        let_go.send(()).expect("the thread that writes waits");
        assert!(matches!(told.await, Ok(Answer::Done)));
        assert_eq!(looked.await.expect("it runs"), 1);
        assert!(matches!(effects.try_recv(), Ok(Effect::AnnounceWork)));
        assert!(store.next_record() > n_before);
        shutdown.cancel();
        running.await.expect("it ends").expect("the store does not fail");
    });
}
