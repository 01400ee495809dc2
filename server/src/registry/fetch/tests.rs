//! Registrations from a scripted server: status and text as clients get them, and that nothing is left on the disk.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::site::{Answer, Site};
use super::*;
use crate::config::{StartupModel, StartupModels, UrlPatterns};
use crate::registry::fixture::{Place, archive, manifest};
use crate::registry::{Fetched, Registered, Registration, Registry};

/// The bytes of an archive of version 1 of the model `m`.
fn mar() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.mar");
    archive(&path, &[(zoo_archiver::MANIFEST, &manifest("m", "1")), ("handler.py", "")]);
    fs::read(path).unwrap()
}

fn allowing(text: &str) -> Place {
    let mut place = Place::new();
    place.config.allowed_urls = Some(UrlPatterns::parse(text).unwrap());
    place
}

fn registered() -> Result<Registered, Failure> {
    Ok(Registered::WithoutWorkers { model: "m".into(), version: "1".into() })
}

/// Registers, sees it refused with this status and text, and that nothing is left.
async fn refused(place: &Place, registry: &Arc<Registry>, url: &str, status: u16, text: &str) -> Failure {
    let before = place.stored();
    let failure = registry.add(url).await.unwrap_err();
    assert_eq!((failure.row().status.as_u16(), failure.to_string().as_str()), (status, text), "{failure:?}");
    assert_eq!(place.stored(), before, "{url}");
    assert_eq!(place.private_dirs(), Vec::<PathBuf>::new());
    assert!(registry.list().is_empty() && registry.registering("m").is_empty());
    failure
}

/// Sees the download fail, and why.
async fn fails(place: &Place, registry: &Arc<Registry>, url: &str, why: &str) {
    let text = format!("Failed to download archive from: {url}");
    let failure = refused(place, registry, url, 400, &text).await;
    let Failure::DownloadFailed { why: reason, .. } = &failure else { panic!("{failure:?}") };
    assert!(reason.contains(why), "{reason}");
    assert_eq!(failure.row().kind, "DownloadArchiveException");
}

async fn not_allowed(place: &Place, registry: &Arc<Registry>, url: &str) {
    let text = format!("Given URL {url} does not match any allowed URL(s)");
    let failure = refused(place, registry, url, 404, &text).await;
    assert_eq!(failure.row().kind, "ModelNotFoundException");
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the condition didn't come true");
}

#[tokio::test]
async fn an_archive_is_fetched_into_the_store_and_goes_with_its_model() {
    let place = Place::new();
    let site = Site::new([Answer::ok(&mar())]).await;
    let registry = place.registry();
    let url = site.url("sub/m.mar?sig=a/b");
    assert_eq!(registry.add(&url).await, registered());
    assert_eq!(registry.resolve("m", None).unwrap().url, url);
    assert_eq!(place.stored(), ["m.mar"]);
    assert_eq!(fs::read(place.store().join("m.mar")).unwrap(), mar());
    let request = site.requests().remove(0);
    assert!(request.starts_with("get /sub/m.mar?sig=a/b http/1.1\r\n"), "{request}");
    assert!(request.contains("user-agent: zoo-server/"), "{request}");
    assert!(!request.contains("x-amz") && !request.contains("encoding"), "{request}");
    registry.unregister("m", None).await.unwrap();
    assert_eq!(place.stored(), Vec::<String>::new());
}

#[tokio::test]
async fn s3_is_told_about_its_keys() {
    let place = Place::new();
    let site = Site::new([Answer::ok(&mar())]).await;
    let registration = Registration { s3_sse_kms: true, ..Registration::of(site.url("m.mar")) };
    assert_eq!(place.registry().register(registration).await, registered());
    assert!(site.requests()[0].contains("\r\nx-amz-server-side-encryption: aws:kms\r\n"));
}

