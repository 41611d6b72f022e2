//! Images that are made elsewhere: from the local engine, and as docker-save archives. They
//! travel as chunks; no registry is asked.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::network::{Network, docker_or_skip, example};

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
        fs::write(context.join("Dockerfile"), dockerfile).expect("a file");
        docker(&["build", "--quiet", "--tag", name, context.to_str().expect("a plain path")]);
        Self(name)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force", self.0]).output();
    }
}

fn docker(args: &[&str]) {
    let output = Command::new("docker").args(args).output().expect("docker starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn images_from_the_engine_and_from_archives_run() {
    let Some(_docker) = docker_or_skip("images_from_the_engine_and_from_archives_run") else {
        return;
    };
    let mut network = Network::start();
    network.add_nodes(2, "docker", &[]);
    let image = Image::build("dockercomp-it-image:test", network.folder.path());
    let archive = network.folder.path().join("image.tar");
    let archive = archive.to_str().expect("a plain path");
    docker(&["save", "--output", archive, image.0]);

    let from_engine = network.owner(&["image", "add", "--from-engine", image.0]);
    let from_archive = network.owner(&["image", "add", archive]);
    for added in [from_engine, from_archive] {
        let cid = added["cid"].as_str().expect("an id").to_owned();
        let job = format!(
            "version = 1\nname = \"image\"\n[program]\nimage = \"{cid}\"\nargs = [\"tile\", \
             \"--column\", \"{{column}}\", \"--row\", \"0\", \"--columns\", \"8\", \"--rows\", \
             \"8\", \"--width\", \"64\", \"--height\", \"64\", \"--iterations\", \"100\"]\n\
             [sweep]\ncolumn = [0, 1]\n"
        );
        let file = network.folder.path().join("job.toml");
        fs::write(&file, job).expect("a job file");
        let job = network.submit(&file, &[]);
        let info = network.wait_for_done(&job);
        assert_eq!(info["results_valid"], 4, "{info:#}");
    }
}
