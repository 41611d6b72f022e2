//! The sandbox: every rule that a container is created with, in one pure function.
//!
//! What is not said here is not allowed: there is no other place that configures a container,
//! and the test below fails when a setting is added, changed or lost.
//!
//! | Rule | Value |
//! |---|---|
//! | network | none |
//! | user | never root: the node's own, or `nobody` when the node is root |
//! | capabilities, privileges | all dropped; none can be gained; the engine's seccomp profile |
//! | root file system | read-only |
//! | writable | `/output` and `/checkpoint` (bind, watched), `/tmp` and `/dev/shm` (memory, sized, no programs) |
//! | memory | limit, no swap, killed inside when it is exceeded and before the host's own |
//! | CPU, processes, open files, file size, core dumps | limited |
//! | namespaces | own IPC, PID, cgroup, UTS; nothing shared with the host |
//! | log | kept nowhere: the node reads the streams and keeps their end |
//! | restart, health check, volumes, devices | none |
//!
//! The image's user, working directory and health check are overridden; its entry point and
//! environment stand, and its default arguments where the run has none.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};

use dockercomp_protocol::execution::Limits;

use crate::work::Run;

/// What the policy has to know about this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// User that containers run as.
    pub uid: u32,
    /// Group that containers run as.
    pub gid: u32,
    /// Processors of the engine; it refuses a limit above them.
    pub cpus: u32,
}

/// Label that holds the id of the node that made a container.
pub const LABEL_NODE: &str = "dockercomp.node";
/// Label that holds the job's id.
pub const LABEL_JOB: &str = "dockercomp.job";
/// Label that holds the work unit's id.
pub const LABEL_UNIT: &str = "dockercomp.unit";
/// Label that holds the replica's id.
pub const LABEL_REPLICA: &str = "dockercomp.replica";

/// User and group `nobody`, for nodes that run as root.
pub const NOBODY: u32 = 65_534;

