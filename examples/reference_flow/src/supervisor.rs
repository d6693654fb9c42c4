//! The parent: starts the parts as children of its own, hears from them, kills and restarts them, and ends them all.
//!
//! Nobody is left behind, however the parent ends. Every child sees the end of its standard input (and, on Linux, gets
//! the kernel's own signal) when the parent is gone; the janitor outlives it just long enough to delete the folder.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::part::{Assignment, Command, Notice, Role};
use crate::walk::{Event, Step};

/// How long a part may take to start, and to say what it is asked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a part may take to end before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// All parts, seen from the parent.
#[derive(Debug)]
pub(crate) struct Flow {
    folder: PathBuf,
    verbose: bool,
    processes: Vec<Process>,
    heard: mpsc::UnboundedReceiver<Heard>,
    hears: mpsc::UnboundedSender<Heard>,
    /// What was heard while something else was waited for.
    backlog: VecDeque<Heard>,
}

/// What the logs say about one request.
#[derive(Debug)]
pub(crate) struct Logged {
    pub(crate) parts: Vec<String>,
    pub(crate) lines: usize,
}

#[derive(Debug)]
struct Process {
    assignment: Assignment,
    id: u32,
    child: Child,
    stdin: Option<ChildStdin>,
    /// Killed on purpose.
    killed: bool,
}

#[derive(Debug)]
enum Heard {
    Notice { part: String, notice: Notice },
    Ended { process: u32 },
}

// === impl Flow ===

impl Flow {
    /// A flow with nothing but its folder, and the janitor who will delete it.
    pub(crate) async fn new(verbose: bool) -> anyhow::Result<Self> {
        let (hears, heard) = mpsc::unbounded_channel();
        // A name that nobody else has: the janitor deletes what is called so.
        let (id, random) = (std::process::id(), RandomState::new().hash_one(std::process::id()));
        let folder = std::env::temp_dir().join(format!("mainstay-reference-flow-{id}-{random:016x}"));
        let mut flow = Self { folder, verbose, processes: Vec::new(), heard, hears, backlog: VecDeque::new() };
        // The janitor comes first: from then on, there is no moment at which a crash would leave the folder behind.
        flow.start("janitor", Role::Janitor, None).await?;
        let made = private_folder(&flow.folder);
        made.with_context(|| format!("cannot make the folder {}", flow.folder.display()))?;
        Ok(flow)
    }

    /// Starts a part and waits until it serves; `address` is where it served before.
    pub(crate) async fn start(
        &mut self,
        name: &str,
        role: Role,
        address: Option<SocketAddr>,
    ) -> anyhow::Result<SocketAddr> {
        let listen = address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let folder = self.folder.clone();
        let assignment = Assignment { name: name.to_owned(), listen, folder, verbose: self.verbose, role };
        let process = Process::spawn(assignment, &self.hears)?;
        match self.processes.iter_mut().find(|process| process.assignment.name == name) {
            Some(before) => *before = process,
            None => self.processes.push(process),
        }
        let address = self
            .hear(name, |notice| match notice {
                Notice::Ready(address) => Some(*address),
                _ => None,
            })
            .await?;
        self.process(name)?.assignment.listen = address;
        Ok(address)
    }

    pub(crate) fn address(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let process = self.processes.iter().find(|process| process.assignment.name == name);
        Ok(process.with_context(|| format!("there is no part {name}"))?.assignment.listen)
    }

