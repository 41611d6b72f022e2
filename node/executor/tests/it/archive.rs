//! Image archives without an engine: what is accepted, what is refused, what is reproducible.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::common::{sha256, tiny_elf};
use dockercomp_executor::{
    ArchiveError, ElfError, ImageInfo, PackError, inspect_archive, pack_static_binary,
};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

/// An archive under construction.
struct Archive {
    directory: TempDir,
    builder: Builder<File>,
}

impl Archive {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = File::create(directory.path().join("a.tar")).expect("file");
        Self { directory, builder: Builder::new(file) }
    }

    fn entry(mut self, path: &str, kind: EntryType, target: &str, bytes: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        // Written past the checks of the library, as an attacker would.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        self.builder.append(&header, bytes).expect("entry");
        self
    }

    fn file(self, path: &str, bytes: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, "", bytes)
    }

    fn json(self, path: &str, value: &Value) -> Self {
        self.file(path, value.to_string().as_bytes())
    }

    /// A blob of an OCI layout, named by its digest.
    fn blob(self, bytes: &[u8]) -> Self {
        self.file(&format!("blobs/sha256/{}", sha256(bytes)), bytes)
    }

    fn inspect(self) -> Result<ImageInfo, ArchiveError> {
        self.builder.into_inner().expect("end").sync_all().expect("sync");
        inspect_archive(&self.directory.path().join("a.tar"))
    }
}

fn config() -> Value {
    json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["/p"], "Cmd": ["a"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:11"]},
    })
}

fn manifest() -> Value {
    json!([{"Config": "c.json", "RepoTags": ["debian:latest"], "Layers": ["l/layer.tar"]}])
}

fn saved(config: &Value) -> Archive {
    Archive::new().json("c.json", config).json("manifest.json", &manifest())
}

fn pack(directory: &Path, name: &str) -> (PathBuf, String) {
    let binary = directory.join("binary");
    fs::write(&binary, tiny_elf(62)).expect("binary");
    let archive = directory.join(format!("{name}.tar"));
    let mut file = File::create(&archive).expect("archive");
    let id = pack_static_binary(&binary, name, &mut file).expect("it is static");
    (archive, id)
}

#[test]
fn a_docker_save_archive_is_read() {
    let info = saved(&config()).file("l/layer.tar", b"layer").inspect().expect("an image");
    assert_eq!(info.id, format!("sha256:{}", sha256(config().to_string().as_bytes())));
    assert_eq!(info.tags, ["debian:latest"]);
    assert_eq!(info.entrypoint, ["/p"]);
    assert_eq!(info.cmd, ["a"]);
    assert_eq!(info.architecture, "amd64");
    assert_eq!(info.diff_ids, ["sha256:11"]);
    assert_eq!(info.layer_bytes, 5);
}

/// Older engines write a layer that occurs twice as a link to its first copy.
#[test]
fn links_inside_an_archive_are_followed() {
    let link = |archive: Archive, kind, target| {
        archive.file("other/layer.tar", b"layer").entry("l/layer.tar", kind, target, b"")
    };
    let symbolic = link(saved(&config()), EntryType::Symlink, "../other/layer.tar").inspect();
    assert_eq!(symbolic.expect("an image").layer_bytes, 5);
    let hard = link(saved(&config()), EntryType::Link, "other/layer.tar").inspect();
    assert_eq!(hard.expect("an image").layer_bytes, 5);

    let outside = link(saved(&config()), EntryType::Symlink, "../../other").inspect();
    assert!(matches!(outside, Err(ArchiveError::UnsafePath { .. })), "{outside:?}");
    let ring = link(saved(&config()), EntryType::Symlink, "layer.tar").inspect();
    assert!(matches!(ring, Err(ArchiveError::Missing { .. })), "{ring:?}");
}

#[test]
fn an_oci_layout_is_read() {
    let config = config().to_string();
    let manifest = json!({
        "config": {"digest": format!("sha256:{}", sha256(config.as_bytes()))},
        "layers": [{"digest": format!("sha256:{}", sha256(b"layer"))}],
    })
    .to_string();
    let image = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": format!("sha256:{}", sha256(manifest.as_bytes())),
        "annotations": {"org.opencontainers.image.ref.name": "v1"},
    });
    let attestation = json!({
        "digest": format!("sha256:{}", "0".repeat(64)),
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    });
    let blobs = || Archive::new().blob(config.as_bytes()).blob(manifest.as_bytes()).blob(b"layer");
    let read = |index: Value| blobs().json("index.json", &index).inspect();

    let info = read(json!({"manifests": [image]})).expect("an image");
    assert_eq!(info.id, format!("sha256:{}", sha256(config.as_bytes())));
    assert_eq!(info.tags, ["v1"]);
    assert_eq!(info.layer_bytes, 5);

    // As build tools write it: an index in the index, and an attestation beside the image.
    let nested = json!({"manifests": [image, attestation]}).to_string();
    let index = json!({"manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": format!("sha256:{}", sha256(nested.as_bytes())),
    }]});
    let info = blobs().blob(nested.as_bytes()).json("index.json", &index).inspect();
    assert_eq!(info.expect("an image").layer_bytes, 5);

    let several = read(json!({"manifests": [image, image]}));
    assert!(matches!(several, Err(ArchiveError::ImageCount { count: 2 })), "{several:?}");
    let none = read(json!({"manifests": [attestation]}));
    assert!(matches!(none, Err(ArchiveError::ImageCount { count: 0 })), "{none:?}");

    let forged = Archive::new()
        .file(&format!("blobs/sha256/{}", sha256(manifest.as_bytes())), b"{}")
        .json("index.json", &json!({"manifests": [image]}))
        .inspect();
    assert!(matches!(forged, Err(ArchiveError::Digest { .. })), "{forged:?}");
}

