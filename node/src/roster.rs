//! The roster: which projects this node is attached to, and everything that runs for each.
//!
//! ```text
//! attach ──► remembered ──► session, watch, desk ──► worker
//! detach ──► remembered ──► worker finishes or drops ──► coordinator told ──► forgotten
//! ```
//!
//! What a person asks for is durable before it is done, so a node that is killed goes on with
//! it. Changes come one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dockercomp_agent::{Event, Lease, Member, Restored, Share, Usage};
use dockercomp_executor::Executor;
use dockercomp_peer::Peer;
use dockercomp_peer::clock::Clock;
use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::link::JoinLink;
use dockercomp_protocol::wire::work::Register;
use dockercomp_store::{Store, StoreError};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::api::Board;
use crate::attached::{self, Attached, Leaving, PROJECTS_MAX};
use crate::borrowed::Borrowed;
use crate::desk::Desk;
use crate::ear::Ear;
use crate::fault::Fault;
use crate::heads::Watch;
use crate::jobs::{Job, Jobs, LeaseError};
use crate::office::{Office, agent_lease};
use crate::progress::Progress;
use crate::replica::{Bench, Replica, unit_cid};
use crate::session::{self, Session};
use crate::shelf::Shelf;
use crate::worker::{Message, Newcomer, Said, Sender, Standings};
use crate::workplace::{self, Workplace};

/// What projects have used is remembered this often, and when the node stops.
const REMEMBER_EVERY: Duration = Duration::from_secs(60);

/// What all projects of a node share.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) peer: Peer,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) faults: Arc<[Fault]>,
    pub(crate) shelf: Shelf,
    pub(crate) ear: Ear,
    pub(crate) register: Register,
    pub(crate) worker: Sender,
    pub(crate) standings: watch::Receiver<Standings>,
    pub(crate) clock: Clock,
    pub(crate) stopping: CancellationToken,
}

/// Why the roster was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RosterError {
    #[error("this node is not attached to a project {text:?}")]
    Unknown { text: String },
    #[error("{text:?} may mean several of this node's projects; give the id")]
    Ambiguous { text: String },
    #[error("a node has {PROJECTS_MAX} projects at most")]
    Full,
    #[error("the store could not be written")]
    Store(#[from] StoreError),
}

/// See the module documentation; clones share it.
#[derive(Clone)]
pub(crate) struct Roster {
    common: Common,
    projects: Arc<Mutex<BTreeMap<ProjectId, Project>>>,
}

/// A project that this node is attached to, and what runs for it.
#[derive(Clone)]
pub(crate) struct Project {
    pub(crate) attached: Attached,
    pub(crate) board: Board,
    pub(crate) session: session::Handle,
    office: Arc<Office>,
    /// Ends what runs for it.
    end: CancellationToken,
}

impl Roster {
    pub(crate) fn new(common: Common) -> Self {
        Self { common, projects: Arc::default() }
    }

    /// Starts what runs for projects that are remembered.
    pub(crate) async fn restore(&self, remembered: Vec<Attached>) -> Result<(), StoreError> {
        let mut projects = self.projects.lock().await;
        for attached in remembered {
            self.start(&mut projects, attached).await?;
        }
        Ok(())
    }

    /// All projects and where they stand.
    pub(crate) async fn projects(&self) -> (BTreeMap<ProjectId, Project>, Standings) {
        (self.projects.lock().await.clone(), self.common.standings.borrow().clone())
    }

    /// Attaches to a project, or changes what is said: another way in, another share, or not to
    /// leave it after all.
    pub(crate) async fn attach(
        &self,
        link: JoinLink,
        share: Option<Share>,
    ) -> Result<ProjectId, RosterError> {
        let mut projects = self.projects.lock().await;
        let id = link.project;
        let Some(project) = projects.get_mut(&id) else {
            if projects.len() >= PROJECTS_MAX {
                return Err(RosterError::Full);
            }
            let share = share.unwrap_or_default();
            let attached = Attached { link, share, name: None, leaving: None };
            self.remember(attached.clone()).await?;
            self.start(&mut projects, attached).await?;
            return Ok(id);
        };
        let share = share.unwrap_or(project.attached.share);
        let was_leaving = project.attached.leaving.is_some();
        let name = project.attached.name.clone();
        project.attached = Attached { link, share, name, leaving: None };
        self.remember(project.attached.clone()).await?;
        self.tell(Message::SetShare(id, share)).await;
        if was_leaving {
            self.tell(Message::Of(id, Said::Event(Event::Stay))).await;
        }
        Ok(id)
    }

