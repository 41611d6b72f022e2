//! Datasets that stay in a bucket or on a web server, and are passed on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use dockercomp_network::Role;
use dockercomp_peer::{FetchError, OriginError};
use dockercomp_protocol::Cid;
use dockercomp_store::{AddOptions, Origin, Want};
use tokio::process::Command;
use tower_http::services::ServeDir;

use crate::support::{Server, TestPeer, noise, root_of, write};

const MIB: usize = 1 << 20;
/// How long a fetch may stand still that must fail.
const SHORT: Duration = Duration::from_secs(3);

async fn add(seeder: &TestPeer, origin: Origin) -> Result<Cid, OriginError> {
    seeder.peer.add_at(origin, AddOptions::default()).await.map(|added| added.root)
}

async fn get(receiver: &TestPeer, seeder: &TestPeer, root: Cid) {
    let fetched = receiver.peer.fetch(root, Want::All, vec![seeder.located()], None).await;
    fetched.expect("the seeder gives it");
}

/// A fetch that must not succeed, because nobody gives what is missing.
async fn get_in_vain(receiver: &TestPeer, seeder: &TestPeer, root: Cid) {
    let fetched = receiver.peer.fetch_output(root, vec![seeder.located()], SHORT, None).await;
    assert!(matches!(fetched, Err(FetchError::Unavailable { .. })), "{fetched:?}");
}

