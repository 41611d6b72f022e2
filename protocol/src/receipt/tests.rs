//! Receipts told as stories: what they prove, what they refuse, and how damage is named.

use libp2p_identity::Keypair;
use proptest::prelude::*;
use serde_bytes::ByteBuf;

use super::damage::{Damage, locate};
use super::*;
use crate::codec;
use crate::content::{block_cid, chunk_cid};
use crate::envelope;
use crate::execution::{ExecutorKind, Exit, Usage};
use crate::ids::{ProjectId, ReplicaId};
use crate::job::{Adaptive, JobFile, JobSpec};
use crate::log::{Frontier, Head, Path, leaf_hash, node_hash};
use crate::statement::{Charter, ResultStatement};

/// A project with a job of three work units, and its coordinator.
struct World {
    owner: Keypair,
    coordinator: Keypair,
    job: JobSpec,
}

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are an ed25519 seed")
}

impl World {
    fn new() -> Self {
        let (owner, coordinator) = (key(1), key(2));
        let text = "version = 1\nname = \"j\"\n[program]\nmodule = \"file:m\"\nargs = [\"{x}\"]\n\
                    [sweep]\nx = [1, 2, 3]\n[validation]\npolicy = \"fixed\"\n";
        let module = Some(chunk_cid(b"module"));
        let project = owner.public().to_peer_id();
        let job = JobFile::parse(text)
            .expect("a job file")
            .resolve(project, Timestamp(5), None, module, None)
            .expect("a job");
        Self { owner, coordinator, job }
    }

    fn project(&self) -> ProjectId {
        self.owner.public().to_peer_id()
    }

    fn plan(&self) -> Plan {
        Plan::new(codec::block(&self.job).0, &self.job)
    }

    /// The decision on a work unit with these outputs, one by each of nodes 10, 11, ….
    fn entry(&self, index: u64, outputs: &[&[u8]]) -> Entry {
        let (job, _) = codec::block(&self.job);
        let unit = self.plan().unit_cid(index).expect("a unit");
        let results = outputs.iter().zip(0u8..).map(|(output, number)| {
            let node = key(10 + number);
            let result = ResultStatement {
                v: 1,
                job,
                unit,
                replica: ReplicaId(index * 100 + u64::from(number)),
                node: node.public().to_peer_id(),
                executor: ExecutorKind::Wasm,
                exit: Exit::Code { code: 0 },
                output: Some(block_cid(output)),
                usage: Usage::default(),
            };
            ByteBuf::from(result.seal(&node))
        });
        Entry {
            v: Entry::VERSION,
            job,
            index,
            inputs: Vec::new(),
            output: block_cid(outputs[0]),
            accepted_at: Timestamp(9),
            basis: Basis::Quorum,
            results: results.collect(),
        }
    }

    /// The receipts of these decisions, under one head.
    fn receipts(&self, entries: &[Entry]) -> Vec<Receipt> {
        let entries: Vec<Vec<u8>> = entries.iter().map(codec::encode).collect();
        let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let mut frontier = Frontier::default();
        for leaf in &leaves {
            frontier.push(*leaf, |_, _, _| {});
        }
        let (size, root) = (frontier.size(), frontier.root());
        let head = Head { v: 1, project: self.project(), size, root, at: Timestamp(9) };
        let charter = Charter {
            v: 1,
            project: self.project(),
            name: "p".into(),
            coordinator: self.coordinator.public().to_peer_id(),
        };
        let receipt = |(number, entry): (usize, Vec<u8>)| Receipt {
            leaf: number as u64,
            charter: envelope::seal(&self.owner, &charter),
            job: envelope::seal(&self.owner, &self.job),
            entry,
            path: path(&leaves, number),
            head: envelope::seal(&self.coordinator, &head),
        };
        entries.into_iter().enumerate().map(receipt).collect()
    }