    /// Leaves a project.
    pub(crate) async fn detach(
        &self,
        text: &str,
        leaving: Leaving,
    ) -> Result<ProjectId, RosterError> {
        let mut projects = self.projects.lock().await;
        let id = find(&projects, text)?;
        let project = projects.get_mut(&id).expect("it was just found");
        project.attached.leaving = Some(leaving);
        self.remember(project.attached.clone()).await?;
        self.tell(Message::Of(id, Said::Event(leave(leaving)))).await;
        Ok(id)
    }

    /// Gives a project another share.
    pub(crate) async fn set_share(
        &self,
        text: &str,
        share: Share,
    ) -> Result<ProjectId, RosterError> {
        let mut projects = self.projects.lock().await;
        let id = find(&projects, text)?;
        let project = projects.get_mut(&id).expect("it was just found");
        project.attached.share = share;
        self.remember(project.attached.clone()).await?;
        self.tell(Message::SetShare(id, share)).await;
        Ok(id)
    }

    /// Sees off projects that are left, and remembers what all have used, until the node stops.
    pub(crate) async fn run(self, mut farewells: mpsc::Receiver<ProjectId>) {
        let mut remember = tokio::time::interval(REMEMBER_EVERY);
        loop {
            tokio::select! {
                () = self.common.stopping.cancelled() => break,
                Some(project) = farewells.recv() => self.see_off(project).await,
                _ = remember.tick() => self.remember_usage().await,
            }
        }
        self.remember_usage().await;
    }

    /// Nothing of a project is left here: tells its coordinator, and forgets it.
    async fn see_off(&self, id: ProjectId) {
        // The volunteer may have thought better of it, also while good-bye is said.
        let is_leaving = |project: &&Project| project.attached.leaving.is_some();
        let office = |projects: &BTreeMap<ProjectId, Project>| {
            projects.get(&id).filter(is_leaving).map(|project| Arc::clone(&project.office))
        };
        let Some(leaving) = office(&*self.projects.lock().await) else { return };
        leaving.take_leave().await;
        let mut projects = self.projects.lock().await;
        if self.common.stopping.is_cancelled() || office(&projects).is_none() {
            return;
        }
        let Some(project) = projects.remove(&id) else { return };
        project.end.cancel();
        self.common.ear.forget(&id);
        self.common.shelf.forget_project(id).await;
        self.tell(Message::Remove(id)).await;
        tracing::info!(project = %id, "project left");
    }

    /// Starts what runs for a project.
    async fn start(
        &self,
        projects: &mut BTreeMap<ProjectId, Project>,
        attached: Attached,
    ) -> Result<(), StoreError> {
        let Common {
            peer, executor, faults, shelf, ear, register, worker, clock, stopping, ..
        } = self.common.clone();
        let id = attached.link.project;
        let end = stopping.child_token();
        let board = Board::default();
        let (welcomes, welcomed) = mpsc::channel(4);
        let network = peer.network().clone();
        let (session, asking) = Session::new(network, attached.link.clone(), register, welcomes);
        let (borrowed, kind) = (shelf.borrowed.clone(), executor.kind());
        let read = shelf.durable(move |store| restore(store, id, kind, &borrowed)).await;
        let (member, replicas) = read?;
        let member = Member { share: attached.share, ..member };

        let (found, news) = watch::channel(());
        let notices = ear.listen_for(id);
        let watching = Watch::new(&peer, id, asking.clone(), board.clone(), notices);
        let desk = Desk::new(peer.store().clone(), id);
        let bench = Bench {
            project: id,
            peer,
            executor,
            board: board.clone(),
            faults,
            shelf,
            progress: Progress::default(),
            stopping,
        };
        let office = Office {
            project: id,
            bench,
            session: asking.clone(),
            desk,
            jobs: Jobs::default(),
            worker,
            clock,
        };
        let office = Arc::new(office);
        let newcomer = Newcomer {
            office: Arc::clone(&office),
            member,
            replicas,
            leave: attached.leaving.map(leave),
        };
        projects.insert(id, Project { attached, board, session: asking, office, end: end.clone() });
        self.tell(Message::Attach(Box::new(newcomer))).await;
        tokio::spawn(session.run(end.clone()));
        tokio::spawn(watching.run(news, end.clone()));
        tokio::spawn(self.clone().greet(id, welcomed, found, end));
        Ok(())
    }

