//! The Docker executor against the real engine, with programs that misbehave.
//!
//! Every test is a node of its own, so they run in parallel on one engine and check that they
//! leave nothing there. Without an engine or without busybox they say so and pass.

mod parts;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{Directories, eventually, files_in, tiny_elf};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, ListImagesOptions, RemoveImageOptions,
    TagImageOptions,
};
use dockercomp_executor::docker::DockerExecutor;
use dockercomp_executor::{
    Executor, Finished, Options, Program, Removed, RunError, inspect_archive, pack_static_binary,
    save_image, split_image,
};
use dockercomp_protocol::execution::Exit;
use dockercomp_protocol::limits::LOG_TAIL_BYTES_MAX;
use tokio_util::sync::CancellationToken;

const BUSYBOX: &str = "/bin/busybox";

/// One node with busybox as its program.
struct Node {
    id: String,
    executor: DockerExecutor,
    docker: Docker,
    directories: Directories,
    program: Program,
}

impl Node {
    /// `None` where the test cannot be run; the reason is printed.
    async fn start(test: &str) -> Option<Self> {
        let id = format!("test-{test}-{}", std::process::id());
        let options = Options { node: id.clone(), docker_host: None };
        let executor = match DockerExecutor::connect(&options).await {
            Ok(executor) => executor,
            Err(error) => {
                eprintln!("skipped: {error}");
                return None;
            }
        };
        if !Path::new(BUSYBOX).exists() {
            eprintln!("skipped: {BUSYBOX} is missing (install busybox-static)");
            return None;
        }
        let directories = Directories::new();
        let archive = directories.root().join("busybox.tar");
        let mut file = File::create(&archive).expect("archive");
        if let Err(error) = pack_static_binary(Path::new(BUSYBOX), "busybox", &mut file) {
            eprintln!("skipped: {error}: install busybox-static");
            return None;
        }
        let docker = Docker::connect_with_defaults().expect("the engine answered a moment ago");
        let docker = docker.negotiate_version().await.expect("the engine has a version");
        let program = Program::Image { id: "busybox".to_owned(), archive };
        Some(Self { id, executor, docker, directories, program })
    }

    async fn shell(&self, script: &str) -> Finished {
        self.shell_within(script, |_| {}).await
    }

    async fn shell_within(
        &self,
        script: &str,
        change: impl FnOnce(&mut dockercomp_executor::Run),
    ) -> Finished {
        let mut run = self.directories.run(&self.program, &["sh", "-c", script]);
        change(&mut run);
        self.executor.run(run, CancellationToken::new()).await.expect("the engine works")
    }

    async fn containers(&self) -> Vec<ContainerSummary> {
        let label = format!("dockercomp.node={}", self.id);
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
            ..ListContainersOptions::default()
        };
        self.docker.list_containers(Some(options)).await.expect("a list")
    }

    /// Whether there is one container and it runs. It is listed some time before.
    async fn is_running(&self) -> bool {
        let containers = self.containers().await;
        containers.len() == 1 && containers[0].state == Some(ContainerSummaryStateEnum::RUNNING)
    }

    async fn tags(&self) -> Vec<String> {
        let images = self.docker.list_images(None::<ListImagesOptions>).await.expect("a list");
        let tags = images.into_iter().flat_map(|image| image.repo_tags);
        let ours = format!("dockercomp-{}:", short(&self.id));
        tags.filter(|tag| tag.starts_with(&ours)).collect()
    }

    /// Ends a test: nothing may be there but the image, and then nothing at all.
    async fn leave(self) {
        assert!(self.containers().await.is_empty(), "a container was left behind");
        self.executor.cleanup().await.expect("cleanup");
        assert!(self.tags().await.is_empty(), "an image was left behind");
    }
}

impl Drop for Node {
    /// A test that failed must not leave anything in the engine for the others to meet.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let options = Options { node: self.id.clone(), docker_host: None };
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let executor = DockerExecutor::connect(&options).await.expect("the engine");
                drop(executor.cleanup().await);
            });
        });
        drop(cleaning.join());
    }
}

/// As the executor shortens ids; a test that would not notice a change of it proves nothing.
fn short(node: &str) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(node))[..12].to_owned()
}