    fn receipt(&self, entry: &Entry) -> Receipt {
        self.receipts(std::slice::from_ref(entry)).remove(0)
    }

    /// A receipt with a path and a dissenter, as a file.
    fn file(&self) -> Vec<u8> {
        let right: [&[u8]; 2] = [b"right", b"right"];
        let disputed: [&[u8]; 3] = [b"right", b"wrong", b"right"];
        let entries = [self.entry(0, &right), self.entry(1, &disputed), self.entry(2, &right)];
        self.receipts(&entries).remove(1).encode()
    }

    fn check(&self, file: &[u8]) -> Result<Proof, ReceiptError> {
        Checker::new(Some(self.project())).check(file)
    }

    fn refused(&self, entry: &Entry) -> ReceiptError {
        self.check(&self.receipt(entry).encode()).expect_err("it is not right")
    }

    /// The damage of a file that does not pass.
    fn damage(&self, checker: &mut Checker, file: &[u8]) -> Damage {
        assert!(checker.check(file).is_err());
        let check =
            |receipt: &Receipt| checker.check_parts(receipt).map(drop).map_err(|e| e.part());
        locate(file, check).expect("it is damaged")
    }
}

/// Damages one receipt in many ways. That the receipt itself is right is checked once.
struct Breaker {
    checker: Checker,
    receipt: Receipt,
    right: Vec<u8>,
}

impl Breaker {
    fn new(world: &World) -> Self {
        let right = world.file();
        let mut checker = Checker::new(Some(world.project()));
        assert!(checker.check(&right).is_ok());
        let receipt = Receipt::decode(&right).expect("a receipt");
        Self { checker, receipt, right }
    }

    /// The damage of a file, and the first byte in which it differs from the right one.
    fn damage(&mut self, file: &[u8]) -> (Damage, usize) {
        let Self { checker, receipt: right, .. } = self;
        assert!(checker.check(file).is_err());
        let check = |receipt: &Receipt| {
            if receipt == right {
                return Ok(());
            }
            checker.check_parts(receipt).map(drop).map_err(|e| e.part())
        };
        let damage = locate(file, check).expect("it is damaged");
        let both = self.right.iter().zip(file);
        (damage, both.take_while(|(one, other)| one == other).count())
    }
}

/// The path of a leaf among at most three.
fn path(leaves: &[crate::content::Digest], number: usize) -> Path {
    Path::new(match (leaves, number) {
        ([_], 0) => vec![],
        ([_, other], 0) | ([other, _], 1) => vec![*other],
        ([_, other, last], 0) | ([other, _, last], 1) => vec![*other, *last],
        ([one, other, _], 2) => vec![node_hash(one, other)],
        _ => unreachable!("at most three leaves"),
    })
}

#[test]
fn entry_and_receipt_are_golden() {
    let world = World::new();
    let entry = codec::encode(&world.entry(0, &[b"right", b"right"]));
    insta::assert_snapshot!(block_cid(&entry), @"bafyr4iacw37yem56fscxm6r2rm6nnpbax5qynhiojlvceoiuqanmqputya");
    insta::assert_snapshot!(block_cid(&world.file()), @"bafyr4ib367glekbmo5isiielcrewzgdu2m7hftwel5uma2bw463jttxhha");
    let begin = &world.file()[..44];
    insta::assert_snapshot!(hex::encode(begin), @"646372637074020a0000000000000001000000f10000023a0000066000000040000000e71c94158606e43521");
}

#[test]
fn a_quorum_is_proven_and_a_dissenter_named() {
    let world = World::new();
    let proof = world.check(&world.file()).expect("a proof");
    assert_eq!((proof.index, proof.leaf, proof.units), (1, 1, 3));
    assert_eq!(proof.agreeing.len(), 2);
    assert_eq!(proof.dissenting[0].node, key(11).public().to_peer_id());
    assert_eq!(proof.module, Some(chunk_cid(b"module")));
    assert_eq!((proof.basis, proof.min_quorum), (Basis::Quorum, 2));
}

