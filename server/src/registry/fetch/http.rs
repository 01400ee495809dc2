//! `http://` and `https://`: one GET, its redirects by hand, and further attempts where they are safe.
//!
//! An attempt is repeated if the connection failed or the server did, and nothing has arrived. If something
//! has, the rest is asked for, provided that the server gave the file a strong entity tag: only that says that
//! both parts are of one file.

use std::error::Error;
use std::io::SeekFrom;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LOCATION, RANGE};
use http::{HeaderName, StatusCode};
use reqwest::{Client, Response};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt, BufWriter};
use tokio::time::{sleep, timeout};
use tracing::warn;
use url::{Host, Url};

use super::landing::Landing;
use super::lookup::Pinned;
use super::{Fetcher, Limits, Order, Trouble};
use crate::registry::address::{Refused, loggable};

const ATTEMPTS: u32 = 3;
const MAX_REDIRECTS: u32 = 5;
const CONNECTING: Duration = Duration::from_secs(10);
/// How much is written to the disk at once.
const BLOCK: usize = 1 << 20;
const SSE_KMS: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-amz-server-side-encryption"), HeaderValue::from_static("aws:kms"));

impl Fetcher {
    /// Fetches what an order says.
    pub(super) async fn download(&self, order: &Order<'_>, landing: &Landing) -> Result<(), Trouble> {
        let mut arriving = Arriving::new(order, landing, self.limits)?;
        let mut pause = self.limits.pause;
        let mut attempt = 1;
        loop {
            match self.attempt(order, &mut arriving).await {
                Err(Trouble::Passing(why)) if attempt < ATTEMPTS && arriving.may_go_on() => {
                    warn!(url = %loggable(&order.address.given), attempt, "{why}; trying again");
                    sleep(pause).await;
                    pause *= 4;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt(&self, order: &Order<'_>, arriving: &mut Arriving<'_>) -> Result<(), Trouble> {
        let mut response = self.follow(order, arriving.wanted(order)).await?;
        arriving.begin(&response).await?;
        while let Some(block) = self.next(&mut response).await? {
            arriving.take(&block).await?;
        }
        arriving.end().await
    }

    /// Asks, and follows redirects to where the file is.
    async fn follow(&self, order: &Order<'_>, headers: HeaderMap) -> Result<Response, Trouble> {
        let mut url = order.address.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask(&url, order, headers.clone()).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let Some(location) = location else {
                return Err(Trouble::Failed("it redirects, but doesn't say where to".to_owned()));
            };
            url = self.rules.redirect(&url, location, order.trust).map_err(Trouble::Refused)?;
        }
        Err(Trouble::Failed(format!("more than {MAX_REDIRECTS} redirects")))
    }

    async fn ask(&self, url: &Url, order: &Order<'_>, headers: HeaderMap) -> Result<Response, Trouble> {
        let addresses = self.addresses(url, order).await?;
        let client = client(url, addresses).map_err(|error| Trouble::Failed(chain(error)))?;
        let asking = client.get(url.clone()).headers(headers).send();
        let limit = CONNECTING + self.limits.idle;
        match timeout(limit, asking).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Trouble::Passing(chain(error))),
            Err(_) => Err(Trouble::Failed(format!("no answer after {limit:?}"))),
        }
    }

    /// The addresses that may be connected to.
    async fn addresses(&self, url: &Url, order: &Order<'_>) -> Result<Vec<IpAddr>, Trouble> {
        // Addresses in URLs were checked with the URL.
        let Some(Host::Domain(name)) = url.host() else { return Ok(Vec::new()) };
        let mut addresses = self.lookup.ask(name, CONNECTING).await.map_err(Trouble::Passing)?;
        let mut refusal = None;
        addresses.retain(|address| match self.rules.check_address(*address, order.trust) {
            Ok(()) => true,
            Err(why) => {
                refusal = Some(why);
                false
            }
        });
        match refusal {
            Some(why) if addresses.is_empty() => {
                Err(Trouble::Refused(Refused(format!("{name} resolves to {why}"))))
            }
            _ => Ok(addresses),
        }
    }

    async fn next(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, Trouble> {
        let limit = self.limits.idle;
        match timeout(limit, response.chunk()).await {
            Ok(Ok(block)) => Ok(block),
            Ok(Err(error)) => Err(Trouble::Passing(chain(error))),
            Err(_) => {
                let why = format!("nothing came for {limit:?} (--download-idle-timeout)");
                Err(Trouble::Failed(why))
            }
        }
    }
}

/// A client for one connection.
fn client(url: &Url, addresses: Vec<IpAddr>) -> reqwest::Result<Client> {
    // Whoever was first has installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        // A proxy would connect to an address that nobody checked.
        .no_proxy()
        .dns_resolver(Pinned(addresses))
        .connect_timeout(CONNECTING)
        .user_agent(concat!("zoo-server/", env!("CARGO_PKG_VERSION")));
    // The system's certificates are read from the disk; plain HTTP needs none.
    let builder = if url.scheme() == "https" { builder } else { builder.tls_certs_only([]) };
    builder.build()
}

/// An error with its causes, and without the URL, which may hold a signature.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A file that arrives.
struct Arriving<'a> {
    order: &'a Order<'a>,
    landing: &'a Landing,
    limits: Limits,
    file: BufWriter<File>,
    bytes: u64,
    /// How many there will be, if the server has said.
    total: Option<u64>,
    /// The strong entity tag of the file.
    tag: Option<HeaderValue>,
}

impl<'a> Arriving<'a> {
    fn new(order: &'a Order<'a>, landing: &'a Landing, limits: Limits) -> Result<Self, Trouble> {
        let file = landing.writer().map_err(Trouble::disk)?;
        let file = BufWriter::with_capacity(BLOCK, File::from_std(file));
        Ok(Self { order, landing, limits, file, bytes: 0, total: None, tag: None })
    }

