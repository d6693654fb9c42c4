//! The reference flow, run as a user runs it: a child process of this test, on real sockets and in real time.
#![cfg(all(
    unix,
    feature = "circuit-breaker",
    feature = "retry",
    feature = "timeout",
    feature = "balance",
    feature = "health",
    feature = "cache",
    feature = "http",
    feature = "metrics"
))]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{Mutex, MutexGuard};

/// `target/<profile>/examples/reference_flow`, beside this test's own `target/<profile>/deps`.
fn example() -> &'static Path {
    static EXAMPLE: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        // `cargo test` builds the examples, but `cargo test --test reference_flow` does not, and may find an old one.
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--offline", "--example", "reference_flow"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        build.arg("--target-dir").arg(profile.parent().unwrap());
        // The features of this very build, where there are two sets to tell apart, so that nothing is built twice.
        build.args(if cfg!(feature = "serde") { &["--all-features"][..] } else { &["--features", "http"][..] });
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the example does not build");
        profile.join("examples").join("reference_flow")
    })
}

/// A flow is eight processes: one flow at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.blocking_lock()
}

/// A flow that serves until it is ended.
struct Serving {
    parent: Child,
    stdout: BufReader<ChildStdout>,
    processes: Vec<(String, i32)>,
    balancer: String,
    folder: PathBuf,
}

impl Serving {
    fn start() -> Self {
        let mut parent = Command::new(example()).arg("--serve").stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(parent.stdout.take().unwrap());
        let (mut processes, mut balancer, mut folder) = (Vec::new(), None, None);
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "it ended early:\n{printed}");
            printed += &line;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [name, address, "process", id] => {
                    if *name == "balancer" {
                        balancer = address.strip_prefix("http://").map(str::to_owned);
                    }
                    processes.push(((*name).to_owned(), id.parse().unwrap()));
                }
                ["tail", "-f", logs] => folder = Path::new(logs).parent().map(Path::to_owned),
                ["Ctrl-C", ..] => break,
                _ => {}
            }
        }
        Self { parent, stdout, processes, balancer: balancer.unwrap(), folder: folder.unwrap() }
    }

    fn process(&self, name: &str) -> Pid {
        let process = self.processes.iter().find(|(process, _)| process == name);
        Pid::from_raw(process.unwrap().1)
    }

    fn signal_parent(&self, signal: Signal) {
        kill(Pid::from_raw(self.parent.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits until no process of it runs, the janitor included, and its folder is gone.
    #[allow(clippy::disallowed_methods, reason = "processes end in real time")]
    fn assert_nothing_left(&self) {
        let mut left = Vec::new();
        for _ in 0..200 {
            left = self.running();
            if left.is_empty() && !self.folder.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the folder exists: {}; running: {left:#?}", self.folder.exists());
    }

    /// The command lines of its parts, each of which names the folder.
    fn running(&self) -> Vec<String> {
        let folder = self.folder.display().to_string();
        command_lines().into_iter().filter(|line| line.contains(&folder)).collect()
    }
}

/// The command lines of all processes. Read from the kernel: `ps` is not on every machine that has a toolchain.
#[cfg(target_os = "linux")]
fn command_lines() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    // A process that has ended in the meantime has nothing to read.
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

#[cfg(not(target_os = "linux"))]
fn command_lines() -> Vec<String> {
    let ps = Command::new("ps").args(["-A", "-ww", "-o", "args="]).output().unwrap();
    String::from_utf8_lossy(&ps.stdout).lines().map(str::to_owned).collect()
}

impl Drop for Serving {
    /// A test that fails leaves nothing running either.
    fn drop(&mut self) {
        let _ = self.parent.kill();
        let _ = self.parent.wait();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_killed_server_costs_no_failed_request() {
    let _alone = alone();
    let run = Command::new(example()).args(["--duration", "6", "--rate", "50", "--seed", "7"]).output().unwrap();
    let printed = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{printed}{errors}");
    let steps = ["request", "balancer", "cache", "database", "cached", "second request", "metrics", "backup"];
    for (number, step) in (1..).zip(steps) {
        assert!(printed.contains(&format!("\n  {number} {step} ")), "{step} is missing:\n{printed}");
    }
    assert!(printed.contains("app-2 killed with SIGKILL"), "{printed}");
    assert!(printed.contains("The kill cost no failed request"), "{printed}");
    assert_eq!(errors, "", "it is quiet unless it is asked not to be");
}

#[test]
fn a_bad_flag_is_named_and_ends_with_code_2() {
    for (arguments, message) in [
        (vec!["--fast"], "`--fast` is not a flag"),
        (vec!["--rate"], "`--rate` needs a value"),
        (vec!["--rate", "many"], "`--rate` takes a number of requests per second, 1 to 5000, not `many`"),
        (vec!["--rate=0"], "`--rate` takes a number of requests per second, 1 to 5000, not `0`"),
        (vec!["--duration", "1h"], "`--duration` takes a number of seconds"),
        (vec!["--seed", "-1"], "`--seed` takes a number"),
        (vec!["--serve=yes"], "`--serve` takes no value"),
        (vec!["--serve", "--seed", "3"], "`--seed` has no use with `--serve`"),
    ] {
        let run = Command::new(example()).args(&arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(message), "{arguments:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(run.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn ctrl_c_ends_every_part_and_deletes_the_folder() {
    let _alone = alone();
    let mut flow = Serving::start();
    assert!(get(&flow.balancer, "/users/1").starts_with("HTTP/1.1 200 OK"));
    assert!(get(&flow.balancer, "/").contains("text/html"));
    assert!(flow.folder.is_dir());
    assert_eq!(flow.running().len(), 6, "five parts and the janitor");

    flow.signal_parent(Signal::SIGINT);

    assert_eq!(flow.parent.wait().unwrap().code(), Some(130));
    let mut rest = String::new();
    flow.stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    flow.assert_nothing_left();
}

#[test]
fn a_killed_parent_leaves_no_process_and_no_folder() {
    let _alone = alone();
    let mut flow = Serving::start();
    assert!(flow.folder.is_dir());
    assert_eq!(flow.running().len(), 6, "five parts and the janitor");
    // One that is stopped cannot see for itself that its parent is gone.
    if cfg!(target_os = "linux") {
        kill(flow.process("database"), Signal::SIGSTOP).unwrap();
    }

    flow.signal_parent(Signal::SIGKILL);

    flow.parent.wait().unwrap();
    flow.assert_nothing_left();
}
