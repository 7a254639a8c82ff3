//! `kvindex workers`, `register` and `unregister`.

use clap::Args;
use kvindex_client::v1;
use std::process::ExitCode;

use crate::args::{Output, ServerArgs};
use crate::connect::with_client;
use crate::engine_args::EngineArgs;
use crate::hash_args::HashArgs;
use crate::prompt::parse_label;
use crate::{failure, output, tables};

/// List the registered workers with their streams.
#[derive(Debug, Args)]
pub(crate) struct WorkersArgs {
    /// Only workers of this model
    #[arg(long)]
    model: Option<String>,
    /// Only workers of this tenant
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Make a worker known to a node.
#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// Identity of this engine instance; never use one again for another instance
    worker_id: String,
    /// Model name that queries use
    #[arg(long)]
    model: String,
    /// Tenant [default: default]
    #[arg(long)]
    tenant: Option<String>,
    /// vllm or sglang [default: vllm]
    #[arg(long)]
    engine: Option<String>,
    /// Engine release, such as 0.33.0
    #[arg(long, value_name = "VERSION")]
    engine_version: Option<String>,
    /// Where the engine serves, ip:port
    #[arg(long)]
    address: Option<String>,
    /// Its Kubernetes service or the like
    #[arg(long)]
    service: Option<String>,
    /// prefill, decode or aggregate
    #[arg(long)]
    role: Option<String>,
    /// Its prefill-decode group
    #[arg(long)]
    group: Option<String>,
    /// Label for filters; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// count: every store adds a copy; set: a block is there or not [default: count]
    #[arg(long)]
    copies: Option<String>,
    /// What an unfillable gap does: purge or keep_as_suspect [default: the node's setting]
    #[arg(long, value_name = "POLICY")]
    gap_policy: Option<String>,
    /// ZeroMQ PUB endpoint of rank 0, tcp://host:port, or tcp://*:port for an engine that connects to kvindex;
    /// without it, events come by the Publish call
    #[arg(long)]
    endpoint: Option<String>,
    /// The engine's ZeroMQ ROUTER endpoint of rank 0 for lost batches
    #[arg(long, value_name = "ENDPOINT", requires = "endpoint")]
    replay_endpoint: Option<String>,
    /// Topic to subscribe with [default: every topic]
    #[arg(long, requires = "endpoint")]
    topic: Option<String>,
    /// Data-parallel ranks; rank n publishes on port + n [default: 1]
    #[arg(long, value_name = "RANKS", requires = "endpoint",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(kvindex_core::limits::MAX_DP_RANKS)))]
    data_parallel_size: Option<u32>,
    /// Allow a definition that differs from the registered one
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    engine_facts: EngineArgs,
    #[command(flatten)]
    hashes: HashArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Make a node forget a worker and all its blocks.
#[derive(Debug, Args)]
pub(crate) struct UnregisterArgs {
    /// The worker
    worker_id: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn list(args: WorkersArgs, format: Output) -> anyhow::Result<ExitCode> {
    let request = v1::ListWorkersRequest { model: args.model, tenant: args.tenant };
    let response = with_client(&args.server, async |client| {
        client.list_workers(request).await.map_err(|error| failure::of_call(&args.server.server, error))
    })?;
    match format {
        Output::Json => output::json_line(&response)?,
        Output::Table => output::line(&tables::workers(&response))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn register(args: RegisterArgs, format: Output) -> anyhow::Result<ExitCode> {
    let mut request = v1::RegisterRequest {
        worker_id: args.worker_id.clone(),
        model: args.model,
        tenant: args.tenant.unwrap_or_default(),
        engine: args.engine.unwrap_or_default(),
        engine_version: args.engine_version,
        address: args.address,
        service: args.service,
        role: args.role,
        pd_group: args.group,
        labels: args.labels.into_iter().collect(),
        copies: args.copies.unwrap_or_default(),
        gap_policy: args.gap_policy.unwrap_or_default(),
        endpoint: args.endpoint.unwrap_or_default(),
        replay_endpoint: args.replay_endpoint.unwrap_or_default(),
        topic: args.topic.unwrap_or_default(),
        data_parallel_size: args.data_parallel_size.unwrap_or(0),
        replace: args.replace,
        hash_profile: args.hashes.profile(),
        ..v1::RegisterRequest::default()
    };
    args.engine_facts.fill(&mut request);
    let response = with_client(&args.server, async |client| {
        client.register(request).await.map_err(|error| failure::of_call(&args.server.server, error))
    })?;
    match format {
        Output::Json => output::json_line(&response)?,
        Output::Table => output::line(&format!("{}: {}", args.worker_id, response.outcome))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn unregister(args: &UnregisterArgs, format: Output) -> anyhow::Result<ExitCode> {
    let removed = with_client(&args.server, async |client| {
        let called = client.unregister(args.worker_id.as_str()).await;
        called.map_err(|error| failure::of_call(&args.server.server, error))
    })?;
    match format {
        Output::Json => output::json_line(&v1::UnregisterResponse { removed })?,
        Output::Table if removed => output::line(&format!("{}: removed", args.worker_id))?,
        Output::Table => output::line(&format!("{}: was not registered", args.worker_id))?,
    }
    Ok(ExitCode::SUCCESS)
}
