//! Log lines to standard error, whose filter may change while the node runs, and spans of calls to a collector.

use anyhow::Context;
use kvindex_server::CALL_TARGET;
use kvindex_server::config::{Config, LogFormat, TraceConfig};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use std::io::IsTerminal;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::failure;

/// What was set up, for as long as the node runs.
pub(super) struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    traces: Option<SdkTracerProvider>,
}

impl Logs {
    /// Sets up both for the process. It must run inside the async runtime, which carries spans away.
    pub(super) fn start(config: &Config) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(parse(&config.log.filter)?);
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        // Colours would be noise in a file.
        let lines = lines.with_ansi(std::io::stderr().is_terminal());
        let lines = match config.log.format {
            LogFormat::Text => lines.with_filter(filter).boxed(),
            LogFormat::Json => lines.json().with_filter(filter).boxed(),
        };
        let traces = config.trace.as_ref().map(provider).transpose()?;
        let spans = traces.as_ref().map(|traces| {
            let spans = tracing_opentelemetry::layer().with_tracer(traces.tracer("kvindex"));
            spans.with_filter(Targets::new().with_target(CALL_TARGET, LevelFilter::INFO))
        });
        // The filter's own layer comes first: its handle knows the registry by that type.
        tracing_subscriber::registry().with(lines).with(spans).init();
        Ok(Self { filter: handle, traces })
    }

    /// Takes another filter from now on.
    pub(super) fn filter_by(&self, filter: &str) -> anyhow::Result<()> {
        self.filter.reload(parse(filter)?).context("the log filter cannot be changed")
    }

    /// Lets spans that wait go to the collector.
    pub(super) fn end(&self) {
        if let Some(traces) = &self.traces
            && let Err(error) = traces.shutdown()
        {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}

/// A filter of log lines. Spans of calls are for traces; on log lines they would only repeat what metrics count.
pub(super) fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|error| failure::usage(format!("configuration: log_filter = {filter:?}: {error}")))?;
    let silent = format!("{CALL_TARGET}=off");
    if filter.contains(CALL_TARGET) {
        return Ok(parsed);
    }
    Ok(parsed.add_directive(silent.parse().context("the directive is well formed")?))
}

fn provider(config: &TraceConfig) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(config.endpoint.as_str())
        .build()
        .with_context(|| format!("cannot send traces to {} (otlp_endpoint)", config.endpoint))?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.share)));
    Ok(SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name("kvindex").build())
        .with_sampler(sampler)
        .with_batch_exporter(exporter)
        .build())
}
