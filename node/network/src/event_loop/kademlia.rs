//! Kademlia: lookups of providers, and announcements that survive a lost bootstrap node.
//!
//! Kademlia's answers name providers without saying where they are; the addresses exist only
//! while the query runs. They are taken out of it as each answer arrives and put into the peer
//! store, so that a later dial by peer id alone works.
//!
//! # Bounds
//!
//! [`LOOKUPS_RUNNING_MAX`] lookups run and [`LOOKUPS_WAITING_MAX`] callers wait; callers of one
//! key share a lookup, which ends with [`PROVIDERS_MAX`] providers. [`ANNOUNCING_MAX`] of at most
//! [`PROVIDED_MAX`] keys are announced at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use libp2p::{
    Multiaddr, PeerId,
    core::Endpoint,
    kad::{
        self, GetProvidersOk, QueryId, QueryResult, RecordKey,
        store::{MemoryStore, RecordStore as _},
    },
    swarm::{ConnectionId, NetworkBehaviour as _},
};

use super::Service;
use crate::{
    addresses,
    command::{Reply, answer},
    error::{ProvideError, ProvidersError},
    info::Provider,
};

/// Providers that one lookup returns at most: enough to choose from, and each costs a dial.
pub const PROVIDERS_MAX: usize = 16;

/// Lookups that run at once.
const LOOKUPS_RUNNING_MAX: usize = 8;

/// Callers whose lookups wait.
const LOOKUPS_WAITING_MAX: usize = 256;

/// Announcements that run at once.
const ANNOUNCING_MAX: usize = 8;

/// Keys that this process may provide. Only roots are announced, never chunks.
const PROVIDED_MAX: usize = 4096;

type LookupReply = Reply<Result<Vec<Provider>, ProvidersError>>;

/// Lookups of providers.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    running: HashMap<QueryId, Lookup>,
    waiting: VecDeque<(RecordKey, LookupReply)>,
}

#[derive(Debug)]
struct Lookup {
    key: RecordKey,
    found: BTreeMap<PeerId, Vec<Multiaddr>>,
    replies: Vec<LookupReply>,
}

impl Lookups {
    /// The next key that may be looked up now, and everybody who waits for it.
    fn next(&mut self) -> Option<(RecordKey, Vec<LookupReply>)> {
        if self.running.len() >= LOOKUPS_RUNNING_MAX {
            return None;
        }
        let (key, reply) = self.waiting.pop_front()?;
        let (same, others) = self.waiting.drain(..).partition(|(other, _)| *other == key);
        self.waiting = others;
        let same: VecDeque<_> = same;
        let replies = std::iter::once(reply).chain(same.into_iter().map(|(_, reply)| reply));
        Some((key, replies.filter(|reply| !reply.is_closed()).collect()))
    }
}

/// Keys that this process provides, and which of them are still to be announced.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    provided: BTreeSet<Vec<u8>>,
    /// Without duplicates.
    due: VecDeque<Vec<u8>>,
    running: HashSet<QueryId>,
}

impl Announcer {
    fn provide(&mut self, key: Vec<u8>) -> Result<(), ProvideError> {
        if self.provided.contains(&key) {
            return Ok(());
        }
        if self.provided.len() >= PROVIDED_MAX {
            return Err(ProvideError::TooMany { max: PROVIDED_MAX });
        }
        self.due.push_back(key.clone());
        self.provided.insert(key);
        Ok(())
    }

    fn stop(&mut self, key: &[u8]) {
        self.provided.remove(key);
        self.due.retain(|due| due != key);
    }

    /// All keys are to be announced again.
    fn restart(&mut self) {
        self.due = self.provided.iter().cloned().collect();
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.running.len() >= ANNOUNCING_MAX { None } else { self.due.pop_front() }
    }
}

impl Service {
    pub(super) fn provide(&mut self, key: Vec<u8>) -> Result<(), ProvideError> {
        self.announcer.provide(key)?;
        self.announce();
        Ok(())
    }

    pub(super) fn stop_providing(&mut self, key: &[u8]) {
        self.announcer.stop(key);
        self.swarm.behaviour_mut().kad.stop_providing(&RecordKey::new(&key));
    }

    pub(super) fn look_up(&mut self, key: &[u8], reply: LookupReply) {
        let key = RecordKey::new(&key);
        if let Some(same) = self.lookups.running.values_mut().find(|lookup| lookup.key == key) {
            same.replies.retain(|reply| !reply.is_closed());
            if same.replies.len() < LOOKUPS_WAITING_MAX {
                return same.replies.push(reply);
            }
        }
        if self.lookups.waiting.len() >= LOOKUPS_WAITING_MAX {
            return answer(reply, Err(ProvidersError::Busy { max: LOOKUPS_WAITING_MAX }));
        }
        self.lookups.waiting.push_back((key, reply));
        self.start_lookups();
    }

