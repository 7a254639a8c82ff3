//! The figures as a Markdown page, with the assumptions that they rest on.

use std::fmt::Write;

use super::RoutingArgs;
use super::figures::Figures;
use super::router::Policy;
use super::scenario::{Case, Kind, Measured, Scenarios};
use super::trace::{BLOCK_TOKENS, repeated};

/// What InferNex' README (26.6) says of its own stack beside random choice, and this project set out to reach: mean
/// TTFT and throughput, as ratios.
const TTFT_TARGET: f64 = 1.0 - 0.54;
const RATE_TARGET: f64 = 1.0 + 0.20;

/// The whole page.
pub(super) fn page(
    args: &RoutingArgs,
    scenarios: &Scenarios,
    measured: &[Measured],
    plot: Option<&str>,
) -> String {
    let mut page = String::from(
        "# What routing by kvindex gains\n\nWritten by `kvindex-bench routing` (`just routing`). A published trace, \
         replayed over simulated engines under each policy. The engines are a model, the index and the decoder before \
         it are the real ones. Every run is the same again on any machine: the simulation has no clock but its own.\n",
    );
    if let Some(plot) = plot {
        let _ = writeln!(page, "\n![TTFT by load, and prefix hit rates]({plot})");
    }
    targets(&mut page, scenarios, measured);
    beside_guess(&mut page, scenarios, measured);
    assumptions(&mut page, args);
    for trace in measured {
        one_trace(&mut page, args, scenarios, trace);
    }
    page
}

fn label(scenarios: &Scenarios, case: Case) -> String {
    let kind = match case.kind {
        Kind::Load(load) => format!("load {load}"),
        Kind::Closed => "saturated".to_owned(),
        Kind::ClosedWithAnswers => "saturated, answers too".to_owned(),
    };
    let cache = if scenarios.caches().len() == 2 {
        let tight = scenarios.caches().iter().all(|other| *other >= case.cache_blocks);
        if tight { "tight caches" } else { "ample caches" }.to_owned()
    } else {
        format!("{} blocks", case.cache_blocks)
    };
    let routers = if case.routers > 1 { format!(", {} routers", case.routers) } else { String::new() };
    format!("{kind}{routers}, {} engines, {cache}", case.engines)
}

/// The middle fleet's cases that are compared in one line each.
fn told(scenarios: &Scenarios) -> Vec<Case> {
    let mut cases = scenarios.cases();
    let usual = Kind::Load(scenarios.usual_load());
    cases.retain(|case| {
        let is_asked = !matches!(case.kind, Kind::Load(_)) || case.kind == usual;
        case.engines == scenarios.middle() && is_asked
    });
    cases
}

fn change(ratio: f64) -> String {
    format!("{:+.0} %", 100.0 * (ratio - 1.0)).replace('-', "−")
}

/// The two ways to route by kvindex, as one cell.
fn both(trace: &Measured, case: Case, show: impl Fn(&Figures) -> String) -> Option<String> {
    let ways = [Policy::Kvindex, Policy::KvindexSpeculative].map(|policy| trace.of(case, policy));
    let shown: Vec<String> = ways.into_iter().flatten().map(show).collect();
    (!shown.is_empty()).then(|| shown.join(" / "))
}

