//! The WebAssembly executor, with programs that misbehave.

use std::fs;

use crate::common::{Directories, eventually};
use dockercomp_executor::wasm::WasmExecutor;
use dockercomp_executor::{Executor, Finished, Program, Run, RunError};
use dockercomp_protocol::execution::Exit;
use tokio_util::sync::CancellationToken;

struct Node {
    executor: WasmExecutor,
    directories: Directories,
}

impl Node {
    fn start() -> Self {
        let executor = WasmExecutor::new().expect("this processor is supported");
        Self { executor, directories: Directories::new() }
    }

    fn module(&self, id: &str, text: &str) -> Program {
        let file = self.directories.root().join(format!("{id}.wasm"));
        fs::write(&file, wat::parse_str(text).expect("the text is valid")).expect("module");
        Program::Module { id: id.to_owned(), file }
    }

    /// Runs a module whose `_start` has this body. See [`program`] for what it may call.
    async fn run(&self, body: &str) -> Finished {
        self.run_within(body, |_| {}).await
    }

    async fn run_within(&self, body: &str, change: impl FnOnce(&mut Run)) -> Finished {
        let module = self.module(&format!("m{}", body.len()), &program(body));
        let mut run = self.directories.run(&module, &["one", "two"]);
        change(&mut run);
        // A compiled module is kept by its id, and these ids are short.
        let executor = WasmExecutor::new().expect("this processor is supported");
        executor.run(run, CancellationToken::new()).await.expect("the runtime works")
    }
}

