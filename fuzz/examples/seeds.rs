//! Writes the first inputs of each corpus, from which the fuzzer begins: one value of each kind.
//!
//! `cargo run -p dockercomp-fuzz --example seeds`

use std::path::Path;
use std::{fs, io};

use dockercomp_coordinator_core::Record;
use dockercomp_fuzz::specification;
use dockercomp_protocol::execution::{ExecutorKind, Exit, Usage};
use dockercomp_protocol::job::JobFile;
use dockercomp_protocol::log::{Head, HeadNotice, Path as Proof};
use dockercomp_protocol::manifest::{self, Chunk, ChunkedFile, Chunker};
use dockercomp_protocol::receipt::Receipt;
use dockercomp_protocol::statement::{Charter, ResultStatement};
use dockercomp_protocol::wire::permit::Permission;
use dockercomp_protocol::wire::work::{
    Assignment, Capacity, Hint, HintPeer, Lease, Platform, Refusal, Register, Report, Request,
    Response, Verdict, WorkRequest,
};
use dockercomp_protocol::wire::{chunk, swarm};
use dockercomp_protocol::{Cid, ReplicaId, Timestamp, batch, codec, content, envelope};
use libp2p_identity::Keypair;
use serde_bytes::ByteBuf;

fn main() -> io::Result<()> {
    let key = Keypair::ed25519_from_bytes([7; 32]).expect("any 32 bytes are a key");
    manifests()?;
    messages(&key)?;
    statements(&key)?;
    let list = swarm::Question::list(7, [&[1; 32], &[2; 32]]);
    write("swarm_message", 0, &codec::encode(&list))?;
    let map = swarm::News::map(7, &[true, false, false, true, false, false, false, false, true]);
    write("swarm_message", 1, &codec::encode(&map))?;
    let have = swarm::News::Have { list: 7, blocks: vec![1, 4] };
    write("swarm_message", 2, &codec::encode(&have))?;
    write("framed", 0, &[&[0, 0, 0, 5][..], b"frame", &[0, 0, 0, 0]].concat())?;
    let want = chunk::Request::Want { id: 7, digest: content::digest_of(b"chunk") };
    write("chunk_stream", 0, &[&[0], &want.encode()[..], &want.encode()].concat())?;
    let data = chunk::Answer::Data { id: 7, len: 1 << 20 };
    let miss = chunk::Answer::Miss { id: 8, reason: chunk::Miss::Busy };
    write("chunk_stream", 1, &[&[1], &data.encode()[..], &miss.encode()].concat())?;
    for (index, (kind, one, other)) in [
        (0_u8, &b"x,y\n1.0,2e3\n"[..], &b"x,y\n1.0001,2000\n"[..]),
        (1, b"{\"a\": [1.0, \"b\", null]}", b"{\"a\":[1.00001,\"b\",null]} "),
        (2, &npy("(2,)", &[1.0, 2.0]), &npy("(2,)", &[1.0, 2.000_001])),
    ]
    .into_iter()
    .enumerate()
    {
        let length = one.len() + other.len();
        let cut = (one.len() * 255).div_ceil(length);
        assert_eq!(length * cut / 255, one.len(), "the cut falls between the two");
        let cut = u8::try_from(cut).expect("a share of 255");
        write("comparison", index, &[&[kind, cut], one, other].concat())?;
    }
    let peer = key.public().to_peer_id();
    let link = format!("dockercomp://{peer}?via=/ip4/127.0.0.1/tcp/4001/p2p/{peer}");
    write("join_link", 0, link.as_bytes())?;
    write("join_link", 1, content::chunk_cid(b"chunk").to_string().as_bytes())?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for (index, job) in
        ["mandelbrot/job.toml", "wordcount/job.toml", "wordcount/stages.toml"].iter().enumerate()
    {
        let text = fs::read_to_string(examples.join(job))?;
        write("job_file", index, text.as_bytes())?;
        let file = JobFile::parse(&text).expect("our own example");
        let spec = specification(file).expect("our own example");
        write("statement", 4 + index, &codec::encode(&spec))?;
    }
    let job = content::block_cid(b"job");
    let at = Timestamp(1_700_000_000_000);
    write("record", 0, &codec::encode(&Record::JobCancelled { at, job }))?;
    write("record", 1, &codec::encode(&Record::Away { at, ms: 90_000 }))
}

/// Writes one input of a target's corpus.
fn write(target: &str, index: usize, bytes: &[u8]) -> io::Result<()> {
    if !dockercomp_fuzz::run(target, bytes) {
        return Err(io::Error::other(format!("{target}: seed {index} is not a valid value")));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("seed-{index}")), bytes)
}

fn npy(shape: &str, numbers: &[f64]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = u16::try_from(header.len()).expect("a short header").to_le_bytes();
    let mut file = [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes()].concat();
    numbers.iter().for_each(|number| file.extend(number.to_le_bytes()));
    file
}

/// A file of that many chunks; the last is shorter.
fn file(path: &str, chunks: u32) -> ChunkedFile {
    let chunks: Vec<Chunk> = (1..=chunks)
        .map(|n| (n, if n == chunks { 1000 } else { 1 << 20 }))
        .map(|(n, length)| Chunk(content::chunk_cid(&n.to_be_bytes()), length))
        .collect();
    let b3 = match &chunks[..] {
        [Chunk(cid, _)] => content::digest(cid).expect("our own hash"),
        _ => content::digest_of(path.as_bytes()),
    };
    let size = chunks.iter().map(|chunk| u64::from(chunk.1)).sum();
    ChunkedFile { path: path.into(), size, exec: false, b3, chunks }
}

