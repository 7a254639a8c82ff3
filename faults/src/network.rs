//! A network that can be cut: each node in a network namespace of its own, all joined by one more that routes between
//! them. This program moves into that one, so it reaches every node whatever is cut between them.
//!
//! A cut is a routing rule there that drops what one node sends to another, without a word to either: one rule is a
//! partition in one direction, two are one in both. Needs root and `ip`; without them everything is on loopback and
//! nothing can be cut.

use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, bail};

/// Where the nodes are.
#[derive(Debug, Clone)]
pub enum Network {
    /// All on one address.
    Loopback,
    /// Each in its namespace; the names begin with this.
    Namespaces(String),
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let done = Command::new("ip").args(arguments.split_whitespace()).stdin(Stdio::null()).output();
    let done = done.context("ip")?;
    if !done.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

impl Network {
    /// Makes the namespaces and runs this program again inside, with the same arguments; answers how that ended.
    /// `Err` says why namespaces cannot be had.
    pub fn run_inside(nodes: usize) -> anyhow::Result<ExitStatus> {
        let prefix = format!("kvf{}", std::process::id() % 100_000);
        let made = Self::make(&prefix, nodes).and_then(|()| {
            Command::new("ip")
                .args(["netns", "exec", &format!("{prefix}-hub")])
                .arg(std::env::current_exe()?)
                .args(std::env::args_os().skip(1))
                .args(["--namespaces", &prefix])
                .status()
                .context("this program in its namespace")
        });
        for name in (1..=nodes).map(|n| n.to_string()).chain(["hub".to_owned()]) {
            // Whatever of it was made goes.
            let _ = ip(&format!("netns del {prefix}-{name}"));
        }
        made
    }

    fn make(prefix: &str, nodes: usize) -> anyhow::Result<()> {
        let hub = format!("{prefix}-hub");
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link set lo up"))?;
        ip(&format!("netns exec {hub} sysctl -q -w net.ipv4.ip_forward=1"))?;
        for n in 1..=nodes {
            let (node, link) = (format!("{prefix}-{n}"), format!("to{n}"));
            ip(&format!("netns add {node}"))?;
            ip(&format!("-n {node} link set lo up"))?;
            ip(&format!("link add {link} netns {hub} type veth peer name eth0 netns {node}"))?;
            ip(&format!("-n {node} addr add {}/24 dev eth0", address_of(n)))?;
            ip(&format!("-n {node} link set eth0 up"))?;
            ip(&format!("-n {hub} addr add 10.231.{n}.254/24 dev {link}"))?;
            ip(&format!("-n {hub} link set {link} up"))?;
            ip(&format!("-n {node} route add default via 10.231.{n}.254"))?;
        }
        // Where the engines are, for every node alike.
        ip(&format!("-n {hub} addr add {HUB}/32 dev lo"))
    }

    /// The address of a node, without port; numbers begin at 0.
    pub fn host(&self, number: usize) -> String {
        match self {
            Self::Loopback => "127.0.0.1".into(),
            Self::Namespaces(_) => address_of(number + 1),
        }
    }

    /// The address of the engines.
    pub fn engines(&self) -> &'static str {
        match self {
            Self::Loopback => "127.0.0.1",
            Self::Namespaces(_) => HUB,
        }
    }

    /// A command that runs where a node is.
    pub fn command(&self, number: usize, program: &std::path::Path) -> Command {
        match self {
            Self::Loopback => Command::new(program),
            Self::Namespaces(prefix) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &format!("{prefix}-{}", number + 1)]).arg(program);
                command
            }
        }
    }

    /// Whether connections can be cut.
    pub fn can_cut(&self) -> bool {
        matches!(self, Self::Namespaces(_))
    }

    /// Drops everything that `from` sends to `to`.
    pub fn cut(&self, from: usize, to: usize) -> anyhow::Result<()> {
        self.rule("add", from, to)
    }

    /// Ends a cut.
    pub fn mend(&self, from: usize, to: usize) -> anyhow::Result<()> {
        self.rule("del", from, to)
    }

    fn rule(&self, what: &str, from: usize, to: usize) -> anyhow::Result<()> {
        // This program is in the namespace that routes.
        ip(&format!("rule {what} from {} to {} blackhole", self.host(from), self.host(to)))
    }
}

const HUB: &str = "10.231.0.254";

fn address_of(n: usize) -> String {
    format!("10.231.{n}.1")
}
