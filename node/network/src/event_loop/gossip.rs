//! Gossip's events and commands: publishing, subscribing, and judging what arrives.
//!
//! Every received message is judged at once and exactly once, or libp2p would neither forward nor
//! forget it.

use bytes::Bytes;
use libp2p::gossipsub::{self, IdentTopic};
use tokio::sync::mpsc;

use super::Service;
use crate::{
    behaviour::GOSSIP_BYTES_MAX,
    error::{PublishError, SubscribeError},
    gossip::{Gossip, PublishOutcome, Refusal, Validator},
};

impl Service {
    /// Tells what became of a message before it is forwarded, and delivers it.
    pub(super) fn on_gossip_event(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let topic = message.topic.clone();
                let verdict = self.topics.on_message(message);
                let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() else { return };
                if matches!(verdict.acceptance, gossipsub::MessageAcceptance::Reject) {
                    tracing::debug!(peer = %propagation_source, %topic, "gossip rejected");
                    self.peers.on_gossip_rejected(propagation_source);
                }
                gossip.report_message_validation_result(
                    &message_id,
                    &propagation_source,
                    verdict.acceptance,
                );
                if verdict.leave {
                    gossip.unsubscribe(&IdentTopic::new(topic.into_string()));
                }
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                tracing::debug!(peer = %peer_id, ?failed_messages, "peer is too slow for gossip");
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                tracing::debug!(peer = %peer_id, %topic, "peer subscribed");
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                tracing::debug!(peer = %peer_id, %topic, "peer unsubscribed");
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                tracing::debug!(peer = %peer_id, "peer has no gossip");
            }
        }
    }

    pub(super) fn publish(
        &mut self,
        topic: String,
        data: Bytes,
    ) -> Result<PublishOutcome, PublishError> {
        let (bytes, max) = (data.len(), GOSSIP_BYTES_MAX);
        let too_large = PublishError::TooLarge { bytes, max };
        if bytes > max {
            return Err(too_large);
        }
        let ident = IdentTopic::new(&topic);
        let gossip = self.swarm.behaviour_mut().gossip.as_mut();
        let Some(gossip) = gossip.filter(|_| self.topics.is_known(&ident)) else {
            return Err(PublishError::UnknownTopic { topic });
        };
        match gossip.publish(ident, data) {
            // Messages differ in their sequence numbers, so a duplicate has certainly been sent.
            Ok(_) | Err(gossipsub::PublishError::Duplicate) => Ok(PublishOutcome::Sent),
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => Ok(PublishOutcome::NoPeers),
            Err(gossipsub::PublishError::AllQueuesFull(_)) => Ok(PublishOutcome::Congested),
            Err(gossipsub::PublishError::MessageTooLarge) => Err(too_large),
            Err(
                error @ (gossipsub::PublishError::SigningError(_)
                | gossipsub::PublishError::TransformFailed(_)),
            ) => Err(PublishError::Prepare(error)),
        }
    }

    pub(super) fn subscribe(
        &mut self,
        topic: String,
        validator: Validator,
        queue: Option<mpsc::Sender<Gossip>>,
    ) -> Result<(), SubscribeError> {
        let ident = IdentTopic::new(&topic);
        match self.topics.listen(&ident, validator, queue) {
            Ok(()) => {}
            Err(Refusal::Unknown) => return Err(SubscribeError::UnknownTopic { topic }),
            Err(Refusal::Taken) => return Err(SubscribeError::AlreadySubscribed { topic }),
        }
        let gossip = self.swarm.behaviour_mut().gossip.as_mut();
        let Some(gossip) = gossip else { return Err(SubscribeError::UnknownTopic { topic }) };
        // `false` where the topic of a dropped subscription had not been left yet.
        if let Err(error) = gossip.subscribe(&ident) {
            tracing::error!(topic, %error, "a listed topic was refused");
            return Err(SubscribeError::UnknownTopic { topic });
        }
        Ok(())
    }
}
