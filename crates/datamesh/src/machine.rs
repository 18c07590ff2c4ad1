//! What the machine has to give.

use std::path::Path;

/// Memory that is assumed where the machine does not tell, in MiB.
const UNKNOWN: usize = 2048;
/// The least that the engine gets, in MiB.
const LEAST: usize = 256;

/// A quarter of the memory that this process may have, in MiB: the machine's, or its container's where that is less.
pub(crate) fn quarter_of_memory() -> usize {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let machine = read("/proc/meminfo").and_then(|text| total(&text));
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| read(path)?.trim().parse::<usize>().ok());
    let memory = machine.into_iter().chain(container.map(|bytes| bytes >> 20)).min();
    (memory.unwrap_or(UNKNOWN) / 4).max(LEAST)
}

/// The line `MemTotal:` of Linux's `/proc/meminfo`, in MiB.
fn total(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_its_memory() {
        assert_eq!(total("MemTotal:       24317228 kB\nMemFree:  1 kB\n"), Some(23_747));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(quarter_of_memory() >= LEAST);
    }
}
