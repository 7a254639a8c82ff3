//! Everything there is at one moment, selected or not: for explanations, and without a watch.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;

use super::client::{Connection, failure};
use super::convert;
use crate::config::DiscoveryConfig;
use crate::discovery::seen::Seen;
use crate::discovery::view::Failure;

/// Things in one answer of a list.
const PAGE: u32 = 500;

type Labels = BTreeMap<String, String>;

/// Lists pods, services and slices; answers what was seen, and the labels of all services.
pub(crate) async fn list_all(
    connection: &Connection,
    config: &DiscoveryConfig,
) -> Result<(Seen, Vec<Labels>), Failure> {
    let mut seen = Seen::default();
    for pod in list::<core::Pod>(connection, "pods").await? {
        seen.pods.push(Arc::new(convert::pod(pod, &config.labels)));
    }
    let Some(selector) = &config.service_selector else { return Ok((seen, Vec::new())) };
    let services = list::<core::Service>(connection, "services").await?;
    let labels = |service: &core::Service| service.metadata.labels.clone().unwrap_or_default();
    let all: Vec<Labels> = services.iter().map(labels).collect();
    let selected = services.iter().zip(&all).filter(|(_, labels)| selector.matches(labels));
    seen.services = selected.map(|(service, _)| Arc::new(convert::service(service))).collect();
    let slices = list::<EndpointSlice>(connection, "endpointslices").await?;
    seen.slices = slices.into_iter().filter_map(convert::slice).map(Arc::new).collect();
    Ok((seen, all))
}

async fn list<K>(connection: &Connection, what: &str) -> Result<Vec<K>, Failure>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    K::DynamicType: Default,
{
    let api = connection.api::<K>();
    let (mut all, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = api.list(&params).await.map_err(|error| failure(what, &error))?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}
