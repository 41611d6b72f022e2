//! What all long-running commands share: where to listen, and when to stop.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use crate::failure::Code;
use multiaddr::{Multiaddr, Protocol};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Options of every process that is part of the network.
#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    /// Where this process keeps its identity and data.
    #[arg(long, env = "DOCKERCOMP_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Address to listen on, for TCP and QUIC. 127.0.0.1 keeps the process on this machine.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), value_name = "IP")]
    ip: IpAddr,

    /// Port to listen on, for TCP and QUIC; 0 lets the system choose.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    port: u16,

    /// Address that others are told, where it differs from what is listened on.
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) external: Vec<Multiaddr>,

    /// Stop when standard input closes, so that no process outlives the one that started it.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

impl Start {
    /// The addresses to listen on.
    pub(crate) fn listen(&self) -> Vec<Multiaddr> {
        let ip = Multiaddr::from(self.ip);
        let tcp = ip.clone().with(Protocol::Tcp(self.port));
        let quic = ip.with(Protocol::Udp(self.port)).with(Protocol::QuicV1);
        vec![tcp, quic]
    }

    /// A token that is cancelled when the process is asked to stop: by SIGINT, by SIGTERM, or
    /// by the end of standard input where that was asked for.
    pub(crate) fn shutdown(&self) -> anyhow::Result<CancellationToken> {
        let token = CancellationToken::new();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let cancel = token.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            cancel.cancel();
            // Whoever asks twice does not want to wait.
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(Code::Interrupted as i32);
        });
        if self.until_stdin_closes {
            let cancel = token.clone();
            tokio::spawn(async move {
                let mut byte = [0; 64];
                while matches!(tokio::io::stdin().read(&mut byte).await, Ok(read) if read > 0) {}
                cancel.cancel();
            });
        }
        Ok(token)
    }
}
