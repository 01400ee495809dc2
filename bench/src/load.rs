//! Runs one measurement: N keep-alive connections in a closed loop, a warm-up, then the measured window.
//!
//! Everything runs on one thread, because the generator shares the machine with the server it measures. A
//! loop only decides when a request starts; `connection` carries it and `recorder` counts it from the start
//! that the loop names, so a loop with scheduled starts needs nothing but another way to choose them.

mod connection;
mod recorder;
mod request;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::task::{JoinSet, LocalSet, spawn_blocking};
use tokio::time::{sleep, sleep_until, timeout_at};

use self::connection::Connection;
use self::recorder::Recorder;
use self::request::Request;
use crate::procs;
use crate::report::{Generator, Report, Server};

/// A pause after a connection failed, so that a dead server isn't hammered with connects until the run ends.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// What to send, how, and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the requests go; plain HTTP only.
    pub target: http::Uri,
    /// Size of the request's body.
    pub body_bytes: usize,
    /// The only right answer; any other body of a 2xx is a failure. Without it every 2xx is right.
    pub expect: Option<String>,
    /// Connections, each with one request under way at a time.
    pub clients: usize,
    /// Load before the window; its requests aren't counted, its failures are.
    pub warm_up: Duration,
    /// The measured window.
    pub duration: Duration,
    /// How long a request that is under way when the window ends may still take before it counts as failed.
    pub grace: Duration,
    /// Root of the process tree whose CPU and memory are reported.
    pub server: Option<u32>,
}

/// What every client of a run shares.
struct Job {
    address: String,
    request: Request,
    expect: Option<String>,
    until: Instant,
    recorder: RefCell<Recorder>,
}

/// Runs `plan` to its end.
///
/// # Errors
/// When the plan can't be carried out at all. Requests that fail are counted in the report instead.
pub fn run(plan: &Plan) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the load generator's runtime")?;
    LocalSet::new().block_on(&runtime, measure(plan))
}

async fn measure(plan: &Plan) -> Result<Report> {
    let begin = Instant::now() + plan.warm_up;
    let until = begin + plan.duration;
    let job = Rc::new(Job {
        address: address_of(&plan.target)?,
        request: Request::new(&plan.target, plan.body_bytes)?,
        expect: plan.expect.clone(),
        until,
        recorder: RefCell::new(Recorder::new(begin, until)?),
    });
    let mut clients = JoinSet::new();
    for _ in 0..plan.clients {
        clients.spawn_local(closed_loop(Rc::clone(&job)));
    }
    sleep_until(begin.into()).await;
    let before = Snapshot::take(plan.server).await?;
    sleep_until(until.into()).await;
    let after = Snapshot::take(plan.server).await?;
    finish(&mut clients, until + plan.grace, &job.recorder).await;
    Ok(report(plan, &before, &after, &job.recorder.borrow()))
}

/// One client: the next request starts when the last one is answered.
async fn closed_loop(job: Rc<Job>) {
    let mut connection = Connection::new(&job.address);
    let mut start = Instant::now();
    while start < job.until {
        match connection.exchange(&job.request).await {
            Ok(answer) => {
                let end = Instant::now();
                job.recorder.borrow_mut().answer(start, end, &answer, job.expect.as_deref());
                start = end;
            }
            Err(failure) => {
                job.recorder.borrow_mut().fail(failure.kind(), || failure.to_string());
                sleep(RECONNECT_PAUSE).await;
                start = Instant::now();
            }
        }
    }
}

/// Waits for the requests that were under way when the window closed; the ones that outlive the grace have
/// failed.
async fn finish(clients: &mut JoinSet<()>, grace_ends: Instant, recorder: &RefCell<Recorder>) {
    while !clients.is_empty() {
        match timeout_at(grace_ends.into(), clients.join_next()).await {
            Ok(Some(Err(error))) => recorder.borrow_mut().fail("client stopped", || error.to_string()),
            Ok(_) => {}
            Err(_) => {
                for _ in 0..clients.len() {
                    recorder
                        .borrow_mut()
                        .fail("no answer", || "no answer within the grace after the run".to_owned());
                }
                return;
            }
        }
    }
}

/// What the generator and the server have used up to one moment.
struct Snapshot {
    at: Instant,
    machine_cpu: Duration,
    generator_cpu: Duration,
    server: Option<procs::Usage>,
}

impl Snapshot {
    /// Reads `/proc` on a thread of its own: the walk takes milliseconds, which would show in the latencies.
    async fn take(server: Option<u32>) -> Result<Self> {
        let read = move || {
            let generator_cpu = procs::cpu_of(std::process::id())?;
            let server = server.map(procs::usage_of_tree).transpose()?;
            Ok(Self { at: Instant::now(), machine_cpu: procs::cpu_of_machine()?, generator_cpu, server })
        };
        spawn_blocking(read).await.context("the thread that reads /proc stopped")?
    }
}

