//! The reference flow, run as a user runs it: a child process of this test, on real sockets and in real time.
#![cfg(unix)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{Semaphore, SemaphorePermit};

const FLOW: &str = env!("CARGO_BIN_EXE_reference-flow");

/// A flow is eight processes, most of which wait most of the time: three flows at a time.
fn a_turn() -> SemaphorePermit<'static> {
    static TURNS: Semaphore = Semaphore::const_new(3);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(TURNS.acquire()).unwrap()
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
        let mut parent = Command::new(FLOW).arg("--serve").stdout(Stdio::piped()).spawn().unwrap();
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

/// Runs the flow to its end at a rate that an unoptimised build can bear: its exit code and what it printed.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let _turn = a_turn();
    let run = Command::new(FLOW).args(["--rate", "150", "--seed", "7"]).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&run.stderr);
    assert_eq!(errors, "", "it is quiet unless it is asked not to be");
    (run.status.code(), String::from_utf8_lossy(&run.stdout).into_owned())
}

/// What was printed of a demand.
fn demand<'a>(printed: &'a str, name: &str) -> &'a str {
    let found = printed.lines().find(|line| line.contains(name) && (line.contains("met ") || line.contains("NOT MET")));
    found.unwrap_or_else(|| panic!("no demand {name:?}:\n{printed}"))
}

/// With all layers the demand is met; without one it turns red, and so does the run.
fn turns_red(phase: &str, without: &str, name: &str) {
    let (_, printed) = run(&["--only", phase, "--no-baselines"]);
    assert!(demand(&printed, name).starts_with("met"), "{printed}");
    let (code, printed) = run(&["--only", phase, "--without", without]);
    assert!(demand(&printed, name).starts_with("NOT MET"), "without {without}:\n{printed}");
    assert_eq!(code, Some(1), "{printed}");
}

#[test]
fn a_killed_server_costs_no_failed_request_and_the_report_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let (code, printed) = run(&["--only", "server-killed", "--report", report.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{printed}");
    let steps = ["request", "balancer", "cache", "database", "cached", "second request", "metrics", "backup"];
    for (number, step) in (1..).zip(steps) {
        assert!(printed.contains(&format!("\n  {number} {step} ")), "{step} is missing:\n{printed}");
    }
    assert!(printed.contains("app-2 killed with SIGKILL"), "{printed}");
    assert!(demand(&printed, "server-killed: 99.9 %").starts_with("met"), "{printed}");

    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    let phases = |of: &serde_json::Value| -> Vec<String> {
        of["phases"].as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap().to_owned()).collect()
    };
    for of in [&json, &json["baselines"]["naive"], &json["baselines"]["tower"]] {
        assert_eq!(phases(of), ["steady", "server-killed"]);
    }
    let killed = &json["phases"][1];
    assert_eq!(killed["success_rate"], 1.0, "{killed}");
    assert!(json["acknowledged_writes"].as_u64().unwrap() > 0);
    for nothing in ["lost_writes", "duplicate_writes", "stale_reads"] {
        assert_eq!(json[nothing], 0, "{nothing}");
    }
    let page = std::fs::read_to_string(report.with_extension("html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("http://") && !page.contains("src="), "it needs nothing else");
}

#[test]
fn without_retry_a_failing_server_costs_requests() {
    turns_red("server-failing", "retry", "server-failing: 99.9 %");
}

#[test]
fn without_the_pool_a_black_hole_stays_in() {
    turns_red("server-frozen", "pool", "server-frozen: the black hole is out");
}

#[test]
fn without_health_checks_a_black_hole_is_out_too_late() {
    turns_red("server-frozen", "health", "server-frozen: the black hole is out");
}

#[test]
fn without_the_breaker_a_write_waits_for_the_stalled_database() {
    turns_red("database-stalled", "breaker", "database-stalled: a write gets a quick 503");
}

#[test]
fn without_the_cache_nothing_is_read_while_the_database_stalls() {
    turns_red("database-stalled", "cache", "database-stalled: 99.9 % of the cached reads");
}

#[test]
fn a_database_that_acknowledges_before_it_commits_is_found_out() {
    let (code, printed) = run(&["--only", "database-killed", "--no-baselines", "--careless"]);
    assert!(demand(&printed, "writes: none is lost").starts_with("NOT MET"), "{printed}");
    assert_eq!(code, Some(1), "{printed}");
}

#[test]
fn a_bad_flag_is_named_and_ends_with_code_2() {
    for (arguments, message) in [
        (vec!["--fast"], "`--fast` is not a flag"),
        (vec!["--rate"], "`--rate` needs a value"),
        (vec!["--rate", "many"], "`--rate` takes a number of requests per second, 10 to 5000, not `many`"),
        (vec!["--rate=0"], "`--rate` takes a number of requests per second, 10 to 5000, not `0`"),
        (vec!["--seed", "-1"], "`--seed` takes a number"),
        (vec!["--only", "flood"], "`--only` takes a phase, not `flood`: one of steady, server-killed"),
        (vec!["--without", "luck"], "`--without` takes a family of layers, not `luck`: one of retry, pool"),
        (vec!["--report"], "`--report` needs a value: a file"),
        (vec!["--report", "/nowhere/report.json"], "cannot write /nowhere/report.json"),
        (vec!["--serve=yes"], "`--serve` takes no value"),
        (vec!["--serve", "--seed", "3"], "`--seed` has no use with `--serve`"),
    ] {
        let run = Command::new(FLOW).args(&arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(message), "{arguments:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(run.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn ctrl_c_ends_every_part_and_deletes_the_folder() {
    let _turn = a_turn();
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
    let _turn = a_turn();
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
