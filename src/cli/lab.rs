//! `dockercomp lab`: scenarios with real processes. Its commands are the simulator's.

use dockercomp_simulations::cli::Lab;

use crate::output::Format;

/// Carries a command of the lab out. Its exit codes are the simulator's.
pub(crate) fn run(lab: Lab, format: Format) -> anyhow::Result<()> {
    match lab.run(format == Format::Json) {
        0 => Ok(()),
        code => std::process::exit(code.into()),
    }
}