fn report(plan: &Plan, before: &Snapshot, after: &Snapshot, recorder: &Recorder) -> Report {
    let requests = recorder.answered();
    let elapsed_s = (after.at - before.at).as_secs_f64();
    let generator_cpu = after.generator_cpu.saturating_sub(before.generator_cpu);
    let machine_cpu = after.machine_cpu.saturating_sub(before.machine_cpu);
    let server = before.server.as_ref().zip(after.server.as_ref()).map(|(before, after)| {
        let cpu = after.cpu.saturating_sub(before.cpu);
        Server {
            processes: after.processes,
            cpu_s: cpu.as_secs_f64(),
            cpu_s_per_1000: (requests > 0).then(|| cpu.as_secs_f64() * 1000.0 / requests as f64),
            rss_bytes: after.rss_bytes,
            pss_bytes: after.pss_bytes,
        }
    });
    Report {
        target: plan.target.to_string(),
        clients: plan.clients,
        body_bytes: plan.body_bytes,
        warm_up_s: plan.warm_up.as_secs_f64(),
        duration_s: plan.duration.as_secs_f64(),
        requests,
        requests_per_s: requests as f64 / plan.duration.as_secs_f64(),
        latency_us: recorder.latency(),
        failed: recorder.failures().values().sum(),
        failures: recorder.failures().clone(),
        first_failure: recorder.first_failure().map(str::to_owned),
        generator: Generator {
            cpu_s: generator_cpu.as_secs_f64(),
            core_share: generator_cpu.as_secs_f64() / elapsed_s,
        },
        others_cores: server.as_ref().map(|server| {
            let others_s = machine_cpu.as_secs_f64() - generator_cpu.as_secs_f64() - server.cpu_s;
            others_s.max(0.0) / elapsed_s
        }),
        server,
    }
}

fn address_of(target: &http::Uri) -> Result<String> {
    if target.scheme_str() != Some("http") {
        bail!(
            "{target}: the load generator speaks plain HTTP; give an address like http://127.0.0.1:8080/path"
        );
    }
    let host = target.host().with_context(|| format!("{target}: no host in the address"))?;
    Ok(format!("{host}:{}", target.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// A server that answers every read on every connection with the same bytes; an empty answer means
    /// silence.
    fn canned(answer: &'static str) -> http::Uri {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let mut request = [0; 4096];
                    while stream.read(&mut request).is_ok_and(|n| n > 0) {
                        if stream.write_all(answer.as_bytes()).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        format!("http://{address}/predictions/noop").parse().unwrap()
    }

    fn plan(target: http::Uri) -> Plan {
        Plan {
            target,
            body_bytes: 1,
            expect: Some("ok".to_owned()),
            clients: 2,
            warm_up: Duration::from_millis(20),
            duration: Duration::from_millis(100),
            grace: Duration::from_millis(200),
            server: Some(std::process::id()),
        }
    }

    #[test]
    fn right_answers_are_counted_and_nothing_fails() {
        let report = run(&plan(canned("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))).unwrap();
        assert!(report.requests > 0);
        assert_eq!(report.failures, Default::default());
        assert!(report.server.is_some_and(|server| server.rss_bytes > 0 && server.processes > 0));
    }

    #[test]
    fn refusals_are_counted_by_status_and_the_first_one_is_quoted() {
        let report = run(&plan(canned("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nno worker"))).unwrap();
        assert_eq!(report.requests, 0);
        assert_eq!(report.failures.keys().collect::<Vec<_>>(), ["status 503"]);
        assert_eq!(report.failed, report.failures["status 503"]);
        assert_eq!(report.first_failure.as_deref(), Some("status 503: no worker"));
    }

    #[test]
    fn a_wrong_body_is_a_failure() {
        let report = run(&plan(canned("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"))).unwrap();
        assert_eq!(report.failures.keys().collect::<Vec<_>>(), ["unexpected body"]);
    }

    #[test]
    fn silence_is_a_failure_of_every_client() {
        let report = run(&plan(canned(""))).unwrap();
        assert_eq!(report.failures.get("no answer"), Some(&2));
    }

    #[test]
    fn a_server_that_is_not_there_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let report = run(&plan(target)).unwrap();
        assert_eq!(report.failures.keys().collect::<Vec<_>>(), ["no connection"]);
    }

    #[test]
    fn only_plain_http_is_accepted() {
        let error = run(&plan("https://127.0.0.1/".parse().unwrap())).unwrap_err();
        assert!(error.to_string().contains("plain HTTP"), "{error}");
    }
}