#[tokio::test]
async fn five_redirects_are_followed_and_no_more() {
    let place = Place::new();
    let registry = place.registry();
    let hops = |count: usize| (1..=count).map(|hop| Answer::redirect(&format!("/{hop}?next")));
    let site = Site::new(hops(5).chain([Answer::ok(&mar())])).await;
    assert_eq!(registry.add(&site.url("m.mar")).await, registered());
    assert_eq!(site.requests().len(), 6);
    // Under the name that the client gave.
    assert_eq!(place.stored(), ["m.mar"]);
    registry.unregister("m", None).await.unwrap();

    let site = Site::new(hops(6)).await;
    fails(&place, &registry, &site.url("m.mar"), "more than 5 redirects").await;
    assert_eq!(site.requests().len(), 6);
    let lost = Site::new([Answer::with("301 Moved Permanently", b"")]).await;
    fails(&place, &registry, &lost.url("m.mar"), "doesn't say where to").await;
}

#[tokio::test]
async fn a_redirect_leads_nowhere_that_isnt_allowed() {
    let place = Place::new();
    let registry = place.registry();
    let secret = Site::new([Answer::ok(&mar())]).await;
    let targets = [
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://[::ffff:a9fe:a9fe]/".to_owned(),
        "http://8.8.8.8/m.mar".to_owned(),
        "file:///etc/hostname".to_owned(),
        "gopher://127.0.0.1/".to_owned(),
        format!("http://user:pass@127.0.0.1:{}/m.mar", secret.port()),
    ];
    for target in targets {
        let site = Site::new([Answer::redirect(&target)]).await;
        not_allowed(&place, &registry, &site.url("m.mar")).await;
    }
    let site = Site::new([Answer::redirect(&secret.url("m.mar"))]).await;
    let strict = allowing(&format!("http://127.0.0.1:{}/.*", site.port()));
    not_allowed(&strict, &strict.registry(), &site.url("m.mar")).await;
    assert_eq!(secret.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_name_is_judged_by_its_addresses_and_only_those_are_connected_to() {
    let names = &[
        ("models.test", "127.0.0.1"),
        ("metadata.test", "169.254.169.254"),
        ("mapped.test", "::ffff:169.254.169.254"),
        ("nowhere.test", "0.0.0.0"),
        ("far.test", "8.8.8.8"),
        ("both.test", "169.254.169.254"),
        ("both.test", "127.0.0.1"),
    ];
    let place = Place::new();
    let registry = place.registry_that_knows(names);
    for name in ["metadata.test", "mapped.test", "nowhere.test", "far.test"] {
        not_allowed(&place, &registry, &format!("http://{name}/m.mar")).await;
    }
    for name in ["models.test", "both.test"] {
        let site = Site::new([Answer::ok(&mar())]).await;
        let url = format!("http://{name}:{}/m.mar", site.port());
        assert_eq!(registry.add(&url).await, registered());
        assert!(site.requests()[0].contains(&format!("host: {name}")));
        registry.unregister("m", None).await.unwrap();
    }
    let site = Site::new([Answer::redirect("http://metadata.test/")]).await;
    not_allowed(&place, &registry, &site.url("m.mar")).await;
    fails(&place, &registry, "http://unknown.test/m.mar", "can't resolve unknown.test").await;
    let broad = allowing("http://.*");
    not_allowed(&broad, &broad.registry_that_knows(names), "http://metadata.test/m.mar").await;
}

#[tokio::test]
async fn what_is_asked_for_on_the_second_look_up_isnt_connected_to() {
    // A name server that says something harmless to whoever checks, and something else to whoever connects.
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let place = Place::new();
    let site = Site::new([Answer::ok(&mar())]).await;
    let lookup = Lookup::new(|_| {
        let first = ASKED.fetch_add(1, Ordering::Relaxed) == 0;
        Ok(vec![if first { [127, 0, 0, 1] } else { [169, 254, 169, 254] }.into()])
    });
    let registry = place.registry_outside(lookup);
    let url = format!("http://rebinding.test:{}/m.mar", site.port());
    assert_eq!(registry.add(&url).await, registered());
    assert_eq!((ASKED.load(Ordering::Relaxed), site.requests().len()), (1, 1));
}

#[tokio::test]
async fn urls_with_tricks_are_refused_before_anybody_is_asked() {
    let place = Place::new();
    let registry = place.registry();
    let site = Site::new([Answer::ok(&mar())]).await;
    let port = site.port();
    not_allowed(&place, &registry, &format!("http://user:pass@127.0.0.1:{port}/m.mar")).await;
    not_allowed(&place, &registry, &format!("http://127.0.0.1:{port}/")).await;
    not_allowed(&place, &registry, &format!("http://127.0.0.1:{port}/.zoo-fetch-1.part")).await;
    not_allowed(&place, &registry, &format!("http://127.0.0.1:{port}/{}", "m".repeat(256))).await;
    not_allowed(&place, &registry, "http://169.254.169.254/m.mar").await;
    for path in ["../m.mar", "a/%2e%2e/m.mar", "..%2fm.mar", "%252e./m.mar"] {
        let url = format!("http://127.0.0.1:{port}/{path}");
        let text = format!("Relative path is not allowed in url: {url}");
        refused(&place, &registry, &url, 404, &text).await;
    }
    assert_eq!(site.requests(), Vec::<String>::new());
    // Encoded characters stay encoded: this is one name.
    assert_eq!(registry.add(&site.url("a%2Fb%5Cm.mar")).await, registered());
    assert_eq!(place.stored(), ["a%2Fb%5Cm.mar"]);
}

#[tokio::test]
async fn what_cant_be_had_is_a_failed_download() {
    let mut place = Place::new();
    place.config.max_download_size = 1000;
    let registry = place.registry_that_knows(&[]);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = format!("{chunked}400\r\n{}\r\n0\r\n\r\n", "x".repeat(1024));
    let cases = [
        (vec![Answer::status("404 Not Found")], "it answers 404 Not Found"),
        (vec![Answer::status("403 Forbidden")], "it answers 403 Forbidden"),
        (vec![Answer::status("204 No Content")], "it answers 204"),
        (vec![Answer::status("206 Partial Content")], "it answers 206"),
        (vec![Answer::ok(b"0123456789").cut(3)], "end"),
        (vec![Answer::raw(format!("{chunked}5\r\nabcde\r\n"))], "chunk"),
        (
            vec![Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\nx")],
            "99999999999999 bytes or more",
        ),
        (vec![Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\nx")], "where 1000 are allowed"),
        (vec![Answer::raw(long)], "where 1000 are allowed"),
        (
            vec![
                Answer::raw("nonsense\r\n\r\n"),
                Answer::raw("nonsense\r\n\r\n"),
                Answer::raw("nonsense\r\n\r\n"),
            ],
            "invalid HTTP",
        ),
        (vec![Answer::raw(""), Answer::raw(""), Answer::raw("")], "connection closed"),
        (vec![], "Connection refused"),
    ];
    for (answers, why) in cases {
        let expected = answers.len();
        let site = Site::new(answers).await;
        fails(&place, &registry, &site.url("m.mar"), why).await;
        assert_eq!(site.requests().len(), expected, "{why}");
    }
    // Not the client's fault: there is no room.
    place.config.max_download_size = u64::MAX;
    drop(registry);
    let registry = place.registry();
    let site =
        Site::new([Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\nx")]).await;
    let url = site.url("m.mar");
    let failure = refused(&place, &registry, &url, 500, &format!("Failed to save model: {url}")).await;
    assert!(matches!(failure, Failure::SaveFailed { why, .. } if why.contains("don't fit")));
}

#[tokio::test]
async fn https_needs_a_server_that_speaks_it() {
    let place = Place::new();
    let registry = place.registry_that_knows(&[]);
    let site = Site::new((0..3).map(|_| Answer::ok(&mar()))).await;
    fails(&place, &registry, &format!("https://127.0.0.1:{}/m.mar", site.port()), "InvalidContentType").await;
}

#[tokio::test]
async fn what_may_pass_is_tried_three_times() {
    let place = Place::new();
    let registry = place.registry_that_knows(&[]);
    let broken = || Answer::status("503 Service Unavailable");
    let site = Site::new([broken(), Answer::raw(""), Answer::ok(&mar())]).await;
    assert_eq!(registry.add(&site.url("m.mar")).await, registered());
    assert_eq!(site.requests().len(), 3);
    registry.unregister("m", None).await.unwrap();

    let site = Site::new((0..4).map(|_| broken())).await;
    fails(&place, &registry, &site.url("m.mar"), "it answers 503 Service Unavailable").await;
    assert_eq!(site.requests().len(), 3);
}

/// The archive with an entity tag, cut off after `kept` bytes.
fn begun(tag: &str, kept: usize) -> Answer {
    let all = mar();
    Answer::with(&format!("200 OK\r\nETag: {tag}"), &all).cut(all.len() - kept)
}

fn rest(from: usize, total: usize, tag: &str) -> Answer {
    let all = mar();
    let head =
        format!("206 Partial Content\r\nETag: {tag}\r\nContent-Range: bytes {from}-{}/{total}", total - 1);
    Answer::with(&head, &all[from..])
}

#[tokio::test]
async fn the_rest_is_asked_for_if_a_strong_tag_says_what_it_belongs_to() {
    let place = Place::new();
    let registry = place.registry_that_knows(&[]);
    let total = mar().len();
    let whole = || Answer::with("200 OK\r\nETag: \"b\"", &mar());
    // Goes on; the file has changed, so it comes again; only the second attempt got its first part.
    let good = [
        vec![begun("\"a\"", 100), rest(100, total, "\"a\"")],
        vec![begun("\"a\"", 100), whole()],
        // By now it is shorter than what has come.
        vec![Answer::with("200 OK\r\nETag: \"a\"", &[mar(), vec![0; 5000]].concat()).cut(1), whole()],
        vec![begun("\"a\"", 0), begun("\"a\"", 7), rest(7, total, "\"a\"")],
    ];
    for answers in good {
        let expected = answers.len();
        let site = Site::new(answers).await;
        assert_eq!(registry.add(&site.url("m.mar")).await, registered());
        assert_eq!(fs::read(place.store().join("m.mar")).unwrap(), mar());
        let last = site.requests().pop().unwrap();
        let range = last.contains("\r\nrange: bytes=");
        assert!(range && last.contains("\r\nif-range: \"a\"\r\n"), "{last}");
        assert_eq!(site.requests().len(), expected);
        registry.unregister("m", None).await.unwrap();
    }
    let another = "it sends another part";
    let bad = [
        (vec![begun("W/\"a\"", 100), whole()], "end of", 1),
        (vec![Answer::ok(&mar()).cut(1), whole()], "end of", 1),
        (vec![begun("\"a\"", 100), rest(99, total, "\"a\"")], another, 2),
        (vec![begun("\"a\"", 100), rest(100, total + 1, "\"a\"")], another, 2),
        (vec![begun("\"a\"", 100), rest(100, total, "\"b\"")], another, 2),
        (vec![begun("\"a\"", 100), Answer::status("416 Range Not Satisfiable")], "it answers 416", 2),
        (vec![begun("\"a\"", 1), begun("\"a\"", 2), begun("\"a\"", 3), whole()], "end of", 3),
    ];
    for (answers, why, requests) in bad {
        let site = Site::new(answers).await;
        fails(&place, &registry, &site.url("m.mar"), why).await;
        assert_eq!(site.requests().len(), requests);
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let mut place = Place::new();
    place.config.download_idle_timeout = Duration::from_millis(50);
    let never = Arc::new(Notify::new());
    let registry = place.registry();
    let site = Site::new([begun("\"a\"", mar().len()).gated(10, &never)]).await;
    fails(&place, &registry, &site.url("m.mar"), "nothing came for 50ms (--download-idle-timeout)").await;
    drop(registry);

    place.config.download_idle_timeout = Duration::from_secs(60);
    place.config.download_timeout = Duration::from_millis(50);
    let registry = place.registry();
    let site = Site::new([Answer::ok(&mar()).gated(10, &never)]).await;
    fails(&place, &registry, &site.url("m.mar"), "not complete after 50ms (--download-timeout)").await;
}

#[tokio::test]
async fn a_file_of_the_store_is_never_overwritten() {
    let place = Place::new();
    let registry = place.registry();
    fs::write(place.store().join("old.mar"), "old").unwrap();
    let (before, after) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let gated = |gate| Answer::ok(&mar()).gated(10, gate);
    let site = Site::new([gated(&before), gated(&after)]).await;
    let exists = |file: &str| format!("Model file already exists {file}");
    refused(&place, &registry, &site.url("old.mar"), 500, &exists("old.mar")).await;
    assert_eq!(site.requests(), Vec::<String>::new());

    // Two at once: the second one doesn't even ask.
    let first = tokio::spawn({
        let (registry, url) = (registry.clone(), site.url("m.mar"));
        async move { registry.add(&url).await }
    });
    until(|| site.requests().len() == 1).await;
    let second = registry.add(&site.url("other/m.mar")).await;
    assert_eq!(second, Err(Failure::FileExists { file: "m.mar".into() }));
    before.notify_one();
    assert_eq!(first.await.unwrap(), registered());
    registry.unregister("m", None).await.unwrap();

    // Somebody puts a file there while ours is on its way.
    let late = tokio::spawn({
        let (registry, url) = (registry.clone(), site.url("m.mar"));
        async move { registry.add(&url).await }
    });
    until(|| site.requests().len() == 2).await;
    fs::write(place.store().join("m.mar"), "theirs").unwrap();
    after.notify_one();
    assert_eq!(late.await.unwrap(), Err(Failure::FileExists { file: "m.mar".into() }));
    assert_eq!(fs::read_to_string(place.store().join("m.mar")).unwrap(), "theirs");
    assert_eq!(place.stored(), ["m.mar", "old.mar"]);
}

#[tokio::test]
async fn a_registration_that_fails_later_takes_the_file_with_it() {
    let place = Place::new();
    let registry = place.registry();
    let site = Site::new([Answer::ok(b"no archive at all"), Answer::ok(&mar()), Answer::ok(&mar())]).await;
    let failure = registry.add(&site.url("m.mar")).await.unwrap_err();
    assert!(matches!(failure, Failure::InvalidArchive { .. }), "{failure:?}");
    assert_eq!(place.stored(), Vec::<String>::new());

    let with_worker = Registration { initial_workers: Some(1), ..Registration::of(site.url("m.mar")) };
    let failure = registry.register(with_worker).await.unwrap_err();
    assert!(matches!(failure, Failure::WorkersFailed { .. }), "{failure:?}");
    assert_eq!(place.stored(), Vec::<String>::new());

    // A file that somebody put in its place isn't ours to remove.
    assert_eq!(registry.add(&site.url("m.mar")).await, registered());
    let path = place.store().join("m.mar");
    fs::write(place.path().join("theirs"), "theirs").unwrap();
    fs::rename(place.path().join("theirs"), &path).unwrap();
    registry.unregister("m", None).await.unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "theirs");
}

#[tokio::test]
async fn progress_can_be_seen_and_a_client_that_leaves_changes_nothing() {
    let place = Place::new();
    let registry = place.registry();
    let gate = Arc::new(Notify::new());
    let total = mar().len() as u64;
    let site = Site::new([Answer::ok(&mar()).gated(10, &gate)]).await;
    let client = tokio::spawn({
        let (registry, url) = (registry.clone(), site.url("m.mar"));
        async move { registry.add(&url).await }
    });
    until(|| !registry.registering("m").is_empty()).await;
    let seen = registry.registering("m").remove(0);
    until(|| seen.fetched() == Some(Fetched { bytes: total - 10, total: Some(total) })).await;
    assert_eq!(seen.state().as_str(), "FETCHING");
    let [partial] = &place.stored()[..] else { panic!("{:?}", place.stored()) };
    assert!(is_partial(partial) && partial.starts_with('.'));
    assert_eq!(registry.store.all().unwrap(), Vec::<String>::new());

    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    gate.notify_one();
    until(|| registry.resolve("m", None).is_ok()).await;
    assert_eq!(place.stored(), ["m.mar"]);
}

#[tokio::test]
async fn a_delete_ends_a_download() {
    let place = Place::new();
    let registry = place.registry();
    let never = Arc::new(Notify::new());
    let site = Site::new([Answer::ok(&mar()).gated(10, &never)]).await;
    let client = tokio::spawn({
        let (registry, url) = (registry.clone(), site.url("m.mar"));
        async move { registry.add(&url).await }
    });
    until(|| site.requests().len() == 1).await;
    registry.unregister("m", None).await.unwrap();
    assert_eq!(client.await.unwrap(), Err(Failure::RegistrationCancelled { model: "m".into() }));
    assert_eq!(place.stored(), Vec::<String>::new());
    assert!(registry.registering("m").is_empty());
}

#[tokio::test]
async fn what_was_fetched_stays_for_the_next_start() {
    let mut place = Place::new();
    let site = Site::new([Answer::ok(&mar())]).await;
    let model = StartupModel { name: None, location: site.url("m.mar") };
    place.config.models = StartupModels::Listed(vec![model]);
    for _ in 0..2 {
        let registry = place.registry();
        registry.load_at_startup().await;
        assert_eq!(registry.resolve("m", None).unwrap().url, site.url("m.mar"));
        registry.shutdown(Duration::from_secs(10)).await;
        assert_eq!(place.stored(), ["m.mar"]);
        assert_eq!(place.private_dirs(), Vec::<PathBuf>::new());
    }
    assert_eq!(site.requests().len(), 1);
}

#[tokio::test]
async fn files_are_copied_where_they_are_allowed() {
    let place = Place::new();
    let outside = place.path().join("outside");
    let inside = place.store().join("sub");
    for folder in [&outside, &inside] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("m.mar"), mar()).unwrap();
        fs::write(folder.join("large.mar"), vec![0; 5000]).unwrap();
    }
    let pipe = outside.join("pipe.mar");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let url = |folder: &Path, file: &str| format!("file://{}/{file}", folder.display());
    let registry = place.registry();
    not_allowed(&place, &registry, &url(&outside, "m.mar")).await;
    not_allowed(&place, &registry, &url(&outside, "missing.mar")).await;
    assert_eq!(registry.add(&url(&inside, "m.mar")).await, registered());
    assert_eq!(place.stored(), ["m.mar", "sub"]);
    registry.unregister("m", None).await.unwrap();
    assert_eq!(place.stored(), ["sub"]);
    drop(registry);

    let mut open = allowing(&url(&outside, ".*"));
    open.config.max_download_size = 4000;
    let registry = open.registry();
    assert_eq!(registry.add(&url(&outside, "m.mar")).await, registered());
    assert_eq!(fs::read(open.store().join("m.mar")).unwrap(), mar());
    registry.unregister("m", None).await.unwrap();
    assert_eq!(open.stored(), Vec::<String>::new());
    assert!(outside.join("m.mar").exists());
    fails(&open, &registry, &url(&outside, "missing.mar"), "No such file").await;
    fails(&open, &registry, &url(&outside, "pipe.mar"), "is no file").await;
    fails(&open, &registry, &url(&outside, "large.mar"), "where 4000 are allowed").await;
    fails(&open, &registry, &format!("{}%00", url(&outside, "m.mar")), "unexpected NUL byte").await;
}

#[test]
fn what_a_killed_server_left_is_swept_and_what_is_being_written_isnt() {
    let store = tempfile::tempdir().unwrap();
    let landing = Landing::create(store.path()).unwrap();
    fs::write(store.path().join(".zoo-fetch-dead.part"), "").unwrap();
    fs::write(store.path().join(".zoo-fetch-other"), "").unwrap();
    fs::write(store.path().join("m.mar"), "").unwrap();
    sweep(store.path());
    assert_eq!(fs::read_dir(store.path()).unwrap().count(), 3);
    let download = landing.settle(&store.path().join("n.mar")).unwrap().unwrap();
    assert!(store.path().join("n.mar").exists() && !store.path().join(".zoo-fetch-dead.part").exists());
    download.keep();
    assert!(store.path().join("n.mar").exists());
}