#[tokio::test]
async fn exit_code_and_output_are_passed_through() {
    let Some(node) = Node::start("exit").await else { return };
    let finished = node.shell("echo out; echo err >&2; exit 7").await;
    assert_eq!(finished.exit, Exit::Code { code: 7 });
    assert!(finished.log_tail.contains("out\n"), "{finished:?}");
    assert!(finished.log_tail.contains("err\n"), "{finished:?}");
    let finished = node.shell("kill -SEGV $$").await;
    assert_eq!(finished.exit, Exit::Crashed);
    node.leave().await;
}

#[tokio::test]
async fn input_becomes_output() {
    let Some(node) = Node::start("io").await else { return };
    node.directories.write_input("text", "hello\n");
    let finished = node
        .shell_within(
            "tr a-z A-Z < /input/text > upper; mkdir d; echo $NAME > d/name; chmod 0 upper d",
            |run| drop(run.env.insert("NAME".to_owned(), "a b".to_owned())),
        )
        .await;
    assert_eq!(finished.exit, Exit::Code { code: 0 }, "{}", finished.log_tail);
    assert_eq!(node.directories.output("upper"), "HELLO\n");
    assert_eq!(node.directories.output("d/name"), "a b\n");
    node.leave().await;
}

#[tokio::test]
async fn usage_is_measured() {
    let Some(node) = Node::start("usage").await else { return };
    let script = "dd if=/dev/zero of=/dev/null bs=20M count=40 2>/dev/null";
    let finished = node.shell(script).await;
    assert_eq!(finished.exit, Exit::Code { code: 0 }, "{}", finished.log_tail);
    assert!(finished.usage.wall_ms > 0, "{finished:?}");
    assert!(finished.usage.cpu_ms > 0, "{finished:?}");
    assert!(finished.usage.cpu_ms < 60_000, "{finished:?}");
    assert!(finished.usage.memory_peak_bytes >= 20 << 20, "{finished:?}");
    assert!(finished.usage.memory_peak_bytes <= 64 << 20, "{finished:?}");
    node.leave().await;
}

#[tokio::test]
async fn there_is_no_network() {
    let Some(node) = Node::start("network").await else { return };
    let server = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
    server.set_nonblocking(true).expect("non-blocking");
    let port = server.local_addr().expect("an address").port();
    let script = format!(
        "cat /proc/net/dev > interfaces; ip route > routes
         for host in 127.0.0.1 172.17.0.1 192.0.2.1; do
             nc -w 2 $host {port} </dev/null && echo $host >> reached
         done; true"
    );
    let finished = node.shell(&script).await;
    assert_eq!(finished.exit, Exit::Code { code: 0 }, "{}", finished.log_tail);
    assert!(finished.log_tail.contains("Network is unreachable"), "{}", finished.log_tail);
    assert!(server.accept().is_err(), "the container reached this machine");
    let interfaces = node.directories.output("interfaces");
    let names: Vec<&str> = interfaces.lines().skip(2).filter_map(|l| l.split(':').next()).collect();
    assert!(names.iter().any(|name| name.trim() == "lo"), "{interfaces}");
    assert!(!names.iter().any(|name| name.trim().starts_with("eth")), "{interfaces}");
    assert_eq!(node.directories.output("routes"), "");
    assert!(!node.directories.root().join("output/reached").exists());
    node.leave().await;
}

#[tokio::test]
async fn only_output_checkpoint_and_tmp_can_be_written() {
    let Some(node) = Node::start("readonly").await else { return };
    node.directories.write_input("text", "mine");
    let finished = node
        .shell(
            "for path in / /etc /dev /proc /sys /input /busybox /input/text; do
                 if [ -d $path ]; then path=$path/new; fi
                 ( echo x >> $path ) 2>/dev/null && echo $path >> written
             done
             echo x > /tmp/file && cp /busybox /tmp/program && /tmp/program true && echo ran >> written
             rm -f /input/text 2>/dev/null; chown 0:0 . 2>/dev/null && echo chown >> written
             mount -t tmpfs none /tmp 2>/dev/null && echo mount >> written
             echo done > /checkpoint/end && echo done > end",
        )
        .await;
    assert_eq!(finished.exit, Exit::Code { code: 0 }, "{}", finished.log_tail);
    assert_eq!(node.directories.output("end"), "done\n");
    assert_eq!(node.directories.checkpoint("end"), "done\n");
    assert!(!node.directories.root().join("output/written").exists(), "{}", {
        node.directories.output("written")
    });
    let input = node.directories.root().join("input");
    assert_eq!(fs::read_to_string(input.join("text")).expect("input"), "mine");
    assert_eq!(fs::read_dir(input).expect("input").count(), 1);
    node.leave().await;
}

