//! The `zoo-server` command.

use std::convert::Infallible;
use std::future::pending;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use tokio::runtime::Builder;
use tracing::{info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use zoo_server::config::{self, Args, Config};
use zoo_server::server::{Listeners, Server, StartError, Surroundings};
use zoo_server::shutdown::Signals;
use zoo_server::worker::shim;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "\
Examples:
  zoo-server --model-store ./models --models all
  zoo-server --model-store ./models --models mnist=mnist.mar resnet.mar
  curl -X POST 'localhost:8081/models?url=mnist.mar&initial_workers=1'
  curl localhost:8080/predictions/mnist -T digit.png

Logs go to standard output. ZOO_LOG chooses what: `info` (default), `debug`, `info,ACCESS_LOG=off`, …";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // Before anything else is set up: this process is about to become a worker.
    if args.next().is_some_and(|arg| arg == shim::COMMAND) {
        return shim::run(args);
    }
    let matches = Args::command().after_help(EXAMPLES).get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match start_log().and_then(|()| settings(args)).and_then(serve) {
        Ok(code) => code,
        Err(problems) => {
            for problem in problems {
                // There is nobody left to tell if this fails.
                let _ = writeln!(stderr(), "zoo-server: {problem}");
            }
            ExitCode::FAILURE
        }
    }
}

/// One line each.
type Problems = Vec<String>;

#[expect(clippy::needless_pass_by_value, reason = "errors come by value")]
fn problem(problem: impl ToString) -> Problems {
    vec![problem.to_string()]
}

fn start_log() -> Result<(), Problems> {
    let wanted = std::env::var("ZOO_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter: Targets = wanted.parse().map_err(|error| {
        problem(format!("ZOO_LOG={wanted:?}: {error}; right would be `info` or `info,ACCESS_LOG=off`"))
    })?;
    let lines = tracing_subscriber::fmt::layer().with_ansi(stdout().is_terminal());
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().map_err(problem)
}

fn settings(args: Args) -> Result<Config, Problems> {
    config::resolve(args, |name| std::env::var_os(name))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn serve(config: Config) -> Result<ExitCode, Problems> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(config.frontend_threads)
        .enable_all()
        .build()
        .map_err(problem)?;
    let served = runtime.block_on(run(config));
    // What still runs after a second signal isn't waited for.
    runtime.shutdown_background();
    served.map_err(problem)
}

async fn run(config: Config) -> Result<ExitCode, StartError> {
    let mut signals = Signals::listen().map_err(StartError::because)?;
    let listeners = Listeners::bind(&config).await?;
    let surroundings = Surroundings::of_this_process().map_err(StartError::because)?;
    let server = Server::start(config, surroundings, listeners)?;
    announce("Inference", server.inference_address());
    announce("Management", server.management_address());
    if let Some(address) = server.metrics_address() {
        announce("Metrics", address);
    }
    let signal = tokio::select! {
        signal = signals.next() => signal,
        never = serving(&server) => match never {},
    };
    info!("{signal}: finishing what is under way; a second signal ends at once");
    tokio::select! {
        () = server.stop() => Ok(ExitCode::SUCCESS),
        signal = signals.next() => {
            warn!("{signal}: not waiting any longer");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Registers the models named at start, then lets the server serve.
async fn serving(server: &Server) -> Infallible {
    server.load_models().await;
    say("Model server started.");
    pending().await
}

/// `TorchServe`'s words: scripts wait for them.
fn announce(api: &str, address: SocketAddr) {
    say(&format!("{api} API bind to: http://{address}"));
}

fn say(line: &str) {
    // A closed standard output is no reason to stop serving.
    let _ = writeln!(stdout(), "{line}");
}
