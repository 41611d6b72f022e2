//! Images as folders of their parts, without an engine: how they are split, and what is refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use dockercomp_executor::{
    ArchiveError, PARTS_MAX, Program, SplitError, are_parts, inspect_archive, pack_static_binary,
    split_image,
};
use dockercomp_protocol::execution::ExecutorKind;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{TestImage, files_in, layer, sha256, tiny_elf};

/// An image that was split, in a folder that a test may spoil.
struct Split {
    root: TempDir,
    image: TestImage,
}

impl Split {
    fn new() -> Self {
        Self::of(TestImage::of(&[
            &layer(&[("base", 0o644, b"base")]),
            &layer(&[("top", 0o644, b"top")]),
        ]))
    }

    fn of(image: TestImage) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        image.save(&root.path().join("image.tar"));
        let split = Self { root, image };
        let info = split_image(&split.root.path().join("image.tar"), &split.parts());
        assert_eq!(info.expect("an image").id, split.image.id());
        split
    }

    fn parts(&self) -> PathBuf {
        self.root.path().join("parts")
    }

    fn blob(&self, bytes: &[u8]) -> PathBuf {
        self.parts().join("blobs/sha256").join(sha256(bytes))
    }

    /// Puts another file in the place of the manifest.
    fn manifest(&self, value: &Value) {
        fs::write(self.parts().join("manifest.json"), value.to_string()).expect("a file");
    }

    /// Why the folder is no image, by looking at it without its layers.
    fn refused(&self) -> ArchiveError {
        let refused = inspect_archive(&self.parts()).expect_err("it is refused");
        assert!(refused.is_archives_fault(), "{refused:?}");
        refused
    }

    /// Why it is no image when its layers are copied.
    fn refused_in_full(&self) -> ArchiveError {
        assert!(inspect_archive(&self.parts()).is_ok(), "only its layers are wrong");
        match split_image(&self.parts(), &self.root.path().join("copy")) {
            Err(SplitError::Archive(error)) if error.is_archives_fault() => error,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_image_becomes_files_that_are_named_by_their_digests() {
    let split = Split::new();
    let files = files_in(&split.parts());
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
    let [base, top] = &split.image.layers[..] else { panic!("two layers") };
    let manifest = format!(
        r#"[{{"Config":"{}","RepoTags":null,"Layers":["{}","{}"]}}]"#,
        path(&split.image.config),
        path(base),
        path(top)
    );
    assert_eq!(files.len(), 4);
    assert_eq!(files["manifest.json"], manifest.as_bytes(), "without the archive's tag");
    for bytes in [&split.image.config, base, top] {
        assert!(files[&path(bytes)] == *bytes);
    }
    assert!(are_parts(files.keys().map(String::as_str)));

    // The folder says the same of itself as the archive did, but for the tag.
    let mut archive = inspect_archive(&split.root.path().join("image.tar")).expect("an image");
    assert_eq!(archive.tags, ["debian:latest"]);
    archive.tags.clear();
    assert_eq!(inspect_archive(&split.parts()).expect("an image"), archive);
    // And it can be split itself, into the same.
    let copy = split.root.path().join("copy");
    split_image(&split.parts(), &copy).expect("an image");
    assert!(files_in(&copy) == files);
}

#[test]
fn the_same_image_in_another_format_becomes_the_same_parts() {
    let split = Split::new();
    let [base, top] = &split.image.layers[..] else { panic!("two layers") };
    let descriptor = |bytes: &[u8]| json!({"digest": format!("sha256:{}", sha256(bytes))});
    let manifest = json!({
        "config": descriptor(&split.image.config), "layers": [descriptor(base), descriptor(top)],
    });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({"manifests": [descriptor(&manifest)]}).to_string().into_bytes();
    let mut files = vec![("index.json".to_owned(), &index)];
    for bytes in [&manifest, &split.image.config, base, top] {
        files.push((format!("blobs/sha256/{}", sha256(bytes)), bytes));
    }
    let files: Vec<_> =
        files.iter().map(|(path, bytes)| (path.as_str(), 0o644, &bytes[..])).collect();
    let oci = split.root.path().join("oci.tar");
    fs::write(&oci, layer(&files)).expect("an archive");
    let copy = split.root.path().join("copy");
    split_image(&oci, &copy).expect("an image");
    assert!(files_in(&copy) == files_in(&split.parts()));
}

#[test]
fn images_with_a_layer_in_common_have_that_file_in_common() {
    let base = layer(&[("base", 0o644, &[7; 100_000])]);
    let one = Split::of(TestImage::of(&[&base, &layer(&[("one", 0o644, b"1")])]));
    let two = Split::of(TestImage::of(&[&base, &layer(&[("two", 0o644, b"2")]), &base]));
    let (one, two) = (files_in(&one.parts()), files_in(&two.parts()));
    let common: Vec<_> = one.iter().filter(|(path, bytes)| two.get(*path) == Some(bytes)).collect();
    assert_eq!(common.len(), 1);
    assert!(*common[0].1 == base);
    assert_eq!(two.len(), 4, "a layer that occurs twice is one file");
}

/// A layer that came compressed stays so: what it holds only the engine sees.
#[test]
fn a_compressed_layer_is_kept_as_it_is() {
    let mut image = TestImage::of(&[&layer(&[("base", 0o644, b"base")])]);
    image.layers = vec![b"\x1f\x8b\x08 and so on".to_vec()];
    let split = Split::of(image.clone());
    assert!(fs::read(split.blob(&image.layers[0])).expect("a part") == image.layers[0]);
    fs::write(split.blob(&image.layers[0]), b"\x1f\x8b\x08 and so far").expect("a part");
    assert!(matches!(split.refused_in_full(), ArchiveError::Digest { .. }));
}

#[test]
fn a_static_binary_becomes_the_parts_of_the_image_that_it_is_packed_into() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (binary, archive) = (root.path().join("binary"), root.path().join("image.tar"));
    fs::write(&binary, tiny_elf(62)).expect("a binary");
    let mut bytes = Vec::new();
    let id = pack_static_binary(&binary, "program", &mut bytes).expect("it is static");
    fs::write(&archive, bytes).expect("an archive");
    let (direct, packed) = (root.path().join("direct"), root.path().join("packed"));
    assert_eq!(split_image(&binary, &direct).expect("an image").id, id);
    assert_eq!(split_image(&archive, &packed).expect("an image").id, id);
    assert!(files_in(&direct) == files_in(&packed));

    fs::write(&binary, tiny_elf(22)).expect("a binary");
    let refused = split_image(&binary, &root.path().join("foreign"));
    assert!(matches!(refused, Err(SplitError::Binary(_))), "{refused:?}");
}

#[test]
fn layers_that_are_not_those_of_the_configuration_are_refused() {
    // In the archive of an owner already.
    let mut image = TestImage::of(&[&layer(&[("base", 0o644, b"base")])]);
    image.layers[0][600] ^= 1;
    let root = tempfile::tempdir().expect("a temporary directory");
    let archive = root.path().join("image.tar");
    image.save(&archive);
    let refused = split_image(&archive, &root.path().join("parts"));
    let Err(SplitError::Archive(ArchiveError::Digest { path, .. })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(path, "l0/layer.tar");

    // In the parts, whose bytes are not those of their name,
    let split = Split::new();
    let [base, top] = &split.image.layers[..] else { panic!("two layers") };
    let mut wrong = base.clone();
    wrong[600] ^= 1;
    fs::write(split.blob(base), wrong).expect("a part");
    assert!(matches!(split.refused_in_full(), ArchiveError::Digest { .. }));
    // or too few of them,
    fs::write(split.blob(base), &base[..base.len() - 512]).expect("a part");
    assert!(matches!(split.refused_in_full(), ArchiveError::Digest { .. }));
    fs::write(split.blob(base), base).expect("a part");
    // or in another order than the configuration has them.
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
    let config = path(&split.image.config);
    split.manifest(&json!([{"Config": config, "Layers": [path(top), path(base)]}]));
    assert!(matches!(split.refused_in_full(), ArchiveError::Digest { .. }));
}

#[test]
fn folders_that_are_not_exactly_an_image_are_refused() {
    let missing = Split::new();
    fs::remove_file(missing.blob(&missing.image.layers[1])).expect("a part");
    assert!(matches!(missing.refused(), ArchiveError::Missing { .. }));

    let config = Split::new();
    let mut bytes = config.image.config.clone();
    bytes.push(b' ');
    fs::write(config.blob(&config.image.config), bytes).expect("a part");
    assert!(matches!(config.refused(), ArchiveError::Digest { .. }));

    for name in ["readme", "blobs/sha256/readme", "blobs/readme", "index.json", ".part"] {
        let extra = Split::new();
        fs::write(extra.parts().join(name), b"x").expect("a file");
        assert!(matches!(extra.refused(), ArchiveError::Extra { path } if path == name));
    }
    // Named rightly, and of no use.
    let extra = Split::new();
    fs::write(extra.blob(b"x"), b"x").expect("a file");
    assert!(matches!(extra.refused(), ArchiveError::Extra { .. }));

    let link = Split::new();
    let part = link.blob(&link.image.layers[0]);
    fs::rename(&part, link.root.path().join("elsewhere")).expect("a part");
    symlink(link.root.path().join("elsewhere"), &part).expect("a link");
    assert!(matches!(link.refused(), ArchiveError::UnexpectedEntry { .. }));

    let nothing = Split::new();
    fs::remove_file(nothing.parts().join("manifest.json")).expect("a file");
    assert!(matches!(nothing.refused(), ArchiveError::NotAnImage { .. }));
}

#[test]
fn manifests_that_lead_elsewhere_or_say_too_much_are_refused() {
    let split = Split::new();
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
    let config = path(&split.image.config);
    let layers: Vec<String> = split.image.layers.iter().map(|layer| path(layer)).collect();
    for name in ["../image.tar", "/etc/passwd", "blobs/sha256/../../../image.tar"] {
        split.manifest(&json!([{"Config": config, "Layers": [name, layers[1]]}]));
        assert!(matches!(split.refused(), ArchiveError::UnsafePath { path } if path == name));
        split.manifest(&json!([{"Config": name, "Layers": layers}]));
        assert!(matches!(split.refused(), ArchiveError::UnsafePath { path } if path == name));
    }
    let upper = layers[0].to_uppercase().replace("BLOBS/SHA256", "blobs/sha256");
    for name in ["manifest.json", "layer.tar", &format!("./{}", layers[0]), &upper] {
        split.manifest(&json!([{"Config": config, "Layers": [name, layers[1]]}]));
        assert!(matches!(split.refused(), ArchiveError::NotByDigest { path } if path == name));
    }

    let image = json!({"Config": config, "Layers": layers});
    split.manifest(&json!([image, image]));
    assert!(matches!(split.refused(), ArchiveError::ImageCount { count: 2 }));
    split.manifest(&json!([{"Config": config, "Layers": [layers[0], layers[1], layers[1]]}]));
    assert!(matches!(split.refused(), ArchiveError::LayerCount { layers: 3, diff_ids: 2 }));
    split.manifest(&json!([{"Config": config, "Layers": vec![&layers[0]; 129]}]));
    // The other layer is not named any more.
    assert!(matches!(split.refused(), ArchiveError::Extra { .. }));
    let other = split.blob(&split.image.layers[1]);
    fs::remove_file(other).expect("a part");
    assert!(matches!(split.refused(), ArchiveError::TooMany { what: "layers", max: 128 }));
    split.manifest(&json!(" ".repeat(4 << 20)));
    assert!(matches!(split.refused(), ArchiveError::TooMany { what: "bytes of JSON", .. }));

    let many = Split::new();
    for n in 0..10_000 {
        fs::write(many.parts().join(n.to_string()), b"").expect("a file");
    }
    assert!(matches!(many.refused(), ArchiveError::TooMany { what: "entries", .. }));
}

#[test]
fn parts_are_known_by_their_names() {
    let blob = |n: usize| format!("blobs/sha256/{n:064}");
    let of = |count: usize| {
        let mut paths: Vec<String> = (0..count - 1).map(blob).collect();
        paths.push("manifest.json".to_owned());
        paths
    };
    let are = |paths: &[String]| are_parts(paths.iter().map(String::as_str));
    assert!(are(&of(2)) && are(&of(PARTS_MAX)));
    assert!(!are(&of(PARTS_MAX + 1)));
    assert!(!are(&[blob(1), blob(2)]), "without a manifest");
    for path in ["readme", "blobs/sha256/12", "blobs/md5/12", "a/manifest.json"] {
        let mut paths = of(3);
        paths.push(path.to_owned());
        assert!(!are(&paths), "{path}");
    }
}

/// One file is the program itself, several are an image in parts; a module is never a folder.
#[test]
fn a_program_is_found_where_its_dataset_is_laid_out() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let laid_out = |kind, folder: &Path| {
        Program::laid_out(kind, "p".to_owned(), folder).expect("it can be read")
    };
    let id = "p".to_owned();
    assert_eq!(laid_out(ExecutorKind::Docker, root.path()), None);
    fs::create_dir(root.path().join("d")).expect("a folder");
    let file = root.path().join("d/file");
    fs::write(&file, b"x").expect("a file");
    let image = |archive| Some(Program::Image { id: id.clone(), archive });
    let module = Some(Program::Module { id: id.clone(), file: file.clone() });
    assert_eq!(laid_out(ExecutorKind::Docker, root.path()), image(file));
    assert_eq!(laid_out(ExecutorKind::Wasm, root.path()), module);
    fs::write(root.path().join("e"), b"x").expect("a file");
    assert_eq!(laid_out(ExecutorKind::Docker, root.path()), image(root.path().to_owned()));
    assert_eq!(laid_out(ExecutorKind::Wasm, root.path()), module);
}