#[test]
fn what_cannot_be_run_is_refused() {
    let with = |path: &str, value: Value| {
        let mut config = config();
        *config.pointer_mut(path).expect("a field") = value;
        saved(&config).file("l/layer.tar", b"layer").inspect()
    };
    let volume = with("/config", json!({"Volumes": {"/data": {}}}));
    assert!(matches!(volume, Err(ArchiveError::Volume { path }) if path == "/data"));
    let windows = with("/os", json!("windows"));
    assert!(matches!(windows, Err(ArchiveError::OperatingSystem { os }) if os == "windows"));
    let layers = with("/rootfs/diff_ids", json!([]));
    assert!(matches!(layers, Err(ArchiveError::LayerCount { layers: 1, diff_ids: 0 })));

    let missing = saved(&config()).inspect();
    assert!(matches!(missing, Err(ArchiveError::Missing { path }) if path == "l/layer.tar"));
    let nothing = Archive::new().file("readme", b"").inspect();
    assert!(matches!(nothing, Err(ArchiveError::NotAnImage { .. })), "{nothing:?}");
    let malformed = Archive::new().file("manifest.json", b"[{").inspect();
    assert!(matches!(malformed, Err(ArchiveError::Json { .. })), "{malformed:?}");
    for (count, images) in [(0, json!([])), (2, json!([manifest()[0], manifest()[0]]))] {
        let several = Archive::new().json("manifest.json", &images).inspect();
        assert!(matches!(several, Err(ArchiveError::ImageCount { count: n }) if n == count));
    }
    let large = Archive::new().file("manifest.json", &vec![b' '; (4 << 20) + 1]).inspect();
    assert!(matches!(large, Err(ArchiveError::TooMany { .. })), "{large:?}");
}

#[test]
fn hostile_entries_are_refused() {
    for path in ["/etc/passwd", "../escape", "a/../../escape"] {
        let outside = saved(&config()).file(path, b"x").inspect();
        assert!(matches!(outside, Err(ArchiveError::UnsafePath { .. })), "{path}: {outside:?}");
    }
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse] {
        let special = saved(&config()).entry("special", kind, "", b"").inspect();
        assert!(matches!(special, Err(ArchiveError::UnexpectedEntry { .. })), "{kind:?}");
    }
    let mut many = Archive::new();
    for n in 0..=10_000 {
        many = many.file(&n.to_string(), b"");
    }
    assert!(matches!(many.inspect(), Err(ArchiveError::TooMany { what: "entries", .. })));
}

#[test]
fn incomplete_and_compressed_files_are_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (archive, _) = pack(directory.path(), "p");
    let bytes = fs::read(&archive).expect("archive");
    for length in [600, bytes.len() / 2, bytes.len() - 1600] {
        fs::write(&archive, &bytes[..length]).expect("archive");
        let error = inspect_archive(&archive).expect_err("it is cut");
        assert!(error.is_archives_fault(), "{length}: {error:?}");
    }
    File::create(&archive).and_then(|mut f| f.write_all(b"\x1f\x8b\x08 gzip")).expect("file");
    let error = inspect_archive(&archive).expect_err("it is compressed");
    assert!(matches!(error, ArchiveError::Compressed), "{error:?}");
    let error = inspect_archive(&directory.path().join("missing")).expect_err("it is missing");
    assert!(!error.is_archives_fault(), "{error:?}");
}

/// The id is a promise to every node: it must not depend on when and where a binary is packed.
#[test]
fn packing_is_reproducible() {
    let (here, there) = (tempfile::tempdir().expect("here"), tempfile::tempdir().expect("there"));
    let (first, id) = pack(here.path(), "program");
    let (second, _) = pack(there.path(), "program");
    assert_eq!(fs::read(&first).expect("first"), fs::read(second).expect("second"));
    assert_eq!(id, "sha256:5c94cfa2923a604354557e47385c0477ba69e964e61b102045474f2f0727f78d");

    let info = inspect_archive(&first).expect("an image");
    assert_eq!(info.id, id);
    assert_eq!(info.entrypoint, ["/program"]);
    assert_eq!(info.architecture, "amd64");
    assert_ne!(pack(here.path(), "other").1, id);
}

#[test]
fn only_static_programs_with_plain_names_are_packed() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let binary = directory.path().join("binary");
    fs::write(&binary, "#!/bin/sh\n").expect("file");
    let packed = pack_static_binary(&binary, "p", &mut Vec::new());
    assert!(matches!(packed, Err(PackError::NotStatic(ElfError::NotElf))), "{packed:?}");
    fs::write(&binary, tiny_elf(62)).expect("file");
    for name in ["", ".", "..", "a/b", "/p", "etc", "output", "a b", &"x".repeat(65)] {
        let packed = pack_static_binary(&binary, name, &mut Vec::new());
        assert!(matches!(packed, Err(PackError::Name { .. })), "{name:?}: {packed:?}");
    }
}
