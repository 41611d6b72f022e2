//! What a node remembers of messages: that it has seen them, and for a while their content.

use std::collections::VecDeque;

use crate::moment::Moment;

use super::message::MessageId;

/// What is known of one message.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    seen: bool,
    /// Whether the content is still here.
    held: bool,
    hops: u8,
}

/// Windows of messages, one a heartbeat.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    known: Vec<Known>,
    /// The newest first; the first is still being filled.
    windows: VecDeque<Vec<MessageId>>,
    /// Until when each is recognised, the oldest first.
    expiries: VecDeque<(Moment, MessageId)>,
}

impl Cache {
    pub(super) fn has_seen(&self, id: MessageId) -> bool {
        self.known.get(id as usize).is_some_and(|known| known.seen)
    }

    /// How often the message was forwarded until it was here, if its content still is.
    pub(super) fn held(&self, id: MessageId) -> Option<u8> {
        self.known.get(id as usize).filter(|known| known.held).map(|known| known.hops)
    }

    pub(super) fn insert(&mut self, id: MessageId, hops: u8, until: Moment) {
        if self.known.len() <= id as usize {
            self.known.resize(id as usize + 1, Known::default());
        }
        self.known[id as usize] = Known { seen: true, held: true, hops };
        if self.windows.is_empty() {
            self.windows.push_front(Vec::new());
        }
        self.windows[0].push(id);
        self.expiries.push_back((until, id));
    }

    /// A heartbeat: the contents of the oldest window go, and who was seen too long ago.
    pub(super) fn shift(&mut self, now: Moment, history: u32) {
        self.windows.push_front(Vec::new());
        while self.windows.len() > history as usize + 1 {
            for id in self.windows.pop_back().into_iter().flatten() {
                self.known[id as usize].held = false;
            }
        }
        while self.expiries.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, id)) = self.expiries.pop_front() {
                self.known[id as usize].seen = false;
            }
        }
    }

    /// Messages of the newest full windows.
    pub(super) fn recent(&self, windows: u32) -> Vec<MessageId> {
        self.windows.iter().skip(1).take(windows as usize).flatten().copied().collect()
    }

    /// A restart: everything is forgotten.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_told_of_for_its_windows_and_held_for_its_history() {
        let mut cache = Cache::default();
        cache.insert(4, 2, Moment(10));
        assert!(cache.recent(3).is_empty(), "the window is still being filled");
        for heartbeat in 1..=3 {
            cache.shift(Moment(heartbeat), 5);
            assert_eq!(cache.recent(3), [4], "heartbeat {heartbeat}");
        }
        cache.shift(Moment(4), 5);
        assert!(cache.recent(3).is_empty());
        assert_eq!(cache.held(4), Some(2));
        cache.shift(Moment(5), 5);
        assert_eq!(cache.held(4), Some(2));
        cache.shift(Moment(6), 5);
        assert_eq!((cache.held(4), cache.has_seen(4)), (None, true));
        cache.shift(Moment(10), 5);
        assert!(!cache.has_seen(4));
    }
}
