//! `kubefake`: serves the pods and services of a file, and what a person changes in it, as a cluster would.

use anyhow::Context;
use clap::Parser;
use kubefake::{Fake, Manifest};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Between two looks at the file.
const LOOK: Duration = Duration::from_millis(300);

/// A stand-in for a Kubernetes API server that serves pods and services from a file.
#[derive(Debug, Parser)]
struct Args {
    /// YAML with Pods and Services; read again whenever it changes
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to write the kubeconfig
    #[arg(long, value_name = "FILE", default_value = "kubefake.kubeconfig")]
    kubeconfig: PathBuf,
    /// Namespace of objects that name none, and of the kubeconfig
    #[arg(long, default_value = "ai-inference")]
    namespace: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let read = || -> anyhow::Result<Manifest> {
        let text = std::fs::read_to_string(&args.manifest)
            .with_context(|| format!("cannot read {}", args.manifest.display()))?;
        Manifest::parse(&text, &args.namespace).with_context(|| args.manifest.display().to_string())
    };
    let mut served = read()?;
    let fake = Fake::start(args.listen).await?;
    fake.apply(&served, &Manifest::default());
    let kubeconfig = std::path::absolute(&args.kubeconfig)?;
    fake.write_kubeconfig(&kubeconfig, &args.namespace, None)?;
    println!("serving {} objects on http://{}", served.len(), fake.address());
    println!("export KUBECONFIG={}", kubeconfig.display());
    let mut told = String::new();
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        match read() {
            Ok(manifest) if manifest != served => {
                fake.apply(&manifest, &served);
                served = manifest;
                told.clear();
                println!("serving {} objects", served.len());
            }
            Ok(_) => {}
            Err(error) => {
                // An editor may be at it: the last good one stays.
                let message = format!("{error:#}");
                if message != told {
                    eprintln!("{message}; what was served before is served on");
                    told = message;
                }
            }
        }
    }
}