#[tokio::test]
async fn the_program_has_no_privileges() {
    let Some(node) = Node::start("privileges").await else { return };
    let finished = node.shell("cat /proc/self/status > status; hostname > name").await;
    assert_eq!(finished.exit, Exit::Code { code: 0 }, "{}", finished.log_tail);
    let status = node.directories.output("status");
    let field = |name: &str| -> Vec<&str> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(':').split_whitespace().collect()
    };
    for ids in ["Uid", "Gid"] {
        assert_eq!(field(ids).len(), 4, "{status}");
        assert!(!field(ids).contains(&"0"), "{status}");
    }
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(capabilities), ["0000000000000000"], "{capabilities}");
    }
    assert_eq!(field("NoNewPrivs"), ["1"]);
    assert_eq!(field("Seccomp"), ["2"], "a filter");
    assert_eq!(node.directories.output("name"), "replica\n");
    node.leave().await;
}

#[tokio::test]
async fn a_fork_bomb_is_bounded() {
    let Some(node) = Node::start("fork").await else { return };
    let finished = node
        .shell_within(
            "trap 'set -- /proc/[0-9]*; echo $# > processes' EXIT
             while :; do sleep 30 & done",
            |run| run.limits.pids = 12,
        )
        .await;
    assert!(finished.log_tail.contains("can't fork"), "{finished:?}");
    assert!(matches!(finished.exit, Exit::Code { code: 1..=255 }), "{finished:?}");
    // The init process is there as well.
    assert_eq!(node.directories.output("processes"), "13\n");
    node.leave().await;
}

#[tokio::test]
async fn memory_is_bounded() {
    let Some(node) = Node::start("memory").await else { return };
    let finished = node.shell("dd if=/dev/zero of=/dev/null bs=300M count=1").await;
    assert_eq!(finished.exit, Exit::OutOfMemory, "{finished:?}");

    // A scratch file system that is full is an error that the program sees.
    let finished = node.shell("dd if=/dev/zero of=/tmp/file bs=1M count=8").await;
    assert!(matches!(finished.exit, Exit::Code { code: 1..=255 }), "{finished:?}");
    assert!(finished.log_tail.contains("No space left"), "{finished:?}");
    node.leave().await;
}

#[tokio::test]
async fn output_is_bounded() {
    let Some(node) = Node::start("output").await else { return };
    for (name, script) in [
        ("one file", "dd if=/dev/zero of=big bs=1M count=50"),
        ("many files", "i=0; while :; do dd if=/dev/zero of=$i bs=1M count=1; i=$((i+1)); done"),
        ("many names", "i=0; while :; do mkdir $i; i=$((i+1)); done"),
        ("just too many", "i=0; while [ $i -le 100 ]; do touch $i; i=$((i+1)); done"),
    ] {
        let directories = Directories::new();
        let run = directories.run(&node.program, &["sh", "-c", script]);
        let finished = node.executor.run(run, CancellationToken::new()).await.expect("it works");
        assert_eq!(finished.exit, Exit::OutputTooLarge, "{name}: {finished:?}");
        assert!(finished.usage.wall_ms < 30_000, "{name}: {finished:?}");
    }
    node.leave().await;
}

#[tokio::test]
async fn output_that_is_no_plain_file_is_refused() {
    let Some(node) = Node::start("links").await else { return };
    for script in ["ln -s /etc/passwd link", "mkfifo pipe", "mkdir d; ln -s . d/loop"] {
        let directories = Directories::new();
        let run = directories.run(&node.program, &["sh", "-c", script]);
        let finished = node.executor.run(run, CancellationToken::new()).await.expect("it works");
        assert_eq!(finished.exit, Exit::OutputRefused, "{script}: {finished:?}");
    }
    node.leave().await;
}

