//! Addresses: which ones to believe and which ones to tell.
//!
//! Pure functions. Addresses come from peers, from Kademlia and from callers; a dial to one wrong
//! address can fail a whole attempt, so that useless ones are dropped where they arrive.

use std::{collections::BTreeSet, net::IpAddr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// Addresses that are believed or told of one peer. Kademlia and the peer store keep no more.
pub(crate) const ADDRESSES_PER_PEER_MAX: usize = 16;

/// The address without its `/p2p/<peer>` end, or `None` if it ends in another peer's id.
pub(crate) fn without_peer(mut address: Multiaddr, peer: PeerId) -> Option<Multiaddr> {
    match address.iter().last() {
        Some(Protocol::P2p(id)) if id != peer => None,
        Some(Protocol::P2p(_)) => {
            address.pop();
            Some(address)
        }
        _ => Some(address),
    }
}

/// Splits `/…/p2p/<peer>` into the address and the peer.
pub(crate) fn split_peer(mut address: Multiaddr) -> Option<(PeerId, Multiaddr)> {
    match address.pop() {
        Some(Protocol::P2p(peer)) => Some((peer, address)),
        _ => None,
    }
}

/// Those of a peer's addresses that are worth a dial, without duplicates and at most
/// [`ADDRESSES_PER_PEER_MAX`].
///
/// `ours` are the addresses that we listen on: whoever claims to be there is mistaken.
pub(crate) fn believable(
    peer: PeerId,
    claimed: impl IntoIterator<Item = Multiaddr>,
    ours: &BTreeSet<Multiaddr>,
) -> Vec<Multiaddr> {
    let mut believed = Vec::new();
    for address in claimed {
        let Some(address) = without_peer(address, peer) else { continue };
        if is_dialable(&address) && !ours.contains(&address) && !believed.contains(&address) {
            believed.push(address);
        }
        if believed.len() == ADDRESSES_PER_PEER_MAX {
            break;
        }
    }
    believed
}

/// The addresses to tell others, given those that we listen on.
///
/// Loopback addresses are told only where there are no others: on any other machine they lead to
/// somebody else.
pub(crate) fn advertised(listening: &BTreeSet<Multiaddr>) -> BTreeSet<Multiaddr> {
    let dialable = || listening.iter().filter(|address| is_dialable(address));
    let reachable = dialable().filter(|address| !is_loopback(address));
    let chosen: BTreeSet<_> = reachable.take(ADDRESSES_PER_PEER_MAX).cloned().collect();
    if chosen.is_empty() {
        return dialable().take(ADDRESSES_PER_PEER_MAX).cloned().collect();
    }
    chosen
}

/// Whether the address begins with a loopback IP.
pub(crate) fn is_loopback(address: &Multiaddr) -> bool {
    ip(address).is_some_and(|ip| ip.is_loopback())
}

/// Which transport an address belongs to, as far as we have it.
pub(crate) fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::QuicV1))
}

/// Whether a dial can lead anywhere: not the wildcard, not port 0, not a link-local IPv6 address
/// (which means nothing without its zone).
fn is_dialable(address: &Multiaddr) -> bool {
    let has_port = address
        .iter()
        .any(|part| matches!(part, Protocol::Tcp(port) | Protocol::Udp(port) if port != 0));
    let has_host = match ip(address) {
        Some(IpAddr::V4(ip)) => !ip.is_unspecified() && !ip.is_multicast(),
        Some(IpAddr::V6(ip)) => {
            !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local()
        }
        None => address.iter().next().is_some_and(|part| {
            matches!(part, Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_))
        }),
    };
    has_port && has_host
}

/// The IP address that an address begins with.
pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    // Of a relayed connection only the relay's address is known.
    if address.iter().any(|part| part == Protocol::P2pCircuit) {
        return None;
    }
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_lends_nobody_its_address() {
        let peer = PeerId::random();
        assert_eq!(ip(&address("/ip4/203.0.113.7/tcp/1")), Some([203, 0, 113, 7].into()));
        let relayed = format!("/ip4/203.0.113.7/tcp/1/p2p/{peer}/p2p-circuit");
        assert_eq!(ip(&address(&relayed)), None);
        assert_eq!(ip(&address("/dns4/example.org/tcp/1")), None);
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("a valid address")
    }

    fn set(texts: &[&str]) -> BTreeSet<Multiaddr> {
        texts.iter().map(|text| address(text)).collect()
    }

    #[test]
    fn loopback_is_told_only_where_there_is_nothing_else() {
        let lan = set(&["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.7/tcp/1", "/ip6/fe80::1/tcp/1"]);
        assert_eq!(advertised(&lan), set(&["/ip4/10.0.0.7/tcp/1"]));
        let loopback = set(&["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/2/quic-v1"]);
        assert_eq!(advertised(&loopback), loopback);
    }

    #[test]
    fn useless_claims_are_dropped() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let claimed = [
            address("/ip4/10.0.0.7/tcp/1"),
            address("/ip4/10.0.0.7/tcp/1").with(Protocol::P2p(peer)),
            address("/ip4/10.0.0.8/tcp/1").with(Protocol::P2p(other)),
            address("/ip4/0.0.0.0/tcp/1"),
            address("/ip4/10.0.0.9/tcp/0"),
            address("/ip4/127.0.0.1/tcp/4001"),
            address("/dns4/example.org/udp/1/quic-v1"),
            Multiaddr::empty(),
        ];
        let believed = believable(peer, claimed, &set(&["/ip4/127.0.0.1/tcp/4001"]));
        let expected = ["/ip4/10.0.0.7/tcp/1", "/dns4/example.org/udp/1/quic-v1"].map(address);
        assert_eq!(believed, expected);
    }

    #[test]
    fn a_peer_cannot_fill_memory_with_addresses() {
        let claimed = (1..1000).map(|port| address(&format!("/ip4/10.0.0.1/tcp/{port}")));
        let believed = believable(PeerId::random(), claimed, &BTreeSet::new());
        assert_eq!(believed.len(), ADDRESSES_PER_PEER_MAX);
    }
}
