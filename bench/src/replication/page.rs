//! The page of what replication costs.

use std::fmt::Write;
use std::time::Duration;

use super::answers::{Asked, Pair, Times};
use super::intake::{Taken, Takers};
use super::returning::Returned;
use super::{Bench, Measured, machine, settings};

/// Median, with the least and the greatest.
#[derive(Debug, Clone, Copy)]
struct Middle {
    middle: f64,
    least: f64,
    greatest: f64,
}

impl Middle {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        Self { middle: at(values.len() / 2), least: at(0), greatest: at(values.len().saturating_sub(1)) }
    }

    fn show(self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$} – {:.digits$})", self.middle, self.least, self.greatest)
    }

    /// With a verdict.
    fn against(self, target: f64, at_least: bool) -> &'static str {
        let reached = if at_least { self.middle >= target } else { self.middle <= target };
        if reached { "yes" } else { "**no**" }
    }
}

/// The page.
pub(super) fn of(bench: &Bench, measured: &Measured) -> String {
    let rounds = bench.scale.rounds;
    let mut page = format!(
        "# What replication costs\n\nWritten by `just bench`. Real `kvindex serve` processes of one build \
         on loopback, on one machine of {} cores; data directories on {}. {rounds} rounds in one run: medians, with the \
         least and the greatest. Times of one machine mean little; the ratios are what to read.\n",
        machine::cores(),
        machine::file_system(&std::env::temp_dir()),
    );
    targets(&mut page, measured);
    if !measured.ingest.is_empty() {
        ingest(&mut page, bench, &measured.ingest);
    }
    if !measured.asked.is_empty() {
        asked(&mut page, bench, &measured.asked);
    }
    if !measured.returned.is_empty() {
        returned(&mut page, &measured.returned);
    }
    page
}

/// Each round's ratio of a setting's rate to that of a node alone.
fn ratios(rounds: &[Vec<Taken>], setting: usize) -> Middle {
    Middle::of(rounds.iter().filter_map(|row| Some(row.get(setting)?.rate() / row.first()?.rate())))
}

/// Follower to node alone, of one kind of time.
fn slower(asked: &[Asked], of: impl Fn(&Asked) -> Pair, time: impl Fn(Times) -> Duration) -> Middle {
    let ratio = |pair: Pair| time(pair.follower).as_secs_f64() / time(pair.alone).as_secs_f64();
    Middle::of(asked.iter().map(|asked| ratio(of(asked))))
}

fn restarts(returned: &Returned) -> Middle {
    Middle::of(returned.restarts.iter().map(Duration::as_secs_f64))
}

/// Million entries a second.
fn joins(returned: &Returned) -> Middle {
    let rate = |time: Duration| returned.entries as f64 / time.as_secs_f64() / 1e6;
    Middle::of(returned.joins.iter().map(|joined| rate(joined.caught_up)))
}

fn targets(page: &mut String, measured: &Measured) {
    page.push_str("\n| figure | median (least – greatest) | target | reached |\n|---|---|---|---|\n");
    let mut row = |name: &str, value: Middle, digits, (sign, target): (&str, f64)| {
        let reached = value.against(target, sign == "≥");
        let _ = writeln!(page, "| {name} | {} | {sign} {target} | {reached} |", value.show(digits));
    };
    if !measured.ingest.is_empty() {
        row("ingest, three nodes ÷ one, `async`", ratios(&measured.ingest, 1), 2, ("≥", 0.5));
    }
    if measured.ingest.iter().any(|round| round.len() > 2) {
        row("ingest, three nodes ÷ one, `fsync`", ratios(&measured.ingest, 2), 2, ("≥", 0.35));
    }
    if !measured.asked.is_empty() {
        let idle = slower(&measured.asked, |asked| asked.idle, |times| times.p99);
        let busy = slower(&measured.asked, |asked| asked.busy, |times| times.p99);
        row("match p99, follower ÷ node alone, idle", idle, 2, ("≤", 1.2));
        row("match p99, follower ÷ node alone, while events come", busy, 2, ("≤", 1.2));
    }
    for returned in &measured.returned {
        let of = format!("{:.1} M entries, {}", returned.entries as f64 / 1e6, names(returned));
        row(&format!("restart to ready, s: {of}"), restarts(returned), 2, ("≤", 10.0));
        row(&format!("catching up, M entries/s: {of}"), joins(returned), 2, ("≥", 1.0));
    }
}

