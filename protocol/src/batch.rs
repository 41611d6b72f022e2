//! Many results under one signature.
//!
//! Checking a signature costs as much as fifty of the hashes here, so a node signs the root of
//! a Merkle tree over all results of one report, and each result is kept with its path to that
//! root. A single result is a batch of one: its path is empty.
//!
//! ```text
//!  in a report       signed root, statement, statement, …        one signature
//!  kept, in receipts { statement, index, path, signed root }     each proves itself
//! ```
//!
//! Whoever keeps one result needs nothing of the others: [`ResultStatement::open`] is the one
//! way to check it.
//!
//! # Bounds
//!
//! [`BATCH_RESULTS_MAX`] results a batch, so at most ten hashes a path; [`RESULT_BYTES_MAX`]
//! bytes a statement.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use libp2p_identity::{Keypair, PeerId};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::content::{DIGEST_BYTES, Digest};
use crate::envelope::{self, OpenError, Statement};
use crate::limits::{BATCH_RESULTS_MAX, RESULT_BYTES_MAX, SEALED_RESULT_BYTES_MAX};
use crate::merkle::{Domain, Tree};
use crate::statement::{ResultError, ResultStatement};

/// The trees of results, and no others.
const RESULTS: Domain = Domain {
    leaf: b"dockercomp/results/1: leaf      ",
    inner: b"dockercomp/results/1: inner node",
};

/// What a node signs once for all results of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    /// Version of the format, 1.
    v: u8,
    /// How many results are under it.
    n: u64,
    /// The root of the tree over their statements, in the order of the report.
    #[serde(with = "serde_bytes")]
    root: Digest,
}

impl Statement for Root {
    const DOMAIN: &'static str = "dockercomp/results/1";
}

/// One result and what proves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<'a> {
    /// Version of the format, 1.
    v: u8,
    /// The encoded [`ResultStatement`].
    #[serde(with = "serde_bytes", borrow)]
    statement: &'a [u8],
    /// Its number in the batch, from 0.
    index: u64,
    /// The hashes on its way to the root, one after the other.
    #[serde(with = "serde_bytes", borrow)]
    path: &'a [u8],
    /// The signed [`Root`].
    #[serde(with = "serde_bytes", borrow)]
    root: &'a [u8],
}

/// Why a signed root does not cover a list of results.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The envelope is not right.
    #[error("the signed root cannot be opened")]
    Open(#[from] OpenError),
    /// A format that this version does not know.
    #[error("the signed root has version {found}, this program reads version 1")]
    Version {
        /// What it says.
        found: u8,
    },
    /// Nothing, or too much.
    #[error("{found} results are under one signature, not 1 to {BATCH_RESULTS_MAX}")]
    Count {
        /// How many.
        found: u64,
    },
    /// Rightly signed, but for other results.
    #[error("the signed root is of other results")]
    Other,
}

/// The results of a report, their signature checked.
#[derive(Debug)]
pub struct Batch {
    signer: PeerId,
    tree: Tree,
    root: Vec<u8>,
    statements: Vec<Vec<u8>>,
}

/// Signed roots that were found right before: whoever opens many results of one batch checks
/// its signature once.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    opened: BTreeMap<Digest, (PeerId, Root)>,
}

impl Roots {
    /// At most so many are remembered.
    const MAX: usize = 4096;

    fn open(&mut self, sealed: &[u8]) -> Result<&(PeerId, Root), BatchError> {
        let key = *blake3::hash(sealed).as_bytes();
        if self.opened.len() >= Self::MAX && !self.opened.contains_key(&key) {
            self.opened.clear();
        }
        match self.opened.entry(key) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => Ok(unknown.insert(open_root(sealed)?)),
        }
    }
}

