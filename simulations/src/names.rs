//! Names of hosts: an identity that costs no key.
//!
//! The cores check no signature, so a simulated node's id is its number in the scenario in an
//! identity hash: a million of them cost nothing.

use dockercomp_protocol::NodeId;

/// The name of a host.
pub(crate) fn name(host: u32) -> NodeId {
    alias(host, 0)
}

/// Another name of the same host.
pub(crate) fn alias(host: u32, number: u32) -> NodeId {
    let mut bytes = [0u8; 10];
    bytes[1] = 8; // the length of what follows
    bytes[2..6].copy_from_slice(&host.to_be_bytes());
    bytes[6..].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(&bytes).expect("an identity hash of 8 bytes is a peer id")
}

/// The host that has this name, whichever of its names it is.
pub(crate) fn host(name: &NodeId) -> u32 {
    let bytes = name.to_bytes();
    let number = bytes.get(2..6).and_then(|bytes| bytes.first_chunk());
    number.map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes))
}

/// What an operator calls itself.
pub(crate) fn operator(number: u32) -> String {
    format!("operator {number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_host() {
        for number in [0, 1, 255, 256, 1_000_000] {
            assert_eq!(host(&name(number)), number);
            assert_eq!(host(&alias(number, 7)), number);
        }
        assert_ne!(name(1), alias(1, 7));
    }
}