/// The configuration of the container for one run. `image` is the id that the engine knows.
#[must_use]
pub fn container(run: &Run, image: &str, node: &str, host: &Host) -> ContainerCreateBody {
    let labels = &run.labels;
    ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: (!run.args.is_empty()).then(|| run.args.clone()),
        env: Some(run.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        user: Some(format!("{}:{}", host.uid, host.gid)),
        working_dir: Some(OUTPUT.to_owned()),
        hostname: Some(HOSTNAME.to_owned()),
        attach_stdin: Some(false),
        open_stdin: Some(false),
        tty: Some(false),
        network_disabled: Some(true),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        labels: Some(HashMap::from([
            (LABEL_NODE.to_owned(), node.to_owned()),
            (LABEL_JOB.to_owned(), labels.job.clone()),
            (LABEL_UNIT.to_owned(), labels.unit.clone()),
            (LABEL_REPLICA.to_owned(), labels.replica.clone()),
        ])),
        host_config: Some(host_config(run, host)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(run: &Run, host: &Host) -> HostConfig {
    let limits = &run.limits;
    let memory = signed(limits.memory_bytes.max(MEMORY_BYTES_MIN));
    HostConfig {
        // Isolation.
        network_mode: Some("none".to_owned()),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        // Naming no seccomp profile keeps the engine's default one.
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        // File systems.
        readonly_rootfs: Some(true),
        mounts: Some(vec![
            bind(&run.input, INPUT, true),
            bind(&run.output, OUTPUT, false),
            bind(&run.checkpoint, CHECKPOINT, false),
        ]),
        tmpfs: Some(HashMap::from([(
            TMP.to_owned(),
            format!("rw,noexec,nosuid,nodev,mode=1777,size={}", limits.tmp_bytes),
        )])),
        shm_size: Some(SHM_BYTES),
        // Resources.
        memory: Some(memory),
        memory_swap: Some(memory),
        memory_swappiness: Some(0),
        oom_kill_disable: Some(false),
        oom_score_adj: Some(OOM_SCORE),
        nano_cpus: Some(nano_cpus(limits.cpu_millis, host.cpus)),
        // One more for the init process.
        pids_limit: Some(i64::from(limits.pids) + 1),
        ulimits: Some(vec![
            ulimit("core", 0),
            ulimit("fsize", signed(file_bytes_max(limits))),
            ulimit("nofile", OPEN_FILES_MAX),
        ]),
        // Life.
        init: Some(true),
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    }
}

fn bind(source: &std::path::Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        // The API speaks JSON; the executor refuses other paths before it comes here.
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) }
}

/// The limit on one file holds in /output, /checkpoint and /tmp alike. It lies above the size of /tmp, so
/// that a program that fills /tmp learns that it is full and is not killed for its output.
fn file_bytes_max(limits: &Limits) -> u64 {
    limits.output_bytes.max(limits.tmp_bytes.saturating_add(TMP_MARGIN_BYTES))
}

fn nano_cpus(cpu_millis: u32, cpus: u32) -> i64 {
    let millis = cpu_millis.clamp(CPU_MILLIS_MIN, cpus.max(1).saturating_mul(1000));
    i64::from(millis) * 1_000_000
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

const INPUT: &str = "/input";
const OUTPUT: &str = "/output";
const CHECKPOINT: &str = "/checkpoint";
const TMP: &str = "/tmp";
/// The same on every node, so that programs cannot differ by it.
const HOSTNAME: &str = "replica";
/// Size of `/dev/shm`: present, because some libraries insist on it, and small.
const SHM_BYTES: i64 = 1 << 20;
/// Docker refuses a smaller memory limit.
const MEMORY_BYTES_MIN: u64 = 6 << 20;
/// Docker refuses a smaller CPU limit.
const CPU_MILLIS_MIN: u32 = 10;
/// More than the page that the size of /tmp is rounded up to.
const TMP_MARGIN_BYTES: u64 = 1 << 20;
/// Open files a process.
const OPEN_FILES_MAX: i64 = 1024;
/// When the whole machine runs out of memory, a stranger's work goes before the volunteer's.
const OOM_SCORE: i64 = 800;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::work::{Labels, Program};

    fn run() -> Run {
        Run {
            program: Program::Image { id: "p".into(), archive: "/store/p".into() },
            args: vec!["--tile".into(), "7".into()],
            env: BTreeMap::from([("B".into(), "2".into()), ("A".into(), "1=1".into())]),
            input: "/data/in:put".into(),
            output: "/data/output".into(),
            checkpoint: "/data/checkpoint".into(),
            limits: Limits {
                cpu_millis: 1500,
                memory_bytes: 64 << 20,
                tmp_bytes: 3 << 20,
                output_bytes: 5 << 20,
                output_files: 9,
                pids: 16,
                wall_ms: 60_000,
            },
            labels: Labels { job: "j".into(), unit: "u".into(), replica: "r".into() },
        }
    }

    const HOST: Host = Host { uid: 1000, gid: 1001, cpus: 4 };

    /// The whole request as the engine receives it. Each setting is named; none is extra.
    #[test]
    fn every_rule_reaches_the_engine() {
        let body = container(&run(), "sha256:abc", "node-1", &HOST);
        let sent = serde_json::to_value(body).expect("it serialises");
        let memory = 64 << 20;
        let bind = |source: &str, target: &str, read_only: bool| {
            json!({"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only,
                   "BindOptions": {"Propagation": "rprivate"}})
        };
        let rules: BTreeMap<&str, Value> = BTreeMap::from([
            ("Image", json!("sha256:abc")),
            ("Cmd", json!(["--tile", "7"])),
            ("Env", json!(["A=1=1", "B=2"])),
            ("User", json!("1000:1001")),
            ("WorkingDir", json!("/output")),
            ("Hostname", json!("replica")),
            ("AttachStdin", json!(false)),
            ("OpenStdin", json!(false)),
            ("Tty", json!(false)),
            ("NetworkDisabled", json!(true)),
            ("Healthcheck", json!({"Test": ["NONE"]})),
            (
                "Labels",
                json!({"dockercomp.node": "node-1", "dockercomp.job": "j",
                       "dockercomp.unit": "u", "dockercomp.replica": "r"}),
            ),
        ]);
        let host_rules: BTreeMap<&str, Value> = BTreeMap::from([
            ("NetworkMode", json!("none")),
            ("IpcMode", json!("private")),
            ("CgroupnsMode", json!("private")),
            ("Privileged", json!(false)),
            ("CapDrop", json!(["ALL"])),
            ("SecurityOpt", json!(["no-new-privileges:true"])),
            ("ReadonlyRootfs", json!(true)),
            (
                "Mounts",
                json!([
                    bind("/data/in:put", "/input", true),
                    bind("/data/output", "/output", false),
                    bind("/data/checkpoint", "/checkpoint", false)
                ]),
            ),
            ("Tmpfs", json!({"/tmp": "rw,noexec,nosuid,nodev,mode=1777,size=3145728"})),
            ("ShmSize", json!(1 << 20)),
            ("Memory", json!(memory)),
            ("MemorySwap", json!(memory)),
            ("MemorySwappiness", json!(0)),
            ("OomKillDisable", json!(false)),
            ("OomScoreAdj", json!(800)),
            ("NanoCpus", json!(1_500_000_000)),
            ("PidsLimit", json!(17)),
            (
                "Ulimits",
                json!([{"Name": "core", "Soft": 0, "Hard": 0},
                       {"Name": "fsize", "Soft": 5 << 20, "Hard": 5 << 20},
                       {"Name": "nofile", "Soft": 1024, "Hard": 1024}]),
            ),
            ("Init", json!(true)),
            ("AutoRemove", json!(false)),
            ("RestartPolicy", json!({"Name": "no"})),
            ("LogConfig", json!({"Type": "none"})),
        ]);
        let mut expected = json!(rules);
        expected["HostConfig"] = json!(host_rules);
        assert_eq!(sent, expected);
    }

    /// Limits that Docker would refuse are moved to the nearest that it accepts.
    #[test]
    fn limits_stay_within_what_docker_accepts() {
        let mut run = run();
        run.limits.cpu_millis = 64_000;
        run.limits.memory_bytes = 1;
        let host = host_config(&run, &HOST);
        assert_eq!(host.nano_cpus, Some(4_000_000_000));
        assert_eq!(host.memory, Some(6 << 20));

        run.limits.cpu_millis = 0;
        run.limits.memory_bytes = u64::MAX;
        run.limits.tmp_bytes = 8 << 20;
        let host = host_config(&run, &HOST);
        assert_eq!(host.nano_cpus, Some(10_000_000));
        assert_eq!(host.memory, Some(i64::MAX));
        assert_eq!(host.ulimits.expect("ulimits")[1].hard, Some(9 << 20));
    }

    #[test]
    fn without_arguments_the_images_own_stand() {
        let mut run = run();
        run.args.clear();
        assert_eq!(container(&run, "i", "n", &HOST).cmd, None);
    }
}
