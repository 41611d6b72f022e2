//! Outputs of others that are here to be worked on, and go when nobody works on them any more.
//!
//! Every replica that takes outputs has a [`Loan`]; when the last loan of an output ends, the
//! output is named to whoever listens, to be forgotten unless it is this node's own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dockercomp_protocol::Cid;
use tokio::sync::mpsc;

/// The outputs that are borrowed; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Borrowed {
    loans: Arc<Mutex<BTreeMap<Cid, usize>>>,
    returned: mpsc::UnboundedSender<Cid>,
}

/// The right to find some outputs here. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Loan {
    outputs: Vec<Cid>,
    borrowed: Borrowed,
}

impl Borrowed {
    /// Nothing borrowed yet, and where outputs are named that were returned. There are never
    /// more of them than there were loans.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Cid>) {
        let (returned, receiver) = mpsc::unbounded_channel();
        (Self { loans: Arc::default(), returned }, receiver)
    }

    /// Borrows some outputs.
    pub(crate) fn borrow(&self, outputs: &[Cid]) -> Arc<Loan> {
        self.with(|loans| {
            for output in outputs {
                *loans.entry(*output).or_default() += 1;
            }
        });
        Arc::new(Loan { outputs: outputs.to_vec(), borrowed: self.clone() })
    }

    /// Whether somebody works on an output.
    pub(crate) fn holds(&self, output: &Cid) -> bool {
        self.with(|loans| loans.contains_key(output))
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<Cid, usize>) -> T) -> T {
        act(&mut self.loans.lock().expect("no holder of this lock panics"))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        for output in &self.outputs {
            let is_last = self.borrowed.with(|loans| {
                let Some(count) = loans.get_mut(output) else { return false };
                *count -= 1;
                *count == 0 && loans.remove(output).is_some()
            });
            if is_last {
                // Nobody listens any more only while the node stops.
                let _ = self.borrowed.returned.send(*output);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dockercomp_protocol::content::block_cid;

    use super::*;

    #[test]
    fn an_output_is_returned_with_its_last_loan() {
        let (borrowed, mut returned) = Borrowed::new();
        let [one, two] = [b"one", b"two"].map(|name| block_cid(name));
        // A unit may take the same output twice.
        let (first, second) = (borrowed.borrow(&[one, two, one]), borrowed.borrow(&[one]));
        drop(first);
        assert_eq!(returned.try_recv(), Ok(two));
        assert!(returned.try_recv().is_err());
        assert!(borrowed.holds(&one) && !borrowed.holds(&two));
        drop(second);
        assert_eq!(returned.try_recv(), Ok(one));
        assert!(!borrowed.holds(&one));
    }
}
