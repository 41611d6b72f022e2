//! Images that are made elsewhere: from the local engine, and as docker-save archives. They
//! travel in parts, as chunks; no registry is asked.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::network::{Network, Process, docker_or_skip, example, json, run_on};

/// An image in the local engine; removed when it is dropped.
struct Image(&'static str);

impl Image {
    /// Makes it of one static binary.
    fn build(name: &'static str, folder: &Path) -> Self {
        let context = folder.join("context");
        fs::create_dir(&context).expect("a folder");
        fs::copy(example("mandelbrot/build/mandelbrot"), context.join("mandelbrot"))
            .expect("a program");
        let dockerfile = "FROM scratch\nCOPY mandelbrot /program\nENTRYPOINT [\"/program\"]\n";
        Self::of(name, &context, dockerfile)
    }

    /// Makes it of another one and a file.
    fn build_on(&self, name: &'static str, folder: &Path) -> Self {
        let context = folder.join("context-on");
        fs::create_dir(&context).expect("a folder");
        fs::write(context.join("file"), name).expect("a file");
        Self::of(name, &context, &format!("FROM {}\nCOPY file /file\n", self.0))
    }

    fn of(name: &'static str, context: &Path, dockerfile: &str) -> Self {
        fs::write(context.join("Dockerfile"), dockerfile).expect("a file");
        docker(&["build", "--quiet", "--tag", name, context.to_str().expect("a plain path")]);
        Self(name)
    }

    /// Saves it as an archive.
    fn save(&self, folder: &Path) -> PathBuf {
        let archive = folder.join("image.tar");
        docker(&["save", "--output", text(&archive), self.0]);
        archive
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force", self.0]).output();
    }
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().expect("docker starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The ids of the images that a node has in the engine.
fn ids_of(node: &Process) -> Vec<String> {
    let name = &sha256(node.text("peer_id").as_bytes())[..12];
    let images = docker(&["images", "--no-trunc", "--quiet", &format!("dockercomp-{name}")]);
    images.lines().map(str::to_owned).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn cid(info: &Value) -> String {
    info["cid"].as_str().expect("an id").to_owned()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Bytes of blocks that came to a node.
fn received(node: &Process) -> u64 {
    let status = json(run_on(&node.dir, &["node", "status"]));
    let traffic = status["peer"]["traffic"].as_array().expect("a list");
    traffic.iter().filter_map(|peer| peer["down_bytes"].as_u64()).sum()
}

/// A job of two work units whose program is this image.
fn job(network: &Network, image: &str) -> PathBuf {
    let job = format!(
        "version = 1\nname = \"image\"\n[program]\nimage = \"{image}\"\nargs = [\"tile\", \
         \"--column\", \"{{column}}\", \"--row\", \"0\", \"--columns\", \"8\", \"--rows\", \
         \"8\", \"--width\", \"64\", \"--height\", \"64\", \"--iterations\", \"100\"]\n\
         [sweep]\ncolumn = [0, 1]\n[validation]\nmax_error_results = 1\n"
    );
    let file = network.folder.path().join("job.toml");
    fs::write(&file, job).expect("a job file");
    file
}

/// Runs a job of this image on two nodes.
fn run(network: &Network, image: &str) {
    let job = network.submit(&job(network, image), &[]);
    let info = network.wait_for_done(&job);
    assert_eq!(info["results_valid"], 4, "{info:#}");
}

#[test]
fn images_from_the_engine_and_from_archives_run() {
    let Some(_docker) = docker_or_skip("images_from_the_engine_and_from_archives_run") else {
        return;
    };
    let mut network = Network::start();
    network.add_nodes(2, "docker", &[]);
    let folder = network.folder.path();
    let image = Image::build("dockercomp-it-image:test", folder);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", image.0]).trim().to_owned();
    let archive = image.save(folder);

    let from_engine = network.owner(&["image", "add", "--from-engine", image.0]);
    let from_archive = network.owner(&["image", "add", text(&archive)]);
    assert_eq!(cid(&from_engine), cid(&from_archive), "it is one image");
    assert_eq!(from_archive["shared_bytes"], from_archive["bytes"], "nothing was stored again");
    run(&network, &cid(&from_engine));
    for node in &network.nodes {
        assert_eq!(ids_of(node), [id.as_str()], "the engine has another image");
    }

    // One that has its layer: only the rest of it comes.
    let other = image.build_on("dockercomp-it-image:other", folder);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", other.0]).trim().to_owned();
    let added = network.owner(&["image", "add", "--from-engine", other.0]);
    let new = added["bytes"].as_u64().zip(added["shared_bytes"].as_u64());
    let new = new.map(|(all, shared)| all - shared).expect("numbers");
    let before: Vec<u64> = network.nodes.iter().map(received).collect();
    run(&network, &cid(&added));
    for (node, before) in network.nodes.iter().zip(before) {
        let came = received(node) - before;
        assert!((new..new + MANIFEST_BYTES_MAX).contains(&came), "{came} bytes came, not {new}");
        assert!(ids_of(node).contains(&id), "the engine has another image");
    }

    // As datasets of before were: one file, the archive or the binary itself.
    for file in [archive, example("mandelbrot/build/mandelbrot")] {
        let added = network.owner(&["dataset", "add", text(&file)]);
        assert_eq!(added["files"], 1);
        run(&network, &cid(&added));
    }
}

/// An archive as `docker save` writes it.
fn archive(path: &Path, layers: &[&[u8]]) {
    let digests: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/program"]},
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    let names: Vec<_> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["some:tag"], "Layers": names}]);
    let texts = [("c.json", config.to_string()), ("manifest.json", manifest.to_string())];
    let mut files: Vec<(&str, &[u8])> =
        texts.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    files.extend(names.iter().zip(layers).map(|(name, layer)| (name.as_str(), *layer)));
    fs::write(path, tar(&files)).expect("an archive");
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, *bytes).expect("an entry");
    }
    builder.into_inner().expect("an archive")
}

