//! `dockercomp bootstrap`.

use dockercomp_bootstrap::{Options, Service};
use serde::Serialize;

use super::start::Start;
use crate::output::{self, Format};
use crate::paths::{Role, data_dir};

/// Commands about the door to a network.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bootstrap {
    /// Start a bootstrap node and print its addresses.
    Start(Start),
}

#[derive(Serialize)]
struct Ready {
    data_dir: std::path::PathBuf,
    addresses: Vec<String>,
}

impl Bootstrap {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<()> {
        let Self::Start(start) = self;
        let shutdown = start.shutdown()?;
        let dir = data_dir(start.data_dir.as_ref(), Role::Bootstrap)?;
        let options =
            Options { dir: dir.clone(), listen: start.listen(), external: start.external.clone() };
        let service = Service::start(options, shutdown).await.map_err(super::start_failed)?;
        let addresses = service.addresses().iter().map(ToString::to_string).collect();
        output::print_line(format, &Ready { data_dir: dir, addresses }, |ready| {
            let mut text = String::from("bootstrap node is ready; give one of these to others:\n");
            for address in &ready.addresses {
                text += &format!("  {address}\n");
            }
            text
        });
        service.stopped().await;
        Ok(())
    }
}