fn names(returned: &Returned) -> &'static str {
    if returned.alike { "engines hash alike" } else { "every engine hashes in its own way" }
}

fn setting(takers: Takers) -> &'static str {
    match takers {
        Takers::Alone => "one node, no cluster",
        Takers::Three("fsync") => "three nodes, `fsync`",
        Takers::Three(_) => "three nodes, `async`",
        Takers::NoStandby => "three nodes, `async`, `standby = false`",
        Takers::OneShard => "three nodes, `async`, one shard",
    }
}

fn ingest(page: &mut String, bench: &Bench, rounds: &[Vec<Taken>]) {
    let Some(first) = rounds.first().and_then(|row| row.first()) else { return };
    let _ = write!(
        page,
        "\n## Ingest\n\n{} fleets play the recording `{}` over ZeroMQ, each for a model of its own: {:.2} M blocks stored \
         or removed. Events come as fast as the publisher can; the time ends when the slowest node has applied the last \
         one. At the end nothing was lost and all nodes' digests are equal. One publisher and all nodes share the \
         machine, which the node alone has almost for itself: that is why CPU is told beside it, in seconds for each \
         million blocks, as the operating system counts it.\n\n\
         | | M blocks/s | of one node | publisher was through after | CPU s, each node | CPU s, publisher | \
         cores a node, idle |\n|---|---|---|---|---|---|---|\n",
        bench.scale.fleets,
        bench.case.name(),
        first.blocks as f64 / 1e6,
    );
    for (number, takers) in settings(&bench.scale).into_iter().enumerate() {
        let taken: Vec<&Taken> = rounds.iter().filter_map(|row| row.get(number)).collect();
        let middle = |of: &dyn Fn(&Taken) -> f64| Middle::of(taken.iter().map(|taken| of(taken)));
        let cpu = match takers {
            Takers::OneShard => {
                let leader = middle(&|taken| taken.per_million(taken.cpu.first().copied().unwrap_or(0.0)));
                let follower = middle(&|taken| {
                    let followers = taken.cpu.get(1..).unwrap_or_default();
                    taken.per_million(followers.iter().sum::<f64>() / followers.len().max(1) as f64)
                });
                format!("leader {}, followers {}", leader.show(2), follower.show(2))
            }
            _ => middle(&|taken| taken.per_million(taken.mean_cpu())).show(2),
        };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {:.0} % | {cpu} | {:.2} | {:.3} |",
            setting(takers),
            middle(&|taken| taken.rate() / 1e6).show(2),
            ratios(rounds, number).show(2),
            middle(&|taken| 100.0 * taken.published.as_secs_f64() / taken.whole.as_secs_f64()).middle,
            middle(&|taken| taken.per_million(taken.publisher_cpu)).middle,
            middle(&|taken| taken.idle).middle,
        );
    }
    own_machines(page, rounds);
}

/// What the CPU times say of nodes that need not share.
fn own_machines(page: &mut String, rounds: &[Vec<Taken>]) {
    let ratio = |setting: usize| {
        let cpu = |taken: &Taken| taken.per_million(taken.mean_cpu());
        Middle::of(rounds.iter().filter_map(|row| Some(cpu(row.first()?) / cpu(row.get(setting)?))))
    };
    let shares = Middle::of(rounds.iter().filter_map(|row| {
        let taken = row.get(1)?;
        let used = taken.cpu.iter().sum::<f64>() + taken.publisher_cpu;
        Some(100.0 * used / taken.whole.as_secs_f64() / machine::cores() as f64)
    }));
    let _ = write!(
        page,
        "\nA node of three does the work of one, a third of it as a leader, and the log's besides. At `async` all \
         processes together kept the machine {:.0} % busy. Where every node has a machine of its own, the ratio that CPU \
         leaves is that of the CPU times: one node's ÷ a replicating one's is **{}** at `async`",
        shares.middle,
        ratio(1).show(2),
    );
    if rounds.iter().any(|row| row.len() > 2) {
        let _ = write!(page, " and **{}** at `fsync`", ratio(2).show(2));
    }
    page.push_str(
        ". That is worked out, not measured. What the followers' own subscriptions to the engines cost, which make a \
         fail-over lose nothing, is the difference to `standby = false`.\n",
    );
}

