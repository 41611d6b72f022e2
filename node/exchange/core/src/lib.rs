//! The exchange's decisions: which block to ask of whom, whom to serve, whom to believe.
//!
//! Pure: no clock, no socket, no disk. `dockercomp-exchange` is the shell that carries them out
//! between real peers, and the simulator carries them out between simulated ones.
//!
//! | Module | What it decides |
//! |---|---|
//! | [`scheduler`] | which block to ask of which peer, and when nobody can give one |
//! | [`members`] | which peers to ask what they hold, and how many strangers to believe in |
//! | [`slots`] | which peers a server sends large blocks to now |

pub mod members;
pub mod scheduler;
pub mod slots;

/// A number for a name that differs with the seed: FNV-1a, which spreads well enough and is the
/// same on every platform.
pub(crate) fn rank(name: &[u8], seed: u64) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(name.iter().copied());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod testing {
    use dockercomp_protocol::NodeId;

    /// A peer id that differs by `n` only.
    pub(crate) fn peer(n: u8) -> NodeId {
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend([n; 32]);
        NodeId::from_bytes(&bytes).expect("an inlined ed25519 key")
    }
}
