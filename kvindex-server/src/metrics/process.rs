//! Metrics of the process: what it uses and may use. Their names are those of every Prometheus client library, so
//! that dashboards and alerts people have already work; only `kvindex_build` is ours.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::path::Path;
use std::sync::atomic::AtomicU64;

type Number = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    version: &'static str,
}

/// What the process uses now; `data` is the directory whose disk it writes to, if any.
pub(crate) fn registry(data: Option<&Path>) -> Registry {
    let mut registry = Registry::default();
    let build = Family::<VersionLabels, Gauge>::default();
    build.get_or_create(&VersionLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
    registry.register("kvindex_build", "The program's version, as a label", build);
    // What cannot be read is left out, as on systems without /proc.
    let _ = usage(&mut registry);
    if let Some(disk) = data.and_then(|path| rustix::fs::statvfs(path).ok()) {
        let block = disk.f_frsize as f64;
        put(
            &mut registry,
            "kvindex_data_dir_free_bytes",
            "Free room for its data",
            disk.f_bavail as f64 * block,
        );
        put(
            &mut registry,
            "kvindex_data_dir_total_bytes",
            "Room of its data's disk",
            disk.f_blocks as f64 * block,
        );
    }
    registry
}

fn put(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Number::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

#[cfg(target_os = "linux")]
fn usage(registry: &mut Registry) -> procfs::ProcResult<()> {
    use procfs::WithCurrentSystemInfo;
    use prometheus_client::metrics::counter::Counter;

    let own = procfs::process::Process::myself()?;
    let stat = own.stat()?;
    put(registry, "process_resident_memory_bytes", "Resident memory", stat.rss_bytes().get() as f64);
    let ticks = procfs::ticks_per_second() as f64;
    let cpu = Counter::<f64, AtomicU64>::default();
    cpu.inc_by((stat.utime + stat.stime) as f64 / ticks);
    registry.register("process_cpu_seconds", "Processor time, of users and of the system", cpu);
    put(registry, "process_open_fds", "Open files and sockets", own.fd_count()? as f64);
    if let procfs::process::LimitValue::Value(most) = own.limits()?.max_open_files.soft_limit {
        put(registry, "process_max_fds", "Most open files and sockets", most as f64);
    }
    // The kernel counts a process's start from its own, which it says once: no clock is read, so that the value is
    // the same at every scrape and nobody takes a change for a restart.
    let started = procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks;
    put(registry, "process_start_time_seconds", "When it started, in seconds since 1970", started);
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn usage(_: &mut Registry) -> std::io::Result<()> {
    Ok(())
}
