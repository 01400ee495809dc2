//! A handler that does what the path of a request says.
#![expect(clippy::panic, reason = "what a worker does about panics is tested")]

use std::fs;
use std::io::Read;
use std::process::{Command, ExitCode, Stdio, exit};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zoo_handler::{
    Answers, Batch, ChunkWriter, Context, Handler, HandlerError, LoadError, Metric, Request, Response,
};

struct Unruly {
    context: Context,
}

pub(crate) fn serve() -> ! {
    exit(if zoo_handler::serve::<Unruly>() == ExitCode::SUCCESS { 0 } else { 1 })
}

impl Handler for Unruly {
    fn load(context: &Context) -> Result<Self, LoadError> {
        match context.setting::<String>("mode")?.as_deref() {
            Some("invalid") => Err(LoadError::invalid("no labels")),
            Some("memory") => Err(LoadError::memory("needs 3 GB")),
            Some("panic") => panic!("bad weights"),
            Some("error") => {
                fs::read("/dev/null/weights")
                    .or_else(|_| fs::read("weights.bin"))
                    .map_err(|error| LoadError::new(format!("weights.bin: {error}")))?;
                Err(LoadError::new("there is a weights.bin"))
            }
            _ => Ok(Self { context: context.clone() }),
        }
    }

    fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> {
        let this = &*self;
        batch.each(move |request| this.answer(&request))
    }

    fn describe(&mut self) -> Value {
        json!({"kind": "unruly"})
    }

    fn signature(&self) -> Option<Value> {
        Some(json!({"inputs": [], "outputs": []}))
    }
}

impl Unruly {
    fn answer(&self, request: &Request) -> Result<Response<'_>, HandlerError> {
        match request.url_path() {
            "client" => Err(HandlerError::client(422, "too short")),
            "question" => Ok(Response::json("x".parse::<u32>()?)),
            "model" => Err(HandlerError::model("no weights")),
            "status" => Ok(Response::text("made").status(201).reason("Made").header("X-More", "1")),
            "bad-header" => Ok(Response::text("").header("a b", "1")),
            "bad-status" => Ok(Response::text("").status(42)),
            "panic" => panic!("out of luck"),
            "stdio" => {
                println!("[METRICS] is printed");
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                Ok(Response::text(format!("read {} bytes", text.len())))
            }
            "child" => child_sockets(),
            "deadline" => Ok(Response::json(request.remaining().map(|left| left.as_secs_f64()))),
            "metric" => {
                self.context.metrics().add(Metric::counter("Tokens", "Count", 3.0).dimension("head", "a"));
                Ok(Response::default())
            }
            "until-cancelled" => until_cancelled(request),
            "stream" => {
                let (count, size) = numbers(request)?;
                let dropped = SaysDropped;
                Ok(Response::stream((0..count).map(move |_| {
                    let _ = &dropped;
                    Ok(vec![b'x'; size])
                })))
            }
            "write" => {
                let (count, size) = numbers(request)?;
                Ok(Response::write_with(move |writer| write(writer, count, size)))
            }
            "stream-breaks" => {
                Ok(Response::stream([Ok("some"), Err(HandlerError::model("full").with_status(507))]))
            }
            "stream-panics" => Ok(Response::stream((0..3).map(|index| {
                assert!(index < 2, "out of chunks");
                Ok("piece")
            }))),
            "stream-never" => Ok(Response::stream([Err::<&str, _>(HandlerError::client(409, "not now"))])),
            "stream-empty" => Ok(Response::stream(std::iter::empty::<Result<&str, _>>())),
            _ => Ok(Response::bytes(request.to_bytes())),
        }
    }
}

struct SaysDropped;

impl Drop for SaysDropped {
    fn drop(&mut self) {
        log::info!("dropped");
    }
}

fn write(writer: &mut ChunkWriter<'_>, count: usize, size: usize) -> Result<(), HandlerError> {
    let _dropped = SaysDropped;
    for _ in 0..count {
        writer.write(vec![b'x'; size])?;
    }
    Ok(())
}

fn numbers(request: &Request) -> Result<(usize, usize), HandlerError> {
    let (count, size) =
        request.text()?.split_once(' ').ok_or_else(|| HandlerError::client(400, "count size"))?;
    Ok((count.parse()?, size.parse()?))
}

fn until_cancelled(request: &Request) -> Result<Response<'static>, HandlerError> {
    log::info!("running");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !request.is_cancelled() {
        if Instant::now() > deadline {
            return Err(HandlerError::model("nobody has cancelled"));
        }
        std::thread::yield_now();
    }
    Ok(Response::text("cancelled"))
}

fn child_sockets() -> Result<Response<'static>, HandlerError> {
    let output = Command::new("sh")
        .args(["-c", "ls -l /proc/self/fd | grep -c socket"])
        .stderr(Stdio::null())
        .output()?;
    Ok(Response::text(format!("child has {} sockets", String::from_utf8_lossy(&output.stdout).trim())))
}
