//! Peers as a whole: real stores and networks on loopback, and real servers as origins.

mod origins;
mod support;
