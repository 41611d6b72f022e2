//! A file that comes as the body of a request, on its way into the store.
//!
//! It lies in the store's own directory for what is temporary, which is emptied when the store
//! is opened, so nothing is left of one that was cut off.

use std::path::PathBuf;

use axum::body::Body;
use dockercomp_store::Store;
use futures::StreamExt;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use crate::api::{ProblemKind, Step};
use crate::reply::Refused;

/// The file; it is deleted when this is dropped.
pub(crate) struct Spool {
    dir: PathBuf,
    pub(crate) path: PathBuf,
}

impl Spool {
    /// Writes the whole body, unless it is more than there is room for.
    pub(crate) async fn fill(
        store: &Store,
        name: &str,
        body: Body,
        steps: &mpsc::Sender<Step>,
    ) -> Result<Self, Refused> {
        let dir = store.dir().join("tmp").join(hex::encode(rand::random::<[u8; 8]>()));
        let path = dir.join(name);
        let spool = Self { dir, path };
        let parent = spool.path.parent().unwrap_or(&spool.dir);
        fs::create_dir_all(parent).await.map_err(Refused::internal)?;
        let mut file = File::create_new(&spool.path).await.map_err(Refused::internal)?;
        let room = store.room_bytes();
        let mut body = body.into_data_stream();
        let mut total_bytes = 0;
        while let Some(part) = body.next().await {
            let part = part.map_err(|error| Refused::new(ProblemKind::BadRequest, error))?;
            total_bytes += part.len() as u64;
            if room.is_some_and(|room| total_bytes > room) {
                let message = format!("there is no room for more than {total_bytes} bytes");
                return Err(Refused::message(ProblemKind::Quota, message)
                    .fix("give more room with --disk, or free some"));
            }
            file.write_all(&part).await.map_err(Refused::internal)?;
            let _ = steps.try_send(Step::Progress { done_bytes: 0, total_bytes });
        }
        file.flush().await.map_err(Refused::internal)?;
        Ok(spool)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // What cannot be deleted now is deleted when the store is opened again.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