#[test]
fn disagreement_and_ties_are_no_quorum() {
    let world = World::new();
    let too_few: [Vec<&[u8]>; 2] = [vec![b"right", b"wrong"], vec![b"right"]];
    for outputs in too_few {
        let refused = world.refused(&world.entry(0, &outputs));
        assert!(matches!(refused, ReceiptError::NotEnough { .. }), "{refused}");
    }
    let tie: [&[u8]; 4] = [b"right", b"right", b"wrong", b"wrong"];
    let refused = world.refused(&world.entry(0, &tie));
    assert!(matches!(refused, ReceiptError::NotEnough { rival: 2, .. }), "{refused}");
}

#[test]
fn a_rule_counts_only_where_the_owner_allows_it() {
    let mut world = World::new();
    let trusted = |consecutive_valid| Basis::Trusted { consecutive_valid };
    let entry = |world: &World, basis| Entry { basis, ..world.entry(0, &[b"right"]) };
    let rules = [
        trusted(1000),
        Basis::Credible { error: Share(1) },
        Basis::Lot { results: 10, audited: 10 },
        Basis::Majority { counted: 1, against: 0 },
    ];
    for basis in rules {
        let refused = world.refused(&entry(&world, basis));
        assert!(matches!(refused, ReceiptError::ForeignRule { .. }), "{refused}");
        assert!(!basis.is_proven_by_results());
    }
    world.job.validation.policy = Policy::Adaptive(Adaptive::default());
    let too_new = entry(&world, trusted(9));
    assert!(matches!(world.refused(&too_new), ReceiptError::ForeignRule { .. }));
    let trusted = world.receipt(&entry(&world, trusted(10))).encode();
    let proof = world.check(&trusted).expect("one result of a trusted node is enough");
    assert_eq!((proof.agreeing.len(), proof.basis), (1, Basis::Trusted { consecutive_valid: 10 }));
    let alone = entry(&world, Basis::Quorum);
    assert!(matches!(world.refused(&alone), ReceiptError::NotEnough { .. }));
}

#[test]
fn a_work_unit_must_follow_from_the_job() {
    let world = World::new();
    let mut entry = world.entry(0, &[b"right", b"right"]);
    entry.index = 3;
    assert!(matches!(world.refused(&entry), ReceiptError::ForeignUnit { index: 3 }));
    entry.index = 1;
    assert!(matches!(world.refused(&entry), ReceiptError::ForeignResult { index: 0 }));
    entry.index = 0;
    entry.inputs = vec![block_cid(b"right")];
    assert!(matches!(world.refused(&entry), ReceiptError::ForeignUnit { index: 0 }));
}

#[test]
fn a_node_counts_once() {
    let world = World::new();
    let mut entry = world.entry(0, &[b"right", b"right"]);
    entry.results[1] = entry.results[0].clone();
    assert!(matches!(world.refused(&entry), ReceiptError::Doubled { .. }));
}

#[test]
fn only_the_log_of_the_projects_coordinator_counts() {
    let mut world = World::new();
    let right = world.receipt(&world.entry(0, &[b"right", b"right"]));
    // A receipt whose entry is not the one in the log.
    let other = codec::encode(&world.entry(0, &[b"wrong", b"wrong"]));
    let forged = Receipt { entry: other, ..right.clone() }.encode();
    assert!(matches!(world.check(&forged), Err(ReceiptError::NotInLog { .. })));
    let misplaced = Receipt { leaf: 1, ..right.clone() }.encode();
    assert!(matches!(world.check(&misplaced), Err(ReceiptError::NotInLog { .. })));
    // A head that a stranger signed, and a project that the reader does not know.
    let coordinator = std::mem::replace(&mut world.coordinator, key(99));
    let strangers = world.receipt(&world.entry(0, &[b"right", b"right"]));
    world.coordinator = coordinator;
    let mixed = Receipt { head: strangers.head, ..right.clone() }.encode();
    assert!(matches!(world.check(&mixed), Err(ReceiptError::Head(_))));
    let elsewhere = Checker::new(Some(key(50).public().to_peer_id())).check(&right.encode());
    assert!(matches!(elsewhere, Err(ReceiptError::Project { .. })));
}

