//! Network namespaces: a network that can be cut.
//!
//! ```text
//! hub: bridge 10.79.0.1 ── bootstrap node, coordinator
//!        │         │
//!      veth      veth       its end in the hub goes down for a cut
//!        │         │
//!  group 0:      group 1: 10.79.2.1 ── the hosts of the second group
//! ```
//!
//! Hosts of one group share a namespace: what is between them is not cut. Nothing of this is
//! visible outside, and commands for a process run in its namespace, where its loopback is.
//! Needs root.

use std::path::Path;

use tokio::process::Command;

use super::error::LabError;

/// The namespaces of one run.
#[derive(Debug)]
pub(super) struct Namespaces {
    hub: String,
    groups: Vec<String>,
}

impl Namespaces {
    /// Makes one for the coordinator and one for each group.
    ///
    /// # Errors
    /// If this process may not, with what the system said.
    pub(super) async fn make(groups: usize) -> Result<Self, LabError> {
        let stem = format!("dockercomp-lab-{}", std::process::id());
        let hub = format!("{stem}-hub");
        let groups = (0..groups).map(|group| format!("{stem}-{group}")).collect();
        let made = Self { hub, groups };
        match made.build().await {
            Ok(()) => Ok(made),
            Err(error) => {
                made.remove().await;
                Err(error)
            }
        }
    }

    async fn build(&self) -> Result<(), LabError> {
        let hub = &self.hub;
        ip(&format!("netns add {hub}")).await?;
        ip(&format!("-n {hub} link set lo up")).await?;
        ip(&format!("-n {hub} link add bridge type bridge")).await?;
        ip(&format!("-n {hub} addr add {}/16 dev bridge", Self::HUB)).await?;
        ip(&format!("-n {hub} link set bridge up")).await?;
        for (group, name) in self.groups.iter().enumerate() {
            ip(&format!("netns add {name}")).await?;
            ip(&format!("-n {name} link set lo up")).await?;
            ip(&format!("-n {hub} link add g{group} type veth peer name uplink netns {name}"))
                .await?;
            ip(&format!("-n {hub} link set g{group} master bridge up")).await?;
            ip(&format!("-n {name} addr add {}/16 dev uplink", Self::address(group))).await?;
            ip(&format!("-n {name} link set uplink up")).await?;
        }
        Ok(())
    }

    /// Where bootstrap node and coordinator listen.
    pub(super) const HUB: &str = "10.79.0.1";

    /// Where the hosts of a group listen.
    pub(super) fn address(group: usize) -> String {
        format!("10.79.{}.1", group + 1)
    }

    /// Cuts a group off, or mends its link.
    pub(super) async fn set_link(&self, group: usize, is_up: bool) -> Result<(), LabError> {
        let state = if is_up { "up" } else { "down" };
        ip(&format!("-n {} link set g{group} {state}", self.hub)).await
    }

    /// The program and the first arguments that run `binary` with the coordinator, or in the
    /// namespace of a group.
    pub(super) fn enter(&self, group: Option<usize>, binary: &Path) -> Vec<String> {
        let name = group.and_then(|group| self.groups.get(group)).unwrap_or(&self.hub);
        let entering = ["ip", "netns", "exec", name].map(str::to_owned);
        entering.into_iter().chain([binary.display().to_string()]).collect()
    }

    /// Removes them. Whatever cannot be removed is told.
    pub(super) async fn remove(self) {
        for name in self.groups.iter().chain([&self.hub]) {
            if Path::new("/run/netns").join(name).exists()
                && let Err(error) = ip(&format!("netns del {name}")).await
            {
                eprintln!("{error}");
            }
        }
    }
}

/// Runs `ip` with these arguments, none of which holds a space.
async fn ip(arguments: &str) -> Result<(), LabError> {
    let refused = |reason| LabError::Namespaces { command: format!("ip {arguments}"), reason };
    let output = Command::new("ip").args(arguments.split(' ')).kill_on_drop(true).output().await;
    let output = output.map_err(|error| refused(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