/// The first attempt is killed, the second goes on from what it saved.
#[tokio::test]
async fn a_checkpoint_is_there_again() {
    let Some(node) = Node::start("checkpoint").await else { return };
    let script = "cp /checkpoint/step from || echo 0 > from
        echo 7 > /checkpoint/new && mv /checkpoint/new /checkpoint/step
        [ $(cat from) = 7 ] || sleep 1000";
    let cancel = CancellationToken::new();
    let run = node.directories.run(&node.program, &["sh", "-c", script]);
    let saved = node.directories.root().join("checkpoint/step");
    let running = node.executor.run(run.clone(), cancel.clone());
    let cancelling = async {
        eventually("it saves", async || saved.exists()).await;
        cancel.cancel();
    };
    let (finished, ()) = tokio::join!(running, cancelling);
    assert!(matches!(finished, Err(RunError::Cancelled)), "{finished:?}");

    node.directories.empty_output();
    let finished = node.executor.run(run, CancellationToken::new()).await.expect("it works");
    assert_eq!(finished.exit, Exit::Code { code: 0 }, "{finished:?}");
    assert_eq!(node.directories.output("from"), "7\n");
    let output = fs::read_dir(node.directories.root().join("output")).expect("output");
    assert_eq!(output.count(), 1, "the checkpoint is no part of it");
    node.leave().await;
}

#[tokio::test]
async fn output_and_checkpoint_are_bounded_together() {
    let Some(node) = Node::start("both").await else { return };
    for (name, script, expected) in [
        (
            "many files",
            "cd /checkpoint; i=0; while :; do dd if=/dev/zero of=$i bs=1M count=1; i=$((i+1)); done",
            Exit::OutputTooLarge,
        ),
        ("one file", "dd if=/dev/zero of=/checkpoint/big bs=1M count=50", Exit::OutputTooLarge),
        (
            "just too much",
            "head -c 2097152 /dev/zero > out; head -c 2097153 /dev/zero > /checkpoint/out",
            Exit::OutputTooLarge,
        ),
        (
            "just enough",
            "head -c 2097152 /dev/zero > out; head -c 2097152 /dev/zero > /checkpoint/out",
            Exit::Code { code: 0 },
        ),
        (
            "just too many",
            "i=0; while [ $i -le 50 ]; do touch $i; mkdir /checkpoint/$i; i=$((i+1)); done",
            Exit::OutputTooLarge,
        ),
    ] {
        let directories = Directories::new();
        let run = directories.run(&node.program, &["sh", "-c", script]);
        let finished = node.executor.run(run, CancellationToken::new()).await.expect("it works");
        assert_eq!(finished.exit, expected, "{name}: {finished:?}");
        assert!(finished.usage.wall_ms < 30_000, "{name}: {finished:?}");
    }
    node.leave().await;
}

/// Links lead nowhere outside of the container, pipes are not opened, and what is closed to
/// everybody is counted all the same. None of it is part of a result.
#[tokio::test]
async fn a_hostile_checkpoint_harms_nobody() {
    let Some(node) = Node::start("hostile").await else { return };
    let outside = node.directories.root().join("outside");
    fs::create_dir(&outside).expect("directory");
    let secret = outside.join("secret");
    fs::write(&secret, vec![0; 8 << 20]).expect("file");
    let permissions = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(&secret, permissions(0o600)).expect("mode");
    fs::set_permissions(&outside, permissions(0o700)).expect("mode");
    let path = outside.to_str().expect("a plain path");
    let script = format!(
        "echo done > /output/end; cd /checkpoint
         ln -sfn {path} directory; ln -sfn {path}/secret file; ln -sfn . loop; ln -sfn / root
         [ -e pipe ] || mkfifo pipe
         chmod 700 closed/d 2>/dev/null; mkdir -p closed/d; echo x > closed/d/f
         [ -e directory ] && echo directory >> /output/reached
         ( echo x > file ) 2>/dev/null && echo file >> /output/reached
         mknod device b 8 0 2>/dev/null && echo device >> /output/reached
         ln /output/end hard 2>/dev/null && echo hard >> /output/reached
         chmod 4777 closed/d/f; chmod 0 closed/d"
    );
    // The second attempt finds all of it.
    for _ in 0..2 {
        node.directories.empty_output();
        let finished = node.shell(&script).await;
        assert_eq!(finished.exit, Exit::Code { code: 0 }, "{finished:?}");
        assert!(!node.directories.root().join("output/reached").exists(), "{}", {
            node.directories.output("reached")
        });
        assert_eq!(node.directories.output("end"), "done\n");
    }
    let mode = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).expect("metadata").mode() & 0o7777
    };
    assert_eq!((mode(&outside), mode(&secret)), (0o700, 0o600));
    assert_eq!(fs::metadata(&secret).expect("metadata").len(), 8 << 20);

    // What is closed counts as well; to a node that is not root it may look like an excess.
    let closed = "mkdir /checkpoint/c; cd /checkpoint/c; i=0
        while [ $i -lt 10 ]; do mkdir $i; i=$((i+1)); done; chmod 0 /checkpoint/c /checkpoint";
    let directories = Directories::new();
    let mut run = directories.run(&node.program, &["sh", "-c", closed]);
    run.limits.output_files = 10;
    let finished = node.executor.run(run, CancellationToken::new()).await.expect("it works");
    assert!(matches!(finished.exit, Exit::OutputTooLarge | Exit::OutputRefused), "{finished:?}");
    node.leave().await;
}

