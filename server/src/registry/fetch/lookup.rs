//! From names to addresses, once for each connection: what was checked is what is connected to.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::timeout;

type Ask = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Whoever knows the addresses of names. Asking blocks.
#[derive(Clone)]
pub(in crate::registry) struct Lookup(Arc<Ask>);

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

impl Lookup {
    pub(in crate::registry) fn new(
        ask: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }

    /// Asks as programs of this machine ask.
    pub(in crate::registry) fn system() -> Self {
        Self::new(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    /// Knows what a test says.
    #[cfg(test)]
    pub(in crate::registry) fn fixed(known: &'static [(&'static str, &'static str)]) -> Self {
        Self::new(move |name| {
            let found = known.iter().filter(|(known, _)| *known == name);
            let addresses: Vec<_> = found.map(|(_, address)| address.parse().unwrap()).collect();
            if addresses.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(addresses) }
        })
    }

    /// The addresses of a name, or why there are none.
    pub(super) async fn ask(&self, name: &str, limit: Duration) -> Result<Vec<IpAddr>, String> {
        let (ask, asked) = (self.0.clone(), name.to_owned());
        let asking = tokio::task::spawn_blocking(move || ask(&asked));
        match timeout(limit, asking).await {
            Ok(Ok(Ok(addresses))) => Ok(addresses),
            Ok(Ok(Err(error))) => Err(format!("can't resolve {name}: {error}")),
            Ok(Err(error)) => Err(format!("can't resolve {name}: {error}")),
            Err(_) => Err(format!("can't resolve {name}: no answer after {} s", limit.as_secs())),
        }
    }
}

/// Says what was found out before, whatever it is asked.
pub(super) struct Pinned(pub(super) Vec<IpAddr>);

impl Resolve for Pinned {
    fn resolve(&self, _: Name) -> Resolving {
        // Port 0 stands for that of the URL.
        let addresses = self.0.clone().into_iter().map(|address| SocketAddr::new(address, 0));
        Box::pin(std::future::ready(Ok(Box::new(addresses) as Addrs)))
    }
}