#[test]
fn shared_parts_are_remembered_only_if_they_are_right() {
    let world = World::new();
    let mut checker = Checker::new(Some(world.project()));
    let receipt = world.receipt(&world.entry(0, &[b"right", b"right"]));
    let mut forged = receipt.clone();
    *forged.head.last_mut().expect("a signature") ^= 1;
    for _ in 0..2 {
        assert!(matches!(checker.check_parts(&forged), Err(ReceiptError::Head(_))));
        assert!(checker.check_parts(&receipt).is_ok());
    }
}

#[test]
fn a_whole_job_has_every_receipt_once() {
    let world = World::new();
    let right: [&[u8]; 2] = [b"right", b"right"];
    let entries = [0, 1, 2].map(|index| world.entry(index, &right));
    let prove = |entries: &[Entry]| -> Vec<Proof> {
        let receipts = world.receipts(entries);
        receipts.iter().map(|r| world.check(&r.encode()).expect("a proof")).collect()
    };
    let proofs = prove(&entries);
    assert_eq!(check_whole(&proofs), Ok(()));
    assert_eq!(check_whole(&[]), Err(WholeError::Empty));
    assert_eq!(
        check_whole(&[proofs[0].clone(), proofs[2].clone()]),
        Err(WholeError::Missing { first: 1, missing: 1, units: 3 })
    );
    assert_eq!(
        check_whole(&proofs[..1]),
        Err(WholeError::Missing { first: 1, missing: 2, units: 3 })
    );
    let mut doubled = proofs.clone();
    doubled[2] = doubled[1].clone();
    assert_eq!(check_whole(&doubled), Err(WholeError::Doubled { index: 1 }));
    // Another head covers them as well, but two heads are not one log until that is proven.
    let mut other = proofs.clone();
    other[2] = prove(&entries[..2]).remove(0);
    assert!(matches!(check_whole(&other), Err(WholeError::OtherHead { .. })));
}

#[test]
fn inputs_from_other_work_units_must_be_what_their_receipts_say() {
    let world = World::new();
    let right: [&[u8]; 2] = [b"right", b"right"];
    let entries = [0, 1, 2].map(|index| world.entry(index, &right));
    let receipts = world.receipts(&entries);
    let mut proofs: Vec<Proof> =
        receipts.iter().map(|r| world.check(&r.encode()).expect("a proof")).collect();
    let (right, wrong) = (block_cid(b"right"), block_cid(b"wrong"));
    proofs[2].inputs = vec![(0, right), (1, right)];
    assert_eq!(check_whole(&proofs), Ok(()));
    proofs[2].inputs = vec![(0, right), (1, wrong)];
    assert!(matches!(check_whole(&proofs), Err(WholeError::Input { index: 2, input: 1, .. })));
    // What was accepted later cannot have been taken.
    proofs[2].inputs = vec![(2, right)];
    assert!(matches!(check_whole(&proofs), Err(WholeError::Input { input: 2, .. })));
}

#[test]
fn every_changed_byte_is_named() {
    let mut breaker = Breaker::new(&World::new());
    let right = breaker.right.clone();
    for position in 0..right.len() {
        let mut changed = right.clone();
        changed[position] ^= [0x01, 0x80, 0xff][position % 3];
        let (damage, first) = breaker.damage(&changed);
        assert_eq!((first, damage.offset, damage.within), (position, position, 1));
        assert_eq!(damage.surplus, 0);
    }
}

