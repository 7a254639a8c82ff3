//! How much memory the operating system lets this process have: what a cap on the index follows from when nobody sets
//! one. Versions 1 and 2 of control groups, each group and those around it.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// What a node takes beside its index and what grows with it: the process, log store, connections.
const BASE_BYTES: u64 = 320 << 20;
/// A node takes up to so many times its index beyond that: snapshots are made, taken in and read back while the index is
/// full, and the log holds what came since. Both are measured in `docs/decisions/0017-memory-cap.md`.
const TIMES: u64 = 4;

/// Version 1 writes a number near 2^63 where there is no limit.
const NO_LIMIT: u64 = 1 << 60;

/// A limit, and the file that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemoryLimit {
    pub(super) bytes: u64,
    pub(super) file: PathBuf,
}

impl MemoryLimit {
    /// The lowest limit that this process is under; `None` when there is none.
    pub(super) fn of_this_process() -> Option<Self> {
        Self::under(Path::new("/"))
    }

    fn under(root: &Path) -> Option<Self> {
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let files = groups.lines().flat_map(|line| limit_files(root, line));
        let limit = |file: PathBuf| {
            let bytes = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
            (bytes < NO_LIMIT).then_some(Self { bytes, file })
        };
        files.filter_map(limit).min_by_key(|limit| limit.bytes)
    }

    /// What the index may have of it.
    pub(super) fn index_bytes(&self) -> u64 {
        self.bytes.saturating_sub(BASE_BYTES) / TIMES
    }

    /// Who set the cap, as configurations print it.
    pub(super) fn origin(&self) -> String {
        let base = BASE_BYTES >> 20;
        format!("1/{TIMES} of what is beyond {base} MiB of {}, {} bytes", self.file.display(), self.bytes)
    }
}

/// Where limits may stand, by a line of `/proc/self/cgroup`: `0::/path` for version 2, `4:memory:/path` for version 1.
/// In a container the path may be the host's, which is not there: what counts then is the group that is mounted.
fn limit_files(root: &Path, line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (mount, names): (_, &[&str]) = match controllers {
        "" => (root.join("sys/fs/cgroup"), &["memory.max", "memory.high"]),
        some if some.split(',').any(|name| name == "memory") => {
            (root.join("sys/fs/cgroup/memory"), &["memory.limit_in_bytes"])
        }
        _ => return Vec::new(),
    };
    let mut folder = mount;
    let mut folders = vec![folder.clone()];
    for component in Path::new(path).components() {
        if let Component::Normal(name) = component {
            folder.push(name);
            folders.push(folder.clone());
        }
    }
    folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use figment::Jail;

    /// The limit in a file system that has these files.
    #[allow(clippy::result_large_err)]
    fn limit(files: &[(&str, &str)]) -> Option<(u64, String)> {
        let mut found = None;
        Jail::expect_with(|jail| {
            for (file, text) in files {
                fs::create_dir_all(jail.directory().join(file).parent().unwrap()).unwrap();
                fs::write(jail.directory().join(file), text).unwrap();
            }
            let limit = MemoryLimit::under(jail.directory());
            found = limit.map(|limit| {
                let file = limit.file.strip_prefix(jail.directory()).unwrap();
                (limit.bytes, file.display().to_string())
            });
            Ok(())
        });
        found
    }

    #[test]
    fn the_index_gets_what_leaves_room_for_the_rest() {
        let index_mib = |mib: u64| {
            let limit = MemoryLimit { bytes: mib << 20, file: "memory.max".into() };
            limit.index_bytes() >> 20
        };
        assert_eq!([256, 512, 2048, 16_384].map(index_mib), [0, 48, 432, 4016]);
    }

    #[test]
    fn version_2_by_the_lowest_of_a_group_and_those_around_it() {
        let pod = "sys/fs/cgroup/kubepods/pod1/memory.max";
        let own = ("proc/self/cgroup", "0::/kubepods/pod1/c1\n");
        let c1 = "sys/fs/cgroup/kubepods/pod1/c1/memory.max";
        assert_eq!(limit(&[own, (pod, "2000\n"), (c1, "3000\n")]), Some((2000, pod.into())));
        assert_eq!(limit(&[own, (pod, "max\n"), (c1, "3000\n")]), Some((3000, c1.into())));
        assert_eq!(limit(&[own, (pod, "max\n"), (c1, "max\n")]), None);
        let high = "sys/fs/cgroup/kubepods/pod1/c1/memory.high";
        assert_eq!(limit(&[own, (c1, "3000\n"), (high, "2500\n")]), Some((2500, high.into())));
    }

    #[test]
    fn version_2_in_a_container_that_sees_its_own_group_as_the_root() {
        let max = "sys/fs/cgroup/memory.max";
        assert_eq!(
            limit(&[("proc/self/cgroup", "0::/\n"), (max, "536870912\n")]),
            Some((536_870_912, max.into()))
        );
        assert_eq!(limit(&[("proc/self/cgroup", "0::/../..\n"), (max, "7\n")]), Some((7, max.into())));
    }

    #[test]
    fn version_1_also_where_the_path_is_the_hosts() {
        let groups = ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/docker/abc\n0::/\n");
        let mounted = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        let own = "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes";
        assert_eq!(limit(&[groups, (mounted, "4096\n")]), Some((4096, mounted.into())));
        let none = "9223372036854771712\n";
        assert_eq!(limit(&[groups, (mounted, none), (own, "8192\n")]), Some((8192, own.into())));
        assert_eq!(limit(&[groups, (mounted, none)]), None);
    }

    #[test]
    fn no_groups_and_nonsense_are_no_limit() {
        assert_eq!(limit(&[]), None);
        let max = ("sys/fs/cgroup/memory.max", "12x");
        assert_eq!(limit(&[("proc/self/cgroup", "0\nnonsense\n0::/\n"), max]), None);
    }
}
