//! Black-box tests: the real binary, several processes, loopback, temporary directories.
//!
//! Each test starts its own network with [`network::Network`]. Nothing sleeps: tests wait for
//! conditions with a deadline. Tests that need the Docker engine say so and are listed as
//! skipped, with the reason, where none answers.

mod bad_input;
mod cancel;
mod checkpoint;
mod compare;
mod crash;
mod datasets;
mod demo;
mod discovery;
mod dispatch;
mod explain;
mod forge;
mod fork;
mod images;
mod kills;
mod lab;
mod lies;
mod network;
mod past;
mod projects;
mod receipts;
mod wordcount;