/// No engine is needed to add images and to fetch them.
#[test]
fn a_layer_of_two_images_is_stored_and_fetched_once() {
    let mut network = Network::start();
    network.add_nodes(1, "wasm", &[]);
    let folder = network.folder.path();
    // Chunks that do not repeat, more of them than a file's entry lists itself.
    let large: Vec<u8> =
        (0..5_u32 << 20).flat_map(|at| at.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let base = tar(&[("program", &large)]);
    let add = |name: &str, layers: &[&[u8]]| {
        let file = folder.join(name);
        archive(&file, layers);
        network.owner(&["image", "add", text(&file)])
    };
    let number = |info: &Value, key: &str| info[key].as_u64().expect("a number");
    let one = add("one.tar", &[&base, &tar(&[("one", b"1")])]);
    assert_eq!((number(&one, "shared_bytes"), number(&one, "files")), (0, 4));
    let two = add("two.tar", &[&base, &tar(&[("two", b"2")])]);
    assert_eq!(number(&two, "shared_bytes"), base.len() as u64);
    let new = number(&two, "bytes") - base.len() as u64;
    assert!(new < 8 << 10, "{new} bytes besides the layer");

    let layer = format!("blobs/sha256/{}", sha256(&base));
    let place = |dir: &Path, info: &Value| {
        let path = dir.join("data").join(cid(info)).join(&layer);
        fs::metadata(&path).expect("a body").ino()
    };
    let owner = &network.coordinator.dir;
    assert_eq!(place(owner, &one), place(owner, &two), "the layer was stored again");
    assert_eq!(fs::read_dir(owner.join("tmp")).expect("a folder").count(), 0, "parts are left");

    let node = &network.nodes[0];
    let fetch = |info: &Value| {
        let before = received(node);
        json(run_on(&node.dir, &["dataset", "get", &cid(info)]));
        received(node) - before
    };
    let first = fetch(&one);
    assert!(first >= number(&one, "bytes"), "{first} bytes came");
    let second = fetch(&two);
    assert!((new..new + MANIFEST_BYTES_MAX).contains(&second), "{second} bytes came, not {new}");
    assert_eq!(place(&node.dir, &one), place(&node.dir, &two), "the layer was stored again");

    // Either may go, and the other stays whole.
    json(run_on(&node.dir, &["dataset", "rm", &cid(&one)]));
    let found = json(run_on(&node.dir, &["dataset", "check", &cid(&two)]))["found"].clone();
    assert_eq!((&found["rotten_chunks"], &found["missing_chunks"]), (&0.into(), &0.into()));
    let parts = folder.join("parts");
    json(run_on(&node.dir, &["dataset", "get", &cid(&two), "--into", text(&parts)]));
    assert!(fs::read(parts.join(layer)).expect("a layer") == base);
}

#[test]
fn what_is_no_image_is_refused_before_anything_is_stored() {
    let network = Network::start();
    let folder = network.folder.path();
    let owner = |args: &[&str]| run_on(&network.coordinator.dir, args);
    let refused = |args: &[&str], words: &str| {
        let output = owner(args);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.contains(words) && message.contains("fix"), "{args:?}: {message}");
    };
    let layer = tar(&[("program", b"x")]);
    let wrong = folder.join("wrong.tar");
    archive(&wrong, &[&layer]);
    let mut bytes = fs::read(&wrong).expect("an archive");
    // In the middle of the layer, which is the last file.
    let at = bytes.len() - 1024 - layer.len() + 513;
    bytes[at] ^= 1;
    fs::write(&wrong, bytes).expect("an archive");
    refused(&["image", "add", text(&wrong)], "does not hash to");
    refused(&["job", "submit", text(&job(&network, "file:wrong.tar"))], "does not hash to");
    fs::write(folder.join("script"), "#!/bin/sh\n").expect("a file");
    refused(&["image", "add", text(&folder.join("script"))], "not a complete tar archive");
    assert_eq!(json(owner(&["dataset", "ls"])), json!([]));
    let tmp = network.coordinator.dir.join("tmp");
    assert_eq!(fs::read_dir(tmp).expect("a folder").count(), 0, "parts are left");

    // Files that are called otherwise than parts are.
    let other = folder.join("other");
    fs::create_dir(&other).expect("a folder");
    fs::write(other.join("manifest.json"), "[]").expect("a file");
    fs::write(other.join("layer.tar"), "").expect("a file");
    let added = json(owner(&["dataset", "add", text(&other)]));
    let words = "has 2 files, which are not the parts of an image";
    refused(&["job", "submit", text(&job(&network, &cid(&added)))], words);
}

