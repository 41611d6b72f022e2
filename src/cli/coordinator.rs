//! `dockercomp coordinator`.

use std::net::SocketAddr;

use dockercomp_coordinator::{Options, Service};
use multiaddr::Multiaddr;
use serde::Serialize;

use super::start::Start;
use crate::output::{self, Format};
use crate::paths::{Role, data_dir};

/// Commands about a project's coordinator.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Coordinator {
    /// Start a coordinator and print the link with which nodes join.
    Start(StartCoordinator),
}

/// Options of `coordinator start`.
#[derive(Debug, clap::Args)]
pub(crate) struct StartCoordinator {
    #[command(flatten)]
    start: Start,

    /// What people call the project.
    #[arg(long, default_value = "my project")]
    name: String,

    /// Address of a bootstrap node, ending in /p2p/ID; may be repeated.
    #[arg(long, required = true, value_name = "MULTIADDR")]
    bootstrap: Vec<Multiaddr>,

    /// Loopback address for commands on this machine; port 0 lets the system choose.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    api: SocketAddr,
}

#[derive(Serialize)]
struct Ready {
    data_dir: std::path::PathBuf,
    peer_id: String,
    project: String,
    join_link: String,
}

impl Coordinator {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<()> {
        let Self::Start(args) = self;
        let shutdown = args.start.shutdown()?;
        let dir = data_dir(args.start.data_dir.as_ref(), Role::Coordinator)?;
        let options = Options {
            dir: dir.clone(),
            name: args.name,
            listen: args.start.listen(),
            external: args.start.external.clone(),
            bootstrap: args.bootstrap,
            api: args.api,
        };
        let service = Service::start(options, shutdown).await.map_err(super::start_failed)?;
        let ready = Ready {
            data_dir: dir,
            peer_id: service.peer_id().to_string(),
            project: service.project().to_string(),
            join_link: service.join_link().to_string(),
        };
        output::print_line(format, &ready, |ready| {
            format!(
                "coordinator of project {} is ready; nodes join with:\n  \
                 dockercomp node start '{}'\n",
                ready.project, ready.join_link
            )
        });
        service.stopped().await?;
        Ok(())
    }
}
