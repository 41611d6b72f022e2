//! Commands: what each request of a [`crate::Handle`] does to the swarm.

use super::{Service, dialer::Waiting};
use crate::command::{Command, answer};

impl Service {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Provide { key, reply } => answer(reply, self.provide(key)),
            Command::StopProviding { key, reply } => {
                self.stop_providing(&key);
                answer(reply, ());
            }
            Command::Providers { key, reply } => self.look_up(&key, reply),
            Command::AddAddresses { peer, addresses, reply } => {
                self.add_addresses(peer, addresses);
                answer(reply, ());
            }
            Command::Addresses { peer, reply } => answer(reply, self.known_addresses(peer)),
            Command::Publish { topic, data, reply } => answer(reply, self.publish(topic, data)),
            Command::Subscribe { topic, validator, queue, reply } => {
                answer(reply, self.subscribe(topic, validator, queue));
            }
            Command::Connect { peer, reply } => self.reach(peer, Waiting::Connect { reply }),
            Command::Open { peer, protocol, reply } => {
                self.reach(peer, Waiting::Open { protocol, reply });
            }
            Command::Peers { reply } => answer(reply, self.peers.list()),
            Command::Remote { peer, reply } => answer(reply, self.peers.newest(peer).cloned()),
            Command::Disconnect { peer, reply } => {
                answer(reply, self.swarm.disconnect_peer_id(peer).is_ok());
            }
            Command::Ban { peer, reply } => {
                self.swarm.behaviour_mut().kad.remove_peer(&peer);
                answer(reply, self.swarm.behaviour_mut().bans.block_peer(peer));
            }
            Command::Unban { peer, reply } => {
                answer(reply, self.swarm.behaviour_mut().bans.unblock_peer(peer));
            }
        }
    }
}
