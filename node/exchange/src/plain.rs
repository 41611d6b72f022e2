//! The plain plane: public blocks over a TCP connection without encryption, for near peers.
//!
//! ```text
//! client ──authenticated stream──► OPEN? token ──► Door::admit     port ──►
//!        ──TCP──► token ──────────────────────────► Door::next ──► Server, as to a stranger
//! ```
//!
//! On a fast network nearly all that a transfer costs is the cipher and the multiplexer. Blocks
//! need neither: a CID says what is right. What is lost is that nobody on the way can read them,
//! so this is for near networks only, and for blocks that any stranger may have: the rights at
//! the door are those of [`stranger`], whoever comes.
//!
//! # Bounds
//!
//! [`WAITING_MAX`] tokens wait for [`TOKEN_AGE_MAX`]; [`GREETINGS_MAX`] connections have
//! [`GREETING_MAX`] to say theirs.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dockercomp_protocol::NodeId;
use dockercomp_protocol::wire::chunk::Token;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const WAITING_MAX: usize = 256;
const TOKEN_AGE_MAX: Duration = Duration::from_secs(30);
const GREETINGS_MAX: usize = 64;
const GREETING_MAX: Duration = Duration::from_secs(5);

/// A listening socket, and the tokens of those who may come in.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    port: u16,
    waiting: Mutex<HashMap<Token, (NodeId, Instant)>>,
    greetings: AsyncMutex<JoinSet<Option<(Token, TcpStream)>>>,
}

impl Door {
    /// A door at this address.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on.
    pub async fn bind(ip: IpAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port, waiting: Mutex::default(), greetings: AsyncMutex::default() })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets the peer in when it says this token. `None`: too many are expected already.
    pub(crate) fn admit(&self, peer: NodeId, token: Token) -> Option<u16> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, (_, since)| since.elapsed() < TOKEN_AGE_MAX);
        if waiting.len() >= WAITING_MAX {
            return None;
        }
        waiting.insert(token, (peer, Instant::now()));
        Some(self.port)
    }

    /// The next that said a token. Cancel safe.
    pub(crate) async fn next(&self) -> (NodeId, TcpStream) {
        let mut greetings = self.greetings.lock().await;
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if greetings.len() < GREETINGS_MAX => {
                    match accepted {
                        Ok((stream, from)) if is_near(&from.ip()) => {
                            greetings.spawn(greet(stream));
                        }
                        Ok((_, from)) => tracing::debug!(%from, "not near, refused at the door"),
                        // Too many open files, for example: that of another goes first.
                        Err(error) => {
                            tracing::warn!(%error, "nobody can come in at the door for now");
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                    }
                }
                Some(greeted) = greetings.join_next() => {
                    if let Ok(Some((token, stream))) = greeted
                        && let Some(peer) = self.recognise(&token)
                    {
                        return (peer, stream);
                    }
                }
            }
        }
    }

    /// Whose token it is. It is of no use again.
    fn recognise(&self, token: &Token) -> Option<NodeId> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (peer, since) = waiting.remove(token)?;
        (since.elapsed() < TOKEN_AGE_MAX).then_some(peer)
    }
}

async fn greet(mut stream: TcpStream) -> Option<(Token, TcpStream)> {
    let mut token = Token::default();
    timeout(GREETING_MAX, stream.read_exact(&mut token)).await.ok()?.ok()?;
    // Without it small answers may wait for the acknowledgement of others.
    stream.set_nodelay(true).ok()?;
    Some((token, stream))
}

/// A peer that is nobody: what it may have, anybody may have.
pub(crate) fn stranger() -> NodeId {
    // The identity of no key: nobody knows one that hashes to zeros.
    let mut bytes = [0; 34];
    bytes[..2].copy_from_slice(&[0x12, 0x20]);
    NodeId::from_bytes(&bytes).expect("a SHA-256 multihash of 32 bytes")
}

/// Whether an address is on this machine or on a private network (RFC 1918, 4193, 3927).
pub(crate) fn is_near(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_near(&IpAddr::V4(ip)),
            None => {
                *ip == Ipv6Addr::LOCALHOST || ip.is_unique_local() || ip.is_unicast_link_local()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_internet_is_not_near() {
        for near in ["127.0.0.1", "10.1.2.3", "192.168.0.9", "::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(is_near(&near.parse().expect("an address")), "{near}");
        }
        for far in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8", "0.0.0.0"] {
            assert!(!is_near(&far.parse().expect("an address")), "{far}");
        }
    }

    #[tokio::test]
    async fn a_token_opens_the_door_once() {
        use tokio::io::AsyncWriteExt as _;
        let door = Door::bind(Ipv4Addr::LOCALHOST.into()).await.expect("a free port");
        let (first, second) = ([1; 32], [2; 32]);
        let port = door.admit(stranger(), first).expect("room");
        let knock = async |token: Token| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("open");
            stream.write_all(&token).await.expect("open");
            stream
        };
        let _in = knock(first).await;
        assert_eq!(door.next().await.0, stranger());
        let _again = knock(first).await;
        door.admit(stranger(), second).expect("room");
        let third = knock(second).await;
        let (_, stream) = door.next().await;
        let (here, there) = (stream.peer_addr().ok(), third.local_addr().ok());
        assert_eq!(here, there, "a token was accepted twice");
    }
}
