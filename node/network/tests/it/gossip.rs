//! Gossip reaches everybody through a bootstrap node, and bad messages reach nobody.

use dockercomp_network::{
    GOSSIP_BYTES_MAX, PublishError, PublishOutcome, Role, SubscribeError, Subscription,
};

use crate::support::{Node, Over, eventually, options, soon};

const TOPIC: &str = "/test/notices/1";

async fn member(bootstrap: Option<&Node>) -> Node {
    let role = if bootstrap.is_some() { Role::Client } else { Role::Bootstrap };
    let mut options = options(role, Over::Tcp);
    options.topics = vec![TOPIC.to_owned()];
    options.bootstrap = bootstrap.map(|b| b.handle.advertised_addresses()).unwrap_or_default();
    Node::start(options).await
}

async fn subscribe(node: &Node, validator: fn(&[u8]) -> bool) -> Subscription {
    node.handle.subscribe(TOPIC, validator).await.expect("the topic is known and free")
}

/// Publishes until somebody is there to hear it.
async fn publish(node: &Node, data: &'static [u8]) {
    eventually("somebody is subscribed", async || {
        let outcome = node.handle.publish(TOPIC, data).await.expect("a valid message");
        (outcome == PublishOutcome::Sent).then_some(())
    })
    .await;
}

/// Waits for a message that is only sent once, by repeating another one until it arrives:
/// subscriptions travel at their own pace.
async fn warm_up(from: &Node, to: &mut [&mut Subscription]) {
    for subscription in to {
        loop {
            publish(from, b"good: warm-up").await;
            let heard =
                tokio::time::timeout(std::time::Duration::from_millis(200), subscription.next());
            if heard.await.is_ok() {
                break;
            }
        }
    }
}

/// The next message that is no warm-up.
async fn next(subscription: &mut Subscription) -> Vec<u8> {
    loop {
        let gossip = soon("a message", subscription.next()).await.expect("the service runs");
        if gossip.data != b"good: warm-up".as_slice() {
            return gossip.data.to_vec();
        }
    }
}

fn good(data: &[u8]) -> bool {
    data.starts_with(b"good")
}

fn any(_: &[u8]) -> bool {
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_hears_good_messages_only() {
    let bootstrap = member(None).await;
    bootstrap.handle.forward(TOPIC, any).await.expect("the topic is known and free");
    let writer = member(Some(&bootstrap)).await;
    let strict = member(Some(&bootstrap)).await;
    let second = member(Some(&bootstrap)).await;
    let mut strict_hears = subscribe(&strict, good).await;
    let mut second_hears = subscribe(&second, good).await;
    warm_up(&writer, &mut [&mut strict_hears, &mut second_hears]).await;

    publish(&writer, b"bad").await;
    eventually("the bad message is refused", async || {
        let peers = strict.handle.peers().await.expect("the service runs");
        peers.iter().any(|info| info.n_gossip_rejected == 1).then_some(())
    })
    .await;
    publish(&writer, b"good: news").await;
    assert_eq!(next(&mut strict_hears).await, b"good: news");
    assert_eq!(next(&mut second_hears).await, b"good: news");
}

/// A node in the middle that refuses a message does not forward it to those who would take it.
#[tokio::test(flavor = "multi_thread")]
async fn refused_messages_are_not_forwarded() {
    let bootstrap = member(None).await;
    bootstrap.handle.forward(TOPIC, good).await.expect("the topic is known and free");
    let writer = member(Some(&bootstrap)).await;
    let credulous = member(Some(&bootstrap)).await;
    let mut hears = subscribe(&credulous, any).await;
    warm_up(&writer, &mut [&mut hears]).await;

    publish(&writer, b"bad").await;
    eventually("the bad message is refused", async || {
        let peers = bootstrap.handle.peers().await.expect("the service runs");
        let writer = peers.iter().find(|info| info.peer == writer.handle.local_peer())?;
        (writer.n_gossip_rejected == 1).then_some(())
    })
    .await;
    publish(&writer, b"good: news").await;
    assert_eq!(next(&mut hears).await, b"good: news");
}

/// Nobody to hear it is an outcome; what can never be sent is an error.
#[tokio::test]
async fn publishing_alone_is_no_error() {
    let alone = member(None).await;
    let outcome = alone.handle.publish(TOPIC, b"good".as_slice()).await.expect("a valid message");
    assert_eq!(outcome, PublishOutcome::NoPeers);

    let error = alone.handle.publish(TOPIC, vec![0; GOSSIP_BYTES_MAX + 1]).await;
    assert!(matches!(error, Err(PublishError::TooLarge { max: GOSSIP_BYTES_MAX, .. })));
    let error = alone.handle.publish("/other", b"x".as_slice()).await;
    assert!(matches!(error, Err(PublishError::UnknownTopic { .. })));
    let error = alone.handle.subscribe("/other", any).await;
    assert!(matches!(error, Err(SubscribeError::UnknownTopic { .. })));
}

/// A topic has one subscriber, and is free again once the subscription is dropped.
#[tokio::test]
async fn dropped_subscription_frees_its_topic() {
    let alone = member(None).await;
    let subscription = subscribe(&alone, any).await;
    let error = alone.handle.subscribe(TOPIC, any).await;
    assert!(matches!(error, Err(SubscribeError::AlreadySubscribed { .. })));
    drop(subscription);
    subscribe(&alone, any).await;
}
