//! Command line of the benchmark suite's programs; what they do is in the library.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand};
use zoo_bench::floor;
use zoo_bench::load::{self, Plan};

/// Measures model servers over HTTP, and serves the floor that they are read against.
#[derive(Debug, Parser)]
#[command(name = "zoo-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends requests in a closed loop; JSON on stdout, a line for people on stderr, status 1 when a request
    /// failed.
    Load(LoadArgs),
    /// Serves the bare HTTP stack: reads the body, answers two bytes.
    Floor {
        /// Address to listen on; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        address: SocketAddr,
    },
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// Where the requests go, for example http://127.0.0.1:8080/predictions/noop
    target: http::Uri,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Size of each request's body.
    #[arg(long, default_value_t = 1)]
    body_bytes: usize,
    /// The only right body of an answer.
    #[arg(long)]
    expect: Option<String>,
    /// Seconds of load before the measured window.
    #[arg(long, default_value = "1", value_parser = seconds)]
    warm_up: Duration,
    /// Seconds of the measured window.
    #[arg(long, default_value = "5", value_parser = some_seconds)]
    duration: Duration,
    /// Seconds that a request under way at the end may still take.
    #[arg(long, default_value = "10", value_parser = seconds)]
    grace: Duration,
    /// Root of the server's process tree, for its CPU time and memory.
    #[arg(long)]
    server_pid: Option<u32>,
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds: f64 = text.parse().context("not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).context("not a possible duration")
}

fn some_seconds(text: &str) -> Result<Duration> {
    let duration = seconds(text)?;
    ensure!(!duration.is_zero(), "a window of no length measures nothing");
    Ok(duration)
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("zoo-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Floor { address } => floor::run(address).map(|()| ExitCode::SUCCESS),
        Command::Load(args) => measure(args),
    }
}

fn measure(args: LoadArgs) -> Result<ExitCode> {
    let report = load::run(&Plan {
        target: args.target,
        body_bytes: args.body_bytes,
        expect: args.expect,
        clients: args.clients.into(),
        warm_up: args.warm_up,
        duration: args.duration,
        grace: args.grace,
        server: args.server_pid,
    })?;
    println!("{}", serde_json::to_string_pretty(&report).context("cannot write the report")?);
    eprintln!("{report}");
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
