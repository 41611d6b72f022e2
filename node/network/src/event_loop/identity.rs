//! Who is where: what peers say of themselves, and what we tell of ourselves.

use std::collections::BTreeSet;

use libp2p::{Multiaddr, PeerId, identify, swarm::ConnectionId};

use super::Service;
use crate::{
    addresses,
    behaviour::{IDENTIFY_PROTOCOL, KAD_PROTOCOL},
    info::OwnAddresses,
};

impl Service {
    /// A peer said who it is. Only now do we know its addresses and whether it serves Kademlia.
    pub(super) fn on_identified(&mut self, peer: PeerId, id: ConnectionId, info: identify::Info) {
        let Some(remote) = self.peers.remote(peer, id) else { return };
        // A peer on another machine that names its loopback would send us to ourselves.
        let near = addresses::is_loopback(remote);
        let claimed = info
            .listen_addrs
            .into_iter()
            .filter(|address| near || !addresses::is_loopback(address));
        let believed = addresses::believable(peer, claimed, &self.listening);
        let serves = info.protocol_version == IDENTIFY_PROTOCOL
            && info.protocols.contains(&KAD_PROTOCOL)
            && !believed.is_empty();
        for address in &believed {
            self.swarm.add_peer_address(peer, address.clone());
        }
        let kad = &mut self.swarm.behaviour_mut().kad;
        if serves {
            for address in &believed {
                kad.add_address(&peer, address.clone());
            }
        } else {
            kad.remove_peer(&peer);
        }
        let had_servers = self.peers.any_serves();
        let is_news = self.peers.on_identified(peer, &info.agent_version, believed, serves);
        if is_news && serves && (!had_servers || self.redial.is_bootstrap(peer)) {
            self.on_network_reached();
        }
    }

    /// Remembers hints about a peer.
    pub(super) fn add_addresses(&mut self, peer: PeerId, claimed: Vec<Multiaddr>) {
        if peer == self.handle.local_peer {
            return;
        }
        for address in addresses::believable(peer, claimed, &self.listening) {
            self.swarm.add_peer_address(peer, address);
        }
    }

    /// Brings the swarm's external addresses in line with those that we listen on.
    pub(super) fn advertise(&mut self) {
        if !self.external_is_fixed {
            let wanted = addresses::advertised(&self.listening);
            let told: BTreeSet<_> = self.swarm.external_addresses().cloned().collect();
            told.difference(&wanted).for_each(|old| self.swarm.remove_external_address(old));
            wanted.difference(&told).for_each(|new| self.swarm.add_external_address(new.clone()));
        }
        self.publish_own_addresses();
    }

    pub(super) fn publish_own_addresses(&self) {
        let me = self.handle.local_peer;
        let advertised = self.swarm.external_addresses().cloned();
        self.own.send_replace(OwnAddresses {
            listening: self.listening.iter().cloned().collect(),
            advertised: advertised.filter_map(|address| address.with_p2p(me).ok()).collect(),
        });
    }
}