fn asked(page: &mut String, bench: &Bench, asked: &[Asked]) {
    let rate = Middle::of(asked.iter().map(|asked| asked.rate / 1e3));
    let _ = write!(
        page,
        "\n## Match on a follower\n\nA node alone and a cluster run at once, follow the same {} fleets, hold the same \
         blocks and are asked the same recorded questions in turn over gRPC, one every {:.1} ms; of the cluster, the \
         node that leads fewest shards. Every answer of both is equal before the first is timed. *Idle*: {} answers of \
         each in a round. *While events come*: {} thousand blocks a second, to all four nodes.\n\n\
         | | alone, µs | follower, µs | follower ÷ alone |\n|---|---|---|---|\n",
        bench.scale.asked_fleets,
        bench.scale.ask_every.as_secs_f64() * 1e3,
        bench.scale.asks,
        rate.show(0),
    );
    type Of = fn(&Asked) -> Pair;
    let phases: [(&str, Of); 2] = [("idle", |asked| asked.idle), ("while events come", |asked| asked.busy)];
    type Kind = fn(Times) -> Duration;
    let kinds: [(&str, Kind); 2] = [("p50", |times| times.p50), ("p99", |times| times.p99)];
    for (phase, of) in phases {
        for (kind, time) in kinds {
            let micros = |who: fn(Pair) -> Times| {
                Middle::of(asked.iter().map(|asked| time(who(of(asked))).as_secs_f64() * 1e6)).show(0)
            };
            let _ = writeln!(
                page,
                "| {phase}, {kind} | {} | {} | {} |",
                micros(|pair| pair.alone),
                micros(|pair| pair.follower),
                slower(asked, of, time).show(2)
            );
        }
    }
}

fn returned(page: &mut String, all: &[Returned]) {
    page.push_str(
        "\n## Coming back, and catching up\n\nSynthetic prefills: conversations below shared system prompts, each held \
         by two of 64 engines. *Restart*: a node is killed and started again; from the start of the process until it is \
         ready and holds every entry, from the snapshots and the end of the log in its data directory (the operating \
         system's cache is warm). *Joining*: a node with an empty data directory becomes a fourth member; *catching up* \
         is from then until it holds every entry.\n\n\
         | | entries | snapshots, MB | restart, s | joining, s | shards by snapshot | B/entry | catching up, s | \
         M entries/s |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for returned in all {
        let mb = returned.snapshots as f64 / 1e6;
        let sent = Middle::of(returned.joins.iter().map(|joined| joined.bytes as f64));
        let _ = writeln!(
            page,
            "| {} | {:.1} M | {mb:.0} | {} | {} | {} | {:.1} | {} | {} |",
            names(returned),
            returned.entries as f64 / 1e6,
            restarts(returned).show(2),
            Middle::of(returned.joins.iter().map(|joined| joined.member.as_secs_f64())).show(2),
            Middle::of(returned.joins.iter().map(|joined| joined.by_snapshot as f64)).show(0),
            sent.middle / returned.entries as f64,
            Middle::of(returned.joins.iter().map(|joined| joined.caught_up.as_secs_f64())).show(2),
            joins(returned).show(2),
        );
    }
    page.push_str(
        "\nB/entry are the bytes of the snapshots that the joining node was sent; what the leaders' snapshots \
         did not have yet came from the log.\n",
    );
}