fn targets(page: &mut String, scenarios: &Scenarios, measured: &[Measured]) {
    page.push_str(
        "\n## kvindex beside round-robin\n\nThe target is what InferNex reports for its own stack beside random choice: \
         mean TTFT −54 %, throughput +20 % (120 prompts of 8,000 tokens asked four times, eight at once, on engines \
         that also write the answers: three quarters of its prompts come again; how much these traces repeat is said \
         with each). In each cell first kvindex alone, then kvindex beside a router that also counts its own choices \
         until the engine has announced them. Figures that reach the target are bold.\n\n\
         | trace | case | mean TTFT (≤ −54 %) | requests a second (≥ +20 %) |\n|---|---|---|---|\n",
    );
    let bold = |ratio: f64, reached: bool| {
        if reached { format!("**{}**", change(ratio)) } else { change(ratio) }
    };
    for trace in measured {
        for case in told(scenarios) {
            let Some(theirs) = trace.of(case, Policy::RoundRobin) else { continue };
            let ttft = both(trace, case, |ours| {
                let ratio = ours.ttft_mean / theirs.ttft_mean;
                bold(ratio, ratio <= TTFT_TARGET)
            });
            // At a given load all policies serve what comes.
            let rate = match case.kind {
                Kind::Load(_) => Some("–".to_owned()),
                _ => both(trace, case, |ours| {
                    let ratio = ours.rate / theirs.rate;
                    bold(ratio, ratio >= RATE_TARGET)
                }),
            };
            let (Some(ttft), Some(rate)) = (ttft, rate) else { continue };
            let _ = writeln!(page, "| {} | {} | {ttft} | {rate} |", trace.name, label(scenarios, case));
        }
    }
    page.push_str(
        "\nWhy some are not reached. A policy cannot save more than the trace repeats, nor what a cache has no room for. \
         *Saturated* keeps a fixed number of requests in the fleet, so that mean TTFT of a prefill pool is that number \
         over its throughput, whatever the policy: −54 % is +117 %. *Answers too*: much of an engine's time goes into \
         answers, which no prefix shortens, and which take cache from prefixes. Where requests come by the clock, what \
         a policy saves shortens the queue as well, and the gain grows with the load. Several routers that know \
         nothing of each other's requests choose the same engine at once, whatever they know of its cache.\n",
    );
}

fn beside_guess(page: &mut String, scenarios: &Scenarios, measured: &[Measured]) {
    page.push_str(
        "\n## kvindex beside approximate prefix\n\nTokens saved and mean TTFT of kvindex (alone / own choices counted), as \
         changes to those of a router that guesses: *sized* remembers as many blocks of each engine as its cache really \
         has, *default* a fixed number. *Wrong* is the share of all prompt tokens that a router believed to be cached \
         where it sent the request, and that were not.\n\n\
         | trace | case | saved, to sized | mean TTFT | saved, to default | mean TTFT | wrong: sized | default | \
         kvindex |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for trace in measured {
        for case in told(scenarios) {
            let guesses = [Policy::Guess, Policy::GuessDefault].map(|policy| trace.of(case, policy));
            let [Some(sized), Some(fixed)] = guesses else { continue };
            let saved = |theirs: &Figures| {
                both(trace, case, |ours| change(ours.saved_tokens as f64 / theirs.saved_tokens as f64))
            };
            let ttft = |theirs: &Figures| both(trace, case, |ours| change(ours.ttft_mean / theirs.ttft_mean));
            let wrong = |of: &Figures| format!("{:.1} %", 100.0 * of.share(of.believed_wrongly));
            let cells = [
                saved(sized),
                ttft(sized),
                saved(fixed),
                ttft(fixed),
                Some(wrong(sized)),
                Some(wrong(fixed)),
                both(trace, case, wrong),
            ];
            let cells: Vec<String> = cells.into_iter().flatten().collect();
            let _ = writeln!(page, "| {} | {} | {} |", trace.name, label(scenarios, case), cells.join(" | "));
        }
    }
    page.push_str(READING);
}

/// What the tables showed when the page was first made; to be looked at again with every new page.
const READING: &str = "\nOne router that sees every request and is told the caches' size runs, in effect, the engines' \
    own eviction in its head, and in this model it is right to do so: no engine restarts, nobody else sends requests, \
    and hardly any memory goes to anything but prompts. There the index gains nothing over it. Where queues are long, \
    kvindex alone falls behind: events tell what an engine holds now, and a request meets what it will hold when its \
    turn comes. A router that counts its own choices as well makes up for nearly all of that; still wrong is what the \
    queue will evict. So it is the way to route by kvindex.\n\n\
    The index gains where one of those conditions falls away. A list longer than the cache believes in what is gone (the \
    column *wrong*), and the load reckoned from it is as wrong, which shows in TTFT more than in tokens saved; a list \
    shorter than the cache does not know of what is there. Of several routers each knows its own part: hits fall by a \
    third to a half and more, while the index's stay.\n\n\
    Session affinity keeps up, and saves the most where a queue is shorter than a conversation is worth: it never moves \
    one. It is told the sessions here; outside, a router knows them only from clients that name them, and prefixes \
    that sessions share are nothing to it.\n";

