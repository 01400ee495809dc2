//! Worker processes for real: what the kernel does is what is tested here.
//!
//! Workers are shell scripts started through the `zoo-server` executable as shim. Tests wait for conditions, with an
//! end that only a broken build reaches.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use zoo_server::worker::launch::{LaunchSpec, Launched, Launcher, Limit, Limited, Shim, User};
use zoo_server::worker::output::{LineSink, Output, Stream};
use zoo_server::worker::process::{Exit, How, Process};

const LONG: Duration = Duration::from_secs(60);
const NAME: &str = "W-9000-test_1.0";

fn launcher() -> Launcher {
    Launcher::start(Shim { program: env!("CARGO_BIN_EXE_zoo-server").into() }).unwrap()
}

fn shell(script: &str) -> LaunchSpec {
    LaunchSpec::new(NAME, "/bin/sh", "/").arg("-c").arg(script)
}

/// A worker and all that it said so far.
struct Worker {
    process: Process,
    link: UnixStream,
    output: Output,
    said: Arc<Said>,
}

/// Lines with their stream; metrics come from none.
#[derive(Default)]
struct Said(Mutex<Vec<(Option<Stream>, String)>>);

impl LineSink for Said {
    fn line(&self, worker: &str, stream: Stream, line: &str) {
        assert_eq!(worker, NAME);
        self.0.lock().unwrap().push((Some(stream), line.to_owned()));
    }

    fn metrics(&self, _: &str, metrics: &str) {
        self.0.lock().unwrap().push((None, metrics.to_owned()));
    }
}

impl Said {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(_, line)| line.clone()).collect()
    }
}

impl Worker {
    async fn start(spec: LaunchSpec) -> Self {
        Self::launched(launcher().launch(spec).await.unwrap())
    }

    fn launched(Launched { process, link, stdout, stderr }: Launched) -> Self {
        let said = Arc::new(Said::default());
        let sink: Arc<dyn LineSink> = Arc::clone(&said) as _;
        Self { process, link, output: Output::read(NAME, stdout, stderr, &sink), said }
    }

    /// Waits for a line that starts with `prefix` and gives the rest of it.
    async fn says(&self, prefix: &str) -> String {
        let find = || self.said.lines().iter().find_map(|line| Some(line.strip_prefix(prefix)?.to_owned()));
        eventually(prefix, || find().is_some()).await;
        find().unwrap()
    }

