//! `dockercomp-sim`: the simulator alone, without the rest of the system.

use std::process::ExitCode;

use clap::Parser;
use dockercomp_simulations::cli::Sim;

#[derive(Debug, Parser)]
#[command(name = "dockercomp-sim", version)]
struct Cli {
    #[command(flatten)]
    sim: Sim,
}

fn main() -> ExitCode {
    ExitCode::from(Cli::parse().sim.run())
}