/// A program with some of WASI imported. Addresses from 1000 on are free; file descriptor 3 is
/// `/input`, 4 is `/output`, 6 is `/checkpoint`. `$print` writes the bytes at an address to standard error,
/// `$save` writes them to the file `/output/out`, `$open` returns an error number.
fn program(body: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "clock_time_get"
            (func $clock (param i32 i64 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write"
            (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_read"
            (func $fd_read (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_open"
            (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_symlink"
            (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "poll_oneoff"
            (func $poll (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "args_sizes_get"
            (func $args_sizes (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "environ_sizes_get"
            (func $environ_sizes (param i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "out")
          (data (i32.const 16) "../secret")
          (data (i32.const 32) "text")
          (data (i32.const 48) "/etc/passwd")
          (data (i32.const 64) "hello\n")
          (func $write (param $fd i32) (param $at i32) (param $length i32)
            (i32.store (i32.const 500) (local.get $at))
            (i32.store (i32.const 504) (local.get $length))
            (if (call $fd_write (local.get $fd) (i32.const 500) (i32.const 1) (i32.const 508))
              (then unreachable)))
          (func $print (param $at i32) (param $length i32)
            (call $write (i32.const 2) (local.get $at) (local.get $length)))
          ;; Flags: 1 creates. Rights: 2 reads, 64 writes. The descriptor is left at 600.
          (func $open (param $dir i32) (param $at i32) (param $length i32) (param $flags i32)
              (param $rights i64) (result i32)
            (call $path_open (local.get $dir) (i32.const 0) (local.get $at) (local.get $length)
              (local.get $flags) (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 600)))
          (func $save (param $at i32) (param $length i32)
            (if (call $open (i32.const 4) (i32.const 0) (i32.const 3) (i32.const 1) (i64.const 64))
              (then unreachable))
            (call $write (i32.load (i32.const 600)) (local.get $at) (local.get $length)))
          (func (export "_start") {body}))"#
    )
}

#[tokio::test]
async fn exit_code_and_output_are_passed_through() {
    let node = Node::start();
    let finished =
        node.run("(call $print (i32.const 64) (i32.const 6)) (call $exit (i32.const 7))").await;
    assert_eq!(finished.exit, Exit::Code { code: 7 });
    assert_eq!(finished.log_tail, "hello\n");
    assert!(finished.usage.fuel > 0);
    assert_eq!(finished.usage.memory_peak_bytes, 64 << 10);
    assert_eq!(node.run("").await.exit, Exit::Code { code: 0 });
    let finished = node.run("nop (call $exit (i32.const 126))").await;
    assert_eq!(finished.exit, Exit::Crashed, "WASI has no such code");
}

#[tokio::test]
async fn a_trap_is_a_crash_and_says_why() {
    let node = Node::start();
    let finished = node.run("unreachable").await;
    assert_eq!(finished.exit, Exit::Crashed);
    assert!(finished.log_tail.contains("unreachable"), "{finished:?}");
    let finished = node.run("(drop (i32.load (i32.const -4)))").await;
    assert_eq!(finished.exit, Exit::Crashed);
    assert!(finished.log_tail.contains("out of bounds"), "{finished:?}");
}

#[tokio::test]
async fn a_program_without_end_is_interrupted() {
    let node = Node::start();
    let looping = node.run_within("(loop br 0)", |run| run.limits.wall_ms = 300).await;
    assert_eq!(looping.exit, Exit::TimedOut);
    assert!((300..10_000).contains(&looping.usage.wall_ms), "{looping:?}");
    assert!(looping.usage.cpu_ms > 0, "{looping:?}");

    // Asleep for an hour: a subscription to the clock, relative, at address 1000.
    let sleeping = node
        .run_within(
            "(i64.store (i32.const 1024) (i64.const 3600000000000))
             (i32.store (i32.const 1016) (i32.const 1))
             (drop (call $poll (i32.const 1000) (i32.const 2000) (i32.const 1) (i32.const 3000)))",
            |run| run.limits.wall_ms = 300,
        )
        .await;
    assert_eq!(sleeping.exit, Exit::TimedOut);
    assert!((300..10_000).contains(&sleeping.usage.wall_ms), "{sleeping:?}");
}

#[tokio::test]
async fn memory_is_bounded() {
    let node = Node::start();
    let growing = "(loop (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1))
                     (then unreachable)) br 0)";
    let finished = node.run(growing).await;
    assert_eq!(finished.exit, Exit::OutOfMemory, "{finished:?}");
    let peak = finished.usage.memory_peak_bytes;
    assert!(((62 << 20)..=(64 << 20)).contains(&peak), "{finished:?}");

    // Refused, and lived with.
    let modest = "(if (i32.ne (memory.grow (i32.const 60000)) (i32.const -1)) (then unreachable))";
    assert_eq!(node.run(modest).await.exit, Exit::Code { code: 0 });

    let module = node.module("large", r#"(module (memory 2000) (func (export "_start")))"#);
    let run = node.directories.run(&module, &[]);
    let finished = node.executor.run(run, CancellationToken::new()).await.expect("it works");
    assert_eq!(finished.exit, Exit::OutOfMemory, "{finished:?}");
}

#[tokio::test]
async fn fuel_is_the_same_in_every_run() {
    let node = Node::start();
    let body = "(local $i i32)
        (loop $again
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $i) (i32.const 100000))))
        (call $save (i32.const 64) (i32.const 6))";
    let (first, second) = (node.run(body).await, node.run(body).await);
    assert_eq!(first.exit, Exit::Code { code: 0 });
    assert!(first.usage.fuel > 100_000, "{first:?}");
    assert_eq!(first.usage.fuel, second.usage.fuel);
}

#[tokio::test]
async fn clocks_and_random_numbers_follow_from_the_unit() {
    let body = "(drop (call $random (i32.const 1000) (i32.const 64)))
        (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 1064)))
        (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 1072)))
        (drop (call $environ_sizes (i32.const 1080) (i32.const 1084)))
        (drop (call $args_sizes (i32.const 1088) (i32.const 1092)))
        (call $save (i32.const 1000) (i32.const 96))";
    let mut outputs = Vec::new();
    for unit in ["a", "a", "b"] {
        let node = Node::start();
        let finished = node.run_within(body, |run| run.labels.unit = unit.to_owned()).await;
        assert_eq!(finished.exit, Exit::Code { code: 0 }, "{finished:?}");
        outputs.push(fs::read(node.directories.root().join("output/out")).expect("output"));
    }
    assert_eq!(outputs[0], outputs[1], "replicas of one unit agree");
    assert_ne!(outputs[0][..64], outputs[2][..64], "units differ");
    assert_eq!(outputs[0][64..], outputs[2][64..], "clocks do not");
    assert_eq!(outputs[0][80..88], [0; 8], "no environment");
    assert_eq!(outputs[0][88], 3, "`program`, `one`, `two`");
}

#[tokio::test]
async fn input_is_readable_and_output_writable() {
    let node = Node::start();
    node.directories.write_input("text", "from input");
    let finished = node
        .run(
            "(if (call $open (i32.const 3) (i32.const 32) (i32.const 4) (i32.const 0) (i64.const 2))
               (then unreachable))
             (i32.store (i32.const 700) (i32.const 1000))
             (i32.store (i32.const 704) (i32.const 100))
             (if (call $fd_read (i32.load (i32.const 600)) (i32.const 700) (i32.const 1)
                   (i32.const 708)) (then unreachable))
             (call $save (i32.const 1000) (i32.load (i32.const 708)))",
        )
        .await;
    assert_eq!(finished.exit, Exit::Code { code: 0 }, "{finished:?}");
    assert_eq!(node.directories.output("out"), "from input");
}

#[tokio::test]
async fn nothing_outside_is_reachable() {
    let node = Node::start();
    fs::write(node.directories.root().join("secret"), "secret").expect("file");
    node.directories.write_input("text", "mine");
    let must_fail = |what: &str| format!("(if (i32.eqz {what}) (then unreachable))");
    let open = |dir: u32, at: u32, length: u32, flags: u32, rights: u32| {
        format!(
            "(call $open (i32.const {dir}) (i32.const {at}) (i32.const {length}) \
             (i32.const {flags}) (i64.const {rights}))"
        )
    };
    let body = [
        must_fail(&open(4, 16, 9, 0, 2)),  // ../secret, to read
        must_fail(&open(3, 16, 9, 0, 2)),  // the same from the input
        must_fail(&open(4, 16, 9, 1, 64)), // the same, to write
        must_fail(&open(4, 48, 11, 0, 2)), // /etc/passwd
        must_fail(&open(3, 32, 4, 0, 64)), // an input file, to write
        must_fail(&open(3, 0, 3, 1, 64)),  // a new input file
        must_fail(&open(6, 16, 9, 0, 2)),  // ../secret from the checkpoint, to read
        must_fail(&open(6, 16, 9, 1, 64)), // the same, to write
        must_fail(&open(7, 0, 3, 0, 2)),   // no other directory was opened
    ]
    .concat();
    let finished = node.run(&body).await;
    assert_eq!(finished.exit, Exit::Code { code: 0 }, "{finished:?}");
    assert_eq!(fs::read_to_string(node.directories.root().join("secret")).expect("file"), "secret");
    assert_eq!(fs::read_dir(node.directories.root().join("input")).expect("input").count(), 1);
}

/// A link that leads out is not followed while the program runs, and refused afterwards.
#[tokio::test]
async fn links_are_refused() {
    let node = Node::start();
    fs::write(node.directories.root().join("secret"), "secret").expect("file");
    let finished = node
        .run(
            "(if (call $symlink (i32.const 16) (i32.const 9) (i32.const 4) (i32.const 0) (i32.const 3))
               (then unreachable))
             (if (i32.eqz (call $open (i32.const 4) (i32.const 0) (i32.const 3) (i32.const 0)
                   (i64.const 2))) (then unreachable))",
        )
        .await;
    assert_eq!(finished.exit, Exit::OutputRefused, "{finished:?}");
}

