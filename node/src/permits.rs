//! Permissions to have the outputs of others: shown by the node that works on them, checked by
//! the node that holds them.
//!
//! Outputs are served to their project's coordinator only ([`dockercomp_peer::Peer`] sees to that). With a
//! lease on a unit of a later stage comes the coordinator's signed permission; [`present`]
//! shows it to every holder before the outputs are fetched, and [`serve`] opens them to the one
//! whom it names.
//!
//! # What is not here
//!
//! Memory: a holder that was restarted has forgotten who may have what, until it is shown
//! again. Meanwhile the outputs come from others, the coordinator among them.

use std::collections::BTreeSet;
use std::time::Duration;

use dockercomp_network::framed::{read_frame, write_frame};
use dockercomp_network::rpc::Client;
use dockercomp_network::{AcceptError, Stream, StreamProtocol};
use dockercomp_peer::{Located, Peer};
use dockercomp_protocol::NodeId;
use dockercomp_protocol::limits::PERMISSION_BYTES_MAX;
use dockercomp_protocol::wire::permit::{GRANTED, PROTOCOL, Permission, REFUSED};
use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a holder may take to answer. One that does not is one source less.
const PATIENCE: Duration = Duration::from_secs(5);
/// Permissions on one stream at most: a node shows one and goes.
const SHOWN_MAX: usize = 16;

/// Answers those who show permissions, until `shutdown`.
pub(crate) fn serve(
    peer: &Peer,
    shutdown: CancellationToken,
) -> Result<JoinHandle<()>, AcceptError> {
    let mut incoming = peer.network().accept(StreamProtocol::new(PROTOCOL))?;
    let peer = peer.clone();
    Ok(tokio::spawn(async move {
        while let Some((asker, stream)) = tokio::select! {
            () = shutdown.cancelled() => None,
            next = incoming.next() => next,
        } {
            let (peer, shutdown) = (peer.clone(), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = answer(&peer, asker, stream) => {}
                }
            });
        }
    }))
}

async fn answer(peer: &Peer, asker: NodeId, mut stream: Stream) {
    for _ in 0..SHOWN_MAX {
        let read = read_frame(&mut stream, PERMISSION_BYTES_MAX);
        let Ok(Ok(shown)) = tokio::time::timeout(PATIENCE, read).await else { return };
        // It names no project: it is the one whose coordinator has signed it.
        let granted = peer.trusted().into_iter().find_map(|(project, coordinator)| {
            let permission = Permission::open_for(&shown, coordinator, asker).ok()?;
            peer.permit(project, &permission.outputs, asker);
            Some(())
        });
        if granted.is_none() {
            tracing::warn!(%asker, "permission refused");
        }
        let answer = if granted.is_some() { GRANTED } else { REFUSED };
        let write = write_frame(&mut stream, answer, PERMISSION_BYTES_MAX);
        if !matches!(tokio::time::timeout(PATIENCE, write).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Shows a permission to all holders at once. Whoever does not grant it will say that it does
/// not have the outputs.
pub(crate) async fn present(peer: &Peer, permission: &[u8], holders: &[Located]) {
    let mut known = BTreeSet::from([peer.id()]);
    let holders = holders.iter().filter(|holder| known.insert(holder.peer));
    join_all(holders.map(|holder| show(peer, permission, holder))).await;
}

async fn show(peer: &Peer, permission: &[u8], holder: &Located) {
    let network = peer.network().clone();
    // It only helps dialling.
    let _ = network.add_addresses(holder.peer, holder.addresses.clone()).await;
    let protocol = StreamProtocol::new(PROTOCOL);
    let mut client = Client::new(network, holder.peer, protocol, PERMISSION_BYTES_MAX, PATIENCE);
    match client.call(permission).await {
        Ok(answer) if *answer == *GRANTED => {}
        Ok(_) => tracing::info!(holder = %holder.peer, "permission not granted"),
        Err(error) => tracing::info!(holder = %holder.peer, %error, "permission not shown"),
    }
}
