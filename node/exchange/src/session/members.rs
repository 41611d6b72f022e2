//! Streams to members of a swarm, and which of the addresses that they tell to believe.
//!
//! Whom to ask, and how many strangers to believe in, is decided by [`dockercomp_exchange_core::members`]; here are
//! the streams.
//!
//! What a peer says of others is believed no further than a dial: a stream that opens shows
//! that the address is that of the peer (the handshake proves its key). So that nobody can send
//! us on errands, none is believed that lies where the teller cannot know it.

use std::net::IpAddr;
use std::sync::Arc;

use dockercomp_network::Multiaddr;
use dockercomp_protocol::NodeId;
use dockercomp_protocol::wire::swarm::News;
use dockercomp_protocol::wire::work::HintPeer;
use futures::FutureExt as _;
use multiaddr::Protocol;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::watch::{Heard, watch};
use super::{Session, Step};
use crate::dial::Dial;
use crate::error::LinkError;
use crate::plain::is_near;
use crate::scheduler::List;
use crate::swarms::digest;

/// News that wait for the session.
const HEARD_QUEUE: usize = 64;

/// The streams to the members that a session knows.
pub(super) struct Streams {
    tasks: JoinSet<()>,
    lists: watch::Sender<Option<Arc<List>>>,
    heard: mpsc::Sender<Heard>,
    pub(super) inbox: mpsc::Receiver<Heard>,
}

impl Default for Streams {
    fn default() -> Self {
        let (heard, inbox) = mpsc::channel(HEARD_QUEUE);
        Self { tasks: JoinSet::new(), lists: watch::Sender::default(), heard, inbox }
    }
}

impl<D: Dial> Session<D> {
    /// Asks all members that we know what they hold, if there is much to be had.
    pub(super) fn watch_members(&mut self) {
        while self.streams.tasks.try_join_next().is_some() {}
        let liars = &self.liars;
        let watching = self.members.watch(&mut self.scheduler, |peer| liars.contains(peer));
        for peer in watching.begin {
            let links = (self.shared.links.dial().clone(), Arc::clone(&self.shared.options));
            let (lists, heard) = (self.streams.lists.subscribe(), self.streams.heard.clone());
            self.streams.tasks.spawn(watch(links, (peer, digest(&self.root)), lists, heard));
        }
        if let Some(list) = watching.list {
            self.streams.lists.send_replace(Some(list));
        }
    }

    /// A peer may have some of the dataset, or will have.
    pub(super) fn add_candidate(&mut self, peer: NodeId) {
        if self.liars.contains(&peer) {
            return;
        }
        self.members.add_candidate(&self.scheduler, peer);
        self.watch_members();
    }

    pub(super) fn on_heard(&mut self, (peer, heard): Heard) {
        let followed = match heard {
            Ok(news) => self.on_news(peer, news),
            Err(error) => {
                self.on_closed(peer);
                Err(error)
            }
        };
        match followed {
            Err(error) if error.is_misbehaviour() => {
                self.scheduler.on_garbage(peer);
                self.blame(peer, &error);
            }
            Err(error) => tracing::debug!(%peer, reason = %error, "member says no more"),
            Ok(()) => {}
        }
    }

    fn on_news(&mut self, peer: NodeId, news: News) -> Result<(), LinkError> {
        if self.liars.contains(&peer) {
            return Ok(());
        }
        self.members.on_news(&mut self.scheduler, peer, &news)?;
        if let News::Members { members } = news {
            self.members.on_told(&self.scheduler, peer, members);
            self.learn();
        }
        Ok(())
    }

    /// Takes note of where members are that others told of, as far as they are believed.
    fn learn(&mut self) {
        while let Some((teller, told)) = self.members.next_believed(&self.scheduler) {
            let dial = self.shared.links.dial().clone();
            let learning = async move {
                let HintPeer { peer, addresses } = told;
                let addresses = believable(peer, &addresses, dial.near(teller).await);
                let can_be_dialled = !addresses.is_empty();
                if can_be_dialled {
                    dial.learn(peer, addresses).await;
                }
                Step::Learned { peer, can_be_dialled }
            };
            self.steps.push(learning.boxed());
        }
    }

    pub(super) fn on_learned(&mut self, peer: NodeId, can_be_dialled: bool) {
        if can_be_dialled {
            self.add_candidate(peer);
        } else {
            self.members.on_nowhere(peer);
            self.learn();
        }
    }

    fn on_closed(&mut self, peer: NodeId) {
        self.members.on_closed(&mut self.scheduler, peer);
        self.learn();
    }
}

/// Those of a peer's addresses that are worth a dial. `teller` is where the one is that told
/// them, if that is near: only it can know what lies on this machine or this network.
fn believable(peer: NodeId, addresses: &[String], teller: Option<IpAddr>) -> Vec<Multiaddr> {
    let addresses = addresses.iter().filter_map(|address| address.parse::<Multiaddr>().ok());
    addresses.filter(|address| is_believable(peer, address, teller)).collect()
}

fn is_believable(peer: NodeId, address: &Multiaddr, teller: Option<IpAddr>) -> bool {
    let ip: IpAddr = match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        // A name would have us ask for it wherever it leads.
        _ => return false,
    };
    let is_right_place = if ip.is_loopback() {
        teller.is_some_and(|teller| teller.is_loopback())
    } else {
        !is_near(&ip) || teller.is_some()
    };
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    let is_host = !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast;
    let has_port = address
        .iter()
        .any(|part| matches!(part, Protocol::Tcp(port) | Protocol::Udp(port) if port != 0));
    let is_its_own = match address.iter().last() {
        Some(Protocol::P2p(id)) => id == peer,
        _ => true,
    };
    is_right_place && is_host && has_port && is_its_own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> NodeId {
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend([n; 32]);
        NodeId::from_bytes(&bytes).expect("an inlined ed25519 key")
    }

    #[test]
    fn addresses_are_believed_of_those_who_can_know_them() {
        let far = "/ip4/192.0.2.1/tcp/4001";
        let (lan, here) = ("/ip4/10.0.0.7/tcp/4001", "/ip4/127.0.0.1/udp/4001/quic-v1");
        let told = [
            far.to_owned(),
            lan.to_owned(),
            here.to_owned(),
            "/ip4/0.0.0.0/tcp/4001".to_owned(),
            "/ip6/::/tcp/4001".to_owned(),
            "/ip4/224.0.0.1/udp/4001/quic-v1".to_owned(),
            "/ip4/255.255.255.255/tcp/4001".to_owned(),
            "/ip4/192.0.2.1/tcp/0".to_owned(),
            "/ip4/192.0.2.1".to_owned(),
            "/dns4/example.org/tcp/4001".to_owned(),
            format!("/ip4/192.0.2.1/tcp/1/p2p/{}", peer(2)),
            "no address".to_owned(),
        ];
        let believed = |teller: Option<&str>| -> Vec<String> {
            let teller = teller.map(|ip| ip.parse().expect("an address"));
            believable(peer(1), &told, teller).iter().map(ToString::to_string).collect()
        };
        assert_eq!(believed(None), [far]);
        assert_eq!(believed(Some("10.0.0.9")), [far, lan]);
        assert_eq!(believed(Some("127.0.0.1")), [far, lan, here]);
    }
}