#[tokio::test]
async fn output_is_bounded() {
    let node = Node::start();
    let endless = "(call $save (i32.const 0) (i32.const 60000))
        (loop (call $write (i32.load (i32.const 600)) (i32.const 0) (i32.const 60000)) br 0)";
    let finished = node.run(endless).await;
    assert_eq!(finished.exit, Exit::OutputTooLarge, "{finished:?}");

    let just_too_much = "(call $save (i32.const 0) (i32.const 60000))";
    let finished = node.run_within(just_too_much, |run| run.limits.output_bytes = 59_999).await;
    assert_eq!(finished.exit, Exit::OutputTooLarge, "{finished:?}");
    let finished = node.run_within(just_too_much, |run| run.limits.output_bytes = 60_000).await;
    assert_eq!(finished.exit, Exit::OutputTooLarge, "the first file is still there");
}

/// Reads `/checkpoint/out` to address 1000, if it is there; says how long it is in `$length`.
const LOAD: &str = "(local $length i32)
    (if (i32.eqz (call $open (i32.const 6) (i32.const 0) (i32.const 3) (i32.const 0) (i64.const 2)))
      (then
        (i32.store (i32.const 700) (i32.const 1000))
        (i32.store (i32.const 704) (i32.const 100))
        (if (call $fd_read (i32.load (i32.const 600)) (i32.const 700) (i32.const 1)
              (i32.const 708)) (then unreachable))
        (local.set $length (i32.load (i32.const 708)))))";
