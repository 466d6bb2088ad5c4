//! Where figures were measured: what they depend on, and nothing that tells whose machine it is.

use std::num::NonZero;
use std::path::Path;

use crate::report::Machine;

/// This machine; `folder` is where the journals and databases lie.
pub fn this(folder: &Path) -> Machine {
    Machine {
        cpu: processor(),
        cores: cores(),
        memory_mib: memory_kib() / 1024,
        kernel: kernel(),
        disk: file_system(folder).unwrap_or_else(|| "an unknown file system".to_owned()),
    }
}

/// How many threads run at once.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The processor's model.
pub fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "an unknown processor".to_owned(), |(_, model)| model.to_owned())
}

fn memory_kib() -> u64 {
    let text = read("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// Its name and the numbers of its release: what a distribution adds may name the machine's owner.
pub fn kernel() -> String {
    let release = read("/proc/sys/kernel/osrelease");
    let numbers = |c: char| c != '.' && !c.is_ascii_digit();
    let numbers = release.split(numbers).next().unwrap_or_default();
    format!("Linux {}", numbers.trim_end_matches('.'))
}

/// The type of the innermost mount that holds `folder`.
fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let text = read("/proc/self/mounts");
    let mounts = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        Some((Path::new(words.next()?), words.next()?))
    });
    let holding = mounts.filter(|(point, _)| folder.starts_with(point));
    holding.max_by_key(|(point, _)| point.components().count()).map(|(_, kind)| kind.to_owned())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_of_this_machine() {
        let machine = this(Path::new("/"));
        assert!(machine.cores > 0 && machine.memory_mib > 0);
        assert!(machine.kernel.starts_with("Linux ") && !machine.disk.is_empty());
    }
}