/// Signs results, each given as the encoding of its [`ResultStatement`]. The answer is a
/// signed root that covers exactly these, in this order.
///
/// # Panics
/// If there are none or more than [`BATCH_RESULTS_MAX`].
#[must_use]
pub fn sign<S: AsRef<[u8]>>(key: &Keypair, statements: &[S]) -> Vec<u8> {
    assert!(statements.len() <= BATCH_RESULTS_MAX, "a report is bounded");
    let tree = tree(statements).expect("a report names at least one result");
    envelope::seal(key, &Root { v: 1, n: statements.len() as u64, root: tree.root() })
}

fn tree<S: AsRef<[u8]>>(statements: &[S]) -> Option<Tree> {
    let leaves = statements.iter().map(|statement| RESULTS.leaf(statement.as_ref()));
    Tree::new(&RESULTS, leaves.collect())
}

fn open_root(sealed: &[u8]) -> Result<(PeerId, Root), BatchError> {
    let envelope::Opened { statement: root, signer } = envelope::open::<Root>(sealed)?;
    if root.v != 1 {
        return Err(BatchError::Version { found: root.v });
    }
    if root.n == 0 || root.n > BATCH_RESULTS_MAX as u64 {
        return Err(BatchError::Count { found: root.n });
    }
    Ok((signer, root))
}

impl Batch {
    /// Checks that a signed root covers exactly these statements.
    ///
    /// # Errors
    /// See [`BatchError`].
    pub fn open(root: Vec<u8>, statements: Vec<Vec<u8>>) -> Result<Self, BatchError> {
        let (signer, signed) = open_root(&root)?;
        match tree(&statements) {
            Some(tree) if signed.n == statements.len() as u64 && signed.root == tree.root() => {
                Ok(Self { signer, tree, root, statements })
            }
            _ => Err(BatchError::Other),
        }
    }

    /// Who signed it.
    #[must_use]
    pub const fn signer(&self) -> PeerId {
        self.signer
    }

    /// Every result, checked, and the same as it is kept: what [`ResultStatement::open`] takes.
    pub fn results(
        &self,
    ) -> impl Iterator<Item = Result<(ResultStatement, Vec<u8>), ResultError>> + '_ {
        self.statements.iter().enumerate().map(|(index, statement)| {
            let result = ResultStatement::check(statement, self.signer)?;
            let path = self.tree.path(index);
            let sealed = codec::encode(&Sealed {
                v: 1,
                statement,
                index: index as u64,
                path: path.as_flattened(),
                root: &self.root,
            });
            Ok((result, sealed))
        })
    }
}

impl ResultStatement {
    /// Opens a result that proves itself: checks that its node signed it, alone or under the
    /// root of a batch, and that it does not contradict itself.
    ///
    /// # Errors
    /// See [`ResultError`].
    pub fn open(bytes: &[u8]) -> Result<Self, ResultError> {
        Self::open_with(bytes, &mut Roots::default())
    }

    /// The same, for one of many results: signatures in `roots` are not checked again.
    ///
    /// # Errors
    /// See [`ResultError`].
    pub fn open_with(bytes: &[u8], roots: &mut Roots) -> Result<Self, ResultError> {
        if bytes.len() > SEALED_RESULT_BYTES_MAX {
            return Err(ResultError::TooLong { bytes: bytes.len() });
        }
        let sealed: Sealed<'_> = codec::decode_borrowed(bytes)?;
        if sealed.v != 1 {
            return Err(ResultError::Version { found: sealed.v });
        }
        let (signer, root) = roots.open(sealed.root)?;
        let (path, rest) = sealed.path.as_chunks::<DIGEST_BYTES>();
        let leaf = RESULTS.leaf(sealed.statement);
        let reached = RESULTS.climb(leaf, sealed.index, root.n, path);
        if !rest.is_empty() || reached != Some(root.root) {
            return Err(ResultError::Batch(BatchError::Other));
        }
        Self::check(sealed.statement, *signer)
    }

    /// Signs a result by itself: a batch of one.
    #[must_use]
    pub fn seal(&self, key: &Keypair) -> Vec<u8> {
        let statement = codec::encode(self);
        let root = sign(key, &[&statement]);
        codec::encode(&Sealed { v: 1, statement: &statement, index: 0, path: &[], root: &root })
    }

