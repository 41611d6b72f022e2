//! Where the work units of a job with stages lie, and which take the outputs of which.
//!
//! ```text
//! level   stage   units            takes the outputs of
//! 0       0       0 1 2 3 4 5 6    files or parameters
//! 1       1       7 8 9            (0 1 2) (3 4 5) (6)      a tree with fan_in 3
//! 2       1       10               (7 8 9)
//! 3       2       11               (10)                     one unit for each output
//! ```
//!
//! Work units are numbered level by level. Everything here follows from how many units the
//! first stage has and from what the owner said of the others, and a [`Layout`] is as small for
//! ten million units as for ten: it holds one line of the table for each level.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::job::Gather;

/// The levels of a job. See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// At least one, in the order in which they are computed.
    levels: Vec<Level>,
}

/// Work units that do not depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Level {
    /// The stage, from 0; the levels of a tree are of one stage.
    stage: usize,
    /// The number of its first unit in the job.
    first: u64,
    count: u64,
    /// Outputs of the level before that each unit but the last takes; 0 for the first level.
    fan_in: u64,
}

impl Layout {
    /// The layout of a job whose first stage has `units` units and whose other stages gather
    /// like this.
    #[must_use]
    pub fn new(units: u64, stages: &[Gather]) -> Self {
        let mut level = Level { stage: 0, first: 0, count: units, fan_in: 0 };
        let mut levels = vec![level];
        for (stage, gather) in (1..).zip(stages) {
            loop {
                let fan_in = u64::from(gather.fan_in());
                level = Level {
                    stage,
                    first: level.first.saturating_add(level.count),
                    count: level.count.div_ceil(fan_in),
                    fan_in,
                };
                levels.push(level);
                if *gather == Gather::Each || level.count <= 1 {
                    break;
                }
            }
        }
        Self { levels }
    }

    /// How many work units there are in all.
    #[must_use]
    pub fn units(&self) -> u64 {
        let last = self.last();
        last.first.saturating_add(last.count)
    }

    /// How many stages there are, the first included.
    #[must_use]
    pub fn stages(&self) -> usize {
        self.last().stage + 1
    }

    /// The units whose outputs are the job's result: those of the last level.
    #[must_use]
    pub fn results(&self) -> Range<u64> {
        self.last().first..self.units()
    }

    /// How many units the first stage has.
    #[must_use]
    pub fn first_units(&self) -> u64 {
        self.levels[0].count
    }

    /// How many units a stage has.
    #[must_use]
    pub fn units_of_stage(&self, stage: usize) -> u64 {
        let levels = self.levels.iter().filter(|level| level.stage == stage);
        levels.map(|level| level.count).sum()
    }

    /// The stage of a unit, from 0.
    #[must_use]
    pub fn stage_of(&self, index: u64) -> usize {
        self.levels[self.level_of(index)].stage
    }

    /// The units whose outputs a unit takes, in order; none for a unit of the first stage.
    #[must_use]
    pub fn inputs(&self, index: u64) -> Range<u64> {
        let number = self.level_of(index);
        let level = self.levels[number];
        let Some(before) = number.checked_sub(1).map(|number| self.levels[number]) else {
            return 0..0;
        };
        let from = (index - level.first).saturating_mul(level.fan_in).min(before.count);
        let to = from.saturating_add(level.fan_in).min(before.count);
        before.first + from..before.first + to
    }

    /// The unit that takes a unit's output, unless the output is part of the result.
    #[must_use]
    pub fn consumer(&self, index: u64) -> Option<u64> {
        let number = self.level_of(index);
        let next = self.levels.get(number + 1)?;
        Some(next.first + (index - self.levels[number].first) / next.fan_in)
    }

    fn last(&self) -> &Level {
        self.levels.last().expect("there is a first level")
    }

    /// The level of a unit; the last one for a number that no unit has.
    fn level_of(&self, index: u64) -> usize {
        self.levels.partition_point(|level| level.first <= index).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_the_documentation() {
        let layout = Layout::new(7, &[Gather::Tree { fan_in: 3 }, Gather::Each]);
        assert_eq!((layout.units(), layout.stages(), layout.results()), (12, 3, 11..12));
        let inputs: Vec<_> = (0..12).map(|index| layout.inputs(index)).collect();
        assert!(inputs[..7].iter().all(Range::is_empty));
        assert_eq!(inputs[7..], [0..3, 3..6, 6..7, 7..10, 10..11]);
        let stages: Vec<_> = (0..12).map(|index| layout.stage_of(index)).collect();
        assert_eq!(stages, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2]);
        assert_eq!([0, 1, 2].map(|stage| layout.units_of_stage(stage)), [7, 4, 1]);
    }

    /// A reduction that has nothing to add up still runs: its output has another form.
    #[test]
    fn a_tree_has_at_least_one_level() {
        let layout = Layout::new(1, &[Gather::Tree { fan_in: 8 }]);
        assert_eq!((layout.units(), layout.inputs(1)), (2, 0..1));
    }

    #[test]
    fn ten_million_units_make_few_levels() {
        let layout = Layout::new(10_000_000, &[Gather::Tree { fan_in: 2 }]);
        assert_eq!(layout.levels.len(), 25);
        assert_eq!(layout.results().count(), 1);
    }

    fn gather() -> impl Strategy<Value = Gather> {
        prop_oneof![Just(Gather::Each), (2u32..9).prop_map(|fan_in| Gather::Tree { fan_in })]
    }

    proptest! {
        /// Every output but those of the result is taken by exactly one later unit, in order.
        #[test]
        fn inputs_and_consumers_agree(
            units in 1u64..400,
            stages in prop::collection::vec(gather(), 0..4),
        ) {
            let layout = Layout::new(units, &stages);
            let mut next = 0;
            for index in 0..layout.units() {
                let inputs = layout.inputs(index);
                prop_assert_eq!(inputs.is_empty(), index < units);
                if !inputs.is_empty() {
                    prop_assert_eq!(inputs.start, next);
                    next = inputs.end;
                }
                for input in inputs {
                    prop_assert!(input < index);
                    prop_assert_eq!(layout.consumer(input), Some(index));
                }
            }
            prop_assert_eq!(next, layout.results().start);
            for index in layout.results() {
                prop_assert_eq!(layout.consumer(index), None);
            }
            let sum: u64 = (0..layout.stages()).map(|stage| layout.units_of_stage(stage)).sum();
            prop_assert_eq!(sum, layout.units());
        }
    }
}
