//! Gossip: small, rare, signed notices to everybody who cares for a topic.
//!
//! The words of gossip, and the table of what this process is subscribed to. Checking happens
//! before forwarding: a message that the subscriber's [`Validator`] refuses goes no further.
//!
//! # Bounds
//!
//! [`crate::GOSSIP_BYTES_MAX`] a message; [`SUBSCRIPTION_QUEUE`] messages wait for a slow
//! subscriber, later ones are dropped for it (and still forwarded to others).

use std::collections::HashMap;

use bytes::Bytes;
use libp2p::{
    PeerId,
    gossipsub::{IdentTopic, Message, MessageAcceptance, TopicHash},
};
use tokio::sync::mpsc;

/// Messages of one topic that wait for their subscriber.
pub const SUBSCRIPTION_QUEUE: usize = 256;

/// Says whether a message is worth forwarding.
///
/// Runs in the event loop: checking a signature is fine, anything that waits is not.
pub(crate) type Validator = Box<dyn Fn(&[u8]) -> bool + Send>;

/// A message that passed its validator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gossip {
    /// Who wrote and signed it, not who forwarded it.
    pub source: PeerId,
    /// The topic it was written to.
    pub topic: String,
    /// What it says.
    pub data: Bytes,
}

/// What became of a message that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// It is on its way to at least one peer.
    Sent,
    /// No connected peer is subscribed to the topic. Publishing again later is fine.
    NoPeers,
    /// Every peer's queue is full. Publishing again later is fine.
    Congested,
}

/// Messages of one topic, without our own. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) queue: mpsc::Receiver<Gossip>,
}

impl Subscription {
    /// The next message, or `None` once the service has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<Gossip> {
        self.queue.recv().await
    }
}

/// The topics of this process and who listens to them.
pub(crate) struct Topics {
    known: HashMap<TopicHash, Topic>,
}

struct Topic {
    name: String,
    listener: Option<Listener>,
}

struct Listener {
    validator: Validator,
    queue: Option<mpsc::Sender<Gossip>>,
}

/// What is to be done about a received message.
pub(crate) struct Verdict {
    pub(crate) acceptance: MessageAcceptance,
    /// The subscriber is gone, so the topic is to be left.
    pub(crate) leave: bool,
}

/// Why a subscription is refused.
pub(crate) enum Refusal {
    Unknown,
    Taken,
}

impl Topics {
    pub(crate) fn new(names: &[String]) -> Self {
        let topic = |name: &String| {
            (IdentTopic::new(name).hash(), Topic { name: name.clone(), listener: None })
        };
        Self { known: names.iter().map(topic).collect() }
    }

    /// Whether the topic may be used at all.
    pub(crate) fn is_known(&self, topic: &IdentTopic) -> bool {
        self.known.contains_key(&topic.hash())
    }

    /// Puts a listener in place of none, or of one whose subscription was dropped.
    pub(crate) fn listen(
        &mut self,
        topic: &IdentTopic,
        validator: Validator,
        queue: Option<mpsc::Sender<Gossip>>,
    ) -> Result<(), Refusal> {
        let known = self.known.get_mut(&topic.hash()).ok_or(Refusal::Unknown)?;
        if known.listener.as_ref().is_some_and(|listener| !listener.is_gone()) {
            return Err(Refusal::Taken);
        }
        known.listener = Some(Listener { validator, queue });
        Ok(())
    }

    /// Judges a message and hands it to its subscriber if it is good.
    pub(crate) fn on_message(&mut self, message: Message) -> Verdict {
        let ignore = |leave| Verdict { acceptance: MessageAcceptance::Ignore, leave };
        let Some(topic) = self.known.get_mut(&message.topic) else { return ignore(false) };
        let Some(listener) = &topic.listener else { return ignore(false) };
        if listener.is_gone() {
            topic.listener = None;
            return ignore(true);
        }
        // Strict validation lets no unsigned message through, so there is a source.
        let Some(source) = message.source else { return ignore(false) };
        if !(listener.validator)(&message.data) {
            return Verdict { acceptance: MessageAcceptance::Reject, leave: false };
        }
        if let Some(queue) = &listener.queue {
            let data = Bytes::from(message.data);
            let gossip = Gossip { source, topic: topic.name.clone(), data };
            if queue.try_send(gossip).is_err() {
                tracing::warn!(topic = topic.name, "gossip dropped, its subscriber is too slow");
            }
        }
        Verdict { acceptance: MessageAcceptance::Accept, leave: false }
    }
}

impl Listener {
    fn is_gone(&self) -> bool {
        self.queue.as_ref().is_some_and(mpsc::Sender::is_closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &IdentTopic, data: &[u8]) -> Message {
        Message {
            source: Some(PeerId::random()),
            data: data.to_vec(),
            sequence_number: Some(1),
            topic: topic.hash(),
        }
    }

    /// A good message is accepted and delivered, a bad one is rejected and not delivered, and a
    /// dropped subscription makes room for a new one.
    #[test]
    fn validator_decides_before_delivery() {
        let topic = IdentTopic::new("notices");
        let mut topics = Topics::new(&["notices".to_owned()]);
        let good = |data: &[u8]| data.starts_with(b"good");
        let (sender, mut queue) = mpsc::channel(SUBSCRIPTION_QUEUE);
        assert!(topics.listen(&topic, Box::new(good), Some(sender)).is_ok());
        let second = topics.listen(&topic, Box::new(good), None);
        assert!(matches!(second, Err(Refusal::Taken)));

        let verdict = topics.on_message(message(&topic, b"bad"));
        assert!(matches!(verdict.acceptance, MessageAcceptance::Reject));
        assert!(queue.try_recv().is_err());
        let verdict = topics.on_message(message(&topic, b"good news"));
        assert!(matches!(verdict.acceptance, MessageAcceptance::Accept));
        assert_eq!(queue.try_recv().expect("was accepted").data, "good news");

        drop(queue);
        assert!(topics.on_message(message(&topic, b"good")).leave);
        assert!(topics.listen(&topic, Box::new(good), None).is_ok());
    }

    /// A subscriber that does not read loses messages but stops nobody else from getting them.
    #[test]
    fn slow_subscriber_does_not_stop_forwarding() {
        let topic = IdentTopic::new("notices");
        let mut topics = Topics::new(&["notices".to_owned()]);
        let (sender, mut queue) = mpsc::channel(1);
        assert!(topics.listen(&topic, Box::new(|_| true), Some(sender)).is_ok());
        for _ in 0..3 {
            let verdict = topics.on_message(message(&topic, b"x"));
            assert!(matches!(verdict.acceptance, MessageAcceptance::Accept));
        }
        assert!(queue.try_recv().is_ok());
        assert!(queue.try_recv().is_err());
    }
}
