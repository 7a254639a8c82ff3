//! A caller: what its token lets it do, and how much of that is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kvindex_core::DEFAULT_TENANT;
use tokio::sync::OwnedMutexGuard;

use super::engines;
use super::file::{Tenant, Token};
use super::quota::Limited;
use crate::net::Host;

/// What may be done. None of them includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Ask, list and watch.
    Read,
    /// Hand in events of known workers.
    Publish,
    /// Make workers known and forget them; over every tenant also the cluster's nodes, and metrics.
    Admin,
}

impl Right {
    pub(super) const ALL: [Self; 3] = [Self::Read, Self::Publish, Self::Admin];

    /// Its word in the access file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Admin => "admin",
        }
    }
}

/// Nobody known calls. Says nothing of what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unknown {
    #[error("this node asks for a token: send `authorization: Bearer <token>`")]
    NoToken,
    #[error("the authorization header holds no bearer token; send `authorization: Bearer <token>`")]
    NoBearer,
    #[error("the token is not known here; `kvindex token new` makes one")]
    NoSuchToken,
    #[error("the token has expired; `kvindex token new` makes another")]
    Expired,
}

/// A known caller may not do this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("token {token:?} lacks the right {right} (rights)")]
    Right { token: String, right: &'static str },
    #[error("token {token:?} has no right over tenant {tenant:?} (tenants)")]
    Tenant { token: String, tenant: String },
    #[error("token {token:?} has several tenants; name one")]
    NoTenant { token: String },
    #[error(
        "{what} needs a token with the right {right} over every tenant (tenants = [\"*\"]), which {token:?} has not"
    )]
    Everywhere { token: String, right: &'static str, what: &'static str },
    #[error("token {token:?} may not name {host:?} as an engine of tenant {tenant:?}: it {reason}")]
    Engine { token: String, tenant: String, host: String, reason: &'static str },
    #[error(
        "workers of tenant {tenant:?} have ids that begin with {tenant}/ when token {token:?} registers them"
    )]
    WorkerName { token: String, tenant: String },
}

/// Who calls. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// `None` for anyone, where there is no access file.
    token: Option<Arc<Token>>,
}

impl Caller {
    pub(crate) fn anyone() -> Self {
        Self { token: None }
    }

    pub(super) fn of(token: Arc<Token>) -> Self {
        Self { token: Some(token) }
    }

    pub(super) fn token(&self) -> Option<&Token> {
        self.token.as_deref()
    }