fn manifests() -> io::Result<()> {
    let large = file("c/large", 20);
    let size = large.size;
    let files = vec![file("a", 1), file("b/c", 3), large];
    let built = manifest::build(Chunker::default(), files).expect("a manifest");
    let [(_, chunks), (_, page), (_, root)] = &built.blocks[..] else {
        unreachable!("one large file, three files, one root")
    };
    write("dataset_root", 0, root)?;
    write("dataset_page", 0, page)?;
    write("chunk_page", 0, &[&size.to_be_bytes()[..], &[0], chunks].concat())?;

    let body = b"a small output".to_vec();
    let chunk = Chunk(content::chunk_cid(&body), 14);
    let b3 = content::digest_of(&body);
    let file = ChunkedFile { path: "out".into(), size: 14, exec: false, b3, chunks: vec![chunk] };
    let built = manifest::build(Chunker::default(), vec![file]).expect("a manifest");
    let [(_, page), (_, root)] = &built.blocks[..] else { unreachable!("a page and a root") };
    let blocks = [root, page, &body].map(|block| ByteBuf::from(block.clone()));
    write("inline_output", 0, &codec::encode(&blocks.to_vec()))
}

fn statement(key: &Keypair) -> ResultStatement {
    ResultStatement {
        v: 1,
        job: content::block_cid(b"job"),
        unit: content::block_cid(b"unit"),
        replica: ReplicaId(3),
        node: key.public().to_peer_id(),
        executor: ExecutorKind::Wasm,
        exit: Exit::Code { code: 0 },
        output: Some(content::block_cid(b"output")),
        usage: Usage::default(),
    }
}

fn messages(key: &Keypair) -> io::Result<()> {
    let offer = Capacity { cpu_millis: 2000, memory_bytes: 1 << 30, disk_bytes: 1 << 33 };
    let addresses = vec!["/ip4/192.0.2.1/tcp/4001".to_owned()];
    let root: Cid = content::block_cid(b"root");
    let requests = [
        Request::Register(Register {
            agent: "dockercomp/0.1.0".into(),
            executors: vec![ExecutorKind::Docker, ExecutorKind::Wasm],
            offer,
            addresses: addresses.clone(),
            operator: Some("somebody".into()),
            platform: Platform { os: "linux".into(), cpu: "x86_64".into() },
        }),
        Request::Work(WorkRequest {
            free: offer,
            leases_max: 4,
            executors: vec![ExecutorKind::Wasm],
            cached: vec![root],
        }),
        Request::Job { job: root },
        Request::Head { since: vec![3, 9] },
        Request::Explain,
        Request::Report {
            root: batch::sign(key, &[codec::encode(&statement(key))]),
            results: vec![Report {
                statement: codec::encode(&statement(key)),
                log_tail: "the end of what it said".into(),
                output: vec![ByteBuf::from(b"block".to_vec())],
            }],
        },
        Request::Heartbeat {
            running: vec![ReplicaId(1), ReplicaId(2)],
            kept: vec![ReplicaId(4)],
            checkpointed: vec![ReplicaId(2)],
        },
    ];
    for (index, request) in requests.iter().enumerate() {
        write("work_request", index, &codec::encode(request))?;
    }
    let peers = vec![HintPeer { peer: key.public().to_peer_id(), addresses }];
    let responses = [
        Response::Welcome { charter: vec![1, 2, 3], heartbeat_ms: 30_000 },
        Response::Work(Assignment {
            leases: vec![Lease {
                replica: ReplicaId(3),
                unit: vec![1, 2, 3],
                expires_in_ms: 60_000,
                permission: vec![4],
            }],
            hints: vec![Hint { root, peers }],
            retry_ms: 1000,
        }),
        Response::Job { job: vec![1] },
        Response::Head { notices: vec![ByteBuf::from(vec![1])] },
        Response::Reported { verdicts: vec![Verdict::Stored, Verdict::TooLate] },
        Response::Heartbeat { abandon: vec![ReplicaId(1)], forget: vec![ReplicaId(2)] },
        Response::Refused(Refusal::Busy { retry_ms: 500 }),
    ];
    for (index, response) in responses.iter().enumerate() {
        write("work_response", index, &codec::encode(response))?;
    }
    Ok(())
}

fn statements(key: &Keypair) -> io::Result<()> {
    let node = key.public().to_peer_id();
    write("result", 0, &statement(key).seal(key))?;
    let encoded = codec::encode(&statement(key));
    let length = u16::try_from(encoded.len()).expect("a short statement").to_be_bytes();
    write("report", 0, &[&length[..], &encoded, &encoded].concat())?;

    let charter = Charter { v: 1, project: node, name: "project".into(), coordinator: node };
    let head = Head {
        v: 1,
        project: node,
        size: 5,
        root: content::digest_of(b"root"),
        at: Timestamp(1_700_000_000_000),
    };
    let permission = Permission { v: 1, asker: node, outputs: vec![content::block_cid(b"output")] };
    write("statement", 0, &codec::encode(&charter))?;
    write("statement", 1, &codec::encode(&head))?;
    write("statement", 2, &codec::encode(&permission))?;
    write("statement", 3, &envelope::seal(key, &charter))?;
    let notice = HeadNotice {
        v: 1,
        charter: envelope::seal(key, &charter),
        head: envelope::seal(key, &head),
        since: 0,
        proof: Proof::new(vec![]),
    };
    write("head_notice", 0, &codec::encode(&notice))?;

    let receipt = Receipt {
        leaf: 0,
        charter: envelope::seal(key, &charter),
        job: b"the signed job".to_vec(),
        entry: b"the entry with its signed results".to_vec(),
        path: Proof::new(vec![content::digest_of(b"sibling")]),
        head: envelope::seal(key, &head),
    };
    write("receipt", 0, &receipt.encode())
}
