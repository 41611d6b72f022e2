//! `dockercomp sim`: the simulator, whole. Its commands are in its own crate.

use dockercomp_simulations::cli::Sim;

/// Carries a command of the simulator out. Its exit codes are its own.
pub(crate) fn run(sim: Sim) -> anyhow::Result<()> {
    match sim.run() {
        0 => Ok(()),
        code => std::process::exit(code.into()),
    }
}
