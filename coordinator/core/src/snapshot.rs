//! Snapshots: the whole state as bytes, so that a restart need not replay all of history.
//!
//! ```text
//! version u8 | DAG-CBOR of State
//! ```
//!
//! A snapshot holds what records have made of the state, once. What can be computed from it
//! is marked `serde(skip)` where it is declared and rebuilt by [`Core::restore`]: the index of
//! job ids, jobs with work, the index of replicas, deadlines,
//! the leases of each node, and the queues of lanes.
//! Keys of our maps are not strings, so maps are written as lists of pairs, in order; one
//! state has one encoding.
//!
//! # Bounds
//!
//! Proportional to what is in flight, to jobs and to nodes in memory, whatever the length of
//! the journal. [`State::encode`] takes a copy of the state that may be of another thread's:
//! the copy is all that a core must wait for.
//!
//! # Format
//!
//! [`VERSION`] changes with every change of a field, and the golden bytes in the tests say
//! when one happened by accident. An older version is read by code that stays here; there is
//! none yet.

use dockercomp_protocol::codec;

use crate::Core;
use crate::config::Config;
use crate::replica::ReplicaState;
use crate::state::State;
use crate::unit::UnitKey;

/// Version of the snapshots that this code writes.
pub const VERSION: u8 = 1;

/// Why bytes are not a snapshot that can be taken up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// There is not even a version.
    #[error("it is empty")]
    Empty,
    /// Another program wrote it.
    #[error("it has version {found}, this program reads {VERSION}")]
    Version {
        /// What it says.
        found: u8,
    },
    /// The bytes have another shape.
    #[error("it cannot be read")]
    Decode(#[from] codec::DecodeError),
    /// What it says contradicts itself.
    #[error("it contradicts itself: {what}")]
    Contradiction {
        /// About what.
        what: &'static str,
    },
}

impl State {
    /// The state as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(codec::encode(self));
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    fn decode(config: Config, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut state: Self = match bytes.split_first() {
            None => return Err(SnapshotError::Empty),
            Some((&VERSION, body)) => codec::decode_within(body, usize::MAX)?,
            Some((&found, _)) => return Err(SnapshotError::Version { found }),
        };
        state.config = config;
        state.index().map_err(|what| SnapshotError::Contradiction { what })?;
        Ok(state)
    }

    /// Computes everything that a snapshot leaves out.
    fn index(&mut self) -> Result<(), &'static str> {
        let mut leases = Vec::new();
        for (&number, job) in &mut self.jobs {
            if number >= self.next_job || self.numbers.insert(job.id, number).is_some() {
                return Err("a job is there twice");
            }
            for (&index, unit) in &job.units {
                if unit.place.is_some_and(|place| !job.lanes.restore(place, index)) {
                    return Err("two work units wait at one place");
                }
                for replica in &unit.replicas {
                    let key = UnitKey { job: number, index };
                    let is_new = self.replicas.insert(replica.id, key).is_none();
                    if !is_new || replica.id.0 >= self.next_replica {
                        return Err("a replica is there twice");
                    }
                    if let ReplicaState::InProgress { deadline } = replica.state {
                        leases.push((deadline, replica.id, replica.node));
                    }
                }
            }
        }
        for (&id, check) in &self.checks {
            if !self.jobs.contains_key(&check.job) || id.0 >= self.next_replica {
                return Err("a spot-check is of no job");
            }
            leases.push((check.deadline, id, check.node));
        }
        for (deadline, id, node) in leases {
            self.index_lease(deadline, id, node);
        }
        let numbers: Vec<_> = self.jobs.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.note_work(number));
        Ok(())
    }
}

impl Core {
    /// The core whose state was written by [`State::encode`]. Apply the records that came
    /// after it, then [`Self::resume`].
    ///
    /// # Errors
    /// If the bytes are of another version, or are not what was written: use an older snapshot
    /// and the records after that one.
    pub fn restore(config: Config, snapshot: &[u8]) -> Result<Self, SnapshotError> {
        let state = State::decode(config, snapshot)?;
        let mut core = Self::new(Config::default());
        core.state = state;
        Ok(core)
    }
}

/// A map as a list of pairs: DAG-CBOR's own maps have strings for keys.
pub(crate) mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(crate) fn deserialize<
        'de,
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    >(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        // Pairs out of order or twice do not encode to the same bytes again, which the strict
        // decoder refuses.
        Vec::<(K, V)>::deserialize(deserializer).map(BTreeMap::from_iter)
    }
}

/// The same, for values that are bytes.
pub(crate) mod byte_pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_bytes::{ByteBuf, Bytes};

    pub(crate) fn serialize<K: Serialize, S: Serializer>(
        map: &BTreeMap<K, Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.iter().map(|(key, value)| (key, Bytes::new(value))))
    }

    pub(crate) fn deserialize<'de, K: Deserialize<'de> + Ord, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<K, Vec<u8>>, D::Error> {
        let pairs = Vec::<(K, ByteBuf)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|(key, value)| (key, value.into_vec())).collect())
    }
}
