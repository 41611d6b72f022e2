//! A small world for a household: projects whose coordinators give work at some times, do not
//! answer at others, and books of who used what.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::time::millis;
use dockercomp_protocol::wire::work::Capacity;
use dockercomp_protocol::{ReplicaId, Timestamp};

use super::{Household, Member};
use crate::usage::{Share, part};
use crate::{Action, Config, Event, Lease};

const HEARTBEAT: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(60);
/// A question and its answer.
const LATENCY: Duration = Duration::from_millis(200);
const FETCH: Duration = Duration::from_secs(2);

/// A project of the world.
#[derive(Clone, Debug)]
pub(super) struct Project {
    pub(super) share: u32,
    pub(super) need: Capacity,
    /// How long its replicas run: anything from half to one and a half of it.
    pub(super) run: Duration,
    /// When it has work.
    pub(super) works: Range<Duration>,
    /// When its coordinator does not answer.
    pub(super) silent: Range<Duration>,
}

/// What became of a project.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    /// Seconds on the whole machine.
    pub(super) used: f64,
    /// Those of them that it had because others, whose turn it was, could start nothing.
    pub(super) used_out_of_turn: f64,
    /// Seconds in which no more of its replicas fitted beside each other, others or not.
    pub(super) full: f64,
    /// The longest time in which it had work and nothing of it ran.
    pub(super) starved: Duration,
    /// The most that others used, in seconds on the whole machine, while it had work and nothing
    /// of it ran.
    pub(super) passed_over: f64,
    hungry: Option<Hungry>,
    busy: BTreeMap<ReplicaId, Capacity>,
    /// Which were started though it was others' turn.
    out_of_turn: BTreeSet<ReplicaId>,
}

/// A project that has work, and nothing of it runs.
#[derive(Clone, Copy, Debug)]
struct Hungry {
    since: Timestamp,
    /// What others have used since.
    others_used: f64,
}

/// See the module documentation.
pub(super) struct World {
    pub(super) household: Household,
    projects: BTreeMap<ProjectId, Project>,
    pub(super) books: BTreeMap<ProjectId, Books>,
    /// Seconds in which something was free that a project could have used, weighed by how much.
    pub(super) idle: f64,
    offer: Capacity,
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), (ProjectId, Event)>,
    next: u64,
    random: u64,
}

pub(super) fn id(number: usize) -> ProjectId {
    // An identity hash of a number.
    let digest = [0x00, 0x08].into_iter().chain((number as u64).to_be_bytes());
    ProjectId::from_bytes(&digest.collect::<Vec<u8>>()).expect("an identity hash is a peer id")
}

impl World {
    pub(super) fn new(offer: Capacity, projects: Vec<Project>, random: u64) -> Self {
        let mut world = Self {
            household: Household::new(Config::new(offer, random)),
            projects: projects.into_iter().enumerate().map(|(n, p)| (id(n), p)).collect(),
            books: BTreeMap::new(),
            idle: 0.0,
            offer,
            now: Timestamp(0),
            queue: BTreeMap::new(),
            next: 1,
            random,
        };
        for (project, it) in world.projects.clone() {
            let share = Share::new(it.share).expect("a share");
            world.household.attach(world.now, project, Member { share, ..Member::default() });
            world.books.insert(project, Books::default());
            world.after(LATENCY, project, Event::Welcomed { heartbeat: HEARTBEAT });
            for edge in [it.works.start, it.silent.end] {
                world.after(edge + LATENCY, project, Event::Announced);
            }
        }
        world
    }

