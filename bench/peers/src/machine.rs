//! The machine under the measurement: CPU time, what others use of it, memory, and its name.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Scheduler ticks a second in `/proc/stat`: fixed by the kernel's interface.
const TICKS: f64 = 100.0;
/// Share of the machine below which it counts as idle.
const IDLE: f64 = 0.2;

/// CPU seconds of this process, all threads.
pub(crate) fn process_cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// CPU seconds spent by everything on the machine.
fn machine_busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = first.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user, nice, system, irq, softirq
    [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum::<f64>() / TICKS
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Watches what other processes use while a sample is taken: the least disturbed samples are kept.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    started: Instant,
    busy: f64,
    own: f64,
}

impl Watch {
    /// Waits, but no longer than `patience`, for others to leave the machine mostly idle.
    pub(crate) fn start(patience: Duration) -> Self {
        let waiting = Instant::now();
        while waiting.elapsed() < patience {
            let probe = Self::now();
            std::thread::sleep(Duration::from_millis(50));
            if probe.others() < IDLE {
                break;
            }
        }
        Self::now()
    }

    fn now() -> Self {
        Self { started: Instant::now(), busy: machine_busy(), own: process_cpu() }
    }

    /// Share of the machine that others used since the start.
    pub(crate) fn others(&self) -> f64 {
        let own = process_cpu() - self.own;
        let whole = self.started.elapsed().as_secs_f64() * cores() as f64;
        ((machine_busy() - self.busy - own) / whole).clamp(0.0, 1.0)
    }
}

/// Bytes of this process in memory.
pub(crate) fn resident() -> i64 {
    resident_of("self")
}

/// Bytes of a process in memory, by its id.
pub(crate) fn resident_of(process: &str) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// The load average of the last minute, as the kernel writes it.
pub(crate) fn load() -> String {
    let all = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    all.split(' ').next().unwrap_or_default().to_owned()
}

/// Cores and the processor's name.
pub(crate) fn describe() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let name = field("model name").unwrap_or_else(|| "processor without a name".into());
    let cache = field("cache size").map(|size| format!(", {size} of cache")).unwrap_or_default();
    format!("{} cores of {name}{cache}", cores())
}
