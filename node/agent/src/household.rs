//! A node's projects, and how they divide what it offers.
//!
//! ```text
//!   events ──► agent of one project ──┐                      ┌─► Start: whose turn it is,
//!   events ──► agent of another    ───┼─► what is free, who ─┤          as far as it fits
//!   events ──► …                   ───┘   has used how much  └─► AskForWork: for a portion
//! ```
//!
//! Each [`Agent`] talks with its own coordinator; only starting and asking are decided here.
//!
//! **Starting.** Whoever has used least of the machine for its share ([`Usage`]) is next. If
//! none of its ready replicas fits beside what runs, others start only what leaves room for one
//! when all that ran before has ended, or small replicas would keep a large one out for ever.
//! Batch systems call that backfilling. (Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995;
//! there a job must say how long it runs, here nobody needs to know.)
//!
//! **Asking.** What may be held in reserve is divided by shares among the projects that are
//! expected to give work. One that has said that there is nothing, or does not answer, counts
//! only with what it still holds, so the others have its portion at once. A portion may be too
//! small for any replica, so a project of which none waits to be started may always ask for one
//! of any size: all have something to start when their turn comes, and turns alone decide.
//!
//! **Debts.** Use decays, and a project that comes back with work is forgiven most of its
//! turns ([`CATCH_UP_MAX`](crate::CATCH_UP_MAX)): it had the machine when it wanted it. A project
//! that starts something because it fits beside another is forgiven as much of what it had before.
//!
//! # What is not here
//!
//! - Deadlines across projects: a replica whose turn comes too late is dropped before it
//!   starts, as in one project.
//! - Turns of more than one replica: two projects whose replicas do not fit beside each other
//!   alternate one by one, and what no third can use lies idle meanwhile.
//!
//! # Bounds
//!
//! What runs never takes more than the offer. What is held takes at most the offer with its
//! buffer, and one replica of each project more that waits for its turn.

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::wire::work::Capacity;
use dockercomp_protocol::{ReplicaId, Timestamp};

use crate::tasks::sum;
use crate::usage::{Share, Usage, part};
use crate::{Action, Agent, Config, Counts, Event, Restored, Room};

/// A project that joins a [`Household`].
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// How much of the machine it gets.
    pub share: Share,
    /// What it has used before.
    pub usage: Usage,
    /// What was left by an earlier run of this node.
    pub restored: Restored,
}

/// Where a project stands on this node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// How much of the machine it gets.
    pub share: Share,
    /// What it has used.
    pub usage: Usage,
    /// Its part of what all projects have used, from 0 to 1.
    pub part_used: f64,
    /// Replicas by state.
    pub counts: Counts,
    /// How it is with its coordinator.
    pub connection: Connection,
    /// The volunteer leaves it.
    pub is_leaving: bool,
}

/// How it is with a project's coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It does not answer, or was not reached yet.
    Unreached,
    /// It answers, and had no work for this node when there was room for any.
    WithoutWork,
    /// It gives work.
    Gives,
}

/// The projects of a node. See the module documentation.
#[derive(Debug)]
pub struct Household {
    config: Config,
    members: BTreeMap<ProjectId, Seat>,
    actions: VecDeque<(ProjectId, Action)>,
    awaited: Option<Awaited>,
}

/// Whose turn it is, but for whom there is no room.
#[derive(Debug)]
struct Awaited {
    project: ProjectId,
    /// What was started since, and will leave room for it.
    beside: BTreeSet<(ProjectId, ReplicaId)>,
}

#[derive(Debug)]
struct Seat {
    agent: Agent,
    share: Share,
    usage: Usage,
}