#[tokio::test]
async fn a_program_without_end_is_killed() {
    let Some(node) = Node::start("endless").await else { return };
    let finished = node
        .shell_within("trap '' TERM INT HUP; while :; do :; done", |run| run.limits.wall_ms = 1500)
        .await;
    assert_eq!(finished.exit, Exit::TimedOut);
    assert!((1500..20_000).contains(&finished.usage.wall_ms), "{finished:?}");
    assert!(finished.usage.cpu_ms > 0, "{finished:?}");
    node.leave().await;
}

#[tokio::test]
async fn a_flood_of_output_is_bounded() {
    let Some(node) = Node::start("flood").await else { return };
    // An engine cannot end a container whose output nobody reads: the kill must not wait for it.
    let flood = node.shell_within("yes 0123456789", |run| run.limits.wall_ms = 1500);
    let finished = tokio::time::timeout(Duration::from_secs(60), flood).await.expect("it ends");
    assert_eq!(finished.exit, Exit::TimedOut);
    assert!(finished.log_tail.len() <= LOG_TAIL_BYTES_MAX);
    assert!(finished.log_tail.contains("0123456789\n0123456789\n"), "{finished:?}");
    node.leave().await;
}

#[tokio::test]
async fn cancelling_and_dropping_remove_the_container() {
    let Some(node) = Node::start("cancel").await else { return };
    let cancel = CancellationToken::new();
    let run = node.directories.run(&node.program, &["sleep", "1000"]);
    let running = node.executor.run(run.clone(), cancel.clone());
    let watch = async {
        eventually("it runs", async || node.is_running().await).await;
        let id = node.containers().await.remove(0).id.expect("an id");
        let seen = node.docker.inspect_container(&id, None).await.expect("a container");
        cancel.cancel();
        seen
    };
    let (finished, seen) = tokio::join!(running, watch);
    assert!(matches!(finished, Err(RunError::Cancelled)), "{finished:?}");
    assert!(node.containers().await.is_empty());

    // What the engine says of it, as anybody who looks with `docker inspect` sees it.
    let host = seen.host_config.expect("a configuration");
    assert_eq!(host.network_mode.as_deref(), Some("none"));
    assert_eq!(host.readonly_rootfs, Some(true));
    assert_eq!(host.pids_limit, Some(33));
    assert_eq!(host.memory, Some(64 << 20));
    assert_eq!(host.memory_swap, Some(64 << 20));
    assert_eq!(host.nano_cpus, Some(1_000_000_000));
    let mut mounts: Vec<_> =
        seen.mounts.unwrap_or_default().into_iter().map(|m| (m.destination, m.rw)).collect();
    mounts.sort();
    assert_eq!(
        mounts,
        [
            (Some("/checkpoint".into()), Some(true)),
            (Some("/input".into()), Some(false)),
            (Some("/output".into()), Some(true)),
        ]
    );

    {
        let mut running = node.executor.run(run, CancellationToken::new());
        let started = eventually("it runs", async || node.is_running().await);
        tokio::select! {
            _ = &mut running => panic!("it ended by itself"),
            () = started => {}
        }
    }
    eventually("it is gone", async || node.containers().await.is_empty()).await;
    node.leave().await;
}

