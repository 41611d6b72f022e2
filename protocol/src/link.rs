//! The join link: all that a volunteer needs.
//!
//! `dockercomp://<project-id>?via=<multiaddr>&via=<multiaddr>`: the project's public key
//! hash, and addresses of bootstrap nodes (each with `/p2p/<id>`).

use std::fmt;
use std::str::FromStr;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use crate::ids::ProjectId;

const SCHEME: &str = "dockercomp://";
const ADDRESSES_MAX: usize = 16;

/// A project and doors to the network it lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinLink {
    /// The project to work for.
    pub project: ProjectId,
    /// Bootstrap nodes, each address ending in `/p2p/<id>`; at least one.
    pub via: Vec<Multiaddr>,
}

/// Why a text is not a join link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It does not begin as a link does.
    #[error("a join link begins with \"{SCHEME}\"")]
    Scheme,
    /// The project's id cannot be read.
    #[error("{text:?} in the join link is not a project id")]
    Project {
        /// The text in its place.
        text: String,
    },
    /// A parameter other than `via`.
    #[error("{text:?} in the join link is unknown; only via=<multiaddr> may follow the \"?\"")]
    Parameter {
        /// The text in its place.
        text: String,
    },
    /// An address that cannot be read or names no peer.
    #[error("{text:?} in the join link is not an address that ends in /p2p/<id>")]
    Address {
        /// The text in its place.
        text: String,
    },
    /// No way in, or too many.
    #[error("a join link has 1 to {ADDRESSES_MAX} via=<multiaddr>, this one has {found}")]
    Count {
        /// How many there are.
        found: usize,
    },
}

impl FromStr for JoinLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let rest = text.trim().strip_prefix(SCHEME).ok_or(LinkError::Scheme)?;
        let (project, query) = rest.split_once('?').unwrap_or((rest, ""));
        let project = project.trim_end_matches('/');
        let project = PeerId::from_str(project)
            .map_err(|_| LinkError::Project { text: project.to_owned() })?;
        let via: Vec<Multiaddr> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(address)
            .collect::<Result<_, _>>()?;
        if via.is_empty() || via.len() > ADDRESSES_MAX {
            return Err(LinkError::Count { found: via.len() });
        }
        Ok(Self { project, via })
    }
}

fn address(pair: &str) -> Result<Multiaddr, LinkError> {
    let text =
        pair.strip_prefix("via=").ok_or_else(|| LinkError::Parameter { text: pair.to_owned() })?;
    let address =
        Multiaddr::from_str(text).map_err(|_| LinkError::Address { text: text.to_owned() })?;
    if peer_of(&address).is_none() {
        return Err(LinkError::Address { text: text.to_owned() });
    }
    Ok(address)
}

/// The peer that an address ends in, if it names one.
#[must_use]
pub fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

impl fmt::Display for JoinLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.project)?;
        for (index, address) in self.via.iter().enumerate() {
            write!(f, "{}via={address}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: &str = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";

    #[test]
    fn a_link_survives_the_round_trip() {
        let text = format!(
            "dockercomp://{PROJECT}?via=/ip4/127.0.0.1/tcp/4001/p2p/{PROJECT}\
             &via=/ip4/127.0.0.1/udp/4001/quic-v1/p2p/{PROJECT}"
        );
        let link: JoinLink = text.parse().expect("a link");
        assert_eq!(link.via.len(), 2);
        assert_eq!(link.to_string(), text);
    }

    #[test]
    fn rubbish_is_refused_with_the_reason() {
        let via = format!("via=/ip4/127.0.0.1/tcp/1/p2p/{PROJECT}");
        let cases = [
            (format!("http://{PROJECT}?{via}"), "begins with"),
            (format!("dockercomp://nobody?{via}"), "not a project id"),
            (format!("dockercomp://{PROJECT}"), "this one has 0"),
            (format!("dockercomp://{PROJECT}?{via}&x=1"), "unknown"),
            (format!("dockercomp://{PROJECT}?via=/ip4/1.2.3.4/tcp/1"), "/p2p/<id>"),
        ];
        for (text, part) in cases {
            let error = text.parse::<JoinLink>().expect_err(&text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