impl Household {
    /// A household without projects.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        Self { config, members: BTreeMap::new(), actions: VecDeque::new(), awaited: None }
    }

    /// Takes a project in. One that is there already stays as it is.
    pub fn attach(&mut self, now: Timestamp, project: ProjectId, member: Member) {
        if self.members.contains_key(&project) {
            return;
        }
        let Member { share, usage, restored } = member;
        // Different projects are not asked in step either.
        let salt = project.to_bytes().last_chunk().map_or(0, |tail| u64::from_le_bytes(*tail));
        let config = Config { seed: self.config.seed ^ salt, ..self.config.clone() };
        let agent = Agent::new(config, restored, now);
        self.advance(now);
        let mut seat = Seat { agent, share, usage };
        seat.usage.advance(now, 0.0);
        self.members.insert(project, seat);
        self.settle(now);
    }

    /// Lets a project go, with all that is known of it.
    pub fn remove(&mut self, now: Timestamp, project: &ProjectId) {
        self.advance(now);
        self.members.remove(project);
        self.settle(now);
    }

    /// Gives a project another share from now on; the past is not divided anew.
    pub fn set_share(&mut self, now: Timestamp, project: &ProjectId, share: Share) {
        self.advance(now);
        if let Some(seat) = self.members.get_mut(project) {
            seat.share = share;
            self.level(project);
        }
        self.settle(now);
    }

    /// Applies one event of one project. Drain [`Self::poll_action`] afterwards. An event of a
    /// project that has gone changes nothing.
    pub fn handle(&mut self, now: Timestamp, project: &ProjectId, event: Event) {
        self.advance(now);
        let Some(seat) = self.members.get_mut(project) else { return };
        let brings_work = matches!(&event, Event::Assigned { leases, .. } if !leases.is_empty());
        let returns = brings_work && seat.agent.lacks_work();
        seat.agent.on_event(now, event);
        if returns {
            self.level(project);
        }
        self.settle(now);
    }

    /// The time returned by [`Self::next_wake`] has come.
    pub fn wake(&mut self, now: Timestamp) {
        self.advance(now);
        for seat in self.members.values_mut() {
            seat.agent.on_event(now, Event::Wake);
        }
        self.settle(now);
    }

    /// The next effect to carry out.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<(ProjectId, Action)> {
        self.actions.pop_front()
    }

    /// When [`Self::wake`] is due.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        let wake = |(id, seat): (&ProjectId, &Seat)| seat.agent.next_wake_with(&self.room(id));
        self.members.iter().filter_map(wake).min()
    }

    /// Where all projects stand.
    pub fn standings(&self) -> impl Iterator<Item = (ProjectId, Standing)> + '_ {
        let total: f64 = self.members.values().map(|seat| seat.usage.seconds()).sum();
        self.members.iter().map(move |(project, seat)| {
            let Seat { agent, share, usage } = seat;
            let connection = match (agent.is_answered(), agent.lacks_work()) {
                (false, _) => Connection::Unreached,
                (true, true) => Connection::WithoutWork,
                (true, false) => Connection::Gives,
            };
            let standing = Standing {
                share: *share,
                usage: *usage,
                part_used: if total > 0.0 { usage.seconds() / total } else { 0.0 },
                counts: agent.counts(),
                connection,
                is_leaving: agent.is_leaving(),
            };
            (*project, standing)
        })
    }

    /// Books what was used since the last event.
    fn advance(&mut self, now: Timestamp) {
        for seat in self.members.values_mut() {
            seat.usage.advance(now, part(&seat.agent.busy(), &self.config.offer));
        }
    }

    /// Forgives a project what lies too far from where those who have work stand.
    fn level(&mut self, project: &ProjectId) {
        let others = self.others_with_work(project);
        if let Some(seat) = self.members.get_mut(project) {
            seat.usage.level(seat.share, &others);
        }
    }

    /// The shares of all others that have work, and what they have used.
    fn others_with_work(&self, project: &ProjectId) -> Vec<(Share, Usage)> {
        let others = self.members.iter().filter(|(id, _)| *id != project);
        let have_work = others.filter(|(_, seat)| seat.agent.has_unfinished());
        have_work.map(|(_, seat)| (seat.share, seat.usage)).collect()
    }

    /// Starts and asks for what there is room for, and gathers what the agents want.
    fn settle(&mut self, now: Timestamp) {
        self.start_what_fits(now);
        let rooms: Vec<Room> = self.members.keys().map(|id| self.room(id)).collect();
        for ((id, seat), room) in self.members.iter_mut().zip(rooms) {
            seat.agent.ask_what_is_due(now, &room);
            let actions = std::iter::from_fn(|| seat.agent.poll_action());
            self.actions.extend(actions.map(|action| (*id, action)));
        }
    }

    fn start_what_fits(&mut self, now: Timestamp) {
        while let Some((project, replica)) = self.next_to_start() {
            let Some(seat) = self.members.get_mut(&project) else { return };
            seat.agent.start(replica);
            if !seat.agent.has_waiting() {
                seat.agent.has_more_room(now);
            }
        }
    }

    /// A replica of the project whose turn it is; while that one waits for room, one of another
    /// that does not keep it from starting.
    fn next_to_start(&mut self) -> Option<(ProjectId, ReplicaId)> {
        let offer = self.config.offer;
        let free = offer.minus(&sum(self.members.values().map(|seat| seat.agent.busy())));
        let in_turn = self.in_turn();
        let (first, seat) = in_turn.first()?;
        if let Some((replica, _)) = seat.agent.next_to_start(&free) {
            let next = (*first, replica);
            self.awaited = None;
            return Some(next);
        }
        let (_, need) = seat.agent.next_to_start(&offer)?;
        let (first, turn) = (*first, seat.usage.turn(seat.share, 0.0));
        let mut beside = self.running_beside(&first);
        let beside_takes = sum(beside.values().copied());
        let room = free.least(&offer.minus(&need).minus(&beside_takes));
        let (next, need) = in_turn[1..].iter().find_map(|(project, seat)| {
            let (replica, need) = seat.agent.next_to_start(&room)?;
            Some(((*project, replica), need))
        })?;
        beside.insert(next, need);
        self.awaited = Some(Awaited { project: first, beside: beside.into_keys().collect() });
        // It takes what nobody else can use, which may not cost it its turn for days.
        let others = self.others_with_work(&next.0);
        if let Some(seat) = self.members.get_mut(&next.0) {
            seat.usage.forgive(seat.share, turn, &others);
        }
        Some(next)
    }

    /// What was started since it is this project's turn and there is no room for it, and still
    /// runs; and what each takes.
    fn running_beside(&self, first: &ProjectId) -> BTreeMap<(ProjectId, ReplicaId), Capacity> {
        let awaited = self.awaited.iter().filter(|awaited| awaited.project == *first);
        let started = awaited.flat_map(|awaited| awaited.beside.iter().copied());
        let takes = |(project, replica): (ProjectId, ReplicaId)| {
            let need = self.members.get(&project)?.agent.busy_with(replica)?;
            Some(((project, replica), need))
        };
        started.filter_map(takes).collect()
    }

    /// Projects with a ready replica that the machine could run at all; whose turn it is, first.
    fn in_turn(&self) -> Vec<(ProjectId, &Seat)> {
        let offer = &self.config.offer;
        let turn = |seat: &Seat| seat.usage.turn(seat.share, part(&seat.agent.busy(), offer));
        let mut ready: Vec<(ProjectId, &Seat)> = self
            .members
            .iter()
            .filter(|(_, seat)| seat.agent.next_to_start(offer).is_some())
            .map(|(project, seat)| (*project, seat))
            .collect();
        ready.sort_by(|(_, one), (_, other)| {
            turn(one).total_cmp(&turn(other)).then(other.share.cmp(&one.share))
        });
        ready
    }

    /// What a project may ask for.
    fn room(&self, project: &ProjectId) -> Room {
        let Some(seat) = self.members.get(project) else {
            return Room { free: Capacity::default(), leases_max: 0 };
        };
        let portion = self.portion(project, seat.share);
        let room = seat.agent.room_in(&portion);
        let is_large_enough = Capacity { disk_bytes: 0, ..self.config.offer };
        if seat.agent.has_waiting() || room.free.holds(&is_large_enough) {
            return room;
        }
        let free = Capacity { disk_bytes: room.free.disk_bytes, ..self.config.offer };
        Room { free, leases_max: room.leases_max.min(1) }
    }

    /// The part of the reservoir that is one project's: its share of what those leave who
    /// give nothing more.
    fn portion(&self, project: &ProjectId, share: Share) -> Capacity {
        let others = || self.members.iter().filter(move |(id, _)| *id != project);
        let givers = others().filter(|(_, seat)| seat.agent.may_give());
        let shares: u64 = givers.map(|(_, seat)| u64::from(seat.share.get())).sum();
        let silent = others().filter(|(_, seat)| !seat.agent.may_give());
        let held_by_silent = sum(silent.map(|(_, seat)| seat.agent.reserved()));
        let held_by_others = sum(others().map(|(_, seat)| seat.agent.reserved()));
        let reservoir = self.config.reservoir();
        let divided = reservoir.minus(&held_by_silent);
        let (share, all) = (u128::from(share.get()), u128::from(share.get()) + u128::from(shares));
        let of = |amount: u64| u64::try_from(u128::from(amount) * share / all).unwrap_or(u64::MAX);
        Capacity {
            cpu_millis: u32::try_from(of(divided.cpu_millis.into())).unwrap_or(u32::MAX),
            memory_bytes: of(divided.memory_bytes),
            // Disk is not divided: whoever comes first takes what outputs need.
            disk_bytes: reservoir.minus(&held_by_others).disk_bytes,
        }
    }
}