    /// Lets the world go on to some time.
    pub(super) fn run_until(&mut self, until: Duration) {
        let until = Timestamp(0) + until;
        self.carry_out();
        loop {
            let event = self.queue.first_key_value().map(|(&(at, _), _)| at);
            let wake = self.household.next_wake();
            let Some(next) = event.into_iter().chain(wake).min().filter(|at| *at <= until) else {
                return self.pass(until);
            };
            self.pass(next.max(self.now));
            match self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
                Some(entry) => {
                    let (project, event) = entry.remove();
                    if let Event::Finished { replica } = event {
                        self.books.get_mut(&project).expect("known").busy.remove(&replica);
                    }
                    self.household.handle(self.now, &project, event);
                }
                None => self.household.wake(self.now),
            }
            self.carry_out();
        }
    }

    pub(super) fn works(&self, project: &ProjectId) -> bool {
        let it = &self.projects[project];
        it.works.contains(&self.time()) && !it.silent.contains(&self.time())
    }

    /// The part of all use that was one project's.
    pub(super) fn part_used(&self, project: &ProjectId) -> f64 {
        self.books[project].used / self.books.values().map(|books| books.used).sum::<f64>()
    }

    fn time(&self) -> Duration {
        self.now.since(Timestamp(0))
    }

    /// Time passes: books what ran in it.
    fn pass(&mut self, to: Timestamp) {
        let seconds = to.since(self.now).as_secs_f64();
        let mut all = Capacity::default();
        let works: Vec<ProjectId> =
            self.projects.keys().copied().filter(|project| self.works(project)).collect();
        for (project, books) in &mut self.books {
            let busy = crate::tasks::sum(books.busy.values().copied());
            books.used += seconds * part(&busy, &self.offer);
            let out_of_turn = books.busy.iter().filter(|(it, _)| books.out_of_turn.contains(it));
            let out_of_turn = crate::tasks::sum(out_of_turn.map(|(_, need)| *need));
            books.used_out_of_turn += seconds * part(&out_of_turn, &self.offer);
            all = crate::tasks::sum([all, busy].into_iter());
            if !self.offer.minus(&busy).holds(&self.projects[project].need) {
                books.full += seconds;
            }
        }
        for (project, books) in &mut self.books {
            if !books.busy.is_empty() || !works.contains(project) {
                books.hungry = None;
                continue;
            }
            let start = Hungry { since: self.now, others_used: 0.0 };
            let hungry = books.hungry.get_or_insert(start);
            hungry.others_used += seconds * part(&all, &self.offer);
            books.starved = books.starved.max(to.since(hungry.since));
            books.passed_over = books.passed_over.max(hungry.others_used);
        }
        assert!(self.offer.holds(&all), "more runs than is offered: {all:?}");
        let smallest = works.iter().map(|project| part(&self.projects[project].need, &self.offer));
        let free = 1.0 - part(&all, &self.offer);
        if smallest.reduce(f64::min).is_some_and(|need| need <= free) {
            self.idle += seconds * free;
        }
        self.now = to;
    }

    fn carry_out(&mut self) {
        while let Some((project, action)) = self.household.poll_action() {
            match action {
                Action::AskForWork { free, leases_max } => self.give(project, free, leases_max),
                Action::FetchInputs { replica } => {
                    self.after(FETCH, project, Event::InputsReady { replica });
                }
                Action::Start { replica } => {
                    let (need, run) = (self.projects[&project].need, self.projects[&project].run);
                    let is_out_of_turn = self.is_out_of_turn(&project, replica);
                    let books = self.books.get_mut(&project).expect("known");
                    if is_out_of_turn {
                        books.out_of_turn.insert(replica);
                    }
                    books.busy.insert(replica, need);
                    let run = run / 2 + run * self.draw(1000) / 1000;
                    self.after(run, project, Event::Finished { replica });
                }
                Action::Report { replicas } => {
                    let event = if self.is_silent(&project) {
                        Event::ReportFailed
                    } else {
                        Event::Reported { stored: vec![], refused: replicas }
                    };
                    self.after(LATENCY, project, event);
                }
                Action::Heartbeat { .. } => {
                    let event = if self.is_silent(&project) {
                        Event::HeartbeatFailed
                    } else {
                        Event::HeartbeatAnswered { abandon: vec![], forget: vec![] }
                    };
                    self.after(LATENCY, project, event);
                }
                Action::Forget { .. } => {}
                Action::Abort { .. } | Action::TakeLeave => panic!("nobody wanted {action:?}"),
            }
        }
    }

    /// Whether a project starts a replica beside one that is waited for, or because nobody who
    /// stands before it has anything to start.
    fn is_out_of_turn(&self, project: &ProjectId, replica: ReplicaId) -> bool {
        let awaited = self.household.awaited.as_ref();
        if awaited.is_some_and(|awaited| awaited.beside.contains(&(*project, replica))) {
            return true;
        }
        let turn = |id: &ProjectId| {
            let seat = &self.household.members[id];
            let busy = crate::tasks::sum(self.books[id].busy.values().copied());
            seat.usage.turn(seat.share, part(&busy, &self.offer))
        };
        let has_ready =
            |id: &ProjectId| self.household.members[id].agent.next_to_start(&self.offer).is_some();
        let mut before = self.projects.keys().filter(|id| turn(id) < turn(project)).peekable();
        before.peek().is_some() && !before.any(has_ready)
    }

    fn is_silent(&self, project: &ProjectId) -> bool {
        self.projects[project].silent.contains(&self.time())
    }

    /// The coordinator's answer: as much as fits, or nothing.
    fn give(&mut self, project: ProjectId, mut free: Capacity, leases_max: u32) {
        if self.is_silent(&project) {
            return self.after(LATENCY, project, Event::AskFailed);
        }
        let mut leases = Vec::new();
        let need = self.projects[&project].need;
        while self.works(&project) && free.holds(&need) && leases.len() < leases_max as usize {
            let replica = ReplicaId(self.next);
            self.next += 1;
            let expires_at = self.now + Duration::from_secs(30 * 86_400);
            leases.push(Lease { replica, need, expires_at, begun: false });
            free = free.minus(&need);
        }
        self.after(LATENCY, project, Event::Assigned { leases, retry: RETRY });
    }

    fn after(&mut self, time: Duration, project: ProjectId, event: Event) {
        let at = Timestamp(self.now.0.saturating_add(millis(time)));
        self.queue.insert((at, self.next), (project, event));
        self.next += 1;
    }

    /// A number below `n`, by xorshift64*.
    fn draw(&mut self, n: u32) -> u32 {
        self.random |= 1;
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let drawn = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        u32::try_from(drawn % u64::from(n)).expect("below n")
    }
}