#[tokio::test]
async fn cleanup_removes_what_is_ours_and_nothing_else() {
    let Some(node) = Node::start("cleanup").await else { return };
    let Some(other) = Node::start("cleanup-other").await else { return };
    node.executor.prepare(&node.program).await.expect("an image");
    other.executor.prepare(&other.program).await.expect("an image");
    let [tag] = node.tags().await.try_into().expect("one tag");

    // What a crash leaves behind, and what a volunteer made of the same image.
    let body = |owner: &str| ContainerCreateBody {
        image: Some(tag.clone()),
        cmd: Some(vec!["sleep".to_owned(), "1000".to_owned()]),
        labels: Some(HashMap::from([("dockercomp.node".to_owned(), owner.to_owned())])),
        ..ContainerCreateBody::default()
    };
    for owner in [&node.id, &other.id] {
        let name = Some(format!("dockercomp-test-{owner}"));
        let options = CreateContainerOptions { name, ..CreateContainerOptions::default() };
        let created = node.docker.create_container(Some(options), body(owner)).await;
        let id = created.expect("a container").id;
        node.docker.start_container(&id, None).await.expect("it starts");
    }
    let own = format!("dockercomp-test-own-{}", std::process::id());
    let options = TagImageOptions { repo: Some(own.clone()), tag: Some("latest".to_owned()) };
    node.docker.tag_image(&tag, Some(options)).await.expect("a tag");

    let removed = node.executor.cleanup().await.expect("cleanup");
    assert_eq!(removed, Removed { containers: 1, images: 1 });
    assert!(node.containers().await.is_empty());
    assert_eq!(other.containers().await.len(), 1);
    assert_eq!(other.tags().await.len(), 1);
    node.docker.inspect_image(&own).await.expect("the volunteer's image is still there");

    // The image is loaded again when it is needed again.
    assert_eq!(node.shell("exit 3").await.exit, Exit::Code { code: 3 });
    assert_eq!(other.executor.cleanup().await.expect("cleanup").containers, 1);
    let removed = node.docker.remove_image(&own, None::<RemoveImageOptions>, None).await;
    removed.expect("the volunteer removes the image");
    node.leave().await;
    other.leave().await;
}

#[tokio::test]
async fn cleanup_stops_what_runs() {
    let Some(node) = Node::start("stop").await else { return };
    let run = node.directories.run(&node.program, &["sleep", "1000"]);
    let running = node.executor.run(run, CancellationToken::new());
    let cleaning = async {
        eventually("it runs", async || node.is_running().await).await;
        node.executor.cleanup().await.expect("cleanup")
    };
    let (finished, _) = tokio::join!(running, cleaning);
    assert!(matches!(finished, Err(RunError::Cancelled)), "{finished:?}");
    node.leave().await;
}

#[tokio::test]
async fn an_image_that_was_removed_is_loaded_again() {
    let Some(node) = Node::start("reload").await else { return };
    node.executor.prepare(&node.program).await.expect("an image");
    let [tag] = node.tags().await.try_into().expect("one tag");
    node.docker.remove_image(&tag, None::<RemoveImageOptions>, None).await.expect("removed");
    assert_eq!(node.shell("exit 4").await.exit, Exit::Code { code: 4 });
    node.leave().await;
}

#[tokio::test]
async fn a_bare_static_binary_is_a_program() {
    let Some(node) = Node::start("binary").await else { return };
    // Called `program`, busybox finds no applet of that name and says so.
    let program = Program::Image { id: "bare".to_owned(), archive: BUSYBOX.into() };
    let run = node.directories.run(&program, &[]);
    let finished = node.executor.run(run, CancellationToken::new()).await.expect("it works");
    assert_eq!(finished.exit, Exit::Code { code: 127 });
    assert!(finished.log_tail.contains("program: applet not found"), "{finished:?}");
    node.leave().await;
}

