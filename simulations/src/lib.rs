//! dockerComp.