    /// Of every part that serves.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.serving().map(|process| process.assignment.listen)
    }

    /// Name, address and process id of every part that serves.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&str, SocketAddr, u32)> {
        self.serving().map(|process| (&*process.assignment.name, process.assignment.listen, process.id))
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Writes a command to a part's standard input.
    pub(crate) async fn tell(&mut self, name: &str, command: &Command) -> anyhow::Result<()> {
        let line = format!("{}\n", serde_json::to_string(command)?);
        let stdin = self.process(name)?.stdin.as_mut().context("already told to end")?;
        stdin.write_all(line.as_bytes()).await.with_context(|| format!("{name} does not listen"))
    }

    /// The same, and waits until it is done.
    pub(crate) async fn order(&mut self, name: &str, command: &Command) -> anyhow::Result<()> {
        self.tell(name, command).await?;
        self.hear(name, |notice| matches!(notice, Notice::Done).then_some(())).await
    }

    /// Stops a part with SIGSTOP: it accepts connections, since the kernel does, and never answers.
    pub(crate) fn freeze(&mut self, name: &str) -> anyhow::Result<()> {
        self.signal(name, Signal::SIGSTOP)
    }

    pub(crate) fn thaw(&mut self, name: &str) -> anyhow::Result<()> {
        self.signal(name, Signal::SIGCONT)
    }

    fn signal(&mut self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let id = self.process(name)?.id;
        Ok(nix::sys::signal::kill(Pid::from_raw(id.try_into()?), signal)?)
    }

    /// Asks a part to end in order, as an orchestrator does, and waits until it has.
    pub(crate) async fn drain(&mut self, name: &str) -> anyhow::Result<()> {
        let index = self.processes.iter().position(|process| process.assignment.name == name);
        let process = self.processes.remove(index.with_context(|| format!("there is no part {name}"))?);
        process.stop().await;
        Ok(())
    }

    /// Kills a part with SIGKILL: no warning, no drain, its connections reset. Its process id.
    pub(crate) async fn kill(&mut self, name: &str) -> anyhow::Result<u32> {
        let process = self.process(name)?;
        process.killed = true;
        process.child.kill().await?;
        Ok(process.id)
    }

    /// Starts a part that was killed again, on the same address.
    pub(crate) async fn restart(&mut self, name: &str) -> anyhow::Result<()> {
        let Assignment { role, listen, .. } = self.process(name)?.assignment.clone();
        self.start(name, role, Some(listen)).await.map(drop)
    }

    /// Waits until `part` says what `wanted` looks for.
    pub(crate) async fn hear<T>(&mut self, part: &str, wanted: impl Fn(&Notice) -> Option<T>) -> anyhow::Result<T> {
        self.listen(|from, notice| if from == part { wanted(notice) } else { None }, PATIENCE)
            .await?
            .with_context(|| format!("{part} did not answer within {PATIENCE:?}"))
    }

    /// Waits until some part announces what `wanted` looks for, for the request `id`.
    pub(crate) async fn step<T>(&mut self, id: &str, wanted: impl Fn(&Event) -> Option<T>) -> anyhow::Result<T> {
        let wanted = |notice: &Notice| match notice {
            Notice::Step(Step { request_id, event }) if request_id == id => wanted(event),
            _ => None,
        };
        self.listen(|_, notice| wanted(notice), PATIENCE).await?.with_context(|| format!("the request {id} got lost"))
    }

    /// Waits for at most `limit` until some part says what `wanted` looks for; `None` if nobody did.
    ///
    /// # Errors
    ///
    /// A part ended by itself.
    pub(crate) async fn listen<T>(
        &mut self,
        wanted: impl Fn(&str, &Notice) -> Option<T>,
        limit: Duration,
    ) -> anyhow::Result<Option<T>> {
        let until = Instant::now() + limit;
        let found = |heard: &Heard| match heard {
            Heard::Notice { part, notice } => wanted(part, notice),
            Heard::Ended { .. } => None,
        };
        if let Some((index, found)) = self.backlog.iter().enumerate().find_map(|(i, heard)| Some((i, found(heard)?))) {
            self.backlog.remove(index);
            return Ok(Some(found));
        }
        if let Some(index) = self.backlog.iter().position(|heard| matches!(heard, Heard::Ended { .. }))
            && let Some(Heard::Ended { process }) = self.backlog.remove(index)
        {
            self.check_end(process).await?;
        }
        while let Ok(heard) = tokio::time::timeout_at(until, self.heard.recv()).await {
            let heard = heard.context("the parent keeps a sender")?;
            if let Some(found) = found(&heard) {
                return Ok(Some(found));
            }
            match heard {
                Heard::Ended { process } => self.check_end(process).await?,
                notice @ Heard::Notice { .. } => self.backlog.push_back(notice),
            }
        }
        Ok(None)
    }

    /// Forgets what was said until now and nobody waited for.
    pub(crate) fn forget(&mut self) {
        while let Ok(heard) = self.heard.try_recv() {
            self.backlog.push_back(heard);
        }
        self.backlog.retain(|heard| matches!(heard, Heard::Ended { .. }));
    }

    /// How many lines the parts have logged under a request's id.
    pub(crate) fn logs_with(&self, id: &str) -> anyhow::Result<Logged> {
        let mut logged = Logged { parts: Vec::new(), lines: 0 };
        let id = format!(r#""request_id":"{id}""#);
        for (name, ..) in self.parts() {
            let log = std::fs::read_to_string(self.folder.join(format!("{name}.log")))?;
            let lines = log.lines().filter(|line| line.contains(&id)).count();
            if lines > 0 {
                logged.parts.push(name.to_owned());
                logged.lines += lines;
            }
        }
        Ok(logged)
    }

    /// Ends all parts: those that call others are told first, and nobody's time to drain adds to another's.
    pub(crate) async fn stop(mut self) {
        let (janitor, parts): (Vec<_>, Vec<_>) = std::mem::take(&mut self.processes)
            .into_iter()
            .rev()
            .partition(|process| matches!(process.assignment.role, Role::Janitor));
        join_all(parts.into_iter().map(Process::stop)).await;
        join_all(janitor.into_iter().map(Process::stop)).await;
    }

    /// A part's output has ended: fine if it was killed on purpose, else it crashed.
    async fn check_end(&mut self, process: u32) -> anyhow::Result<()> {
        let Some(process) = self.processes.iter_mut().find(|candidate| candidate.id == process) else { return Ok(()) };
        if process.killed || process.stdin.is_none() {
            return Ok(());
        }
        let name = &process.assignment.name;
        match timeout(STOP_LIMIT, process.child.wait()).await {
            Ok(status) => anyhow::bail!("{name} ended unexpectedly: {}", status?),
            Err(_) => anyhow::bail!("{name} closed its output"),
        }
    }

    fn serving(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| !process.killed && !matches!(process.assignment.role, Role::Janitor))
    }

    fn process(&mut self, name: &str) -> anyhow::Result<&mut Process> {
        let process = self.processes.iter_mut().find(|process| process.assignment.name == name);
        process.with_context(|| format!("there is no part {name}"))
    }
}

