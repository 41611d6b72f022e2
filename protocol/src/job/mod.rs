//! Jobs: the file that people write, and the specification that owners sign.
//!
//! [`JobFile`] is TOML with human units and references to local files; [`JobSpec`] is what
//! it becomes when those references are resolved to content identifiers: canonical
//! DAG-CBOR, signed by the owner, named by its CID.

mod file;
mod spec;
mod stage;
mod validation;

pub use file::{JobFile, JobFileError, Reference};
pub use spec::{Collect, JobError, JobSpec, Program, SpecError, SweepParameter, SweepValues, Work};
pub use stage::{Gather, Stage};
pub use validation::{
    Adaptive, Audited, Comparison, Credibility, Decimal, Homogeneity, Policy, Share, Tolerance,
    Validation,
};
