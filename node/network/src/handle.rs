//! The handle: how the rest of a process uses the network.
//!
//! Cheap to clone and free of libp2p's swarm. Every method that asks the event loop has a time
//! limit, so that no caller waits for ever; values that change seldom are read without asking.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

use crate::{
    addresses,
    command::{Command, Reply},
    error::{
        AcceptError, ConnectError, OpenError, ProvideError, ProvidersError, PublishError,
        SubscribeError, Unavailable,
    },
    gossip::{Gossip, PublishOutcome, SUBSCRIPTION_QUEUE, Subscription, Validator},
    info::{OwnAddresses, PeerInfo, Provider},
    options::Timeouts,
    streams::{Incoming, Registry, Stream},
};

/// How long an answer of the event loop may take that needs no other peer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Access to a running [`crate::Service`].
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) local_peer: PeerId,
    pub(crate) timeouts: Timeouts,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) own: watch::Receiver<OwnAddresses>,
    pub(crate) registry: Arc<Registry>,
}

impl Handle {
    /// Our own id.
    #[must_use]
    pub fn local_peer(&self) -> PeerId {
        self.local_peer
    }

    /// The addresses that we listen on, with the ports that the system chose.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.own.borrow().listening.clone()
    }

    /// The addresses that others are told, ready to be pasted as a bootstrap address: each ends
    /// in `/p2p/<our id>`.
    #[must_use]
    pub fn advertised_addresses(&self) -> Vec<Multiaddr> {
        self.own.borrow().advertised.clone()
    }

    /// Announces in Kademlia that this process provides `key`.
    ///
    /// Returns once the announcement is queued, so it works off line too. It is repeated until
    /// [`Self::stop_providing`], and at once when the network is reached again.
    ///
    /// # Errors
    ///
    /// [`ProvideError::TooMany`] if this process provides too many keys.
    pub async fn provide(&self, key: &[u8]) -> Result<(), ProvideError> {
        let key = key.to_vec();
        self.ask(|reply| Command::Provide { key, reply }, ANSWER_TIMEOUT).await?
    }

    /// Stops announcing `key`. Others forget within an hour.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the service has stopped.
    pub async fn stop_providing(&self, key: &[u8]) -> Result<(), Unavailable> {
        let key = key.to_vec();
        self.ask(|reply| Command::StopProviding { key, reply }, ANSWER_TIMEOUT).await
    }

    /// Looks up who provides `key`, without ourselves and at most
    /// [`crate::PROVIDERS_MAX`].
    ///
    /// Nobody found is an empty list and not an error, also while no Kademlia server is reached.
    ///
    /// # Errors
    ///
    /// [`ProvidersError::Busy`] if too many lookups are waiting.
    pub async fn providers(&self, key: &[u8]) -> Result<Vec<Provider>, ProvidersError> {
        let key = key.to_vec();
        // A lookup may have to wait for another one before its own time begins.
        let limit = 2 * self.timeouts.query + ANSWER_TIMEOUT;
        self.ask(|reply| Command::Providers { key, reply }, limit).await?
    }

    /// Remembers where a peer is said to be, for later dials.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the service has stopped.
    pub async fn add_addresses(
        &self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    ) -> Result<(), Unavailable> {
        self.ask(|reply| Command::AddAddresses { peer, addresses, reply }, ANSWER_TIMEOUT).await
    }

    /// Where a peer is said to be.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the service has stopped.
    pub async fn addresses(&self, peer: PeerId) -> Result<Vec<Multiaddr>, Unavailable> {
        self.ask(|reply| Command::Addresses { peer, reply }, ANSWER_TIMEOUT).await
    }

    /// Publishes a message to everybody who is subscribed to the topic, except ourselves.
    ///
    /// # Errors
    ///
    /// [`PublishError`] for messages that can never be sent; having nobody to send to is a
    /// [`PublishOutcome`].
    pub async fn publish(
        &self,
        topic: &str,
        data: impl Into<Bytes>,
    ) -> Result<PublishOutcome, PublishError> {
        let (topic, data) = (topic.to_owned(), data.into());
        self.ask(|reply| Command::Publish { topic, data, reply }, ANSWER_TIMEOUT).await?
    }

    /// Subscribes to a topic. Only messages that `validator` accepts are delivered and forwarded.
    ///
    /// `validator` runs in the event loop: it must be quick and must not wait.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] if the topic is unknown or taken.
    pub async fn subscribe(
        &self,
        topic: &str,
        validator: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Result<Subscription, SubscribeError> {
        let (sender, queue) = mpsc::channel(SUBSCRIPTION_QUEUE);
        self.listen(topic, Box::new(validator), Some(sender)).await?;
        Ok(Subscription { queue })
    }

    /// Takes part in a topic for others' sake: checks and forwards, delivers nothing.
    ///
    /// For bootstrap processes: nodes that are connected only to one hear each other through it.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] if the topic is unknown or taken.
    pub async fn forward(
        &self,
        topic: &str,
        validator: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Result<(), SubscribeError> {
        self.listen(topic, Box::new(validator), None).await
    }

    async fn listen(
        &self,
        topic: &str,
        validator: Validator,
        queue: Option<mpsc::Sender<Gossip>>,
    ) -> Result<(), SubscribeError> {
        let topic = topic.to_owned();
        let command = |reply| Command::Subscribe { topic, validator, queue, reply };
        self.ask(command, ANSWER_TIMEOUT).await?
    }

    /// Makes sure that there is a connection to the peer.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if it cannot be reached within [`Timeouts::open`].
    pub async fn connect(&self, peer: PeerId) -> Result<(), ConnectError> {
        let after = self.timeouts.open;
        match self.ask(|reply| Command::Connect { peer, reply }, after).await {
            Ok(done) => done.map_err(ConnectError::from),
            Err(Unavailable::TimedOut { after }) => Err(ConnectError::TimedOut { peer, after }),
            Err(stopped) => Err(stopped.into()),
        }
    }

    /// Opens a stream to a peer, dialling it where needed.
    ///
    /// # Errors
    ///
    /// [`OpenError`], at the latest after [`Timeouts::open`].
    pub async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> Result<Stream, OpenError> {
        let after = self.timeouts.open;
        let deadline = Instant::now() + after;
        let open = || {
            let protocol = protocol.clone();
            self.ask_until(|reply| Command::Open { peer, protocol, reply }, deadline, after)
        };
        let mut opened = open().await;
        // A connection that died unnoticed is noticed by the first use: try once more.
        if let Ok(Err(OpenError::ConnectionLost { .. } | OpenError::Negotiation { .. })) = opened {
            opened = open().await;
        }
        match opened {
            Ok(opened) => opened,
            Err(Unavailable::TimedOut { after }) => Err(OpenError::TimedOut { peer, after }),
            Err(stopped) => Err(stopped.into()),
        }
    }

    /// Accepts streams that peers open for `protocol`, until the result is dropped.
    ///
    /// # Errors
    ///
    /// [`AcceptError::AlreadyAccepted`] while another [`Incoming`] of the protocol exists.
    pub fn accept(&self, protocol: StreamProtocol) -> Result<Incoming, AcceptError> {
        self.registry.accept(protocol)
    }

    /// The connected peers.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the service has stopped.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, Unavailable> {
        self.ask(|reply| Command::Peers { reply }, ANSWER_TIMEOUT).await
    }

    /// The IP address at the other end of the newest connection to a peer, if it is connected.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the service has stopped.
    pub async fn remote_ip(&self, peer: PeerId) -> Result<Option<IpAddr>, Unavailable> {
        let remote = self.ask(|reply| Command::Remote { peer, reply }, ANSWER_TIMEOUT).await?;
        Ok(remote.as_ref().and_then(addresses::ip))
    }

    /// Closes all connections to a peer. `false` if there were none.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the service has stopped.
    pub async fn disconnect(&self, peer: PeerId) -> Result<bool, Unavailable> {
        self.ask(|reply| Command::Disconnect { peer, reply }, ANSWER_TIMEOUT).await
    }

    /// Closes all connections to a peer and allows no new ones while this process runs. `false`
    /// if it was banned already.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the service has stopped.
    pub async fn ban(&self, peer: PeerId) -> Result<bool, Unavailable> {
        self.ask(|reply| Command::Ban { peer, reply }, ANSWER_TIMEOUT).await
    }

    /// Lifts a ban. `false` if there was none.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the service has stopped.
    pub async fn unban(&self, peer: PeerId) -> Result<bool, Unavailable> {
        self.ask(|reply| Command::Unban { peer, reply }, ANSWER_TIMEOUT).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
        limit: Duration,
    ) -> Result<T, Unavailable> {
        self.ask_until(command, Instant::now() + limit, limit).await
    }

    /// Sends a command and awaits its answer, both before `deadline`; `after` is what the error
    /// then says.
    async fn ask_until<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
        deadline: Instant,
        after: Duration,
    ) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.commands.send(command(reply)).await.map_err(|_| Unavailable::Stopped)?;
            answer.await.map_err(|_| Unavailable::Stopped)
        };
        timeout_at(deadline, asked).await.unwrap_or(Err(Unavailable::TimedOut { after }))
    }
}
