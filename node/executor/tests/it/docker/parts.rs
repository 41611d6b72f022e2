//! Images in parts in the real engine.

use std::fs;

use serde_json::json;

use super::{BUSYBOX, Node};
use crate::common::{TestImage, files_in, layer, sha256};
use dockercomp_executor::{Executor, Program, split_image};
use dockercomp_protocol::execution::Exit;
use tokio_util::sync::CancellationToken;

/// A layer with busybox. `own` makes it one that no other test brings into the engine.
fn base(own: &str) -> Vec<u8> {
    let busybox = fs::read(BUSYBOX).expect("busybox");
    layer(&[("busybox", 0o755, &busybox), ("own", 0o644, own.as_bytes())])
}

impl Node {
    /// Splits an image into a folder.
    fn split(&self, name: &str, image: &TestImage) -> Program {
        let root = self.directories.root();
        let archive = root.join(format!("{name}.tar"));
        image.save(&archive);
        let parts = root.join(name);
        let info = split_image(&archive, &parts).expect("an image");
        assert_eq!(info.id, image.id());
        Program::Image { id: name.to_owned(), archive: parts }
    }

    /// The ids of this node's images in the engine.
    async fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for tag in self.tags().await {
            ids.extend(self.docker.inspect_image(&tag).await.expect("an image").id);
        }
        ids.sort();
        ids
    }

    async fn prints(&self, program: &Program, words: &str) {
        let run = self.directories.run(program, &["cat", "/name"]);
        let finished = self.executor.run(run, CancellationToken::new()).await.expect("it works");
        assert_eq!(finished.exit, Exit::Code { code: 0 }, "{finished:?}");
        assert!(finished.log_tail.contains(words), "{finished:?}");
    }
}

#[tokio::test]
async fn images_in_parts_run_and_have_the_ids_of_their_archives() {
    let Some(node) = Node::start("parts").await else { return };
    let base = base(&node.id);
    let top = |name: &str| layer(&[("name", 0o644, name.as_bytes())]);
    let one = TestImage::of(&[&base, &top("the first")]);
    let two = TestImage::of(&[&base, &top("the second"), &base, &top("the third")]);
    let (first, second) = (node.split("one", &one), node.split("two", &two));
    let in_common = |program: &Program| files_in(program.path()).values().any(|f| *f == base);
    assert!(in_common(&first) && in_common(&second));

    node.prints(&first, "the first").await;
    node.prints(&second, "the third").await;
    let mut ids = [one.id(), two.id()];
    ids.sort();
    assert_eq!(node.ids().await, ids);

    // An archive, as datasets of before hold it, is the same image.
    node.executor.cleanup().await.expect("cleanup");
    let archive = node.directories.root().join("one.tar");
    let archive = Program::Image { id: "archive".to_owned(), archive };
    node.prints(&archive, "the first").await;
    assert_eq!(node.ids().await, [one.id()]);
    node.leave().await;
}

/// The engine inflates a layer itself, and compares what comes out with the configuration.
#[tokio::test]
async fn a_compressed_layer_runs_if_it_holds_what_the_configuration_says() {
    let Some(node) = Node::start("parts-gzip").await else { return };
    let gzip = |bytes: &[u8], name: &str| {
        let file = node.directories.root().join(name);
        fs::write(&file, bytes).expect("a file");
        let gzip = std::process::Command::new("gzip").args(["-n", "-c"]).arg(&file).output();
        gzip.expect("gzip starts").stdout
    };
    let (base, name) = (base(&node.id), layer(&[("name", 0o644, b"compressed")]));
    let mut image = TestImage::of(&[&base, &name]);
    image.layers[0] = gzip(&base, "base");
    let program = node.split("gzip", &image);
    node.prints(&program, "compressed").await;
    assert_eq!(node.ids().await, [image.id()]);

    let other = layer(&[("name", 0o644, b"another")]);
    let mut image = TestImage::of(&[&base, &layer(&[("name", 0o644, node.id.as_bytes())])]);
    image.layers[1] = gzip(&other, "other");
    let lie = node.split("lie", &image);
    let error = node.executor.prepare(&lie).await.expect_err("it is refused");
    assert!(error.is_programs_fault(), "{error:?}");
    node.leave().await;
}

#[tokio::test]
async fn parts_that_are_not_an_image_are_the_owners_fault() {
    let Some(node) = Node::start("parts-bad").await else { return };
    let base = base(&node.id);
    let image = TestImage::of(&[&base, &layer(&[("name", 0o644, node.id.as_bytes())])]);
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
    let spoiled = |name: &str, spoil: &dyn Fn(&std::path::Path)| {
        let program = node.split(name, &image);
        spoil(program.path());
        program
    };
    let last = path(&image.layers[1]);
    let manifest = json!([{"Config": path(&image.config), "Layers": [path(&base), "../one.tar"]}]);
    let remove = |file: std::path::PathBuf| fs::remove_file(file).expect("a part");
    for (program, words) in [
        (spoiled("missing", &|folder| remove(folder.join(&last))), "is missing"),
        (
            spoiled("extra", &|folder| fs::write(folder.join("x"), b"x").expect("a file")),
            "not a part that its manifest names",
        ),
        (
            spoiled("leads-out", &|folder| {
                fs::write(folder.join("manifest.json"), manifest.to_string()).expect("a file");
            }),
            "leads out",
        ),
        // The last layer: everything before it was sent to the engine.
        (
            spoiled("damaged", &|folder| {
                let mut bytes = image.layers[1].clone();
                bytes[520] ^= 1;
                fs::write(folder.join(&last), bytes).expect("a part");
            }),
            "does not hash to",
        ),
    ] {
        let run = node.directories.run(&program, &["true"]);
        let finished = node.executor.run(run, CancellationToken::new()).await.expect("it works");
        assert_eq!(finished.exit, Exit::NotStarted, "{}: {finished:?}", program.id());
        assert!(finished.log_tail.contains(words), "{}: {finished:?}", program.id());
        assert!(node.tags().await.is_empty(), "{}: it is in the engine", program.id());
    }
    // The disk of this node is nobody's fault.
    let gone = Program::Image { id: "gone".to_owned(), archive: node.directories.root().join("-") };
    let error = node.executor.prepare(&gone).await.expect_err("it is missing");
    assert!(!error.is_programs_fault(), "{error:?}");
    node.leave().await;
}