#[tokio::test]
async fn a_program_that_cannot_start_is_the_owners_fault() {
    let Some(node) = Node::start("foreign").await else { return };
    let directory = node.directories.root();
    let write = |name: &str, bytes: &[u8]| -> Program {
        let archive: PathBuf = directory.join(name);
        fs::write(&archive, bytes).expect("file");
        Program::Image { id: name.to_owned(), archive }
    };
    let nothing = {
        let config = r#"{"architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": {"type": "layers", "diff_ids": []}}"#;
        let manifest = r#"[{"Config": "c.json", "RepoTags": null, "Layers": []}]"#;
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text) in [("c.json", config), ("manifest.json", manifest)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, text.as_bytes()).expect("entry");
        }
        builder.into_inner().expect("an archive")
    };
    // 243 is RISC-V, which the machines of these tests cannot run; 22 is IBM S/390.
    for (program, words) in [
        (write("foreign", &tiny_elf(243)), "exec /program failed"),
        (write("unknown", &tiny_elf(22)), "ELF machine 22"),
        (write("nothing", &nothing), "No command specified"),
        (write("garbage", &[7; 5000]), "not a complete tar archive"),
        (write("empty", &[]), "neither a docker-save archive nor an OCI layout"),
    ] {
        let run = node.directories.run(&program, &[]);
        let finished = node.executor.run(run, CancellationToken::new()).await.expect("it works");
        assert_eq!(finished.exit, Exit::NotStarted, "{}: {finished:?}", program.id());
        assert!(finished.log_tail.contains(words), "{}: {finished:?}", program.id());
    }

    // One bit of the layer is wrong. No other test may have brought the right layer into the
    // engine, for it does not read a layer again that it has.
    let binary = directory.join("binary");
    let mut elf = tiny_elf(62);
    elf.extend_from_slice(&[b'x'; 4096]);
    elf.extend_from_slice(node.id.as_bytes());
    fs::write(&binary, elf).expect("binary");
    let mut bytes = Vec::new();
    pack_static_binary(&binary, "p", &mut bytes).expect("it is static");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = write("damaged", &bytes);
    let error = node.executor.prepare(&damaged).await.expect_err("it is refused");
    assert!(error.is_programs_fault(), "{error:?}");

    let missing = Program::Image { id: "m".to_owned(), archive: directory.join("missing") };
    let error = node.executor.prepare(&missing).await.expect_err("it is missing");
    assert!(!error.is_programs_fault(), "{error:?}");
    node.leave().await;
}

#[tokio::test]
async fn an_image_of_the_engine_can_be_saved() {
    let Some(node) = Node::start("save").await else { return };
    node.executor.prepare(&node.program).await.expect("an image");
    let [tag] = node.tags().await.try_into().expect("one tag");
    let (first, second) = (node.directories.root().join("1"), node.directories.root().join("2"));
    let info = save_image(None, &tag, &first).await.expect("parts");
    save_image(None, &info.id, &second).await.expect("parts");

    let Program::Image { archive, .. } = &node.program else { unreachable!() };
    assert_eq!(info.id, inspect_archive(archive).expect("the original").id);
    assert_eq!(info.entrypoint, ["/busybox"]);
    assert!(inspect_archive(&first).expect("the copy").tags.is_empty());
    assert!(files_in(&first) == files_in(&second), "same image, same bytes");
    let split = node.directories.root().join("3");
    split_image(archive, &split).expect("an image");
    assert!(files_in(&first) == files_in(&split), "wherever it comes from");

    node.executor.cleanup().await.expect("cleanup");
    let saved = Program::Image { id: "saved".to_owned(), archive: first };
    let run = node.directories.run(&saved, &["sh", "-c", "exit 5"]);
    let finished = node.executor.run(run, CancellationToken::new()).await.expect("it works");
    assert_eq!(finished.exit, Exit::Code { code: 5 });

    let missing = save_image(None, "no-such-image:1", &second).await.expect_err("no such image");
    assert!(missing.to_string().contains("no-such-image:1"), "{missing}");
    node.leave().await;
}

/// Two runs at the same time do not wait for each other.
#[tokio::test]
async fn runs_are_concurrent() {
    let Some(node) = Node::start("concurrent").await else { return };
    node.executor.prepare(&node.program).await.expect("an image");
    let others = Directories::new();
    let mut second = others.run(&node.program, &["sh", "-c", "echo 2 > out"]);
    second.labels.replica = "second".to_owned();
    let script = "while [ ! -e go ]; do sleep 0.1; done; echo 1 > out";
    let first = node.directories.run(&node.program, &["sh", "-c", script]);

    let started = Instant::now();
    let waiting = node.executor.run(first, CancellationToken::new());
    let finishing = async {
        let finished = node.executor.run(second, CancellationToken::new()).await;
        fs::write(node.directories.root().join("output/go"), "").expect("a sign");
        finished
    };
    let (first, second) = tokio::join!(waiting, finishing);
    assert_eq!(first.expect("it works").exit, Exit::Code { code: 0 });
    assert_eq!(second.expect("it works").exit, Exit::Code { code: 0 });
    assert!(started.elapsed() < Duration::from_secs(50), "the first one timed out");
    assert_eq!(others.output("out"), "2\n");
    node.leave().await;
}