    /// Reads a statement of which it is known who signed it.
    fn check(bytes: &[u8], signer: PeerId) -> Result<Self, ResultError> {
        let result: Self = codec::decode_within(bytes, RESULT_BYTES_MAX)?;
        result.check_signed_by(signer)?;
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::content::block_cid;
    use crate::execution::{ExecutorKind, Exit, Usage};
    use crate::ids::ReplicaId;

    fn key(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are an ed25519 seed")
    }

    fn statement(node: &Keypair, replica: u64) -> ResultStatement {
        ResultStatement {
            v: 1,
            job: block_cid(b"job"),
            unit: block_cid(&replica.to_be_bytes()),
            replica: ReplicaId(replica),
            node: node.public().to_peer_id(),
            executor: ExecutorKind::Wasm,
            exit: Exit::Code { code: 0 },
            output: Some(block_cid(b"output")),
            usage: Usage::default(),
        }
    }

    fn encoded(n: u64) -> Vec<Vec<u8>> {
        (0..n).map(|replica| codec::encode(&statement(&key(1), replica))).collect()
    }

    /// A batch of `n` by key 1, each result as it is kept.
    fn batch(n: u64) -> Vec<Vec<u8>> {
        let statements = encoded(n);
        let root = sign(&key(1), &statements);
        let batch = Batch::open(root, statements).expect("just signed");
        batch.results().map(|result| result.expect("a right statement").1).collect()
    }

    #[test]
    fn kept_result_is_golden() {
        insta::assert_snapshot!(hex::encode(&batch(3)[1]), @"a5617601647061746858403c540c0fb33ea05de53f2de0c7a84b279a3187e15d20b48cf08e3f2202a639ac01fc58b3738585d633576caa4d8192d8a314e2fcad1389a80679221fb8bae99264726f6f7458b00a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c12162f646f636b6572636f6d702f6461672d63626f722f311a2ea3616e0361760164726f6f74582057a16f1303f7b9f25b67fe0bc5f90c68c9b5745385e3f50e85a493cea7e32d682a40a2321ba6fc134978c8c7b04452ade2c687afe40d3ae2dcc848e61dd8a0708b5dacf8e5c360c73c38b520aa184514f66028f45fe9b475dd7b72f086fc2243c20165696e646578016973746174656d656e74590116a9617601636a6f62d82a58250001711e2063a2265e5c677a2d89fceda7adffcf95a8597d0927d2c1a27c00d89af997f9e66465786974a164636f6465a164636f646500646e6f646558260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c64756e6974d82a58250001711e2068eae1066fca29e3236b08eb29b363fbe204ec65e3dcca8aa404c32e8080ad15657573616765a4646675656c00666370755f6d73006777616c6c5f6d7300716d656d6f72795f7065616b5f627974657300666f7574707574d82a58250001711e2096e754fa8b2ab9d1f3f8f2d2bb4ec79a18016b212cf44f8fd2f7441e6e97a48b677265706c69636101686578656375746f72647761736d");
    }

    #[test]
    fn a_single_result_is_a_batch_of_one() {
        let result = statement(&key(1), 7);
        let sealed = result.seal(&key(1));
        assert_eq!(ResultStatement::open(&sealed).expect("just signed"), result);
        let root = sign(&key(1), &[codec::encode(&result)]);
        let batch = Batch::open(root, vec![codec::encode(&result)]).expect("just signed");
        let kept: Vec<_> = batch.results().map(|kept| kept.expect("right").1).collect();
        assert_eq!(kept, [sealed]);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        for index in 0..3 {
            let sealed = &batch(3)[index];
            // A root that was seen before vouches for what is under it and for nothing else.
            let mut roots = Roots::default();
            assert!(ResultStatement::open_with(sealed, &mut roots).is_ok());
            for position in 0..sealed.len() {
                for flip in [0x01, 0x80, 0xff] {
                    let mut changed = sealed.clone();
                    changed[position] ^= flip;
                    for roots in [&mut Roots::default(), &mut roots] {
                        let opened = ResultStatement::open_with(&changed, roots);
                        assert!(opened.is_err(), "byte {position} ^ {flip:#x} of result {index}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_batch_of_another_node_is_refused_result_by_result() {
        let statements = encoded(2);
        let root = sign(&key(2), &statements);
        let batch = Batch::open(root, statements).expect("rightly signed, by the wrong one");
        assert_eq!(batch.signer(), key(2).public().to_peer_id());
        assert!(batch.results().all(|result| matches!(result, Err(ResultError::Stolen { .. }))));
    }

    #[test]
    fn one_wrong_statement_does_not_spoil_the_others() {
        let mut statements = encoded(2);
        statements.insert(1, b"rubbish".to_vec());
        let root = sign(&key(1), &statements);
        let batch = Batch::open(root, statements).expect("rightly signed");
        let right: Vec<bool> = batch.results().map(|result| result.is_ok()).collect();
        assert_eq!(right, [true, false, true]);
    }

    #[test]
    fn a_root_covers_its_own_list_only() {
        let statements = encoded(3);
        let root = sign(&key(1), &statements);
        let other = |statements: &[Vec<u8>]| {
            matches!(Batch::open(root.clone(), statements.to_vec()), Err(BatchError::Other))
        };
        assert!(!other(&statements));
        assert!(other(&statements[..2]));
        assert!(other(&[]));
        let mut swapped = statements.clone();
        swapped.swap(0, 1);
        assert!(other(&swapped));
        let mut longer = statements.clone();
        longer.push(statements[2].clone());
        assert!(other(&longer));
    }

    #[test]
    fn counts_out_of_bounds_are_refused() {
        for n in [0, BATCH_RESULTS_MAX as u64 + 1] {
            let root = envelope::seal(&key(1), &Root { v: 1, n, root: [0; 32] });
            let opened = Batch::open(root, encoded(1));
            assert!(matches!(opened, Err(BatchError::Count { found }) if found == n));
        }
        let long = vec![0; SEALED_RESULT_BYTES_MAX + 1];
        assert!(matches!(ResultStatement::open(&long), Err(ResultError::TooLong { .. })));
    }

    #[test]
    fn the_largest_batch_fits_its_bounds() {
        let n = BATCH_RESULTS_MAX as u64;
        let statement = vec![0; RESULT_BYTES_MAX];
        let path = vec![0; DIGEST_BYTES * BATCH_RESULTS_MAX.ilog2() as usize];
        let root = envelope::seal(&key(1), &Root { v: 1, n, root: [0; 32] });
        let (statement, path, root) = (&statement, &path, &root);
        let largest = Sealed { v: 1, statement, index: n, path, root };
        assert!(codec::encode(&largest).len() <= SEALED_RESULT_BYTES_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// What is kept of one result proves that result, and no other of its batch.
        #[test]
        fn a_path_proves_only_its_own_statement(n in 1_u64..40, at in any::<prop::sample::Index>(), other in any::<prop::sample::Index>()) {
            let (at, other) = (at.index(n as usize), other.index(n as usize));
            let kept = batch(n);
            let opened = ResultStatement::open(&kept[at]).expect("a right result");
            prop_assert_eq!(opened, statement(&key(1), at as u64));
            if at != other {
                let mut sealed: Sealed<'_> = codec::decode_borrowed(&kept[at]).expect("just made");
                let foreign = encoded(n);
                sealed.statement = &foreign[other];
                prop_assert!(ResultStatement::open(&codec::encode(&sealed)).is_err());
                let mut sealed: Sealed<'_> = codec::decode_borrowed(&kept[at]).expect("just made");
                sealed.index = other as u64;
                prop_assert!(ResultStatement::open(&codec::encode(&sealed)).is_err());
            }
        }

        #[test]
        fn opening_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = ResultStatement::open(&bytes);
            let _ = Batch::open(bytes.clone(), vec![bytes]);
        }
    }
}
