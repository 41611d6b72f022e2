//! One connection's part of [`super`]: negotiates streams in both directions.
//!
//! Runs in the connection's own task. Several openings may be under negotiation at once; each
//! carries its own reply, so their order does not matter.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    PeerId, StreamProtocol,
    core::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{
    INBOUND_PER_CONNECTION_MAX, OpenReply, OpenRequest, Registry, STREAMS_PER_CONNECTION_MAX,
    Stream,
};
use crate::error::OpenError;

/// Negotiates the streams of one connection.
#[derive(Debug)]
pub(crate) struct Handler {
    peer: PeerId,
    registry: Arc<Registry>,
    requests: mpsc::Receiver<OpenRequest>,
    inbound: Arc<Semaphore>,
    outbound: Arc<Semaphore>,
}

/// An opening under negotiation.
#[derive(Debug)]
pub(crate) struct Opening {
    protocol: StreamProtocol,
    reply: OpenReply,
    permit: OwnedSemaphorePermit,
}

impl Handler {
    pub(super) fn new(
        peer: PeerId,
        registry: Arc<Registry>,
        requests: mpsc::Receiver<OpenRequest>,
    ) -> Self {
        Self {
            peer,
            registry,
            requests,
            inbound: Arc::new(Semaphore::new(INBOUND_PER_CONNECTION_MAX)),
            outbound: Arc::new(Semaphore::new(STREAMS_PER_CONNECTION_MAX)),
        }
    }

    fn on_inbound(&self, io: libp2p::Stream, protocol: &StreamProtocol) {
        match Arc::clone(&self.inbound).try_acquire_owned() {
            Ok(permit) => self.registry.deliver(self.peer, protocol, Stream::new(io, permit)),
            Err(_) => tracing::debug!(peer = %self.peer, %protocol, "too many inbound streams"),
        }
    }

    fn on_failed(&self, opening: Opening, error: StreamUpgradeError<Infallible>) {
        let Opening { protocol, reply, permit } = opening;
        drop(permit);
        let peer = self.peer;
        let error = match error {
            StreamUpgradeError::NegotiationFailed => OpenError::Unsupported { peer, protocol },
            StreamUpgradeError::Timeout => {
                let source = io::ErrorKind::TimedOut.into();
                OpenError::Negotiation { peer, protocol, source }
            }
            StreamUpgradeError::Io(source) => OpenError::Negotiation { peer, protocol, source },
            StreamUpgradeError::Apply(never) => match never {},
        };
        // The caller may have given up: then there is nobody to tell.
        let _ = reply.send(Err(error));
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opening;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer { protocols: self.registry.protocols() }, ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Offer, Opening, Infallible>> {
        while let Poll::Ready(Some(request)) = self.requests.poll_recv(cx) {
            let OpenRequest { protocol, reply } = request;
            if reply.is_closed() {
                continue;
            }
            let Ok(permit) = Arc::clone(&self.outbound).try_acquire_owned() else {
                let _ = reply.send(Err(OpenError::Busy { peer: self.peer }));
                continue;
            };
            let offer = Offer { protocols: vec![protocol.clone()] };
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(offer, Opening { protocol, reply, permit }),
            });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), Opening>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (io, protocol),
                info: (),
            }) => self.on_inbound(io, &protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (io, _),
                info: Opening { reply, permit, .. },
            }) => {
                // If the caller has given up, the stream is dropped here, which closes it.
                let _ = reply.send(Ok(Stream::new(io, permit)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.on_failed(info, error);
            }
            _ => {}
        }
    }
}

/// The protocols that one side offers. The outcome is the bare stream and the chosen protocol.
#[derive(Debug)]
pub(crate) struct Offer {
    protocols: Vec<StreamProtocol>,
}

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.protocols.clone().into_iter()
    }
}

impl InboundUpgrade<libp2p::Stream> for Offer {
    type Output = (libp2p::Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, socket: libp2p::Stream, info: StreamProtocol) -> Self::Future {
        ready(Ok((socket, info)))
    }
}

impl OutboundUpgrade<libp2p::Stream> for Offer {
    type Output = (libp2p::Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, socket: libp2p::Stream, info: StreamProtocol) -> Self::Future {
        ready(Ok((socket, info)))
    }
}
