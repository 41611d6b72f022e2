//! The session with the project's coordinator: find it, greet it, ask it, find it again.
//!
//! The coordinator is found in Kademlia under the project's key, and believed only with a
//! charter that the project's key has signed. One question is on its way at a time; whoever
//! asks while there is no coordinator is told so at once.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use dockercomp_network::rpc::Client;
use dockercomp_network::{Handle as Network, StreamProtocol};
use dockercomp_protocol::ids::NodeId;
use dockercomp_protocol::limits::WORK_MESSAGE_BYTES_MAX;
use dockercomp_protocol::link::{JoinLink, peer_of};
use dockercomp_protocol::statement::{Charter, project_key};
use dockercomp_protocol::wire::work::{PROTOCOL, Refusal, Register, Request, Response};
use dockercomp_protocol::{codec, limits};
use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Questions that may wait.
const QUEUE: usize = 64;

/// The coordinator was found and has welcomed this node.
#[derive(Clone, Debug)]
pub(crate) struct Welcome {
    pub(crate) coordinator: NodeId,
    /// What the project is called.
    pub(crate) name: String,
    pub(crate) heartbeat: Duration,
}

/// There is no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the coordinator did not answer")]
pub(crate) struct NoAnswer;

struct Question {
    request: Request,
    answer: oneshot::Sender<Result<Response, NoAnswer>>,
}

/// Access to the session; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    questions: mpsc::Sender<Question>,
}

/// The session itself, before it runs.
pub(crate) struct Session {
    network: Network,
    link: JoinLink,
    register: Register,
    welcomes: mpsc::Sender<Welcome>,
    questions: mpsc::Receiver<Question>,
}

impl Handle {
    /// Asks the coordinator.
    pub(crate) async fn ask(&self, request: Request) -> Result<Response, NoAnswer> {
        let (answer, pending) = oneshot::channel();
        self.questions.send(Question { request, answer }).await.map_err(|_| NoAnswer)?;
        pending.await.map_err(|_| NoAnswer)?
    }
}

impl Session {
    /// A session that has not looked for the coordinator yet, and access to it.
    pub(crate) fn new(
        network: Network,
        link: JoinLink,
        register: Register,
        welcomes: mpsc::Sender<Welcome>,
    ) -> (Self, Handle) {
        let (sender, questions) = mpsc::channel(QUEUE);
        let session = Self { network, link, register, welcomes, questions };
        (session, Handle { questions: sender })
    }

    /// Finds the coordinator and asks it what is asked, until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.converse() => {}
        }
    }

    async fn converse(&mut self) {
        loop {
            let mut client = self.find().await;
            loop {
                let Some(Question { request, answer }) = self.questions.recv().await else {
                    return;
                };
                let response = call(&mut client, &request).await;
                let lost = !matches!(&response, Ok(response) if is_fine(response));
                let _ = answer.send(if lost { Err(NoAnswer) } else { response });
                if lost {
                    tracing::warn!("coordinator lost");
                    break;
                }
            }
        }
    }

    /// Looks for the coordinator until it is found. Meanwhile whoever asks is told that there
    /// is none.
    async fn find(&mut self) -> Client {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(30))
            .with_jitter()
            .without_max_times();
        let (network, link) = (self.network.clone(), self.link.clone());
        let register = self.register.clone();
        let searching = async move {
            for pause in pauses.build() {
                if let Some(found) = search(&network, &link, &register).await {
                    return found;
                }
                tokio::time::sleep(pause).await;
            }
            unreachable!("the pauses have no end")
        };
        tokio::pin!(searching);
        let (client, welcome) = loop {
            tokio::select! {
                found = &mut searching => break found,
                Some(question) = self.questions.recv() => {
                    let _ = question.answer.send(Err(NoAnswer));
                }
            }
        };
        let _ = self.welcomes.send(welcome).await;
        client
    }
}

/// Asks Kademlia who coordinates the project, and greets each until one proves it.
async fn search(
    network: &Network,
    link: &JoinLink,
    register: &Register,
) -> Option<(Client, Welcome)> {
    let project = link.project;
    let providers = network.providers(&project_key(&project)).await.unwrap_or_default();
    if providers.is_empty() {
        tracing::info!(%project, "coordinator not found yet");
        knock(network, link).await;
    }
    for provider in providers {
        let mut client = Client::new(
            network.clone(),
            provider.peer,
            StreamProtocol::new(PROTOCOL),
            WORK_MESSAGE_BYTES_MAX,
            TIMEOUT,
        );
        let register = Register { addresses: own_addresses(network), ..register.clone() };
        match call(&mut client, &Request::Register(register)).await {
            Ok(Response::Welcome { charter, heartbeat_ms }) => {
                match Charter::open_for(&charter, project, provider.peer) {
                    Ok(charter) => {
                        tracing::info!(coordinator = %provider.peer, project = charter.name, "welcomed");
                        let heartbeat = Duration::from_millis(heartbeat_ms.clamp(100, 600_000));
                        let (coordinator, name) = (provider.peer, charter.name);
                        return Some((client, Welcome { coordinator, name, heartbeat }));
                    }
                    Err(error) => {
                        tracing::warn!(peer = %provider.peer, %error, "not the coordinator");
                    }
                }
            }
            _ => tracing::info!(peer = %provider.peer, "coordinator does not answer yet"),
        }
    }
    None
}

/// Makes sure that the project's network can be asked: a project that was attached while the
/// node ran may live on another one than the projects before.
async fn knock(network: &Network, link: &JoinLink) {
    let doors = link.via.iter().filter_map(|address| Some((peer_of(address)?, address.clone())));
    join_all(doors.map(|(door, address)| async move {
        let _ = network.add_addresses(door, vec![address]).await;
        if let Err(error) = network.connect(door).await {
            tracing::info!(%door, %error, "door of the project's network not reached");
        }
    }))
    .await;
}

async fn call(client: &mut Client, request: &Request) -> Result<Response, NoAnswer> {
    let bytes = client.call(&codec::encode(request)).await.map_err(|error| {
        tracing::info!(%error, "call failed");
        NoAnswer
    })?;
    Response::decode(&bytes).map_err(|error| {
        tracing::warn!(%error, "unreadable answer");
        NoAnswer
    })
}

/// Whether the session can go on. A coordinator that was restarted wants to be greeted again.
const fn is_fine(response: &Response) -> bool {
    !matches!(response, Response::Refused(Refusal::RegisterFirst | Refusal::Busy { .. }))
}

fn own_addresses(network: &Network) -> Vec<String> {
    let addresses = network.advertised_addresses();
    addresses.iter().take(limits::HINT_ADDRESSES_MAX).map(ToString::to_string).collect()
}
