//! Jobs: the file that people write, and the specification that owners sign.
//!
//! [`JobFile`] is TOML with human units and references to local files; [`JobSpec`] is what
//! it becomes when those references are resolved to content identifiers: canonical
//! DAG-CBOR, signed by the owner, named by its CID.

mod file;
mod spec;

pub use file::{JobFile, JobFileError, Reference};
pub use spec::{
    Collect, JobError, JobSpec, Policy, Program, SpecError, SweepParameter, SweepValues,
    Validation, Work,
};
