//! The reference router as a program: `serve` in front of engines that an index knows, `engine` for one to try it with,
//! and `try` for all of it at once.

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use kvindex_client::{Client, ClientConfig, v1};
use kvindex_router::engine::{Engine, EngineOptions};
use kvindex_router::{Router, RouterOptions, try_out};
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Sends each request to the engine that holds most of its prompt and has least to do: a reference router on kvindex.
#[derive(Debug, Parser)]
#[command(name = "kvindex-router", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve OpenAI's completions calls in front of the engines that an index knows
    Serve(ServeArgs),
    /// Run an engine without a model and make it known to an index
    Engine(EngineArgs),
    /// Start an index, simulated engines (a prefill-decode group among them) and a router, and ask it
    Try,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// The index
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9590")]
    index: String,
    /// Where requests for a prefill-decode group go, with the pair in their headers; without it the router asks both
    /// engines itself
    #[arg(long, value_name = "HOST:PORT")]
    proxy: Option<String>,
    /// How long an engine may take until its answer begins; then another one is asked
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    answer_timeout: u64,
    /// How long answers under way may go on after SIGTERM or Ctrl-C; a second signal cuts them at once
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    drain: u64,
}

#[derive(Debug, Args)]
struct EngineArgs {
    /// The index to make it known to
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9590")]
    index: String,
    /// Its worker id
    #[arg(long)]
    id: String,
    /// The model that it says it serves
    #[arg(long, default_value = "simulated")]
    model: String,
    /// prefill, decode or aggregate
    #[arg(long)]
    role: Option<String>,
    /// Its prefill-decode group
    #[arg(long)]
    group: Option<String>,
    /// Blocks of 16 tokens that fit in its cache
    #[arg(long, default_value_t = 4096)]
    blocks: usize,
    /// Data-parallel ranks
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    ranks: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(args) => serve(args).await,
        Command::Engine(args) => engine(args).await,
        Command::Try => try_out::run().await.map(|text| print!("{text}")),
    }
}

/// The signals that end a program: from a terminal, and from whatever runs it.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot wait for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let mut ends = Ends::listen()?;
    let client = Client::connect(ClientConfig::new(args.index.as_str())).context("--index")?;
    let listener =
        TcpListener::bind(&args.listen).await.with_context(|| format!("--listen {}", args.listen))?;
    println!("serving http://{} by the index at {}, Ctrl-C ends", listener.local_addr()?, args.index);
    let answer_timeout = Duration::from_secs(args.answer_timeout);
    let routes = Router::new(client, RouterOptions { proxy: args.proxy, answer_timeout }).routes();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let ended = async { ended.await.unwrap_or_default() };
    let mut serving = pin!(axum::serve(listener, routes).with_graceful_shutdown(ended).into_future());
    tokio::select! {
        served = &mut serving => return served.context("serving"),
        () = ends.next() => drop(end),
    }
    tokio::select! {
        served = serving => served.context("serving"),
        () = tokio::time::sleep(Duration::from_secs(args.drain)) => {
            eprintln!("{} s are over: answers under way are cut", args.drain);
            Ok(())
        }
        () = ends.next() => Ok(()),
    }
}

async fn engine(args: EngineArgs) -> anyhow::Result<()> {
    let mut ends = Ends::listen()?;
    let client = ClientConfig::new(args.index.as_str()).admin_timeout(Duration::from_secs(5));
    let client = Client::connect(client).context("--index")?;
    let (model, blocks, ranks) = (args.model, args.blocks, args.ranks);
    let options = EngineOptions { model, blocks, ranks, ..EngineOptions::default() };
    let engine = Engine::start(options.clone()).await?;
    let worker = v1::RegisterRequest {
        role: args.role,
        pd_group: args.group,
        replace: true,
        ..try_out::registration(&args.id, &options, &engine)
    };
    client.register(worker).await.context("the index did not take it")?;
    let events: Vec<String> = engine.streams().into_iter().map(|stream| stream.endpoint).collect();
    println!("{} serves http://{}, events at {}, Ctrl-C ends", args.id, engine.address(), events.join(", "));
    ends.next().await;
    client.unregister(args.id).await.context("the index did not forget it")?;
    Ok(())
}