/// An owner may add any folder as a dataset; that it is no image, the nodes find.
#[test]
fn parts_that_are_no_image_fail_the_job_and_harm_nobody() {
    let Some(_docker) = docker_or_skip("parts_that_are_no_image_fail_the_job_and_harm_nobody")
    else {
        return;
    };
    let mut network = Network::start();
    network.add_nodes(2, "docker", &[]);
    let good = network.owner(&["image", "add", text(&example("mandelbrot/build/mandelbrot"))]);
    let parts = network.folder.path().join("parts");
    network.owner(&["dataset", "get", &cid(&good), "--into", text(&parts)]);
    let layer = fs::read_dir(parts.join("blobs/sha256")).expect("a folder");
    let layer = layer.map(|entry| entry.expect("a part").path());
    let layer = layer.max_by_key(|path| fs::metadata(path).expect("a part").len());
    let layer = layer.expect("a layer");
    let mut bytes = fs::read(&layer).expect("a part");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, bytes).expect("a part");

    let bad = network.owner(&["dataset", "add", text(&parts)]);
    let job = network.submit(&job(&network, &cid(&bad)), &[]);
    let info = network.wait_for(&job, "the end of the job", |info| info["state"] != "running");
    assert_eq!(info["state"], "failed", "{info:#}");
    let tail = info["failures"][0]["log_tail"].as_str().unwrap_or_default();
    assert!(tail.contains("does not hash to"), "{info:#}");
    for node in &network.nodes {
        assert!(ids_of(node).is_empty(), "a wrong image is in the engine");
    }
    run(&network, &cid(&good));
}

/// Most that the blocks of a manifest of a few files take.
const MANIFEST_BYTES_MAX: u64 = 4 << 10;
