//! A host's session with the coordinator: greet, ask, lose it, greet again.
//!
//! As in the production node: one question is on its way at a time, others wait; while there
//! is no session whoever asks is told so at once; an answer that does not come in time, or a
//! coordinator that does not know this connection, ends the session.
//!
//! ```text
//! Seeking ──welcome──► Open ──timeout, RegisterFirst──► Seeking
//!    ▲ │
//!    └─┘ pause, doubled up to half a minute
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use dockercomp_agent::Event;
use dockercomp_protocol::ReplicaId;
use dockercomp_protocol::wire::work::Capacity;

use crate::moment::Moment;
use crate::random::Random;

const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What a host wants to know.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Register,
    Work { free: Capacity, leases_max: u32 },
    Report { replicas: Vec<ReplicaId> },
    Heartbeat { running: Vec<ReplicaId>, kept: Vec<ReplicaId> },
}

impl Question {
    /// What the agent is told if there is no answer.
    pub(crate) const fn failed(&self) -> Option<Event> {
        match self {
            Self::Register => None,
            Self::Work { .. } => Some(Event::AskFailed),
            Self::Report { .. } => Some(Event::ReportFailed),
            Self::Heartbeat { .. } => Some(Event::HeartbeatFailed),
        }
    }
}

/// A question on its way.
#[derive(Debug)]
struct Asked {
    number: u64,
    until: Moment,
    question: Question,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Session {
    is_open: bool,
    asked: Option<Asked>,
    waiting: VecDeque<Question>,
    /// When the coordinator is greeted again, while there is no session.
    seek_at: Option<Moment>,
    failures: u32,
    next_number: u64,
}

impl Session {
    /// A session that greets the coordinator at once.
    pub(crate) const fn new(now: Moment) -> Self {
        Self {
            is_open: false,
            asked: None,
            waiting: VecDeque::new(),
            seek_at: Some(now),
            failures: 0,
            next_number: 0,
        }
    }

    /// Takes a question. Gives it back if there is no session.
    pub(crate) fn ask(&mut self, question: Question) -> Result<(), Question> {
        if !self.is_open {
            return Err(question);
        }
        self.waiting.push_back(question);
        Ok(())
    }

    /// The next question to be sent, and its number, if none is on its way.
    pub(crate) fn next(&mut self, now: Moment, timeout: Duration) -> Option<(u64, Question)> {
        if self.asked.is_some() {
            return None;
        }
        let question = if self.is_open {
            self.waiting.pop_front()?
        } else if self.seek_at.is_some_and(|at| at <= now) {
            self.seek_at = None;
            Question::Register
        } else {
            return None;
        };
        let number = self.next_number;
        self.next_number += 1;
        self.asked = Some(Asked { number, until: now + timeout, question: question.clone() });
        Some((number, question))
    }

    /// The question that an answer belongs to; nothing if it comes too late or again.
    pub(crate) fn answered(&mut self, number: u64) -> Option<Question> {
        let asked = self.asked.take_if(|asked| asked.number == number)?;
        if matches!(asked.question, Question::Register) {
            self.is_open = true;
            self.failures = 0;
        }
        Some(asked.question)
    }

    /// Whether the question on its way was not answered in time.
    pub(crate) fn is_overdue(&self, now: Moment) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.until <= now)
    }

    /// The session is over. Gives what the agent must be told: nothing that was asked will be
    /// answered, neither `lost` nor what was on its way or waited.
    pub(crate) fn lost(
        &mut self,
        now: Moment,
        random: &mut Random,
        lost: Option<Question>,
    ) -> Vec<Event> {
        let was_open = std::mem::take(&mut self.is_open);
        let doubled = PAUSE_FIRST.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        let jitter = random.small(50, 150);
        let pause = if was_open { Duration::ZERO } else { doubled * jitter / 100 };
        self.failures = if was_open { 0 } else { self.failures + 1 };
        self.seek_at = Some(now + pause);
        let asked = self.asked.take().map(|asked| asked.question);
        let questions = lost.into_iter().chain(asked).chain(self.waiting.drain(..));
        questions.filter_map(|question| question.failed()).collect()
    }

    /// When something is due here.
    pub(crate) fn next_timer(&self) -> Option<Moment> {
        let until = self.asked.as_ref().map(|asked| asked.until);
        [until, self.seek_at].into_iter().flatten().min()
    }
}