    /// Whether a further attempt would be safe.
    fn may_go_on(&self) -> bool {
        self.bytes == 0 || self.tag.is_some()
    }

    /// The headers to ask with.
    fn wanted(&self, order: &Order<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if order.s3_sse_kms {
            headers.extend([SSE_KMS]);
        }
        if let (Some(tag), true) = (&self.tag, self.bytes > 0)
            && let Ok(range) = HeaderValue::try_from(format!("bytes={}-", self.bytes))
        {
            headers.insert(RANGE, range);
            headers.insert(IF_RANGE, tag.clone());
        }
        headers
    }

    /// Takes what the server says before the file.
    async fn begin(&mut self, response: &Response) -> Result<(), Trouble> {
        let status = response.status();
        match status {
            StatusCode::OK => {
                if self.bytes > 0 {
                    self.restart().await?;
                }
                self.tag = strong_tag(response.headers());
                self.total = response.content_length();
            }
            StatusCode::PARTIAL_CONTENT if self.bytes > 0 => self.check_part(response.headers())?,
            _ if status.is_server_error() => return Err(Trouble::Passing(format!("it answers {status}"))),
            _ => return Err(Trouble::Failed(format!("it answers {status}"))),
        }
        if let Some(total) = self.total {
            self.limits.check_size(total)?;
            let rest = total.saturating_sub(self.bytes);
            self.landing.check_room(rest).map_err(Trouble::disk)?;
        }
        self.report();
        Ok(())
    }

    /// Whether a part is the rest of what is there.
    fn check_part(&self, headers: &HeaderMap) -> Result<(), Trouble> {
        let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
        let (begin, total) = content_range(range).unzip();
        let same_file = headers.get(ETAG).is_none_or(|tag| Some(tag) == self.tag.as_ref());
        let same_total = self.total.is_none() || total == self.total;
        if begin == Some(self.bytes) && same_total && same_file {
            return Ok(());
        }
        let bytes = self.bytes;
        Err(Trouble::Failed(format!(
            "asked for the rest from byte {bytes} on, it sends another part: {range}"
        )))
    }

    /// Forgets what is there: the server sends all of it again.
    async fn restart(&mut self) -> Result<(), Trouble> {
        self.file.flush().await.map_err(Trouble::disk)?;
        self.file.seek(SeekFrom::Start(0)).await.map_err(Trouble::disk)?;
        self.file.get_ref().set_len(0).await.map_err(Trouble::disk)?;
        self.bytes = 0;
        Ok(())
    }

    async fn take(&mut self, block: &[u8]) -> Result<(), Trouble> {
        self.bytes += block.len() as u64;
        self.limits.check_size(self.bytes)?;
        self.file.write_all(block).await.map_err(Trouble::disk)?;
        self.report();
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Trouble> {
        self.file.flush().await.map_err(Trouble::disk)?;
        match self.total {
            Some(total) if total != self.bytes => {
                Err(Trouble::Passing(format!("it sent {} of {total} bytes", self.bytes)))
            }
            _ => Ok(()),
        }
    }

    fn report(&self) {
        self.order.registering.fetching(self.bytes, self.total);
    }
}

/// An entity tag that stands for exactly these bytes.
fn strong_tag(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")).cloned()
}

/// The first byte and the total of `bytes 7-9/10`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (begin, _) = range.split_once('-')?;
    Some((begin.parse().ok()?, total.parse().ok()?))
}