/// Opens `/checkpoint/out` to write.
const SAVE: &str = "(if (call $open (i32.const 6) (i32.const 0) (i32.const 3) (i32.const 1)
      (i64.const 64)) (then unreachable))";

/// Each attempt adds a letter to what it found, and traps until there are three.
#[tokio::test]
async fn a_checkpoint_is_there_again() {
    let node = Node::start();
    let body = format!(
        "{LOAD}
         (i32.store8 (i32.add (i32.const 1000) (local.get $length)) (i32.const 120))
         (local.set $length (i32.add (local.get $length) (i32.const 1)))
         {SAVE}
         (call $write (i32.load (i32.const 600)) (i32.const 1000) (local.get $length))
         (if (i32.lt_u (local.get $length) (i32.const 3)) (then unreachable))
         (call $save (i32.const 1000) (local.get $length))"
    );
    for expected in ["x", "xx"] {
        assert_eq!(node.run(&body).await.exit, Exit::Crashed);
        assert_eq!(node.directories.checkpoint("out"), expected);
    }
    assert_eq!(node.run(&body).await.exit, Exit::Code { code: 0 });
    assert_eq!(node.directories.output("out"), "xxx");
    let output = fs::read_dir(node.directories.root().join("output")).expect("output");
    assert_eq!(output.count(), 1, "the checkpoint is no part of it");
}

#[tokio::test]
async fn output_and_checkpoint_are_bounded_together() {
    let node = Node::start();
    let endless = format!(
        "{SAVE} (loop (call $write (i32.load (i32.const 600)) (i32.const 0) (i32.const 60000))
           br 0)"
    );
    let finished = node.run(&endless).await;
    assert_eq!(finished.exit, Exit::OutputTooLarge, "{finished:?}");

    let both = format!(
        "{SAVE} (call $write (i32.load (i32.const 600)) (i32.const 0) (i32.const 40000))
         (call $save (i32.const 0) (i32.const 20000))"
    );
    for (bytes, files, expected) in [
        (60_000, 2, Exit::Code { code: 0 }),
        (59_999, 2, Exit::OutputTooLarge),
        (60_000, 1, Exit::OutputTooLarge),
    ] {
        let node = Node::start();
        let finished = node
            .run_within(&both, |run| {
                (run.limits.output_bytes, run.limits.output_files) = (bytes, files);
            })
            .await;
        assert_eq!(finished.exit, expected, "{bytes} bytes, {files} files: {finished:?}");
    }
}

