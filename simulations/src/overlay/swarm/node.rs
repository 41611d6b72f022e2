//! A node: what it has, what it gives, what it still gets.

use dockercomp_protocol::Timestamp;

use super::catalogue::{Catalogue, Held};
use super::getter::Getter;
use super::giver::Giver;
use super::message::{Action, Message};
use crate::moment::Moment;

/// What became of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Story {
    /// When it came; none before.
    pub(super) came_at: Option<Moment>,
    /// When it had everything; none for those that had it from the beginning.
    pub(super) done_at: Option<Moment>,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    /// Blocks that it stored.
    pub(super) stored: u64,
    /// Blocks with wrong bytes that it received.
    pub(super) wrong: u64,
    /// Its requests that were answered "busy".
    pub(super) busy: u64,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) is_up: bool,
    pub(super) held: Held,
    pub(super) giver: Giver,
    /// While it lacks something.
    pub(super) getter: Option<Getter>,
    pub(super) story: Story,
    /// Peers that it named as liars.
    pub(super) named: Vec<u32>,
    /// The wake-up that counts; others are of the past.
    pub(super) wakes_at: Option<Moment>,
}

impl Node {
    pub(super) fn new(held: Held, giver: Giver) -> Self {
        Self {
            is_up: false,
            held,
            giver,
            getter: None,
            story: Story::default(),
            named: Vec::new(),
            wakes_at: None,
        }
    }

    /// A message has come.
    pub(super) fn on_message(
        &mut self,
        now: Timestamp,
        (from, message): (u32, Message),
        catalogue: &Catalogue,
        actions: &mut Vec<Action>,
    ) {
        let number = message.block().and_then(|block| catalogue.number(block));
        match (message, number) {
            (Message::Join, _) => self.on_join(from, actions),
            (Message::List(list), _) => {
                self.giver.on_list(from, list, (catalogue, &self.held), actions);
            }
            (Message::Leave, _) => self.giver.on_leave(from),
            (Message::Want(_), Some(number)) => {
                self.giver.on_want(now, from, number, (catalogue, &self.held), actions);
            }
            (Message::Stop(_), Some(number)) => self.giver.on_stop(now, from, number),
            (Message::News(news), _) => {
                let getter = self.getter.as_mut();
                if getter.is_some_and(|getter| getter.on_news(from, news, actions)) {
                    self.named.push(from);
                }
            }
            (Message::Miss(block, reason), _) => {
                self.story.busy +=
                    u64::from(reason == dockercomp_protocol::wire::chunk::Miss::Busy);
                let getter = self.getter.as_mut();
                let miss = (block, reason);
                if getter.is_some_and(|getter| getter.on_miss(now, from, miss, actions)) {
                    self.named.push(from);
                }
            }
            (Message::Data(block, is_right), Some(number)) => {
                let bytes = catalogue.bytes(number);
                self.story.received_bytes += bytes;
                self.giver.on_given(from, bytes);
                let getter = self.getter.as_mut();
                if getter.is_some_and(|getter| getter.on_data(now, from, block)) {
                    actions.push(Action::Store { from, number, is_right });
                }
            }
            (Message::Closed, _) => {
                self.giver.on_leave(from);
                self.giver.on_cut(now, from);
                self.on_unreachable(from, actions);
            }
            (Message::Want(_) | Message::Stop(_) | Message::Data(..), None) => {}
        }
    }

    fn on_join(&mut self, from: u32, actions: &mut Vec<Action>) {
        let is_of_use = self.giver.on_join(from, (&self.held, self.getter.is_some()), actions);
        if let Some(getter) = self.getter.as_mut().filter(|_| is_of_use) {
            getter.on_member(from, actions);
        }
    }

    /// A peer cannot be reached, or not any more.
    pub(super) fn on_unreachable(&mut self, peer: u32, actions: &mut Vec<Action>) {
        if let Some(getter) = &mut self.getter {
            getter.on_closed(peer, actions);
        }
    }

    /// A block was verified, and stored if it is right. `true`: now everything is here.
    pub(super) fn on_stored(
        &mut self,
        (from, number, is_right): (u32, usize, bool),
        catalogue: &Catalogue,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(getter) = &mut self.getter else { return false };
        if !is_right {
            self.story.wrong += 1;
            if getter.on_wrong(from, catalogue.block(number), actions) {
                self.named.push(from);
            }
            return false;
        }
        self.story.stored += 1;
        self.held.add(number);
        let is_done = getter.on_stored(from, number, (catalogue, &self.held), actions);
        self.giver.on_change(actions);
        if is_done {
            self.getter = None;
        }
        is_done
    }
}
