//! Many swarms in one process, each in a task of its own.

use std::{sync::Arc, time::Duration};

use dockercomp_network::{Keypair, Multiaddr, PeerId};
use futures::StreamExt as _;
use libp2p::{
    Swarm, SwarmBuilder, Transport as _,
    core::{transport::MemoryTransport, upgrade::Version},
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    yamux,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::DEADLINE;

type Command<B> = Box<dyn FnOnce(&mut Swarm<B>) + Send>;

/// One swarm, as others see it.
pub(super) struct Member<B: NetworkBehaviour> {
    pub(super) peer: PeerId,
    pub(super) address: Multiaddr,
    commands: mpsc::UnboundedSender<Command<B>>,
}

/// See the module documentation. Dropping it ends all swarms.
pub(super) struct Crowd<B: NetworkBehaviour> {
    pub(super) members: Vec<Member<B>>,
    _tasks: JoinSet<()>,
}

impl<B: NetworkBehaviour<ToSwarm: Send> + Send> Crowd<B> {
    /// Starts swarms that listen and know nobody. `on_event` gets each member's number.
    pub(super) async fn start(
        n: usize,
        make: impl Fn(&Keypair) -> B,
        on_event: impl Fn(usize, &mut Swarm<B>, B::ToSwarm) + Send + Sync + 'static,
    ) -> Self {
        let on_event = Arc::new(on_event);
        let mut crowd = Self { members: Vec::new(), _tasks: JoinSet::new() };
        for number in 0..n {
            let mut swarm = swarm(&make);
            swarm.listen_on("/memory/0".parse().expect("an address")).expect("memory is there");
            let address = loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                    break address;
                }
            };
            let peer = *swarm.local_peer_id();
            swarm.add_external_address(address.clone());
            let (commands, inbox) = mpsc::unbounded_channel();
            let on_event = Arc::clone(&on_event);
            crowd._tasks.spawn(drive(swarm, inbox, move |swarm, event| {
                on_event(number, swarm, event);
            }));
            crowd.members.push(Member { peer, address, commands });
        }
        crowd
    }

    /// One member dials another.
    pub(super) fn dial(&self, from: usize, to: usize) {
        let Member { peer, address, .. } = &self.members[to];
        let address = address.clone().with_p2p(*peer).expect("it names no peer yet");
        self.tell(from, move |swarm| swarm.dial(address).expect("a dial that is not refused"));
    }

    pub(super) fn tell(&self, member: usize, command: impl FnOnce(&mut Swarm<B>) + Send + 'static) {
        assert!(self.members[member].commands.send(Box::new(command)).is_ok(), "it still runs");
    }

    /// Asks every member the same.
    pub(super) async fn ask_all<T: Send + 'static>(
        &self,
        question: impl Fn(&mut Swarm<B>) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        let mut answers = Vec::new();
        for member in 0..self.members.len() {
            let (reply, answer) = oneshot::channel();
            let question = question.clone();
            self.tell(member, move |swarm| drop(reply.send(question(swarm))));
            answers.push(answer);
        }
        let mut all = Vec::new();
        for answer in answers {
            all.push(answer.await.expect("it still runs"));
        }
        all
    }

    /// Asks one member.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        member: usize,
        question: impl FnOnce(&mut Swarm<B>) -> T + Send + 'static,
    ) -> T {
        let (reply, answer) = oneshot::channel();
        self.tell(member, move |swarm| drop(reply.send(question(swarm))));
        answer.await.expect("it still runs")
    }

    /// Waits until every member says yes.
    pub(super) async fn wait_for(
        &self,
        what: &str,
        condition: impl Fn(&mut Swarm<B>) -> bool + Clone + Send + 'static,
    ) {
        let begun = Instant::now();
        let mut ticks = interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let answers = self.ask_all(condition.clone()).await;
            let missing = answers.iter().filter(|yes| !**yes).count();
            if missing == 0 {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{missing} members without {what}");
        }
    }
}

fn swarm<B: NetworkBehaviour>(make: impl Fn(&Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(|key| {
            let noise = noise::Config::new(key).expect("ed25519 keys suit noise");
            MemoryTransport::default()
                .upgrade(Version::V1)
                .authenticate(noise)
                .multiplex(yamux::Config::default())
        })
        .unwrap_or_else(|never| match never {})
        .with_behaviour(|key| make(key))
        .unwrap_or_else(|never| match never {})
        .with_swarm_config(|config| config.with_idle_connection_timeout(DEADLINE))
        .build()
}

async fn drive<B: NetworkBehaviour>(
    mut swarm: Swarm<B>,
    mut inbox: mpsc::UnboundedReceiver<Command<B>>,
    on_event: impl Fn(&mut Swarm<B>, B::ToSwarm),
) {
    loop {
        tokio::select! {
            event = swarm.select_next_some() => {
                if let SwarmEvent::Behaviour(event) = event {
                    on_event(&mut swarm, event);
                }
            }
            command = inbox.recv() => match command {
                Some(command) => command(&mut swarm),
                None => return,
            },
        }
    }
}
