//! Jobs whose results differ in their bytes: numbers within a tolerance, and the owner's own
//! program, which runs in the sandbox.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::network::{Network, docker_or_skip};

/// Writes another last digit each time it runs, and says whether two outputs start alike.
const PROGRAM: &str = "\
case $1 in
work) echo \"value,1.00000$RANDOM\" > /output/table.csv ;;
check) read a < /input/a/table.csv; read b < /input/b/table.csv; [ \"${a%%.*}\" = \"${b%%.*}\" ] ;;
esac
";

/// A docker-save archive of busybox and the program.
fn archive(folder: &Path) -> String {
    let context = folder.join("context");
    fs::create_dir(&context).expect("a folder");
    fs::copy("/bin/busybox", context.join("busybox")).expect("a static busybox");
    fs::write(context.join("run.sh"), PROGRAM).expect("a file");
    let dockerfile =
        "FROM scratch\nCOPY busybox run.sh /\nENTRYPOINT [\"/busybox\", \"sh\", \"/run.sh\"]\n";
    fs::write(context.join("Dockerfile"), dockerfile).expect("a file");
    let archive = folder.join("image.tar");
    let (context, path) = (context.to_str().expect("plain"), archive.to_str().expect("plain"));
    for args in [
        &["build", "--quiet", "--tag", "dockercomp-it-compare:test", context] as &[&str],
        &["save", "--output", path, "dockercomp-it-compare:test"],
        &["rmi", "--force", "dockercomp-it-compare:test"],
    ] {
        let output = Command::new("docker").args(args).output().expect("docker starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    path.to_owned()
}

#[test]
fn docker_results_that_say_the_same_agree() {
    let Some(_docker) = docker_or_skip("docker_results_that_say_the_same_agree") else { return };
    let mut network = Network::start();
    network.add_nodes(2, "docker", &[]);
    let archive = archive(network.folder.path());
    let added = network.owner(&["image", "add", &archive]);
    let image = added["cid"].as_str().expect("an id").to_owned();
    for comparison in [
        "comparison = \"numeric\"\nrelative_tolerance = 0.001\n",
        "comparison = \"checker\"\nchecker_args = [\"check\"]\n",
    ] {
        let job = format!(
            "version = 1\nname = \"digits\"\n[program]\nimage = \"{image}\"\nargs = [\"work\"]\n\
             [sweep]\nx = [1, 2, 3, 4]\n[validation]\npolicy = \"fixed\"\n{comparison}"
        );
        let file = network.folder.path().join("job.toml");
        fs::write(&file, job).expect("a job file");
        let job = network.submit(&file, &[]);
        let info = network.wait_for_done(&job);
        assert_eq!(info["accepted"], 4, "{info:#}");
        assert_eq!(info["results_valid"], 8, "{info:#}");
    }
}
