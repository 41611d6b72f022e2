//! Datasets as people use them: from one process to another, by the command line.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use axum::Router;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tower_http::services::ServeDir;

use crate::network::{Network, dockercomp, json, run_on};

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn cid(info: &Value) -> String {
    info["cid"].as_str().expect("a CID").to_owned()
}

/// A folder of pages and pictures, one of them large enough to lie in a file of its own.
fn folder(at: &Path) {
    for (path, len) in
        [("index.html", 300), ("a/page.html", 70_000), ("a/b/picture.png", 3_u32 << 20)]
    {
        let path = at.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let bytes: Vec<u8> = (0..len as u64).map(|at| (at * at / 7 + at) as u8).collect();
        fs::write(path, bytes).expect("a file");
    }
}

#[test]
fn a_folder_travels_and_is_looked_after() {
    let mut network = Network::start();
    network.add_nodes(1, "wasm", &[]);
    let folder_path = network.folder.path().join("source");
    folder(&folder_path);
    let owner = |args: &[&str]| network.owner(&[&["dataset"], args].concat());
    let node_dir = network.nodes[0].dir.clone();
    let node = |args: &[&str]| json(run_on(&node_dir, &[&["dataset"], args].concat()));
    let refused = |args: &[&str]| run_on(&node_dir, &[&["dataset"], args].concat()).status.code();

    let root = cid(&owner(&["add", text(&folder_path), "--name", "pages"]));
    assert_eq!(owner(&["ls"])[0]["name"], "pages");

    // Only the pages, and then the rest.
    let pages = network.folder.path().join("pages");
    let got = node(&["get", &root, "**/*.html", "--into", text(&pages)]);
    assert_eq!(got["complete"], false);
    assert!(pages.join("a/page.html").exists() && pages.join("index.html").exists());
    assert!(!pages.join("a/b").exists(), "more was laid out than was asked for");
    assert_eq!(refused(&["get", &root, "*.jpeg"]), Some(12));
    let all = network.folder.path().join("all");
    assert_eq!(node(&["get", &root, "--into", text(&all)])["complete"], true);
    for path in ["index.html", "a/page.html", "a/b/picture.png"] {
        let [was, is] = [&folder_path, &all].map(|at| fs::read(at.join(path)).expect("a file"));
        assert!(was == is, "{path} differs");
    }
    let holders = owner(&["providers", &root]);
    let holds = |peer: &Value| peer["holds"] == "all";
    assert!(holders.as_array().is_some_and(|list| list.iter().any(holds)), "{holders:#}");

    // A byte rots on the node's disk; a check finds it and brings the chunk anew.
    let body = node_dir.join("data").join(&root).join("a/b/picture.png");
    let mut bytes = fs::read(&body).expect("a body");
    bytes[2_000_000] ^= 1;
    let mut permissions = fs::metadata(&body).expect("a body").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(&body, permissions).expect("a mode");
    fs::write(&body, &bytes).expect("a body");
    let found = node(&["check", &root])["found"].clone();
    assert_eq!((&found["rotten_chunks"], &found["mended"]), (&1.into(), &true.into()), "{found}");
    assert_eq!(node(&["check", &root])["found"]["rotten_chunks"], 0);

    // Pinned it stays, unpinned it goes.
    node(&["pin", &root]);
    assert_eq!(refused(&["rm", &root]), Some(5));
    node(&["unpin", &root]);
    node(&["rm", &root]);
    assert_eq!(node(&["ls"]), Value::Array(vec![]));
    assert_eq!(refused(&["rm", &root]), Some(12));
    assert!(!body.exists(), "its room was not given back");

    // As a CAR file it comes back without the network.
    let car = network.folder.path().join("pages.car");
    owner(&["export", &root, text(&car)]);
    assert_eq!(cid(&node(&["import", text(&car), "--name", "from a file"])), root);
    let mut car_bytes = fs::read(&car).expect("a file");
    let last = car_bytes.len() - 1;
    car_bytes[last] ^= 1;
    fs::write(&car, car_bytes).expect("a file");
    node(&["rm", &root]);
    assert_eq!(refused(&["import", text(&car)]), Some(13));
}