/// A link that leads out is followed neither by the program nor by whoever counts what is there.
#[tokio::test]
async fn links_in_a_checkpoint_lead_nowhere() {
    let node = Node::start();
    let secret = node.directories.root().join("secret");
    fs::write(&secret, vec![0; 8 << 20]).expect("file");
    let link = "(drop (call $symlink (i32.const 16) (i32.const 9) (i32.const 6) (i32.const 0)
                  (i32.const 3)))
                (if (i32.eqz (call $open (i32.const 6) (i32.const 0) (i32.const 3) (i32.const 0)
                      (i64.const 2))) (then unreachable))
                (if (i32.eqz (call $open (i32.const 6) (i32.const 0) (i32.const 3) (i32.const 1)
                      (i64.const 64))) (then unreachable))";
    // The second attempt finds it.
    for _ in 0..2 {
        let finished = node.run(link).await;
        assert_eq!(finished.exit, Exit::Code { code: 0 }, "{finished:?}");
        let left = node.directories.root().join("checkpoint/out");
        assert!(fs::symlink_metadata(left).expect("the link").is_symlink());
    }
    assert_eq!(fs::metadata(secret).expect("file").len(), 8 << 20);
}

#[tokio::test]
async fn a_module_that_cannot_start_is_the_owners_fault() {
    let node = Node::start();
    let garbage = node.directories.root().join("garbage");
    fs::write(&garbage, "garbage").expect("file");
    for (program, words) in [
        (Program::Module { id: "garbage".to_owned(), file: garbage }, "not a valid WebAssembly"),
        (node.module("library", "(module)"), "_start"),
        (
            node.module(
                "network",
                r#"(module (import "env" "connect" (func)) (func (export "_start")))"#,
            ),
            "env::connect",
        ),
        (
            node.module("threads", r#"(module (memory 1 1 shared) (func (export "_start")))"#),
            "not a valid WebAssembly",
        ),
    ] {
        let error = node.executor.prepare(&program).await.expect_err("it is refused");
        assert!(error.is_programs_fault(), "{error:?}");
        let run = node.directories.run(&program, &[]);
        let finished = node.executor.run(run, CancellationToken::new()).await.expect("it works");
        assert_eq!(finished.exit, Exit::NotStarted, "{}", program.id());
        assert!(finished.log_tail.contains(words), "{finished:?}");
    }
    let missing = node.directories.root().join("missing");
    let missing = Program::Module { id: "missing".to_owned(), file: missing };
    let error = node.executor.prepare(&missing).await.expect_err("it is missing");
    assert!(!error.is_programs_fault(), "{error:?}");
    let image = Program::Image { id: "image".to_owned(), archive: "/image".into() };
    let error = node.executor.prepare(&image).await.expect_err("it is no module");
    assert!(!error.is_programs_fault(), "{error:?}");
}

#[tokio::test]
async fn cancelling_dropping_and_cleanup_stop_the_program() {
    let node = Node::start();
    // It says that it runs, and then runs for ever.
    let endless = program("(call $save (i32.const 64) (i32.const 6)) (loop br 0)");
    let module = node.module("endless", &endless);
    let run = node.directories.run(&module, &[]);
    let sign = node.directories.root().join("output/out");

    let cancel = CancellationToken::new();
    let running = node.executor.run(run.clone(), cancel.clone());
    let cancelling = async {
        eventually("it runs", async || sign.exists()).await;
        cancel.cancel();
    };
    let (finished, ()) = tokio::join!(running, cancelling);
    assert!(matches!(finished, Err(RunError::Cancelled)), "{finished:?}");

    fs::remove_file(&sign).expect("the sign");
    {
        let mut running = node.executor.run(run.clone(), CancellationToken::new());
        let started = eventually("it runs", async || sign.exists());
        tokio::select! {
            _ = &mut running => panic!("it ended by itself"),
            () = started => {}
        }
    }
    // Waits for the dropped one as well; a program that still ran would hold it up for ever.
    fs::remove_file(&sign).expect("the sign");
    let running = node.executor.run(run, CancellationToken::new());
    let cleaning = async {
        eventually("it runs", async || sign.exists()).await;
        node.executor.cleanup().await
    };
    let (finished, removed) = tokio::join!(running, cleaning);
    assert!(matches!(finished, Err(RunError::Cancelled)), "{finished:?}");
    removed.expect("cleanup");
}
