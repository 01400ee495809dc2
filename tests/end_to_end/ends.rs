//! How a server ends, and what it leaves: nothing.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use zoo_e2e::harness::Zoo;
use zoo_e2e::http::Client;
use zoo_e2e::{runs, wait_until};

/// Writes down each body before it answers it.
const SCRIBE: &str = r#"
import time


def handle(data, context):
    if data is None:
        return None
    bodies = [row["body"].decode() for row in data]
    for body in bodies:
        with open("LEDGER", "a") as ledger:
            ledger.write(body + "\n")
    time.sleep(0.002)
    return bodies
"#;

fn scribe(zoo: &Zoo, workers: u32) {
    let source = SCRIBE.replace("LEDGER", zoo.home().join("ledger").to_str().unwrap());
    zoo.serve("scribe", &source, "");
    let scaled = zoo.manage(&format!("PUT /models/scribe?min_worker={workers}&synchronous=true"));
    scaled.says(200, &format!("Workers scaled to {workers} for model: scribe"));
}

/// The descendants of a process.
fn descendants(root: u32) -> HashSet<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = HashSet::from([root]);
    loop {
        let more: Vec<_> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            found.remove(&root);
            return found;
        }
        found.extend(more);
    }
}

#[test]
fn a_killed_server_leaves_no_process() {
    let mut zoo = Zoo::start();
    scribe(&zoo, 3);
    let left = descendants(zoo.pid());
    assert!(left.is_superset(&zoo.workers("scribe").into_iter().collect()) && left.len() >= 3, "{left:?}");
    zoo.signal(Signal::KILL);
    assert_eq!(zoo.ended(), None);
    wait_until("all are gone", || !left.iter().copied().any(runs));
}

#[test]
fn a_server_that_is_asked_to_stop_leaves_no_process() {
    let mut zoo = Zoo::start();
    scribe(&zoo, 2);
    let left = descendants(zoo.pid());
    assert!(left.len() >= 2);
    zoo.signal(Signal::TERM);
    assert_eq!(zoo.ended(), Some(0));
    assert!(!left.iter().copied().any(runs), "they are gone when it is");
}

/// What became of a request.
enum Fate {
    Answered,
    /// No byte of an answer came: the connection was closed before, or couldn't be made.
    Unheard,
}

#[test]
fn a_server_that_stops_under_load_answers_all_that_it_has_begun() {
    let mut zoo = Zoo::start();
    scribe(&zoo, 2);
    let (answered, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let address = zoo.inference();
    let client = |name: usize| {
        let mut fates = Vec::new();
        let mut connection = Client::connect(address).unwrap();
        for number in 0.. {
            let text = format!("{name}-{number}");
            let reply = connection.call("POST /predictions/scribe", &[], text.as_bytes());
            let Ok(reply) = reply else {
                fates.push((text, Fate::Unheard));
                break;
            };
            // A refusal is an answer too, but not one to what was begun.
            if reply.status == 200 {
                assert_eq!(reply.text(), text);
                answered.fetch_add(1, Ordering::Relaxed);
                fates.push((text, Fate::Answered));
            } else {
                assert_eq!(reply.status, 503, "{reply:?}");
                fates.push((text, Fate::Unheard));
            }
            if reply.header("connection") == Some("close") {
                match Client::connect(address) {
                    Ok(another) => connection = another,
                    Err(_) => break,
                }
            }
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
        fates
    };
    let fates: Vec<(String, Fate)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|name| scope.spawn(move || client(name))).collect();
        wait_until("load", || answered.load(Ordering::Relaxed) >= 200);
        zoo.signal(Signal::TERM);
        let status = zoo.ended();
        over.store(true, Ordering::Relaxed);
        let fates = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        assert_eq!(status, Some(0));
        fates
    });
    let ledger = fs::read_to_string(zoo.home().join("ledger")).unwrap();
    let mut begun: HashSet<&str> = ledger.lines().collect();
    assert_eq!(begun.len(), ledger.lines().count(), "nothing was begun twice");
    for (text, fate) in &fates {
        let begun = begun.remove(text.as_str());
        match fate {
            Fate::Answered => assert!(begun, "{text} was answered by nobody"),
            Fate::Unheard => assert!(!begun, "{text} was begun and not answered"),
        }
    }
    assert!(begun.is_empty(), "nobody asked for {begun:?}");
}

#[test]
fn a_worker_killed_under_load_is_noticed_by_nobody() {
    let zoo = Zoo::start();
    scribe(&zoo, 2);
    let answered = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for name in 0..8 {
            let (zoo, answered, over) = (&zoo, &answered, &over);
            scope.spawn(move || {
                let mut connection = zoo.client();
                for number in 0.. {
                    let text = format!("{name}-{number}");
                    let reply = connection.call("POST /predictions/scribe", &[], text.as_bytes()).unwrap();
                    assert_eq!((reply.status, reply.text()), (200, text.as_str()));
                    answered.fetch_add(1, Ordering::Relaxed);
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        for round in 1..=3 {
            wait_until("load", || answered.load(Ordering::Relaxed) >= round * 150);
            if let Some(pid) = zoo.workers("scribe").first() {
                zoo_e2e::kill(*pid);
            }
        }
        wait_until("load", || answered.load(Ordering::Relaxed) >= 600);
        over.store(true, Ordering::Relaxed);
    });
}
