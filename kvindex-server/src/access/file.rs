//! The access file: TOML with `[[tokens]]` and `[[tenants]]`, checked as a whole. It holds no secret, only digests.

use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;

use kvindex_core::check_name;

use super::caller::Right;
use super::engines::Engines;
use super::quota::{Bucket, Rate};
use super::token::Digest;

/// Largest file: some thousand tokens.
pub(super) const MAX_FILE_BYTES: u64 = 4 << 20;

/// Most tokens: each call is compared with all of them.
const MAX_TOKENS: usize = 1024;

/// Most tenants in the file, and of one token.
const MAX_TENANTS: usize = 4096;

/// Most entries of one tenant's engines.
const MAX_ENGINES: usize = 256;

/// What stands for every tenant.
const EVERY: &str = "*";

/// An access file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It cannot be read.
    #[error("access_file: cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than any that makes sense.
    #[error("access_file: {path} has {bytes} bytes, the limit is {MAX_FILE_BYTES}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is no TOML of the right form.
    #[error("access_file: {0}")]
    Malformed(String),
    /// Something in it is wrong.
    #[error("access_file: {at}: {reason}")]
    Wrong {
        /// Where, such as `tokens[2].rights`.
        at: String,
        /// What is accepted.
        reason: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawFile {
    tokens: Vec<RawToken>,
    tenants: Vec<RawTenant>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawToken {
    name: String,
    sha256: String,
    rights: Vec<String>,
    tenants: Vec<String>,
    queries_per_s: Option<u64>,
    burst: Option<u64>,
    expires: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawTenant {
    name: String,
    max_workers: Option<u64>,
    max_streams: Option<u64>,
    queries_per_s: Option<u64>,
    burst: Option<u64>,
    engines: Vec<String>,
}

/// A token as the file has it.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) name: String,
    pub(super) digest: Digest,
    pub(super) rights: Vec<Right>,
    /// `None` for every tenant.
    pub(super) tenants: Option<Vec<Arc<Tenant>>>,
    /// Kept from file to file while the rate is the same.
    pub(super) bucket: Option<Arc<Bucket>>,
    /// Every tenant that has limits, by name.
    pub(super) known_tenants: Arc<BTreeMap<String, Arc<Tenant>>>,
    expires: Option<SystemTime>,
}

/// A tenant's limits.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) name: String,
    pub(super) max_workers: Option<usize>,
    pub(super) max_streams: Option<usize>,
    pub(super) bucket: Option<Arc<Bucket>>,
    /// Hosts that its callers may name as engines.
    pub(super) engines: Vec<Engines>,
    /// Open streams, counted on when the file changes.
    pub(super) streams: Arc<AtomicUsize>,
    /// Held while a worker of it is registered, so that two calls do not both find the last place free.
    pub(super) registering: Arc<Mutex<()>>,
}

/// A whole file, checked.
#[derive(Debug)]
pub(super) struct Table {
    tokens: Vec<Arc<Token>>,
    /// Every tenant that is named, whether it has limits or not: what it has open is counted on.
    tenants: BTreeMap<String, Arc<Tenant>>,
    source: Digest,
}

/// Checks what an access file says.
///
/// # Errors
/// What is wrong first, and where.
pub fn check_access(text: &str) -> Result<(), AccessError> {
    Table::parse(text, None).map(|_| ())
}

impl Token {
    pub(super) fn has_expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= SystemTime::now())
    }

    /// How long it is good; `None` for ever.
    pub(super) fn expires_in(&self) -> Option<Duration> {
        Some(self.expires?.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

impl Table {
    /// Reads a file. What is used up of limits that stay is taken over from the table before.
    pub(super) fn parse(text: &str, before: Option<&Self>) -> Result<Self, AccessError> {
        let raw: RawFile = Figment::from(Toml::string(text)).extract().map_err(malformed)?;
        too_many("tokens", raw.tokens.len(), MAX_TOKENS)?;
        too_many("tenants", raw.tenants.len(), MAX_TENANTS)?;
        let mut tenants = BTreeMap::new();
        for (i, raw) in raw.tenants.iter().enumerate() {
            let before = before.and_then(|table| table.tenants.get(&raw.name));
            let tenant = raw.check(before).map_err(|wrong| wrong.at(&format!("tenants[{i}]")))?;
            if tenants.insert(raw.name.clone(), Arc::new(tenant)).is_some() {
                return Err(Wrong::new("name", format!("{:?} stands there twice", raw.name))
                    .at(&format!("tenants[{i}]")));
            }
        }
        let limits = Arc::new(tenants);
        // Tenants without limits of their own are shared by tokens all the same.
        let tenants = (*limits).clone();
        let mut table = Self { tokens: Vec::new(), tenants, source: Digest::of(text.as_bytes()) };
        for (i, raw) in raw.tokens.iter().enumerate() {
            let token = raw
                .check(&mut table.tenants, &limits, before)
                .map_err(|wrong| wrong.at(&format!("tokens[{i}]")))?;
            let twice = |known: &&Arc<Token>| known.name == token.name || known.digest == token.digest;
            if let Some(known) = table.tokens.iter().find(twice) {
                let field = if known.name == token.name { "name" } else { "sha256" };
                return Err(Wrong::new(field, format!("is that of token {:?} too", known.name))
                    .at(&format!("tokens[{i}]")));
            }
            table.tokens.push(Arc::new(token));
        }
        Ok(table)
    }

    /// The token of a digest. Looks at every one, so that the time says nothing of which it is.
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Token>> {
        let mut found = None;
        for token in &self.tokens {
            if token.digest.is(digest) {
                found = Some(token);
            }
        }
        found.cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Every token's name.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.tokens.iter().map(|token| token.name.as_str()).collect()
    }

    /// Digest of the file that it was read from.
    pub(super) fn source(&self) -> &Digest {
        &self.source
    }
}

/// What is wrong within one entry.
#[derive(Debug)]
struct Wrong {
    field: &'static str,
    reason: String,
}

impl Wrong {
    fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }

    fn at(self, entry: &str) -> AccessError {
        AccessError::Wrong { at: format!("{entry}.{}", self.field), reason: self.reason }
    }
}

#[allow(clippy::needless_pass_by_value)] // as map_err hands it over
fn malformed(error: figment::Error) -> AccessError {
    let at = error.path.join(".");
    let kind = error.kind.to_string();
    AccessError::Malformed(if at.is_empty() { kind } else { format!("{at}: {kind}") })
}

fn too_many(at: &str, found: usize, limit: usize) -> Result<(), AccessError> {
    if found <= limit {
        return Ok(());
    }
    Err(AccessError::Wrong { at: at.into(), reason: format!("{found} entries, the limit is {limit}") })
}

impl RawTenant {
    fn check(&self, before: Option<&Arc<Tenant>>) -> Result<Tenant, Wrong> {
        tenant_name("name", &self.name)?;
        let rate = rate(self.queries_per_s, self.burst)?;
        Ok(Tenant {
            name: self.name.clone(),
            max_workers: count("max_workers", self.max_workers)?,
            max_streams: count("max_streams", self.max_streams)?,
            bucket: bucket(rate, before.and_then(|tenant| tenant.bucket.as_ref())),
            engines: engines(&self.engines)?,
            streams: before.map(|tenant| Arc::clone(&tenant.streams)).unwrap_or_default(),
            registering: before.map(|tenant| Arc::clone(&tenant.registering)).unwrap_or_default(),
        })
    }
}

impl RawToken {
    fn check(
        &self,
        tenants: &mut BTreeMap<String, Arc<Tenant>>,
        limits: &Arc<BTreeMap<String, Arc<Tenant>>>,
        before: Option<&Table>,
    ) -> Result<Token, Wrong> {
        check_name("name", &self.name).map_err(|error| Wrong::new("name", error.to_string()))?;
        let digest = Digest::parse(&self.sha256).ok_or_else(|| {
            Wrong::new("sha256", "must be the 64 hex digits that `kvindex token new` prints")
        })?;
        let table_before = before;
        let before = before.and_then(|table| table.tokens.iter().find(|token| token.name == self.name));
        let rate = rate(self.queries_per_s, self.burst)?;
        Ok(Token {
            name: self.name.clone(),
            digest,
            rights: rights(&self.rights)?,
            tenants: self.tenants(tenants, table_before)?,
            bucket: bucket(rate, before.and_then(|token| token.bucket.as_ref())),
            known_tenants: Arc::clone(limits),
            expires: self.expires.as_deref().map(expiry).transpose()?,
        })
    }

    fn tenants(
        &self,
        known: &mut BTreeMap<String, Arc<Tenant>>,
        before: Option<&Table>,
    ) -> Result<Option<Vec<Arc<Tenant>>>, Wrong> {
        let none = || Wrong::new("tenants", "is required: tenants by name, or [\"*\"] for every one");
        match self.tenants.as_slice() {
            [] => return Err(none()),
            [every] if every == EVERY => return Ok(None),
            tenants if tenants.len() > MAX_TENANTS => {
                return Err(Wrong::new(
                    "tenants",
                    format!("{} names, the limit is {MAX_TENANTS}", tenants.len()),
                ));
            }
            _ => {}
        }
        let mut tenants = Vec::new();
        for name in self.tenants.iter().collect::<BTreeSet<_>>() {
            if name == EVERY {
                return Err(Wrong::new("tenants", "\"*\" stands alone: it is every tenant"));
            }
            tenant_name("tenants", name)?;
            let before = before.and_then(|table| table.tenants.get(name));
            let unlimited = || RawTenant { name: name.clone(), ..RawTenant::default() }.check(before);
            let tenant = match known.entry(name.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(Arc::new(unlimited()?)),
            };
            tenants.push(Arc::clone(tenant));
        }
        Ok(Some(tenants))
    }
}

/// A slash ends the tenant in a worker's id, see `Caller::may_name`.
fn tenant_name(field: &'static str, name: &str) -> Result<(), Wrong> {
    check_name(field, name).map_err(|error| Wrong::new(field, error.to_string()))?;
    if name.contains('/') {
        return Err(Wrong::new(
            field,
            format!("{name:?} holds a slash, which ends the tenant in a worker's id"),
        ));
    }
    Ok(())
}

fn engines(entries: &[String]) -> Result<Vec<Engines>, Wrong> {
    if entries.len() > MAX_ENGINES {
        return Err(Wrong::new("engines", format!("{} entries, the limit is {MAX_ENGINES}", entries.len())));
    }
    let entry = |text: &String| Engines::parse(text).map_err(|reason| Wrong::new("engines", reason));
    entries.iter().map(entry).collect()
}

fn rights(words: &[String]) -> Result<Vec<Right>, Wrong> {
    let right = |word: &String| {
        let found = Right::ALL.into_iter().find(|right| right.name() == word);
        found.ok_or_else(|| Wrong::new("rights", format!("{word:?} is none of read, publish, admin")))
    };
    let rights: Vec<Right> = words.iter().map(right).collect::<Result<_, _>>()?;
    if rights.is_empty() {
        return Err(Wrong::new("rights", "is required: some of read, publish, admin"));
    }
    Ok(rights)
}

fn rate(per_second: Option<u64>, burst: Option<u64>) -> Result<Option<Rate>, Wrong> {
    let number = |field, value: u64| {
        let number = u32::try_from(value).ok().and_then(NonZeroU32::new);
        number.ok_or_else(|| Wrong::new(field, format!("is {value}, must be from 1 to {}", u32::MAX)))
    };
    match (per_second, burst) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Wrong::new("burst", "needs queries_per_s")),
        (Some(rate), burst) => Ok(Some(Rate {
            per_second: number("queries_per_s", rate)?,
            burst: number("burst", burst.unwrap_or(rate))?,
        })),
    }
}

fn bucket(rate: Option<Rate>, before: Option<&Arc<Bucket>>) -> Option<Arc<Bucket>> {
    let rate = rate?;
    let kept = before.filter(|bucket| bucket.rate == rate);
    Some(kept.map_or_else(|| Arc::new(Bucket::new(rate)), Arc::clone))
}

fn count(field: &'static str, value: Option<u64>) -> Result<Option<usize>, Wrong> {
    let number = |value: u64| {
        let in_range = (1..=65_536).contains(&value).then(|| usize::try_from(value).ok()).flatten();
        in_range.ok_or_else(|| Wrong::new(field, format!("is {value}, must be from 1 to 65536")))
    };
    value.map(number).transpose()
}

fn expiry(text: &str) -> Result<SystemTime, Wrong> {
    let moment: Result<jiff::Timestamp, _> = text.parse();
    let wrong =
        |_| Wrong::new("expires", format!("{text:?} must be a moment such as \"2027-01-31T00:00:00Z\""));
    Ok(SystemTime::from(moment.map_err(wrong)?))
}