#[test]
fn a_changed_folder_and_standard_input_are_added() {
    let network = Network::start();
    let folder_path = network.folder.path().join("source");
    folder(&folder_path);
    let add =
        |more: &[&str]| network.owner(&[&["dataset", "add", text(&folder_path)], more].concat());
    let first = add(&[]);
    assert_eq!(first["shared_bytes"], 0);
    fs::write(folder_path.join("index.html"), b"changed").expect("a file");
    let second = add(&["--in-place"]);
    assert_eq!(second["shared_bytes"], 70_000 + (3 << 20));
    assert_ne!(cid(&first), cid(&second));

    let mut adding = dockercomp()
        .args(["dataset", "add", "-", "--name", "stream", "--chunker", "fastcdc"])
        .args(["--output", "json", "--data-dir"])
        .arg(&network.coordinator.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let bytes: Vec<u8> =
        (0..2_500_000_u32).flat_map(|at| at.wrapping_mul(at).to_le_bytes()).collect();
    let mut stdin = adding.stdin.take().expect("it is piped");
    stdin.write_all(&bytes).expect("it reads");
    drop(stdin);
    let stream = cid(&json(adding.wait_with_output().expect("it ends")));
    let into = network.folder.path().join("into");
    network.owner(&["dataset", "get", &stream, "--into", text(&into)]);
    assert!(fs::read(into.join("stream")).expect("a file") == bytes);
}

#[test]
fn a_file_of_a_web_server_is_seeded_from_there() {
    let mut network = Network::start();
    network.add_nodes(1, "wasm", &[]);
    let source = network.folder.path().join("source");
    folder(&source);
    let runtime = Runtime::new().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let files = Router::new().fallback_service(ServeDir::new(&source));
    runtime.spawn(async move { axum::serve(listener, files).await });
    let url = format!("http://{address}/a/b/picture.png");
    let owner_dir = network.coordinator.dir.clone();
    let owner = |args: &[&str]| json(run_on(&owner_dir, &[&["dataset"], args].concat()));

    let refused = run_on(&owner_dir, &["dataset", "add", &url]);
    assert_eq!(refused.status.code(), Some(2), "it is not encrypted");
    let root = cid(&owner(&["add", &url, "--allow-http", "--name", "picture"]));
    let listed = owner(&["ls"])[0].clone();
    assert_eq!((&listed["origin"], &listed["complete"]), (&url.into(), &false.into()));
    assert_eq!((&listed["name"], &listed["held_bytes"]), (&"picture".into(), &0.into()));
    let into = network.folder.path().join("into");
    let node = network.nodes[0].dir.clone();
    json(run_on(&node, &["dataset", "get", &root, "--into", text(&into)]));
    let [was, is] = [source.join("a/b"), into].map(|at| fs::read(at.join("picture.png")));
    assert!(was.expect("a file") == is.expect("a file"), "it differs");
    assert_eq!(owner(&["check", &root])["found"]["sound_chunks"], 3);
    assert!(!owner_dir.join("data").join(&root).exists(), "it was copied");

    let brought = network.folder.path().join("brought");
    assert_eq!(owner(&["get", &root, "--into", text(&brought)])["complete"], true);
    owner(&["rm", &root]);
    let url = format!("http://{address}/a/page.html");
    let copied = owner(&["add", &url, "--allow-http", "--copy"]);
    assert_eq!(copied["complete"], true);

    // One that stays there, and goes.
    let url = format!("http://{address}/a/b/picture.png");
    let root = cid(&owner(&["add", &url, "--allow-http"]));
    fs::remove_file(source.join("a/b/picture.png")).expect("a file");
    let found = owner(&["check", &root])["found"].clone();
    assert_eq!((&found["sound_chunks"], &found["gone_chunks"]), (&0.into(), &3.into()));
    assert_eq!(found["gone_objects"][0], "picture.png");
}
