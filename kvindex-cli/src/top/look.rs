//! One look at a node: what it says of its workers, of its cluster, and on its metrics page. Only the first must
//! succeed: a token may not be let in to the others.

use kvindex_client::v1;
use kvindex_client::{CallError, Client};
use std::time::{Duration, Instant};

use super::page::Page;
use crate::args::ServerArgs;
use crate::{connect, failure};

/// A metrics page that takes longer is left out: the screen does not wait for it.
const PAGE_TIMEOUT: Duration = Duration::from_secs(1);

/// Largest metrics page that is read: some hundred bytes a stream.
const MAX_PAGE_BYTES: u64 = 64 << 20;

/// Hot prefixes that are asked for; the screen has room for fewer.
const HOT: u32 = 20;

/// What a node said.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) workers: Vec<v1::Worker>,
    /// Or why there is none.
    pub(super) cluster: Result<v1::ClusterStatusResponse, String>,
    pub(super) page: Result<Page, String>,
    /// None where the node is too old to count them.
    pub(super) hot: Option<v1::HotPrefixesResponse>,
}

/// Asks the node.
#[derive(Debug, Clone)]
pub(super) struct Looker {
    client: Client,
    server: String,
    page: Result<(ureq::Agent, String), String>,
    /// What the page is asked with.
    token: Option<String>,
    /// There is one, and it is kept from the page's host.
    is_kept_back: bool,
}

impl Looker {
    pub(super) fn new(client: Client, page: Option<&str>, server: &ServerArgs) -> anyhow::Result<Self> {
        let url = match page {
            Some(url) => url.to_owned(),
            None => format!("{}/metrics", server.server.trim_end_matches('/')),
        };
        let is_own = is_of_node(&url, &server.server);
        let page = if url.starts_with("http://") {
            // Nor to a proxy that the environment names: calls do not go through one either.
            let config = ureq::Agent::config_builder().timeout_global(Some(PAGE_TIMEOUT)).proxy(None).build();
            Ok((ureq::Agent::new_with_config(config), url))
        } else if page.is_some() {
            return Err(failure::usage(format!("--metrics: {url} must begin with http://")));
        } else {
            Err("no metrics over TLS; --metrics names another address".to_owned())
        };
        let token = connect::token(server.token_file.as_deref())?.map(|token| token.trim().to_owned());
        let is_kept_back = token.is_some() && !is_own;
        let token = token.filter(|_| is_own);
        Ok(Self { client, server: server.server.clone(), page, token, is_kept_back })
    }

    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Asks for everything at once.
    pub(super) async fn look(&self) -> anyhow::Result<Look> {
        self.try_look().await.map_err(|error| failure::of_call(&self.server, error))
    }

    pub(super) async fn try_look(&self) -> Result<Look, CallError> {
        let hot = v1::HotPrefixesRequest { limit: Some(HOT), ..v1::HotPrefixesRequest::default() };
        let (workers, cluster, hot, page) = tokio::join!(
            self.client.list_workers(v1::ListWorkersRequest::default()),
            self.client.cluster_status(false),
            self.client.hot_prefixes(hot),
            self.page(),
        );
        // The moment of the answers, which rates are of.
        let at = Instant::now();
        let cluster = cluster.map_err(|error| error.to_string());
        Ok(Look { at, workers: workers?.workers, cluster, page, hot: hot.ok() })
    }

    async fn page(&self) -> Result<Page, String> {
        let (agent, url) = self.page.clone()?;
        let (token, is_kept_back) = (self.token.clone(), self.is_kept_back);
        let read = tokio::task::spawn_blocking(move || {
            let mut request = agent.get(&url);
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let mut answer = request.call().map_err(|error| why_not(&error, is_kept_back))?;
            let text = answer.body_mut().with_config().limit(MAX_PAGE_BYTES).read_to_string();
            text.map(|text| Page::read(&text)).map_err(|error| why_not(&error, is_kept_back))
        });
        read.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// Whether a page is at the node's own host, on whichever port, and the token goes there in clear text anyway: nobody
/// else may learn it.
fn is_of_node(page: &str, server: &str) -> bool {
    let host = |url: &str| {
        let uri: ureq::http::Uri = url.parse().ok()?;
        (uri.scheme_str() == Some("http")).then(|| uri.host().map(str::to_ascii_lowercase))?
    };
    host(page).is_some_and(|page| host(server) == Some(page))
}

fn why_not(error: &ureq::Error, is_kept_back: bool) -> String {
    match error {
        ureq::Error::StatusCode(401 | 403) if is_kept_back => {
            "no metrics: the token goes to the host of --server only, where that is http".into()
        }
        ureq::Error::StatusCode(401 | 403) => {
            "no metrics: the token needs the right admin for every tenant".into()
        }
        ureq::Error::StatusCode(404) => "no metrics here; --metrics names another address".into(),
        other => format!("no metrics: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::is_of_node;

    #[test]
    fn only_the_nodes_own_host_is_told_the_token() {
        for (page, server, is_own) in [
            ("http://127.0.0.1:9591/metrics", "http://127.0.0.1:9590", true),
            ("http://Index:9591/metrics", "http://index:9590/", true),
            ("http://[::1]:9591/metrics", "http://[::1]:9590", true),
            ("http://elsewhere:9591/metrics", "http://index:9590", false),
            ("http://index.evil.test/metrics", "http://index:9590", false),
            ("http://index:9590@evil.test/metrics", "http://index:9590", false),
            ("http://index:9591/metrics", "https://index:9590", false),
            ("index:9591/metrics", "http://index:9590", false),
        ] {
            assert_eq!(is_of_node(page, server), is_own, "{page} {server}");
        }
    }
}
