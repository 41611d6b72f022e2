//! A coordinator that rewrites its log is caught, by its nodes and by anybody who kept a head.

use std::path::{Path, PathBuf};

use dockercomp_peer::identity;
use dockercomp_protocol::log::{Frontier, Head, leaf_hash};
use dockercomp_protocol::receipt::Entry;
use dockercomp_protocol::{Timestamp, codec, envelope};
use dockercomp_store::{Options, Row, Store, Table};
use serde_json::Value;

use crate::network::{Network, Process, dockercomp, json, run_on, wait_until};
use crate::wordcount::{corpus, submit};

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn verify_heads(old: &Path, new: &Path) -> (Option<i32>, String) {
    let output = dockercomp()
        .args(["verify", "--output", "json", "--heads"])
        .args([old, new])
        .output()
        .expect("the binary starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Rewrites the log as its coordinator could, who has the key and the disk: keeps the first
/// `keep` entries, changes what the very first one says, and signs the whole anew.
fn rewrite(dir: &Path, keep: usize) {
    let store = Store::open(dir, Options::default()).expect("nobody else has it");
    let coordinator = identity::load(&dir.join(identity::FILE)).expect("a key");
    let owner = identity::load(&dir.join("owner.key")).expect("a key");
    let mut receipts = store.scan(Table::Receipts, &[], None, 1000).expect("readable");
    // A row is the number of the leaf and the entry.
    receipts.sort_by(|(_, one), (_, other)| one[..8].cmp(&other[..8]));
    let (kept, dropped) = receipts.split_at_mut(keep);
    let mut entry: Entry = codec::decode(&kept[0].1[8..]).expect("an entry");
    entry.accepted_at = Timestamp(entry.accepted_at.0 - 1);
    kept[0].1.truncate(8);
    kept[0].1.extend(codec::encode(&entry));

    let mut rows: Vec<Row> = kept
        .iter()
        .map(|(key, value)| {
            let (table, key, value) = (Table::Receipts, key.clone(), value.clone());
            Row::Put { table, key, value }
        })
        .collect();
    rows.extend(
        dropped.iter().map(|(key, _)| Row::Delete { table: Table::Receipts, key: key.clone() }),
    );
    let leaves: Vec<_> = kept.iter().map(|(_, value)| leaf_hash(&value[8..])).collect();
    let mut frontier = Frontier::default();
    for leaf in &leaves {
        frontier.push(*leaf, |_, _, _| {});
    }
    let tile = [&[1, 0][..], &0u64.to_be_bytes()].concat();
    rows.push(Row::Put { table: Table::Log, key: tile, value: leaves.concat() });
    let old = store.get(Table::Log, &[0]).expect("readable").expect("a head");
    let old = envelope::open::<Head>(&old).expect("a head").statement;
    let head = Head {
        v: 1,
        project: owner.public().to_peer_id(),
        size: frontier.size(),
        root: frontier.root(),
        at: Timestamp(old.at.0 + 1),
    };
    let value = envelope::seal(&coordinator, &head);
    rows.push(Row::Put { table: Table::Log, key: vec![0], value });
    store.append(&[], &rows).expect("written");
}

/// Waits until a node says that the log was rewritten and has so many entries now, and gives
/// its evidence.
fn caught(node: &Process, entries: u64) -> Vec<PathBuf> {
    let now = format!("now shows one of {entries} that does not carry it on");
    let mut evidence = Vec::new();
    wait_until("the node catches its coordinator", || {
        let status: Value = json(run_on(&node.dir, &["node", "status"]));
        let paths = status["projects"][0]["fork"]["evidence"].as_array();
        let paths = paths.into_iter().flatten().filter_map(Value::as_str);
        evidence = paths.map(PathBuf::from).collect();
        status["projects"][0]["fork"]["message"].as_str().is_some_and(|said| said.contains(&now))
    });
    evidence
}

#[test]
fn a_coordinator_that_rewrites_its_log_is_caught() {
    let mut network = Network::start();
    network.add_nodes(2, "wasm", &[]);
    let corpus = corpus(network.folder.path(), 1);
    let job = submit(&network, &corpus);
    let units = network.wait_for_done(&job)["work_units"].as_u64().expect("a number");
    let receipts = network.owner(&["job", "receipts", &job]);
    assert_eq!(receipts.as_array().map(Vec::len), usize::try_from(units).ok());

    // Everybody has heard of the whole log, by gossip, and it is carried on.
    for node in &network.nodes {
        wait_until("the head is announced", || {
            let status: Value = json(run_on(&node.dir, &["node", "status"]));
            assert_eq!(status["projects"][0]["fork"], Value::Null, "{status:#}");
            status["projects"][0]["log"]["entries"] == units
        });
    }
    let [kept, later] = ["kept.head", "later.head"].map(|name| network.folder.path().join(name));
    network.owner(&["coordinator", "head", "--into", text(&kept)]);

    network.coordinator.kill();
    rewrite(&network.coordinator.dir, usize::try_from(units).expect("few"));
    network.coordinator.restart();
    for node in &network.nodes {
        // Two signed heads of one size: proof to anybody, without asking anybody.
        let evidence = caught(node, units);
        let [before, now] = &evidence[..] else { panic!("evidence: {evidence:?}") };
        let (code, message) = verify_heads(before, now);
        assert_eq!(code, Some(13), "{message}");
        assert!(message.contains("has rewritten its log"), "{message}");
        assert!(message.contains(&network.coordinator.text("peer_id")), "{message}");
    }
    network.owner(&["coordinator", "head", "--since", text(&kept), "--into", text(&later)]);
    let (code, message) = verify_heads(&kept, &later);
    assert_eq!(code, Some(13), "{message}");

    // A log that goes back, as after an old copy of the disk was put in its place.
    network.coordinator.kill();
    rewrite(&network.coordinator.dir, 1);
    network.coordinator.restart();
    for node in &network.nodes {
        // The coordinator itself was asked, and cannot prove it.
        let evidence = caught(node, 1);
        assert_eq!(evidence.len(), 2);
        assert_eq!(verify_heads(&evidence[0], &evidence[1]).0, Some(13));
    }
    network.owner(&["coordinator", "head", "--since", text(&kept), "--into", text(&later)]);
    let (code, message) = verify_heads(&kept, &later);
    assert_eq!(code, Some(13), "{message}");
    assert!(message.contains("it signed one of 1 entries after one of"), "{message}");
}