    /// The first Kademlia server, or a bootstrap node, is there (again): it may know neither us
    /// nor our keys.
    pub(super) fn on_network_reached(&mut self) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        if let Err(error) = kad.bootstrap() {
            tracing::debug!(%error, "kademlia not bootstrapped");
        }
        self.announcer.restart();
        self.announce();
    }

    pub(super) fn on_kad_event(&mut self, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed { id, result, step, .. } = event else { return };
        match result {
            QueryResult::GetProviders(result) => {
                if let Ok(GetProvidersOk::FoundProviders { key, providers }) = result {
                    self.on_providers(id, &key, providers);
                }
                if step.last {
                    self.on_lookup_finished(id);
                }
            }
            QueryResult::StartProviding(result) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "announcement not completed");
                }
                self.announcer.running.remove(&id);
                self.announce();
            }
            QueryResult::Bootstrap(Err(error)) => {
                tracing::debug!(%error, "kademlia bootstrap not completed");
            }
            // We make no other queries of our own.
            QueryResult::Bootstrap(Ok(_))
            | QueryResult::RepublishProvider(_)
            | QueryResult::GetClosestPeers(_)
            | QueryResult::GetRecord(_)
            | QueryResult::PutRecord(_)
            | QueryResult::RepublishRecord(_) => {}
        }
    }

    /// Takes the providers' addresses out of the query before they are gone with it.
    fn on_providers(&mut self, id: QueryId, key: &RecordKey, providers: HashSet<PeerId>) {
        let Some(mut lookup) = self.lookups.running.remove(&id) else { return };
        for peer in providers {
            let is_new = !lookup.found.contains_key(&peer);
            if peer == self.handle.local_peer || (is_new && lookup.found.len() >= PROVIDERS_MAX) {
                continue;
            }
            let kad = &mut self.swarm.behaviour_mut().kad;
            let believed =
                addresses::believable(peer, provider_addresses(kad, key, peer), &self.listening);
            for address in &believed {
                self.swarm.add_peer_address(peer, address.clone());
            }
            let known = lookup.found.entry(peer).or_default();
            believed.into_iter().for_each(|address| {
                if !known.contains(&address) {
                    known.push(address);
                }
            });
        }
        if lookup.found.len() >= PROVIDERS_MAX
            && let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id)
        {
            query.finish();
        }
        self.lookups.running.insert(id, lookup);
    }

    fn on_lookup_finished(&mut self, id: QueryId) {
        if let Some(lookup) = self.lookups.running.remove(&id) {
            let found = lookup.found.into_iter();
            let found: Vec<_> =
                found.map(|(peer, addresses)| Provider { peer, addresses }).collect();
            for reply in lookup.replies {
                answer(reply, Ok(found.clone()));
            }
        }
        self.start_lookups();
    }

    fn start_lookups(&mut self) {
        while let Some((key, replies)) = self.lookups.next() {
            if replies.is_empty() {
                continue;
            }
            let id = self.swarm.behaviour_mut().kad.get_providers(key.clone());
            self.lookups.running.insert(id, Lookup { key, found: BTreeMap::new(), replies });
        }
    }

    fn announce(&mut self) {
        while let Some(key) = self.announcer.next() {
            match self.swarm.behaviour_mut().kad.start_providing(RecordKey::new(&key)) {
                Ok(id) => {
                    self.announcer.running.insert(id);
                }
                Err(error) => tracing::warn!(%error, "key not announced"),
            }
        }
    }

    /// Addresses that a dial to the peer would use.
    pub(super) fn known_addresses(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        let behaviour = self.swarm.behaviour_mut();
        let mut known = self.redial.addresses(peer);
        known.extend(behaviour.store.address_of_peer(&peer).into_iter().flatten().cloned());
        known.extend(kad_addresses(&mut behaviour.kad, peer));
        addresses::believable(peer, known, &self.listening)
    }

    /// The address belongs to somebody else.
    pub(super) fn forget_address(&mut self, peer: PeerId, address: Multiaddr) {
        let behaviour = self.swarm.behaviour_mut();
        behaviour.kad.remove_address(&peer, &address);
        if let Ok(with_peer) = address.clone().with_p2p(peer) {
            behaviour.store.store_mut().remove_address(&peer, &with_peer);
        }
        if let Some(address) = addresses::without_peer(address, peer) {
            behaviour.store.store_mut().remove_address(&peer, &address);
        }
    }
}

/// A provider's addresses: in the running query if others told us, in our own table if we keep
/// the record.
fn provider_addresses(
    kad: &mut kad::Behaviour<MemoryStore>,
    key: &RecordKey,
    peer: PeerId,
) -> Vec<Multiaddr> {
    let records = kad.store_mut().providers(key).into_iter();
    let own = records.filter(|record| record.provider == peer).flat_map(|record| record.addresses);
    let own: Vec<_> = own.collect();
    own.into_iter().chain(kad_addresses(kad, peer)).collect()
}

/// What Kademlia would contribute to a dial. The method has no side effects, and it is the only
/// way to the addresses in running queries.
fn kad_addresses(kad: &mut kad::Behaviour<MemoryStore>, peer: PeerId) -> Vec<Multiaddr> {
    let id = ConnectionId::new_unchecked(0);
    kad.handle_pending_outbound_connection(id, Some(peer), &[], Endpoint::Dialer)
        .unwrap_or_default()
}