fn serve(dir: &std::path::Path) -> Router {
    Router::new().fallback_service(ServeDir::new(dir))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_web_server_is_passed_on_without_a_copy() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    // Several ranges, and a last chunk that is shorter.
    let files = BTreeMap::from([("large file.bin".to_owned(), noise(1, 20 * MIB + 17))]);
    write(folder.path(), &files);
    let server = Server::start(serve(folder.path())).await;
    let seeder = TestPeer::start(Role::Server).await;
    let root = add(&seeder, server.file("large%20file.bin")).await.expect("it can be read");
    assert_eq!(root, root_of(&files).await, "the place makes no difference");
    assert_eq!(seeder.bodies(), BTreeMap::new());
    let used = seeder.peer.store().used_bytes();
    assert!(used < 16 << 10, "{used} bytes are used");

    // Two fetch it at the same time: each chunk is read once at the most.
    let before = server.gets();
    let (one, two) = (TestPeer::start(Role::Client).await, TestPeer::start(Role::Client).await);
    tokio::join!(get(&one, &seeder, root), get(&two, &seeder, root));
    assert!(one.files(&root) == files && two.files(&root) == files, "the bytes differ");
    let read = server.gets() - before;
    assert!(read <= 21, "{read} requests for 21 chunks");
    assert_eq!(seeder.bodies(), BTreeMap::new());

    // Needed here, it is fetched from there.
    seeder.peer.bring(root, |_| {}).await.expect("there is room");
    assert!(seeder.files(&root) == files, "the bytes differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_many_pages_is_passed_on() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut files: BTreeMap<String, Vec<u8>> =
        (0..1100_u64).map(|n| (format!("{:02}/{n:04}.txt", n % 7), noise(n, 100))).collect();
    files.insert("large".to_owned(), noise(9, 9 * MIB + 1));
    files.insert("empty".to_owned(), Vec::new());
    files.insert("ä b%20+c".to_owned(), noise(10, 70_000));
    // As in a folder, these are two files.
    files.insert("case".to_owned(), b"small".to_vec());
    files.insert("CASE".to_owned(), b"capital".to_vec());
    write(&root.path().join("bucket/data"), &files);
    write(&root.path().join("bucket"), &BTreeMap::from([("other".to_owned(), vec![1])]));
    let server = Server::s3(root.path().to_owned(), None).await;
    let seeder = TestPeer::start(Role::Server).await;
    let cid = add(&seeder, server.bucket("bucket/data/")).await.expect("it can be read");
    assert_eq!(cid, root_of(&files).await, "the place makes no difference");
    assert_eq!(seeder.bodies(), BTreeMap::new());

    let receiver = TestPeer::start(Role::Client).await;
    get(&receiver, &seeder, cid).await;
    assert!(receiver.files(&cid) == files, "the bytes differ");

    let single = add(&seeder, server.bucket("bucket/data/large")).await.expect("one object");
    let large = BTreeMap::from([("large".to_owned(), files["large"].clone())]);
    assert_eq!(single, root_of(&large).await);
    let nothing = add(&seeder, server.bucket("bucket/dat")).await;
    assert!(matches!(nothing, Err(OriginError::Empty { .. })), "{nothing:?}");
    let nowhere = add(&seeder, server.bucket("no-bucket")).await;
    assert!(matches!(nowhere, Err(OriginError::List { .. } | OriginError::Empty { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_not_served_and_is_named() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files: BTreeMap<_, _> =
        [("a", 2), ("b", 3)].map(|(name, seed)| (name.to_owned(), noise(seed, 3 * MIB))).into();
    write(&folder.path().join("bucket"), &files);
    let server = Server::s3(folder.path().to_owned(), None).await;
    let seeder = TestPeer::start(Role::Server).await;
    let root = add(&seeder, server.bucket("bucket")).await.expect("it can be read");

    // One byte of one object, in its last chunk: its ETag is another now.
    let path = folder.path().join("bucket/b");
    let mut bytes = files["b"].clone();
    bytes[3 * MIB - 1] ^= 1;
    fs::write(&path, &bytes).expect("a file");
    let receiver = TestPeer::start(Role::Client).await;
    let want = Want::Files { first: 0, count: 1 };
    let first = receiver.peer.fetch(root, want, vec![seeder.located()], None).await;
    first.expect("the other object is what it was");
    get_in_vain(&receiver, &seeder, root).await;
    let held = receiver.peer.store().dataset(&root).expect("a row").expect("a part").held_bytes;
    assert_eq!(held, 3 << 20, "no chunk of the changed object was given");
    let checked = seeder.peer.check_origin(root, |_| {}).await.expect("it answers");
    assert_eq!((checked.sound, checked.gone), (3, 3));
    assert_eq!(checked.objects, BTreeSet::from(["b".to_owned()]));
    let brought = seeder.peer.bring(root, |_| {}).await.expect_err("it changed");
    assert!(format!("{brought}").starts_with("b changed at its origin"), "{brought}");

    // Its old bytes have the old ETag.
    fs::write(&path, &files["b"]).expect("a file");
    let checked = seeder.peer.check_origin(root, |_| {}).await.expect("it answers");
    assert_eq!((checked.sound, checked.gone), (6, 0));
    get(&receiver, &seeder, root).await;
    assert!(receiver.files(&root) == files, "the bytes differ");

    fs::remove_file(&path).expect("a file");
    let checked = seeder.peer.check_origin(root, |_| {}).await.expect("it answers");
    assert_eq!((checked.sound, checked.gone), (3, 3));
    seeder.peer.remove(root).await.expect("it is here");
    assert_eq!(seeder.peer.store().used_bytes(), 0);
}

/// Size and time are what they were, or the file is shorter: the bytes tell, or the length.
#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_that_says_nothing_of_a_change_is_found_out() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = BTreeMap::from([("file".to_owned(), noise(4, 2 * MIB))]);
    write(folder.path(), &files);
    let server = Server::start(serve(folder.path())).await;
    let seeder = TestPeer::start(Role::Server).await;
    let root = add(&seeder, server.file("file")).await.expect("it can be read");
    let path = folder.path().join("file");
    let modified = fs::metadata(&path).and_then(|found| found.modified()).expect("a time");
    let put = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("a file");
        let file = File::options().write(true).open(&path).expect("a file");
        file.set_modified(modified).expect("a time");
    };
    let changed = async || match seeder.peer.bring(root, |_| {}).await {
        Err(error) => error.to_string(),
        Ok(()) => panic!("it was brought"),
    };
    let mut bytes = files["file"].clone();
    bytes[5] ^= 1;
    put(&bytes);
    assert!(changed().await.contains("its bytes"));
    // A check looks again; a peer would not within a minute.
    for (bytes, gone) in [(&files["file"][..], 0), (&files["file"][..MIB + 9], 2)] {
        put(bytes);
        let checked = seeder.peer.check_origin(root, |_| {}).await.expect("it answers");
        assert_eq!(checked.gone, gone);
    }
    let receiver = TestPeer::start(Role::Client).await;
    get_in_vain(&receiver, &seeder, root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_goes_away_and_comes_back() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = BTreeMap::from([("file".to_owned(), noise(5, 4 * MIB))]);
    write(folder.path(), &files);
    let mut server = Server::start(serve(folder.path())).await;
    let seeder = TestPeer::start(Role::Server).await;
    let root = add(&seeder, server.file("file")).await.expect("it can be read");
    let local = tempfile::tempdir().expect("a temporary directory");
    write(local.path(), &BTreeMap::from([("here".to_owned(), noise(6, 4 * MIB))]));
    let here = seeder.peer.add(local.path().to_owned(), AddOptions::default()).await;
    let here = here.expect("a plain folder").root;

    server.stop().await;
    let receiver = TestPeer::start(Role::Client).await;
    // What is here is served meanwhile.
    tokio::join!(get_in_vain(&receiver, &seeder, root), get(&receiver, &seeder, here));
    let away = seeder.peer.check_origin(root, |_| {}).await;
    assert!(matches!(away, Err(OriginError::Read { .. })), "{away:?}");
    server.restart().await;
    get(&receiver, &seeder, root).await;
    assert!(receiver.files(&root) == files, "the bytes differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_an_origin_is_refused() {
    let bytes = Arc::new(noise(7, 100_000));
    let whole = Arc::clone(&bytes);
    let lying = Arc::clone(&bytes);
    let router = Router::new()
        .route("/whole", axum::routing::get(move || async move { Vec::clone(&whole) }))
        // Says that the file is longer than what its parts say.
        .route(
            "/lying",
            axum::routing::get(move |headers: HeaderMap| async move {
                if headers.contains_key(header::RANGE) {
                    let range = HeaderValue::from_static("bytes 0-89999/90000");
                    let part = lying[..90_000].to_vec();
                    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], part)
                        .into_response()
                } else {
                    Vec::clone(&lying).into_response()
                }
            }),
        );
    let server = Server::start(router).await;
    let seeder = TestPeer::start(Role::Server).await;
    let whole = add(&seeder, server.file("whole")).await;
    assert!(matches!(whole, Err(OriginError::NoRanges { .. })), "{whole:?}");
    let lying = add(&seeder, server.file("lying")).await;
    assert!(matches!(lying, Err(OriginError::Changed { .. })), "{lying:?}");
    let missing = add(&seeder, server.file("missing")).await;
    assert!(matches!(missing, Err(OriginError::Empty { .. })), "{missing:?}");
    let sealed = Origin { allow_http: false, ..server.file("whole") };
    let sealed = add(&seeder, sealed).await;
    assert!(matches!(sealed, Err(OriginError::Url { .. })), "{sealed:?}");
    assert_eq!(seeder.peer.store().datasets().expect("a list"), []);
}

/// A bucket that lists what no dataset may hold.
#[tokio::test(flavor = "multi_thread")]
async fn bad_names_in_a_bucket_are_refused() {
    for key in ["../evil", "a/../../evil", "/etc/passwd", "a//b", "a\\b", "./a"] {
        let listing = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>bucket</Name>\
             <IsTruncated>false</IsTruncated><KeyCount>1</KeyCount><Contents><Key>{key}</Key>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"1\"</ETag>\
             <Size>5</Size></Contents></ListBucketResult>"
        );
        let server = Server::start(Router::new().fallback(move || {
            let listing = listing.clone();
            async move { ([(header::CONTENT_TYPE, "application/xml")], listing) }
        }))
        .await;
        let seeder = TestPeer::start(Role::Server).await;
        let refused = add(&seeder, server.bucket("bucket")).await;
        // The client drops a slash in front, and there is no object of the name that is left.
        let is_refused = match refused {
            Err(OriginError::Name { .. } | OriginError::List { .. }) => true,
            Err(OriginError::Read { .. }) => key.starts_with('/'),
            _ => false,
        };
        assert!(is_refused, "{key}: {refused:?}");
        assert_eq!(seeder.peer.store().datasets().expect("a list"), []);
    }
}

/// The server's address, for a process of its own.
const ENDPOINT: &str = "DOCKERCOMP_TEST_ENDPOINT";

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_the_environment() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = BTreeMap::from([("a/file".to_owned(), noise(8, MIB))]);
    write(&folder.path().join("bucket"), &files);
    let server = Server::s3(folder.path().to_owned(), Some(("key", "secret"))).await;
    let expected = root_of(&files).await.to_string();
    for (secret, is_right) in [("secret", true), ("guess", false)] {
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.args(["--exact", "origins::adds_a_closed_bucket", "--ignored", "--nocapture"]);
        child.env(ENDPOINT, format!("http://{}", server.at));
        child.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", secret);
        let ended = child.kill_on_drop(true).output().await.expect("it starts");
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert_eq!(said.contains(&expected), is_right, "{said}");
        assert_eq!(ended.status.success(), is_right, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "keys_come_from_the_environment runs it"]
async fn adds_a_closed_bucket() {
    let Ok(endpoint) = std::env::var(ENDPOINT) else { return };
    let seeder = TestPeer::start(Role::Server).await;
    let origin = Origin {
        url: "s3://bucket".to_owned(),
        endpoint: Some(endpoint),
        region: None,
        allow_http: true,
        anonymous: false,
    };
    println!("{}", add(&seeder, origin).await.expect("the key is right"));
}