fn assumptions(page: &mut String, args: &RoutingArgs) {
    let ttl = args.guess_ttl_s.map_or_else(|| "never".to_owned(), |ttl| format!("after {ttl} s"));
    let _ = write!(
        page,
        "\n## Assumptions\n\n\
         - Command: `{}`. The traces are published by Mooncake (github.com/kvcache-ai/Mooncake, \
         FAST25-release/traces) and are not part of this project.\n\
         - An engine prefills {} tokens a second, one request at a time, first come, first served; attention's \
         square and fixed costs of a step are left out. TTFT is the wait in the queue and the prefill; the network and \
         the router's own time are left out.\n\
         - Blocks have {BLOCK_TOKENS} tokens, as the trace's hashes have; a prompt's last, partial block is not cached. \
         A cache has {} blocks. It evicts what was used least recently, never what a running request holds, and of one \
         prompt the end first, as vLLM does. Blocks that an answer fills are not cached: the trace has no names for \
         them.\n\
         - *Load* is prompt tokens offered ÷ what the engines could prefill if nothing were cached; the trace's times \
         are divided by a factor (printed) to get it. Engines are then a prefill pool: answers are written elsewhere, \
         as in the deployment that the trace is from.\n\
         - *Saturated*: the trace's order without its times, always {} requests for each engine at once. *Answers \
         too*: a step of an engine takes {} ms, and {} ms more for each answer in it; with a prefill, {} prompt tokens \
         go along at the prefill's pace. Room for the whole answer is taken at the start.\n\
         - A router sends to the engine with the least *prompt tokens that wait there for their prefill − {} × tokens of \
         this prompt believed cached there*; in *answers too* the tokens held by unfinished requests are added. Ties \
         by lot, seed {}. With \
         weight 1 instead of {} this is the default cost of Dynamo's router, in tokens. What waits is what the \
         router itself sent and has not seen a first token of, reckoned with what it believed cached. The approximate \
         router and kvindex use this one formula; only their beliefs differ.\n\
         - kvindex: every cache change is a msgpack batch as vLLM writes it, decoded by a node's decoder, sealed and \
         applied to a `kvindex-core` index in this process {} ms later; each prompt is asked for by its token ids \
         through `find_matches`. The token ids are made up from the trace's hashes, 16 for a block instead \
         of 512: what the index does with a block does not depend on it. No sockets, no sequencer, no losses.\n\
         - Approximate prefix: blocks that the router sent to an engine, least recently sent forgotten first, known at \
         once, evictions never; a block not sent again is forgotten {ttl}. *Default* remembers {} blocks an engine \
         (31,250 of 64 tokens, a published default).\n\
         - Session affinity: the trace names no sessions; a session is the first block of a prompt that at most 1 % of \
         the requests share. Its first request goes to the engine with the fewest waiting tokens, all others after it, \
         for ever.\n\
         - Several routers: each request comes to one of them by lot; each knows only its own requests, and the index \
         or the session's cookie is common.\n",
        command(args),
        args.prefill_rate,
        args.cache_blocks.iter().map(usize::to_string).collect::<Vec<_>>().join(" or "),
        args.concurrency,
        args.step_ms,
        args.each_ms,
        args.chunk,
        args.overlap_weight,
        args.seed,
        args.overlap_weight,
        args.delay_ms,
        args.guess_blocks,
    );
}

/// The command that makes this page, without the folders of the machine it was made on.
fn command(args: &RoutingArgs) -> String {
    let name = |path: &std::path::Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let traces = args.trace.iter().filter_map(|path| name(path)).map(|name| format!(" --trace {name}"));
    let mut command = format!("kvindex-bench routing{}", traces.collect::<String>());
    if args.requests != usize::MAX {
        let _ = write!(command, " --requests {}", args.requests);
    }
    command
}