    /// Its token's name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.token().map(|token| token.name.as_str())
    }

    /// The tenants it is bound to; `None` for all there are.
    pub(crate) fn tenants(&self) -> Option<impl Iterator<Item = &str>> {
        let tenants = self.token().and_then(|token| token.tenants.as_ref());
        Some(tenants?.iter().map(|tenant| tenant.name.as_str()))
    }

    /// Whether it knows of every tenant: who does not must not learn of the others.
    pub(crate) fn sees_all(&self) -> bool {
        self.tenants().is_none()
    }

    /// Whether it may know of this tenant.
    pub(crate) fn sees(&self, tenant: &str) -> bool {
        self.tenants().is_none_or(|mut tenants| tenants.any(|known| known == tenant))
    }

    /// # Errors
    /// When it lacks the right.
    pub(crate) fn may(&self, right: Right) -> Result<(), Denied> {
        match self.token() {
            Some(token) if !token.rights.contains(&right) => {
                Err(Denied::Right { token: token.name.clone(), right: right.name() })
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    /// When it lacks the right over every tenant.
    pub(crate) fn may_everywhere(&self, right: Right, what: &'static str) -> Result<(), Denied> {
        self.may(right)?;
        match self.token() {
            Some(token) if token.tenants.is_some() => {
                Err(Denied::Everywhere { token: token.name.clone(), right: right.name(), what })
            }
            _ => Ok(()),
        }
    }

    /// The tenant that a call is about: the one that it names, or else the caller's only one.
    ///
    /// # Errors
    /// When the caller lacks the right over it.
    pub(crate) fn tenant<'a>(&'a self, right: Right, named: &'a str) -> Result<&'a str, Denied> {
        self.may(right)?;
        let or_default = if named.is_empty() { DEFAULT_TENANT } else { named };
        let Some(token) = self.token() else { return Ok(or_default) };
        match (token.tenants.as_deref(), named) {
            (None, _) => Ok(or_default),
            (Some([only]), "") => Ok(&only.name),
            _ if self.sees(or_default) => Ok(or_default),
            (Some(_), "") => Err(Denied::NoTenant { token: token.name.clone() }),
            (Some(_), tenant) => Err(Denied::Tenant { token: token.name.clone(), tenant: tenant.to_owned() }),
        }
    }

    /// Whether it may give a worker of `tenant` this id. Ids are one name space: callers bound to tenants get a part
    /// of it each, so that none can take or find out another's.
    ///
    /// # Errors
    /// When it may not.
    pub(crate) fn may_name(&self, worker: &str, tenant: &str) -> Result<(), Denied> {
        let Some(token) = self.token().filter(|token| token.tenants.is_some()) else { return Ok(()) };
        let rest = worker.strip_prefix(tenant).and_then(|rest| rest.strip_prefix('/'));
        if rest.is_some_and(|rest| !rest.is_empty()) {
            return Ok(());
        }
        Err(Denied::WorkerName { token: token.name.clone(), tenant: tenant.to_owned() })
    }

    /// Whether it may make kvindex connect to this host for a worker of `tenant`, see [`engines`].
    ///
    /// # Errors
    /// When it may not.
    pub(crate) fn may_connect(&self, tenant: &str, host: &Host) -> Result<(), Denied> {
        let Some(token) = self.token().filter(|token| token.tenants.is_some()) else { return Ok(()) };
        let listed = self.limits_of(tenant).map(|tenant| tenant.engines.as_slice());
        engines::admit(listed.unwrap_or_default(), host).map_err(|reason| Denied::Engine {
            token: token.name.clone(),
            tenant: tenant.to_owned(),
            host: host.to_string(),
            reason,
        })
    }

    /// Takes questions from what its token may ask.
    ///
    /// # Errors
    /// When they are too many.
    pub(crate) fn charge(&self, questions: usize) -> Result<(), Limited> {
        let Some(token) = self.token() else { return Ok(()) };
        let Some(bucket) = &token.bucket else { return Ok(()) };
        let asked = u32::try_from(questions).unwrap_or(u32::MAX);
        let limited = |retry_after| Limited {
            whose: format!("token {:?}", token.name),
            is_tenant: false,
            rate: bucket.rate,
            asked,
            retry_after,
        };
        bucket.take(asked).map_err(limited)
    }

    /// Takes questions from what a tenant's callers may ask together.
    ///
    /// # Errors
    /// When they are too many.
    pub(crate) fn charge_tenant(&self, tenant: &str, questions: usize) -> Result<(), Limited> {
        let Some(tenant) = self.limits_of(tenant) else { return Ok(()) };
        let Some(bucket) = &tenant.bucket else { return Ok(()) };
        let asked = u32::try_from(questions).unwrap_or(u32::MAX);
        let limited = |retry_after| Limited {
            whose: format!("tenant {:?}", tenant.name),
            is_tenant: true,
            rate: bucket.rate,
            asked,
            retry_after,
        };
        bucket.take(asked).map_err(limited)
    }

    /// Most workers of a tenant, where there is a limit.
    pub(crate) fn max_workers(&self, tenant: &str) -> Option<usize> {
        self.limits_of(tenant)?.max_workers
    }

    /// A turn to register a worker of a tenant whose workers are limited.
    pub(crate) async fn turn_to_register(&self, tenant: &str) -> Option<OwnedMutexGuard<()>> {
        let tenant = self.limits_of(tenant).filter(|tenant| tenant.max_workers.is_some())?;
        Some(Arc::clone(&tenant.registering).lock_owned().await)
    }

    /// Counts a stream for each of its tenants.
    ///
    /// # Errors
    /// The tenant whose limit is reached, and the limit.
    pub(crate) fn open_stream(&self) -> Result<OpenStream, (String, usize)> {
        let mut open = OpenStream { counts: Vec::new() };
        for tenant in self.token().and_then(|token| token.tenants.as_deref()).unwrap_or_default() {
            let limit = tenant.max_streams.unwrap_or(usize::MAX);
            let count = Arc::clone(&tenant.streams);
            if count.fetch_add(1, Ordering::Relaxed) >= limit {
                count.fetch_sub(1, Ordering::Relaxed);
                return Err((tenant.name.clone(), limit));
            }
            open.counts.push(count);
        }
        Ok(open)
    }

    fn limits_of(&self, tenant: &str) -> Option<&Tenant> {
        self.token()?.known_tenants.get(tenant).map(Arc::as_ref)
    }
}

/// An open stream, counted out when dropped.
#[derive(Debug)]
pub(crate) struct OpenStream {
    counts: Vec<Arc<AtomicUsize>>,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        for count in &self.counts {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