    /// Passes the coordinator's welcomes on.
    async fn greet(
        self,
        id: ProjectId,
        mut welcomed: mpsc::Receiver<session::Welcome>,
        found: watch::Sender<()>,
        end: CancellationToken,
    ) {
        while let Some(welcome) = tokio::select! {
            () = end.cancelled() => None,
            welcome = welcomed.recv() => welcome,
        } {
            self.common.peer.trust(id, welcome.coordinator);
            if self.call(id, &welcome).await.is_err() {
                return;
            }
            found.send_replace(());
            let event = Event::Welcomed { heartbeat: welcome.heartbeat };
            self.tell(Message::Of(id, Said::Event(event))).await;
        }
    }

    /// Notes who coordinates a project and what it is called.
    async fn call(&self, id: ProjectId, welcome: &session::Welcome) -> Result<(), StoreError> {
        let mut projects = self.projects.lock().await;
        let Some(project) = projects.get_mut(&id) else { return Ok(()) };
        project.board.coordinator(Some(welcome.coordinator.to_string()));
        let name = Some(welcome.name.clone());
        if project.attached.name == name {
            return Ok(());
        }
        project.attached.name = name;
        self.remember(project.attached.clone()).await
    }

    async fn remember(&self, attached: Attached) -> Result<(), StoreError> {
        self.common.shelf.durable(move |store| attached::remember(store, &attached)).await
    }

    async fn remember_usage(&self) {
        // Only of projects that are still there: one that was seen off is forgotten.
        let projects = self.projects.lock().await;
        let usages: Vec<(ProjectId, Usage)> = self
            .common
            .standings
            .borrow()
            .iter()
            .filter(|(id, _)| projects.contains_key(id))
            .map(|(id, standing)| (*id, standing.usage))
            .collect();
        if !usages.is_empty() {
            let write = move |store: &Store| attached::remember_usage(store, &usages);
            // If it fails, the node stops.
            let _ = self.common.shelf.durable(write).await;
        }
    }

    async fn tell(&self, message: Message) {
        // The worker is gone only while the node stops.
        let _ = self.common.worker.send(message).await;
    }
}

/// Remembers the projects that a node is started with, and gives all that are remembered. What
/// was left when a node had one project only is the first one's. Blocks.
pub(crate) fn enlist(store: &Store, links: Vec<JoinLink>) -> Result<Vec<Attached>, RosterError> {
    let mut known = attached::all(store)?;
    for link in links {
        let id = link.project;
        if let Some(attached) = known.iter_mut().find(|known| known.link.project == id) {
            (attached.link, attached.leaving) = (link, None);
            attached::remember(store, attached)?;
            continue;
        }
        if known.len() >= PROJECTS_MAX {
            return Err(RosterError::Full);
        }
        let attached = Attached { link, share: Share::default(), name: None, leaving: None };
        attached::remember(store, &attached)?;
        known.push(attached);
        Desk::new(store.clone(), id).adopt()?;
    }
    Ok(known)
}

/// Where replicas run that have a lease. Blocks.
pub(crate) fn workplaces(
    store: &Store,
    remembered: &[Attached],
    executor: ExecutorKind,
) -> Result<Vec<Workplace>, StoreError> {
    let mut places = Vec::new();
    for attached in remembered {
        let project = attached.link.project;
        for (replica, lease) in Desk::new(store.clone(), project).leases()? {
            let unit = unit_cid(&lease.unit);
            places.push(Workplace::new(store.dir(), &project, replica, executor, &unit));
        }
    }
    Ok(places)
}

const fn leave(leaving: Leaving) -> Event {
    Event::Leave { now: matches!(leaving, Leaving::Drop) }
}

