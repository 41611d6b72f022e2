//! The JSON files of image archives: the fields that matter here, and no others.
//!
//! Unknown fields are ignored, for both formats grow by adding some.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ArchiveError;

/// An element of docker-save's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SavedImage {
    pub(super) config: String,
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct OciIndex {
    pub(super) manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
pub(super) struct OciManifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(super) fn is_index(&self) -> bool {
        self.media_type.contains("image.index") || self.media_type.contains("manifest.list")
    }

    pub(super) fn path(&self) -> Result<String, ArchiveError> {
        let name = self.digest.strip_prefix("sha256:").unwrap_or_default();
        if name.len() != 64 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ArchiveError::Missing { path: self.digest.clone() });
        }
        Ok(format!("blobs/sha256/{name}"))
    }
}

/// The part of an image configuration that matters here.
#[derive(Deserialize)]
pub(super) struct ImageConfig {
    pub(super) architecture: String,
    pub(super) os: String,
    pub(super) config: Option<RunConfig>,
    pub(super) rootfs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RunConfig {
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Option<Vec<String>>,
    pub(super) volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
pub(super) struct RootFs {
    #[serde(default)]
    pub(super) diff_ids: Vec<String>,
}
