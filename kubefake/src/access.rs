//! Who may ask for what: one bearer token, and what it may not do.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::objects::Resource;
use crate::status::Refusal;

/// Rights of whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The only token that is known; everybody is when there is none.
    pub token: Option<String>,
    /// What may not be done: verb and kind, for example `("watch", Resource::Pods)`.
    pub forbidden: Vec<(&'static str, Resource)>,
    /// The only namespace in which anything may be done; every one when there is none.
    pub namespace: Option<String>,
}

impl Access {
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        (verb, resource): (&str, Resource),
        namespace: Option<&str>,
    ) -> Result<(), Refusal> {
        if let Some(token) = &self.token {
            let said = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            if said != Some(&format!("Bearer {token}")) {
                return Err(Refusal::new(401, "Unauthorized"));
            }
        }
        let elsewhere = self.namespace.is_some() && self.namespace.as_deref() != namespace;
        if elsewhere || self.forbidden.contains(&(verb_of(verb), resource)) {
            let place = namespace
                .map_or_else(|| "at the cluster scope".into(), |name| format!("in the namespace {name:?}"));
            return Err(Refusal::new(
                403,
                format!(
                    "{plural} is forbidden: User \"system:serviceaccount:test:test\" cannot {verb} resource \
                     {plural:?} in API group {:?} {place}",
                    resource.group(),
                    plural = resource.plural(),
                ),
            ));
        }
        Ok(())
    }
}

fn verb_of(verb: &str) -> &'static str {
    ["get", "list", "watch", "create", "update", "patch", "delete"]
        .into_iter()
        .find(|known| *known == verb)
        .unwrap_or("")
}