    /// The end as the owner of a worker has to do it.
    async fn bury(mut self) -> (Exit, Vec<String>) {
        within(self.process.exited()).await;
        self.process.kill_group();
        let exit = within(self.process.reap()).await;
        within(self.output.finish()).await;
        (exit, self.said.lines())
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it should have ended long ago")
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// State and parent of a process, if there is one.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Not even a zombie is left.
fn is_gone(pid: u32) -> bool {
    stat(pid).is_none()
}

fn pid(text: &str) -> u32 {
    text.trim().parse().unwrap()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

fn all_pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exits_are_told_exactly() {
    for (script, how, out_of_memory) in [
        ("exit 0", How::Code(0), false),
        ("exit 3", How::Code(3), false),
        ("exit 137", How::Code(137), true),
        ("kill -TERM $$", How::Signal { number: 15, core_dumped: false }, false),
        ("kill -KILL $$", How::Signal { number: 9, core_dumped: false }, false),
        ("kill -34 $$", How::Signal { number: 34, core_dumped: false }, false),
    ] {
        let worker = Worker::start(shell(script)).await;
        let id = worker.process.id();
        let (exit, _) = worker.bury().await;
        assert_eq!(exit, Exit { how, killed_by_us: false, out_of_memory }, "{script}");
        assert!(is_gone(id), "{script} left a zombie");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_can_be_awaited_again_after_a_cancelled_wait() {
    let mut worker = Worker::start(shell("read line; exit 5")).await;
    for _ in 0..3 {
        assert!(tokio::time::timeout(Duration::from_millis(1), worker.process.exited()).await.is_err());
    }
    worker.link.write_all(b"go\n").unwrap();
    let first = within(worker.process.exited()).await;
    assert_eq!(first.how, How::Code(5));
    assert_eq!(stat(worker.process.id()).unwrap().0, 'Z', "looking doesn't collect");
    assert_eq!(within(worker.process.exited()).await, first);
    assert_eq!(worker.bury().await.0, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_input_is_the_link() {
    let mut worker = Worker::start(shell("read line; echo \"got $line\" >&0; cat; echo end of link")).await;
    worker.link.write_all(b"hello\nrest").unwrap();
    let mut answer = [0; 10];
    eventually("an answer on the link", || match worker.link.read(&mut answer) {
        Ok(length) => length == answer.len(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "the link must not block");
            false
        }
    })
    .await;
    assert_eq!(&answer, b"got hello\n");
    // The worker sees the end: no copy of our side is open anywhere, not even in a worker started meanwhile.
    let bystander = Worker::start(shell("sleep 1000")).await;
    let Worker { process, link, output, said } = worker;
    drop(link);
    assert_eq!(within(process.reap()).await.how, How::Code(0));
    within(output.finish()).await;
    assert_eq!(said.lines(), ["restend of link"]);
    drop(bystander);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_worker_is_the_end_of_the_link() {
    let mut worker = Worker::start(shell("exit 0")).await;
    eventually("end of the link", || matches!(worker.link.read(&mut [0; 1]), Ok(0))).await;
    worker.bury().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_get_no_descriptor_but_the_standard_ones() {
    // Something of each kind is open while it starts.
    let bystander = Worker::start(shell("sleep 1000")).await;
    let worker = Worker::start(LaunchSpec::new(NAME, "ls", "/").arg("-l").arg("/proc/self/fd")).await;
    let (_, said) = worker.bury().await;
    drop(bystander);
    let listed = said.iter().filter_map(|line| line.split_once(" -> "));
    // `ls` has the directory open that it lists.
    let open = listed
        .filter(|(_, target)| !target.ends_with("/fd"))
        .map(|(left, _)| left.rsplit(' ').next().unwrap());
    let mut open: HashSet<String> = open.map(str::to_owned).collect();
    for standard in ["0", "1", "2"] {
        assert!(open.remove(standard), "{said:#?}");
    }
    assert!(open.is_subset(&inherited_descriptors()), "{open:?} leaked into a worker");
}

/// What this program was given beyond 0, 1 and 2 by whoever started it: descriptors that aren't close-on-exec.
fn inherited_descriptors() -> HashSet<String> {
    let descriptors = fs::read_dir("/proc/self/fdinfo").unwrap().filter_map(|entry| {
        let info = fs::read_to_string(entry.as_ref().ok()?.path()).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let close_on_exec = u32::from_str_radix(flags.trim(), 8).ok()? & 0o2_000_000 != 0;
        (!close_on_exec).then(|| entry.unwrap().file_name().to_str().unwrap().to_owned())
    });
    descriptors.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_start_with_clean_signals_limits_and_session() {
    let mut spec = shell(
        "grep -E '^Sig(Ign|Blk)' /proc/self/status; ulimit -n; ulimit -Hn; \
         set -- $(cat /proc/$$/stat); echo \"group $5 session $6\"; pwd; echo \"$SET:${HOME-none}:${PATH:+path}\"",
    );
    spec.limits.push(Limit { resource: Limited::OpenFiles, soft: Some(300), hard: Some(399) });
    spec.dir = "/usr".into();
    spec.env.removed = vec!["HOME".into(), "SET".into()];
    spec.env.set("SET", "value");
    let worker = Worker::start(spec).await;
    let id = worker.process.id();
    let ignored = u64::from_str_radix(worker.says("SigIgn:").await.trim(), 16).unwrap();
    assert_eq!(ignored & (1 << (Signal::PIPE.as_raw() - 1)), 0, "a worker whose reader leaves must end");
    let (exit, said) = worker.bury().await;
    assert_eq!(exit.how, How::Code(0), "{said:#?}");
    let session = format!("group {id} session {id}");
    for expected in ["SigBlk:\t0000000000000000", "300", "399", "/usr", "value:none:path", &session] {
        assert!(said.iter().any(|line| line == expected), "{expected:?} is missing in {said:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_can_run_as_another_user() {
    let mut spec = shell("id -u; id -g; id -G");
    spec.user = Some(User { uid: 65534, gid: 65533, groups: vec![12, 13] });
    let (exit, said) = Worker::start(spec).await.bury().await;
    if rustix::process::geteuid().is_root() {
        assert_eq!(said, ["65534", "65533", "65533 12 13"]);
    } else {
        assert_eq!(exit.how, How::Code(126));
        assert!(said[0].contains("failed to change to the worker's user"), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cant_be_started_says_why() {
    let (exit, said) = Worker::start(LaunchSpec::new(NAME, "no-such-program", "/")).await.bury().await;
    assert_eq!(exit.how, How::Code(127));
    assert_eq!(
        said,
        ["W-9000-test_1.0: failed to start no-such-program: No such file or directory (os error 2)"]
    );

    let (exit, said) = Worker::start(LaunchSpec::new(NAME, "/etc/passwd", "/")).await.bury().await;
    assert_eq!(exit.how, How::Code(126));
    assert!(said[0].contains("Permission denied"), "{said:?}");

    let mut nowhere = shell("true");
    nowhere.dir = "/no/such/dir".into();
    let error = launcher().launch(nowhere).await.unwrap_err().to_string();
    assert_eq!(error, "failed to start worker W-9000-test_1.0: its directory /no/such/dir doesn't exist");

    let without_shim = Launcher::start(Shim { program: "/no/such/shim".into() }).unwrap();
    let error = without_shim.launch(shell("true")).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/shim can't be executed: No such file"), "{error}");
    // A failed start does no harm to the next one.
    assert_eq!(Worker::start(shell("exit 4")).await.bury().await.0.how, How::Code(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_asks_first() {
    let script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let mut worker = Worker::start(shell(script)).await;
    worker.says("ready").await;
    let exit = within(worker.process.stop(LONG)).await;
    assert_eq!((exit.how, exit.killed_by_us), (How::Code(7), false));
    assert!(worker.bury().await.1.contains(&"bye".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_kills_the_group_of_who_doesnt_listen() {
    let script = "trap '' TERM; sh -c 'trap \"\" TERM; echo grandchild $$; while :; do sleep 1; done' & \
                  echo ready; while :; do sleep 1; done";
    let mut worker = Worker::start(shell(script)).await;
    let grandchild = pid(&worker.says("grandchild ").await);
    worker.says("ready").await;
    let exit = within(worker.process.stop(Duration::from_millis(10))).await;
    assert_eq!((exit.how, exit.killed_by_us), (How::Signal { number: 9, core_dumped: false }, true));
    worker.bury().await;
    eventually("the grandchild is dead and collected", || is_gone(grandchild)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_of_a_worker_that_ends_by_itself_end_with_it() {
    let script =
        "sh -c 'trap \"\" TERM HUP; echo grandchild $$; while :; do sleep 1; done' & read line; exit 3";
    let mut worker = Worker::start(shell(script)).await;
    let grandchild = pid(&worker.says("grandchild ").await);
    worker.link.write_all(b"\n").unwrap();
    assert_eq!(within(worker.process.exited()).await.how, How::Code(3));
    assert!(!is_gone(grandchild));
    worker.bury().await;
    eventually("the grandchild is dead and collected", || is_gone(grandchild)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_process_leaves_nothing() {
    let worker = Worker::start(shell("sleep 1000 & echo grandchild $!; wait")).await;
    let (id, grandchild) = (worker.process.id(), pid(&worker.says("grandchild ").await));
    drop(worker);
    eventually("both are dead and collected", || is_gone(id) && is_gone(grandchild)).await;
    // Also in the moment of its birth, before it has a group of its own.
    let launcher = launcher();
    for _ in 0..20 {
        let launched = launcher.launch(shell("sleep 1000")).await.unwrap();
        let id = launched.process.id();
        drop(launched);
        eventually("it is dead and collected", || is_gone(id)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_launch_leaves_nothing() {
    let launcher = launcher();
    let marker = format!("zoo-cancelled-{}", std::process::id());
    for delay in 0..20 {
        let launch = launcher.launch(shell(&format!("sleep 1000; : {marker}")));
        let _ = tokio::time::timeout(Duration::from_micros(delay * 200), launch).await;
    }
    let running = || {
        all_pids()
            .filter(|&pid| pid != std::process::id())
            .filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok())
            .any(|line| String::from_utf8_lossy(&line).contains(&marker))
    };
    eventually("no cancelled worker runs", || !running()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grandchild_that_holds_everything_holds_up_nobody() {
    // Out of the group, with the link and both pipes: nothing is closed by the worker's end.
    let script = "exec 3<&0; setsid sh -c 'echo grandchild $$; exec sleep 1000' & read line; echo last; printf unfinished >&2";
    let mut worker = Worker::start(shell(script)).await;
    let grandchild = pid(&worker.says("grandchild ").await);
    worker.link.write_all(b"\n").unwrap();
    assert_eq!(within(worker.process.exited()).await.how, How::Code(0));
    assert_eq!(
        worker.link.read(&mut [0; 1]).unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "the link is held open"
    );
    let (_, said) = worker.bury().await;
    let after: HashSet<_> = said[1..].iter().map(String::as_str).collect();
    assert_eq!(after, HashSet::from(["last", "unfinished"]));
    assert_eq!(stat(grandchild).unwrap().1, std::process::id(), "it is ours now");
    kill(grandchild);
    eventually("the orphan is collected", || is_gone(grandchild)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_is_sorted_and_kept() {
    let script = "echo one; echo two >&2; echo '[METRICS]a.Count:1|#L:v|#hostname:h,1'; echo 'INFO > [METRICS]x' >&2; \
                  printf 'esc\\033[31m\\377\\n'; for i in $(seq 60); do echo line $i; done";
    let mut worker = Worker::start(shell(script)).await;
    within(worker.process.exited()).await;
    let kept = within(worker.output.finish()).await;
    let said = worker.said.0.lock().unwrap().clone();
    for expected in [
        (Some(Stream::Out), "one"),
        (Some(Stream::Err), "two"),
        (None, "a.Count:1|#L:v|#hostname:h,1"),
        (None, "x"),
        (Some(Stream::Out), "esc[31m\u{fffd}"),
    ] {
        assert!(
            said.iter().any(|(stream, line)| (*stream, line.as_str()) == expected),
            "{expected:?} in {said:?}"
        );
    }
    assert_eq!(said.len(), 65);
    assert_eq!(kept.len(), 40);
    assert!(kept.iter().any(|line| line.text == "line 60" && line.stream == Stream::Out));
    assert!(kept.iter().all(|line| line.text != "line 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_block_nobody() {
    // Without an end of line, then with many; each far more than a pipe holds.
    let script = "head -c 20000000 /dev/zero | tr '\\0' x >&2; echo >&2; yes | head -n 500000; echo done";
    let mut worker = Worker::start(shell(script)).await;
    within(worker.process.exited()).await;
    let kept = within(worker.output.finish()).await;
    let said = worker.said.lines();
    assert_eq!(said.iter().filter(|line| *line == "y").count(), 500_000);
    let long: Vec<_> = said.iter().filter(|line| line.starts_with('x')).collect();
    assert_eq!(long, [&format!("{} […]", "x".repeat(16 * 1024))]);
    assert_eq!(kept.last().unwrap().text, "done");
    assert!(kept.iter().all(|line| line.text.len() < 3000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_collected_and_no_status_is_stolen() {
    let launcher = launcher();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..200 {
        let launcher = launcher.clone();
        tasks.spawn(async move {
            // Each leaves orphans that die about when it does; some die before anybody looks.
            let status = index % 100;
            let script =
                format!("(setsid true &); (true &); [ $(({index} % 3)) = 0 ] && read line; exit {status}");
            let mut worker = Worker::launched(launcher.launch(shell(&script)).await.unwrap());
            // It may be dead already.
            let _ = worker.link.write_all(b"\n");
            assert_eq!(worker.bury().await.0.how, How::Code(status), "worker {index}");
        });
    }
    while let Some(result) = within(tasks.join_next()).await {
        result.unwrap();
    }
    // Other tests of this program may have dead children that they haven't collected yet; none stays.
    let zombies =
        || all_pids().filter(|&pid| stat(pid) == Some(('Z', std::process::id()))).collect::<HashSet<_>>();
    let mut left = zombies();
    eventually("all are collected", || {
        left = &left & &zombies();
        left.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_collected_beside_a_dead_worker_that_waits_for_its_owner() {
    let mut worker = Worker::start(shell("exit 9")).await;
    within(worker.process.exited()).await;
    let other = Worker::start(shell("(setsid sh -c 'echo orphan $$; exec sleep 1000' &); sleep 1000")).await;
    let orphan = pid(&other.says("orphan ").await);
    eventually("it is ours", || stat(orphan).is_some_and(|(_, parent)| parent == std::process::id())).await;
    kill(orphan);
    eventually("the orphan is collected", || is_gone(orphan)).await;
    assert_eq!(worker.bury().await.0.how, How::Code(9));
}

#[test]
fn workers_outlive_the_thread_and_the_launcher_that_asked_for_them() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let asked = std::thread::spawn(move || {
        handle.block_on(async { Worker::start(shell("read line; exit 6")).await })
    });
    let mut worker = asked.join().unwrap();
    runtime.block_on(async {
        assert!(tokio::time::timeout(Duration::from_millis(50), worker.process.exited()).await.is_err());
        worker.link.write_all(b"\n").unwrap();
        assert_eq!(worker.bury().await.0.how, How::Code(6));
    });
}

/// Not a test by itself: the server that the next test kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as a child of another test"]
async fn server_to_be_killed() {
    let path = std::env::var("ZOO_TEST_WORKER_PID").unwrap();
    let worker = Worker::start(shell("trap '' TERM HUP; echo worker $$; while :; do sleep 1; done")).await;
    let id = worker.says("worker ").await;
    fs::write(format!("{path}.new"), id).unwrap();
    fs::rename(format!("{path}.new"), path).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_die_with_a_killed_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid");
    let mut spec = LaunchSpec::new(NAME, std::env::current_exe().unwrap(), "/");
    spec.args = ["--exact", "server_to_be_killed", "--ignored"].map(Into::into).to_vec();
    spec.env.set("ZOO_TEST_WORKER_PID", &path);
    let mut server = Worker::start(spec).await;
    eventually("the server has a worker", || path.exists()).await;
    let id = pid(&fs::read_to_string(&path).unwrap());
    assert_eq!(stat(id).unwrap().1, server.process.id());
    // The server alone, not its group.
    server.process.signal(Signal::KILL);
    within(server.process.exited()).await;
    eventually("its worker is dead, and collected by us, who inherited it", || is_gone(id)).await;
    server.bury().await;
}
