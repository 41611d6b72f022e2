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
//! none of its ready replicas fits beside what runs, the others wait until one does, or small
//! replicas of others would keep a large one out for ever.
//!
//! **Asking.** What may be held in reserve is divided by shares among the projects that are
//! expected to give work. One that has said that there is nothing, or does not answer, counts
//! only with what it still holds, so the others have its portion at once. A portion may be too
//! small for any replica, so a project of which none waits to be started may always ask for one
//! of any size: all have something to start when their turn comes, and turns alone decide.
//!
//! **Debts.** Use decays, and a project that comes back with work is forgiven most of its
//! turns ([`CATCH_UP_MAX`](crate::CATCH_UP_MAX)): it had the machine when it wanted it.
//!
//! # What is not here
//!
//! - Deadlines across projects: a replica whose turn comes too late is dropped before it
//!   starts, as in one project.
//!
//! # Bounds
//!
//! What runs never takes more than the offer. What is held takes at most the offer with its
//! buffer, and one replica of each project more that waits for its turn.

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::collections::{BTreeMap, VecDeque};

use dockercomp_protocol::Timestamp;
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::wire::work::Capacity;

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
        Self { config, members: BTreeMap::new(), actions: VecDeque::new() }
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
        let others: Vec<f64> = self
            .members
            .iter()
            .filter(|(id, seat)| *id != project && seat.agent.has_unfinished())
            .map(|(_, seat)| seat.usage.turn(seat.share, 0.0))
            .collect();
        if let Some(seat) = self.members.get_mut(project) {
            seat.usage.level(seat.share, others.into_iter());
        }
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
        let offer = self.config.offer;
        loop {
            let free = offer.minus(&sum(self.members.values().map(|seat| seat.agent.busy())));
            // Only what fits at all is waited for.
            let could_start = self
                .members
                .iter_mut()
                .filter(|(_, seat)| seat.agent.next_to_start(&offer).is_some());
            let next = could_start.min_by(|(_, one), (_, other)| {
                let turn =
                    |seat: &Seat| seat.usage.turn(seat.share, part(&seat.agent.busy(), &offer));
                turn(one).total_cmp(&turn(other)).then(other.share.cmp(&one.share))
            });
            let Some((_, seat)) = next else { return };
            let Some((replica, _)) = seat.agent.next_to_start(&free) else { return };
            seat.agent.start(replica);
            if !seat.agent.has_waiting() {
                seat.agent.has_more_room(now);
            }
        }
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
