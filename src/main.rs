//! `dockercomp`: the one binary, thin. Each noun of the command line is a file in [`cli`].

mod cli;
mod client;
mod demo;
mod failure;
mod job_folder;
mod output;
mod paths;
mod progress;
mod results;
mod verify;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let output = cli.output;
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let done = runtime.block_on(cli.run());
            // Blocking work that nobody waits for any more must not hold the process.
            runtime.shutdown_timeout(std::time::Duration::from_secs(2));
            done
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error, output),
    }
}
