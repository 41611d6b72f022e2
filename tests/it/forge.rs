//! Fetched jobs made without a network: the same bytes that a coordinator and its nodes would
//! make, in a moment.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::Path;

use dockercomp_protocol::content::{Digest, chunk_cid};
use dockercomp_protocol::execution::{ExecutorKind, Exit, Usage};
use dockercomp_protocol::job::{JobFile, JobSpec, SweepParameter, SweepValues, Work};
use dockercomp_protocol::log::{
    Frontier, Head, HeadNotice, Nodes, Path as LogPath, consistency, inclusion, leaf_hash,
};
use dockercomp_protocol::receipt::{Basis, Entry, Receipt};
use dockercomp_protocol::statement::{Charter, ResultStatement};
use dockercomp_protocol::unit::Plan;
use dockercomp_protocol::{NodeId, ReplicaId, Timestamp, codec, envelope};
use libp2p_identity::Keypair;
use serde_bytes::ByteBuf;

/// A project, and the log of its coordinator.
pub(crate) struct Forge {
    owner: Keypair,
    coordinator: Keypair,
    job: JobSpec,
    tree: Tree,
    entries: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Tree {
    frontier: Frontier,
    nodes: BTreeMap<(u32, u64), Digest>,
}

impl Nodes for Tree {
    type Error = Infallible;

    fn node(&self, height: u32, index: u64) -> Result<Digest, Infallible> {
        Ok(self.nodes[&(height, index)])
    }
}

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are an ed25519 seed")
}

impl Forge {
    /// A job with so many work units.
    pub(crate) fn new(units: u64) -> Self {
        let (owner, coordinator) = (key(1), key(2));
        let text = "version = 1\nname = \"forged\"\n[program]\nmodule = \"file:m\"\nargs = \
                    [\"{x}\"]\n[sweep]\nx = [1]\n[validation]\npolicy = \"fixed\"\n";
        let module = Some(chunk_cid(b"module"));
        let mut job = JobFile::parse(text)
            .expect("a job file")
            .resolve(owner.public().to_peer_id(), Timestamp(5), None, module, None)
            .expect("a job");
        let to = i64::try_from(units).expect("few") - 1;
        let values = SweepValues::Range { from: 0, to, step: 1 };
        job.work = Work::Sweep(vec![SweepParameter { name: "x".into(), values }]);
        Self { owner, coordinator, job, tree: Tree::default(), entries: Vec::new() }
    }

    pub(crate) fn project(&self) -> NodeId {
        self.owner.public().to_peer_id()
    }

    /// Makes the output of a work unit below a fetched folder, and accepts it.
    pub(crate) fn accept(&mut self, into: &Path, index: u64) {
        let folder = into.join("units").join(format!("{index:08}"));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("out.txt"), format!("output {index}\n")).expect("a file");
        let output = dockercomp_store::root_of(&folder).expect("a root");
        let (job, _) = codec::block(&self.job);
        let unit = Plan::new(job, &self.job).unit_cid(index).expect("a unit");
        let results = [0, 1].map(|number| {
            let node = key(10 + number);
            let result = ResultStatement {
                v: 1,
                job,
                unit,
                replica: ReplicaId(index * 2 + u64::from(number)),
                node: node.public().to_peer_id(),
                executor: ExecutorKind::Wasm,
                exit: Exit::Code { code: 0 },
                output: Some(output),
                usage: Usage { cpu_ms: 812, wall_ms: 845, memory_peak_bytes: 1 << 24, fuel: index },
            };
            ByteBuf::from(result.seal(&node))
        });
        let entry = codec::encode(&Entry {
            v: Entry::VERSION,
            job,
            index,
            inputs: Vec::new(),
            output,
            accepted_at: Timestamp(1_760_000_000_000 + index),
            basis: Basis::Quorum,
            results: results.to_vec(),
        });
        let Tree { frontier, nodes } = &mut self.tree;
        frontier.push(leaf_hash(&entry), |height, index, digest| {
            nodes.insert((height, index), digest);
        });
        self.entries.push(entry);
    }

    /// The newest head as a file, with the proof that it carries a log of `since` entries on.
    pub(crate) fn head(&self, since: u64) -> Vec<u8> {
        let proof = consistency(since, self.tree.frontier.size(), &self.tree).expect("infallible");
        codec::encode(&self.notice(since, proof))
    }

    fn notice(&self, since: u64, proof: LogPath) -> HeadNotice {
        let project = self.project();
        let coordinator = self.coordinator.public().to_peer_id();
        let charter = Charter { v: 1, project, name: "forged".into(), coordinator };
        let (size, root) = (self.tree.frontier.size(), self.tree.frontier.root());
        let head = Head { v: 1, project, size, root, at: Timestamp(1_770_000_000_000 + size) };
        HeadNotice {
            v: 1,
            charter: envelope::seal(&self.owner, &charter),
            head: envelope::seal(&self.coordinator, &head),
            since,
            proof,
        }
    }

    /// Writes what `job fetch` writes of everything that was accepted.
    pub(crate) fn write(&self, into: &Path) {
        let notice = self.notice(0, LogPath::default());
        let job = envelope::seal(&self.owner, &self.job);
        fs::create_dir_all(into.join("receipts")).expect("a folder");
        fs::write(into.join("job"), &job).expect("a file");
        fs::write(into.join("head"), codec::encode(&notice)).expect("a file");
        let size = self.tree.frontier.size();
        for (leaf, entry) in (0..).zip(&self.entries) {
            let index = codec::decode::<Entry>(entry).expect("an entry").index;
            let receipt = Receipt {
                leaf,
                charter: notice.charter.clone(),
                job: job.clone(),
                entry: entry.clone(),
                path: inclusion(leaf, size, &self.tree).expect("infallible"),
                head: notice.head.clone(),
            };
            let path = into.join("receipts").join(format!("{index:08}.receipt"));
            fs::write(path, receipt.encode()).expect("a file");
        }
    }
}

/// A fetched job with so many work units.
pub(crate) fn fetched(into: &Path, units: u64) -> Forge {
    let mut forge = Forge::new(units);
    // Work units are not accepted in the order of their numbers.
    for index in (0..units).rev() {
        forge.accept(into, index);
    }
    forge.write(into);
    forge
}