fn one_trace(page: &mut String, args: &RoutingArgs, scenarios: &Scenarios, trace: &Measured) {
    let tokens: u64 = trace.requests.iter().map(|request| request.tokens).sum();
    let span = trace.requests.last().map_or(0.0, |last| last.at_s);
    let applied = trace.runs.iter().map(|run| run.applied).sum::<u64>();
    let _ = write!(
        page,
        "\n## {}\n\n{} requests in {:.0} s, {:.1} M prompt tokens. Of these {:.1} % repeat an earlier prompt's beginning: no \
         cache and no policy can save more. In all runs together {:.1} M blocks stored and removed went through the \
         index.\n",
        trace.name,
        trace.requests.len(),
        span,
        tokens as f64 / 1e6,
        100.0 * repeated(&trace.requests) as f64 / tokens as f64,
        applied as f64 / 1e6,
    );
    let usual = Kind::Load(scenarios.usual_load());
    let _ = writeln!(page, "\n### Prefill pools at load {}\n", scenarios.usual_load());
    table(page, scenarios, trace, &scenarios.fleets(1, usual));
    loads(page, scenarios, trace);
    if args.routers > 1 {
        let _ =
            writeln!(page, "\n### {} routers side by side, load {}\n", args.routers, scenarios.usual_load());
        let mut several = scenarios.fleets(args.routers, usual);
        several.retain(|case| case.engines == scenarios.middle());
        table(page, scenarios, trace, &several);
    }
    let _ = writeln!(page, "\n### Saturated prefill pools, {} requests for each engine\n", args.concurrency);
    table(page, scenarios, trace, &scenarios.fleets(1, Kind::Closed));
    let _ = writeln!(page, "\n### Saturated, and the engines write the answers too\n");
    table(page, scenarios, trace, &scenarios.fleets(1, Kind::ClosedWithAnswers));
}

fn table(page: &mut String, scenarios: &Scenarios, trace: &Measured, cases: &[Case]) {
    page.push_str(
        "| engines | blocks | policy | hit rate | saved, M tokens | TTFT mean, s | to round-robin | p50 | p90 | p99 | \
         requests/s | to round-robin | busiest ÷ mean | wrong | not known |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for case in cases {
        let base = trace.of(*case, Policy::RoundRobin);
        for policy in &scenarios.policies {
            let Some(one) = trace.of(*case, *policy) else { continue };
            let to =
                |of: fn(&Figures) -> f64| base.map_or("–".to_owned(), |base| change(of(one) / of(base)));
            let knows = !matches!(policy, Policy::RoundRobin | Policy::Session);
            let share =
                |tokens| if knows { format!("{:.1} %", 100.0 * one.share(tokens)) } else { "–".to_owned() };
            let _ = writeln!(
                page,
                "| {} | {} | {} | {:.1} % | {:.1} | {:.2} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {:.2} | {} | {} |",
                case.engines,
                case.cache_blocks,
                policy.name(),
                100.0 * one.hit_rate(),
                one.saved_tokens as f64 / 1e6,
                one.ttft_mean,
                to(|of| of.ttft_mean),
                one.ttft_p50,
                one.ttft_p90,
                one.ttft_p99,
                one.rate,
                to(|of| of.rate),
                one.imbalance,
                share(one.believed_wrongly),
                share(one.not_known),
            );
        }
    }
}

/// Mean TTFT of the middle fleet, load by load.
fn loads(page: &mut String, scenarios: &Scenarios, trace: &Measured) {
    let engines = scenarios.middle();
    let _ = write!(page, "\n### {engines} engines, load by load: mean TTFT, s\n\n| blocks | policy |");
    for load in &scenarios.loads {
        let _ = write!(page, " {load} (trace × {:.2}) |", trace.factor(scenarios, engines, *load));
    }
    let _ = writeln!(page, "\n|---|---|{}", "---|".repeat(scenarios.loads.len()));
    for cache_blocks in scenarios.caches() {
        for policy in &scenarios.policies {
            let _ = write!(page, "| {cache_blocks} | {} |", policy.name());
            for load in &scenarios.loads {
                let case = Case { engines, cache_blocks: *cache_blocks, routers: 1, kind: Kind::Load(*load) };
                let mean = trace.of(case, *policy).map_or(f64::NAN, |figures| figures.ttft_mean);
                let _ = write!(page, " {mean:.2} |");
            }
            page.push('\n');
        }
    }
}