/// The project that a person means: by its id, its name, the end of its id, or its join link.
fn find(projects: &BTreeMap<ProjectId, Project>, text: &str) -> Result<ProjectId, RosterError> {
    let names = projects.iter().map(|(id, project)| (*id, project.attached.name.as_deref()));
    meant(names, text.trim())
}

fn meant<'a>(
    projects: impl Iterator<Item = (ProjectId, Option<&'a str>)>,
    text: &str,
) -> Result<ProjectId, RosterError> {
    /// Fewer characters of an id are not meant as one.
    const SHORTEST: usize = 4;
    let linked = text.parse::<JoinLink>().map(|link| link.project).ok();
    let mut found = Vec::new();
    for (id, name) in projects {
        let whole = id.to_string();
        if whole == text || linked == Some(id) {
            return Ok(id);
        }
        let is_end = text.len() >= SHORTEST && whole.ends_with(text);
        if is_end || name == Some(text) {
            found.push(id);
        }
    }
    match found[..] {
        [one] => Ok(one),
        [] => Err(RosterError::Unknown { text: text.to_owned() }),
        _ => Err(RosterError::Ambiguous { text: text.to_owned() }),
    }
}

/// Reads what was left for a project. Blocks.
fn restore(
    store: &Store,
    project: ProjectId,
    executor: ExecutorKind,
    borrowed: &Borrowed,
) -> Result<(Member, Vec<Replica>), StoreError> {
    let desk = Desk::new(store.clone(), project);
    let (leases, results, kept) = (desk.leases()?, desk.results()?, desk.kept()?);
    let mut restored = Restored {
        leases: Vec::new(),
        unreported: results.into_iter().map(|(replica, _)| replica).collect(),
        kept: kept.into_iter().map(|(replica, _)| replica).collect(),
    };
    let mut replicas = Vec::new();
    for (id, row) in leases {
        let opened = Job::open(row.job, project).map_err(LeaseError::from).and_then(|job| {
            let unit = job.unit(&row.unit)?;
            let (unit_cid, permission) = (unit_cid(&row.unit), row.permission);
            let outputs = unit.outputs();
            let loan = (!outputs.is_empty()).then(|| borrowed.borrow(outputs));
            Ok(Replica { id, job: Arc::new(job), unit, unit_cid, permission, _loan: loan })
        });
        match opened {
            Ok(replica) if replica.job.spec.program.of(executor).is_some() => {
                let unit = &replica.unit_cid;
                let place = Workplace::new(store.dir(), &project, id, executor, unit);
                let lease = agent_lease(&replica, row.expires_at);
                restored.leases.push(Lease { begun: place.has_checkpoint(), ..lease });
                replicas.push(replica);
            }
            // For example one that was left for another project, or one for an engine that is not
            // there today. The coordinator hears nothing of it, and blames nobody.
            Ok(_) | Err(_) => {
                desk.dropped(id)?;
                let folder = workplace::folder(store.dir(), &project, id);
                if let Err(error) = workplace::remove(&folder) {
                    tracing::warn!(%error, "what a run left was not removed");
                }
            }
        }
    }
    let usage = attached::usage(store, &project)?;
    Ok((Member { usage, restored, ..Member::default() }, replicas))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE";
    const OTHER: &str = "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf";

    #[test]
    fn a_project_is_found_by_its_name_or_its_id_or_the_end_of_it() {
        let [one, other] = [ONE, OTHER].map(|id| id.parse::<ProjectId>().expect("an id"));
        let known = || [(one, Some("folding")), (other, None)].into_iter();
        let link = format!("dockercomp://{OTHER}?via=/ip4/127.0.0.1/tcp/1/p2p/{ONE}");
        for (text, expected) in
            [(ONE, one), ("folding", one), ("w3UERE", one), ("KXtf", other), (&*link, other)]
        {
            assert!(meant(known(), text).is_ok_and(|id| id == expected), "{text}");
        }
        for text in ["", "ERE", "fold", "12D3KooW"] {
            assert!(matches!(meant(known(), text), Err(RosterError::Unknown { .. })), "{text}");
        }
        let twins = [(one, Some("folding")), (other, Some("folding"))].into_iter();
        assert!(matches!(meant(twins, "folding"), Err(RosterError::Ambiguous { .. })));
    }
}