#[test]
fn inserted_and_removed_bytes_and_a_cut_are_named_at_every_position() {
    let mut breaker = Breaker::new(&World::new());
    let right = breaker.right.clone();
    let body = super::file::Layout::read(&right).expect("a header").body();
    for position in 0..right.len() {
        let extra = if position % 2 == 0 { vec![0x00] } else { vec![0x61, 0xff, 0x58] };
        let surplus = i64::try_from(extra.len()).expect("few");
        let mut longer = right.clone();
        longer.splice(position..position, extra);
        let (damage, first) = breaker.damage(&longer);
        assert_eq!((damage.offset, damage.within, damage.surplus), (first, 1, surplus));

        for removed in [1, 40] {
            let end = (position + removed).min(right.len());
            let mut shorter = right.clone();
            shorter.drain(position..end);
            let (damage, first) = breaker.damage(&shorter);
            // Where the last block and its parity are both hit, neither gives the other back.
            if position < body && body < end {
                assert!(damage.offset <= first && first < damage.offset + damage.within);
                assert!(damage.within < right.len() - body + 2 * 128, "{damage:?}");
            } else {
                assert_eq!((damage.offset, damage.within), (first, 1), "{removed} at {position}");
            }
        }
        let (damage, _) = breaker.damage(&right[..position]);
        assert_eq!((damage.offset, damage.within), (position, 1), "cut at {position}");
    }
}

#[test]
fn a_receipt_that_somebody_made_so_is_named_by_its_part() {
    let world = World::new();
    let mut checker = Checker::new(Some(world.project()));
    let right = Receipt::decode(&world.file()).expect("a receipt");
    let mut forged = right.clone();
    *forged.head.last_mut().expect("a signature") ^= 1;
    let damage = world.damage(&mut checker, &forged.encode());
    assert_eq!((damage.part, damage.within), (Part::Head, right.head.len()));
    let entry = codec::encode(&world.entry(1, &[b"wrong", b"wrong"]));
    let damage = world.damage(&mut checker, &Receipt { entry, ..right }.encode());
    assert_eq!(damage.part, Part::Path);
}

#[test]
fn what_is_no_receipt_at_all_is_said_so() {
    let world = World::new();
    let mut checker = Checker::new(None);
    for (file, offset) in [(b"" as &[u8], 0), (b"dcrap", 3), (&[0; 5000], 0)] {
        let damage = world.damage(&mut checker, file);
        assert_eq!((damage.offset, damage.part), (offset, Part::Header));
    }
    let newer = [b"dcrcpt\x03\n" as &[u8], &[0; 100]].concat();
    let refused = checker.check(&newer);
    assert!(matches!(refused, Err(ReceiptError::File(FileError::Version { found: 3 }))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever is done to a file, the byte that is named is the first wrong one, or among
    /// those that are named.
    #[test]
    fn the_first_wrong_byte_is_always_among_those_named(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        run in prop::collection::vec(any::<u8>(), 0..300),
        at: prop::sample::Index,
    ) {
        let mut breaker = Breaker::new(&World::new());
        let right = breaker.right.clone();
        let mut changed = right.clone();
        for (place, value) in &edits {
            changed[place.index(right.len())] = *value;
        }
        let from = at.index(right.len());
        for (byte, value) in changed[from..].iter_mut().zip(&run) {
            *byte = *value;
        }
        prop_assume!(changed != right);
        let (damage, first) = breaker.damage(&changed);
        let named = damage.offset..damage.offset + damage.within;
        prop_assert!(named.contains(&first), "{damage:?} does not name byte {first}");
    }

    #[test]
    fn nothing_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut file = super::file::MAGIC.to_vec();
        file.extend_from_slice(&bytes);
        let mut checker = Checker::new(None);
        prop_assert!(checker.check(&file).is_err());
        let damage =
            locate(&file, |receipt| checker.check_parts(receipt).map(drop).map_err(|e| e.part()));
        prop_assert!(damage.is_some());
    }
}
