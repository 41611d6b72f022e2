//! What is signed.

use std::sync::LazyLock;

use dockercomp_protocol::batch::{self, Batch};
use dockercomp_protocol::codec;
use dockercomp_protocol::envelope::{self, Statement};
use dockercomp_protocol::job::JobSpec;
use dockercomp_protocol::limits::ENVELOPE_BYTES_MAX;
use dockercomp_protocol::log::{Head, HeadNotice};
use dockercomp_protocol::statement::{Announcement, Charter, ResultStatement};
use dockercomp_protocol::unit::Plan;
use dockercomp_protocol::wire::permit::Permission;
use libp2p_identity::Keypair;

/// The same in every run, so that what was found is found again.
static KEY: LazyLock<Keypair> =
    LazyLock::new(|| Keypair::ed25519_from_bytes([7; 32]).expect("any 32 bytes are a key"));

/// The payload of some signed statement; also, whether it is one in its envelope. What can be
/// read can be signed, and then opens to the same.
pub(crate) fn statement(bytes: &[u8]) -> bool {
    // None of these may panic on an envelope that is not one, or not of that kind.
    let opened = [
        envelope::open::<Charter>(bytes).is_ok(),
        envelope::open::<JobSpec>(bytes).is_ok(),
        envelope::open::<Head>(bytes).is_ok(),
        Announcement::open(bytes).is_some(),
    ];
    let read = [
        opens_again::<Charter>(bytes).is_some(),
        opens_again::<Head>(bytes).is_some(),
        opens_again::<Announcement>(bytes).is_some(),
        opens_again::<Permission>(bytes).is_some(),
        opens_again::<JobSpec>(bytes).is_some_and(|spec| expands(&spec)),
    ];
    opened.contains(&true) || read.contains(&true)
}

fn opens_again<T: Statement + PartialEq + std::fmt::Debug>(payload: &[u8]) -> Option<T> {
    let statement: T = codec::decode(payload).ok()?;
    let sealed = envelope::seal(&KEY, &statement);
    if sealed.len() <= ENVELOPE_BYTES_MAX {
        let opened = envelope::open::<T>(&sealed).expect("what was just signed");
        assert_eq!(opened.statement, statement);
    }
    Some(statement)
}

/// A specification that passes its check has work units, the first and the last among them.
fn expands(spec: &JobSpec) -> bool {
    if spec.check().is_err() {
        return false;
    }
    let plan = Plan::new(dockercomp_protocol::content::block_cid(b"job"), spec);
    let units = plan.units();
    assert!(plan.unit(0).is_some() && plan.unit(units).is_none());
    true
}

/// A head that gossip brings.
pub(crate) fn head_notice(bytes: &[u8]) -> bool {
    let Ok(notice) = HeadNotice::open(bytes) else { return false };
    assert!(notice.since <= notice.head.size);
    true
}

/// A result that proves itself.
pub(crate) fn result(bytes: &[u8]) -> bool {
    let Ok(result) = ResultStatement::open(bytes) else { return false };
    let sealed = result.seal(&KEY);
    // Another node signed it: it is not this key's to say.
    assert!(ResultStatement::open(&sealed).is_err() || result.node == KEY.public().to_peer_id());
    true
}

/// Many results under one signature, which is right: what is signed is what comes, cut into
/// statements of the length that the first two bytes say.
pub(crate) fn report(bytes: &[u8]) -> bool {
    let Some((length, bytes)) = bytes.split_first_chunk() else { return false };
    let length = usize::from(u16::from_be_bytes(*length)).max(1);
    let statements: Vec<Vec<u8>> = bytes.chunks(length).take(16).map(<[u8]>::to_vec).collect();
    if statements.is_empty() {
        return false;
    }
    let root = batch::sign(&KEY, &statements);
    let batch = Batch::open(root, statements).expect("what was just signed");
    batch.results().any(|result| result.is_ok())
}