// === impl Process ===

impl Process {
    fn spawn(assignment: Assignment, hears: &mpsc::UnboundedSender<Heard>) -> anyhow::Result<Self> {
        let name = assignment.name.clone();
        let mut child = tokio::process::Command::new(std::env::current_exe()?)
            .arg("--part")
            .arg(serde_json::to_string(&assignment)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A group of its own: Ctrl-C goes to the parent alone, who ends the parts in order.
            .process_group(0)
            // Whatever happens to the parent's own tasks; the janitor must get to do its work.
            .kill_on_drop(!matches!(assignment.role, Role::Janitor))
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().context("piped")?);
        let id = child.id().with_context(|| format!("{name} has ended"))?;
        let hears = hears.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(notice) => drop(hears.send(Heard::Notice { part: name.clone(), notice })),
                    Err(_) => println!("{name}: {line}"),
                }
            }
            let _ = hears.send(Heard::Ended { process: id });
        });
        Ok(Self { assignment, id, child, stdin, killed: false })
    }

    async fn stop(mut self) {
        drop(self.stdin.take());
        if timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Makes a folder that only its owner can look into; one of that name must not exist.
fn private_folder(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

/// Asks the kernel to kill this process when its parent is gone: also if this process is stopped and cannot see that its
/// standard input has ended.
pub(crate) fn die_with_parent() -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(())
}
