//! Two hosts and a router between them, each in a network namespace of its own: which address families they have,
//! what their names lead to, and which addresses swallow everything.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// What a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Families {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

/// Namespaces that go when this does.
#[derive(Debug)]
pub(crate) struct Wires {
    prefix: String,
    pub(crate) families: Families,
}

/// Addresses that lead to the router and no further.
pub(crate) const SWALLOWED: [&str; 2] = ["10.232.99.1", "2001:db8:dead::1"];

pub(crate) fn v4(host: usize) -> String {
    format!("10.232.{host}.1")
}

/// Not of the unique local ones: resolvers put IPv4 before those, and here IPv6 shall come first.
pub(crate) fn v6(host: usize) -> String {
    format!("2001:db8:{host}::1")
}

pub(crate) fn ip(arguments: &str) -> anyhow::Result<()> {
    let done = Command::new("ip").args(arguments.split_whitespace()).stdin(Stdio::null()).output();
    let done = done.context("ip")?;
    if !done.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

impl Wires {
    /// Two hosts with these families; `names` is what `/etc/hosts` says on both.
    pub(crate) fn make(families: Families, names: &[(String, String)]) -> anyhow::Result<Self> {
        let wires = Self { prefix: format!("kvn{}", std::process::id() % 100_000), families };
        let hub = wires.hub();
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link set lo up"))?;
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            ip(&format!("netns exec {hub} sysctl -q -w {key}=1"))?;
        }
        // The router takes these and drops them without a word.
        ip(&format!("-n {hub} route add blackhole 10.232.99.0/24"))?;
        ip(&format!("-n {hub} -6 route add blackhole 2001:db8:dead::/48"))?;
        for host in [1, 2] {
            wires.make_host(host)?;
            let folder = wires.names_folder(host);
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            let lines = names.iter().map(|(address, name)| format!("{address} {name}\n"));
            let text: String =
                std::iter::once("127.0.0.1 localhost\n::1 localhost\n".to_owned()).chain(lines).collect();
            std::fs::write(folder.join("hosts"), text).context("the hosts file")?;
        }
        Ok(wires)
    }

    fn make_host(&self, host: usize) -> anyhow::Result<()> {
        let (hub, name, link) = (self.hub(), self.name(host), format!("to{host}"));
        ip(&format!("netns add {name}"))?;
        if !self.families.v6 {
            ip(&format!("netns exec {name} sysctl -q -w net.ipv6.conf.all.disable_ipv6=1"))?;
        }
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("link add {link} netns {hub} type veth peer name eth0 netns {name}"))?;
        ip(&format!("-n {hub} link set {link} up"))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        if self.families.v4 {
            ip(&format!("-n {hub} addr add 10.232.{host}.254/24 dev {link}"))?;
            ip(&format!("-n {name} addr add {}/24 dev eth0", v4(host)))?;
            ip(&format!("-n {name} route add default via 10.232.{host}.254"))?;
        }
        if self.families.v6 {
            // Without waiting for duplicates of addresses that nobody else can have.
            ip(&format!("-n {hub} addr add 2001:db8:{host}::254/64 dev {link} nodad"))?;
            ip(&format!("-n {name} addr add {}/64 dev eth0 nodad", v6(host)))?;
            ip(&format!("-n {name} -6 route add default via 2001:db8:{host}::254"))?;
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn name(&self, host: usize) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn names_folder(&self, host: usize) -> PathBuf {
        PathBuf::from("/etc/netns").join(self.name(host))
    }

    /// A command on a host, which sees that host's names.
    pub(crate) fn command(&self, host: usize, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host)]).arg(program);
        command
    }

    /// Drops what `from` sends to `to`, or no longer.
    pub(crate) fn cut(&self, cut: bool, from: usize, to: usize) -> anyhow::Result<()> {
        let what = if cut { "add" } else { "del" };
        if self.families.v4 {
            ip(&format!("-n {} rule {what} from {} to {} blackhole", self.hub(), v4(from), v4(to)))?;
        }
        if self.families.v6 {
            ip(&format!("-n {} -6 rule {what} from {} to {} blackhole", self.hub(), v6(from), v6(to)))?;
        }
        Ok(())
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        for name in [self.name(1), self.name(2), self.hub()] {
            // Whatever of it was made goes.
            let _ = ip(&format!("netns del {name}"));
        }
        for host in [1, 2] {
            let _ = std::fs::remove_dir_all(self.names_folder(host));
        }
        // Only if it is empty.
        let _ = std::fs::remove_dir("/etc/netns");
    }
}
