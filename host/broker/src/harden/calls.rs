//! Closes system calls with seccomp: a list of those that a broker makes, and one of those that
//! only an attack makes. Decides nothing about files: a filter sees numbers, not paths.

use std::collections::BTreeMap;

use anyhow::Context;
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Which process is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// The one that serves.
    Broker,
    /// The one that compiles a component.
    Compiler,
}

/// Refuses what is not on the profile's list, and ends the process that attacks.
pub(super) fn enforce(profile: Profile) -> anyhow::Result<()> {
    // The strictest verdict of all filters counts, so their order matters only in that the last
    // may refuse to take another.
    install(plain(ATTACKS), SeccompAction::Allow, SeccompAction::KillProcess)?;
    // Its arguments are in memory, where a filter cannot look. Told that it does not exist, the
    // C library uses `clone`, whose flags are looked at.
    let hidden = plain(&[libc::SYS_clone3]);
    install(hidden, SeccompAction::Allow, SeccompAction::Errno(ENOSYS))?;
    install(allowed(profile)?, SeccompAction::Errno(EPERM), SeccompAction::Allow)
}

/// Lets everything through, and has the kernel log what [`enforce`] would refuse.
pub(super) fn log() -> anyhow::Result<()> {
    install(allowed(Profile::Broker)?, SeccompAction::Log, SeccompAction::Allow)
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn install(rules: Rules, others: SeccompAction, listed: SeccompAction) -> anyhow::Result<()> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).context("seccomp")?;
    let filter = SeccompFilter::new(rules, others, listed, arch).context("seccomp")?;
    let program = BpfProgram::try_from(filter).context("seccomp")?;
    apply_filter(&program).context("this kernel takes no seccomp filter")
}

fn allowed(profile: Profile) -> anyhow::Result<Rules> {
    let mut rules = plain(COMPUTES);
    rules.extend(threads_only()?);
    match profile {
        Profile::Compiler => rules.extend(never_executable()?),
        Profile::Broker => {
            rules.extend(plain(SERVES));
            rules.extend(plain(SERVES_LEGACY));
            rules.extend(narrow()?);
        }
    }
    Ok(rules)
}

fn plain(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// New threads and processes, but none that sees another system than this one.
fn threads_only() -> anyhow::Result<Rules> {
    let mask = u64::from(NAMESPACES);
    let flags = rule(vec![argument(0, SeccompCmpOp::MaskedEq(mask), 0)?])?;
    Ok(Rules::from([(libc::SYS_clone, vec![flags])]))
}

/// Memory from which nothing can be run: a compiler writes code and runs none of it.
fn never_executable() -> anyhow::Result<Rules> {
    let mut rules = Rules::new();
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![without(PROT_EXEC)?]);
    }
    Ok(rules)
}

/// Calls of which a broker makes some and an intruder others, told apart by their arguments.
fn narrow() -> anyhow::Result<Rules> {
    let mut rules = Rules::new();
    // Compiled plugins are written first and run afterwards, never both at once.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![without(PROT_EXEC)?, without(PROT_WRITE)?]);
    }
    // Only its own memory: how the sandbox gives back the pages of many calls at once.
    rules.insert(libc::SYS_process_madvise, vec![rule(vec![equal(0, PIDFD_SELF)?])?]);
    rules.insert(libc::SYS_ioctl, each(1, &IOCTLS)?);
    rules.insert(libc::SYS_prctl, prctls()?);
    rules.insert(libc::SYS_socket, sockets()?);
    rules.insert(libc::SYS_socketpair, vec![rule(vec![equal(0, AF_UNIX)?])?]);
    Ok(rules)
}

fn prctls() -> anyhow::Result<Vec<SeccompRule>> {
    let mut rules = each(0, &PRCTLS)?;
    // Off, never on again.
    rules.push(rule(vec![equal(0, PR_SET_DUMPABLE)?, equal(1, 0)?])?);
    Ok(rules)
}

/// Streams and datagrams of the internet and of this machine. No raw packets, and no doors to the
/// kernel: routing tables, cryptography, virtual machines, Bluetooth.
fn sockets() -> anyhow::Result<Vec<SeccompRule>> {
    let mut rules = Vec::new();
    for family in [AF_UNIX, AF_INET, AF_INET6] {
        for kind in [SOCK_STREAM, SOCK_DGRAM] {
            let kind = argument(1, SeccompCmpOp::MaskedEq(SOCK_TYPE_MASK), kind)?;
            rules.push(rule(vec![equal(0, family)?, kind])?);
        }
    }
    Ok(rules)
}

/// One rule for each value that the argument may have.
fn each(index: u8, values: &[u64]) -> anyhow::Result<Vec<SeccompRule>> {
    values.iter().map(|value| rule(vec![equal(index, *value)?])).collect()
}

/// The protection, the third argument of both calls, has this bit not set.
fn without(protection: u64) -> anyhow::Result<SeccompRule> {
    rule(vec![argument(2, SeccompCmpOp::MaskedEq(protection), 0)?])
}

fn equal(index: u8, value: u64) -> anyhow::Result<SeccompCondition> {
    argument(index, SeccompCmpOp::Eq, value)
}

/// All of these arguments are 32 bits wide for the kernel, whatever stands above them.
fn argument(index: u8, is: SeccompCmpOp, value: u64) -> anyhow::Result<SeccompCondition> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, is, value).context("seccomp")
}

fn rule(conditions: Vec<SeccompCondition>) -> anyhow::Result<SeccompRule> {
    SeccompRule::new(conditions).context("seccomp")
}

const EPERM: u32 = libc::EPERM.unsigned_abs();
const ENOSYS: u32 = libc::ENOSYS.unsigned_abs();
const PROT_WRITE: u64 = libc::PROT_WRITE as u64;
const PROT_EXEC: u64 = libc::PROT_EXEC as u64;
const AF_UNIX: u64 = libc::AF_UNIX as u64;
const AF_INET: u64 = libc::AF_INET as u64;
const AF_INET6: u64 = libc::AF_INET6 as u64;
const SOCK_STREAM: u64 = libc::SOCK_STREAM as u64;
const SOCK_DGRAM: u64 = libc::SOCK_DGRAM as u64;
const PR_SET_DUMPABLE: u64 = libc::PR_SET_DUMPABLE as u64;

/// Above these bits stand the flags `SOCK_NONBLOCK` and `SOCK_CLOEXEC`.
const SOCK_TYPE_MASK: u64 = 0xf;

/// -10000 in 32 bits: the calling process, whatever its number (Linux 6.14).
const PIDFD_SELF: u64 = (-10_000_i32).cast_unsigned() as u64;

/// Every `CLONE_NEW…` that `clone` knows.
const NAMESPACES: u32 = 0x7e02_0000;

/// What the runtime asks of sockets, terminals and, for the sandbox, of its own page table.
const IOCTLS: [u64; 8] = [
    0x5401,      // TCGETS: is this a terminal?
    0x802c_542a, // TCGETS2, the same in newer C libraries
    0x5413,      // TIOCGWINSZ: how wide is it?
    0x541b,      // FIONREAD
    0x5421,      // FIONBIO
    0x5450,      // FIONCLEX
    0x5451,      // FIOCLEX
    0xc060_6610, // PAGEMAP_SCAN
];

/// Names of threads and mappings, huge pages, what the compiling child gives up, and questions.
const PRCTLS: [u64; 9] = [
    1,           // PR_SET_PDEATHSIG
    3,           // PR_GET_DUMPABLE
    15,          // PR_SET_NAME
    16,          // PR_GET_NAME
    23,          // PR_CAPBSET_READ
    38,          // PR_SET_NO_NEW_PRIVS
    39,          // PR_GET_NO_NEW_PRIVS
    41,          // PR_SET_THP_DISABLE
    0x5356_4d41, // PR_SET_VMA
];

/// Memory, threads, clocks, signals to itself, and what is open already. All that a compiling
/// child may do, beside what `threads_only` and `never_executable` say.
const COMPUTES: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_clone3, // answered with ENOSYS by a filter of its own
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_tgkill,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Files, sockets, signals and the compiling child: what a broker does beside computing.
const SERVES: &[c_long] = &[
    // Files. Which ones is Landlock's affair.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close_range,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchown,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_utimensat,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_umask,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // The images that plugins' memories begin with.
    libc::SYS_memfd_create,
    libc::SYS_msync,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mlockall,
    libc::SYS_munlock,
    // Sockets. Which kinds is `sockets`'s affair.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // Which program is started is Landlock's affair: the compiling child is this very one, and
    // takes still more from itself.
    libc::SYS_execve,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_prlimit64,
    libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    libc::SYS_setpgid,
    libc::SYS_get_robust_list,
    // Questions about itself and the machine.
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_times,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
];

/// The same under the names that the C library of this processor still uses.
#[cfg(target_arch = "x86_64")]
const SERVES_LEGACY: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_mkdir,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
    libc::SYS_time,
    libc::SYS_vfork,
    // The loader of the compiling child.
    libc::SYS_arch_prctl,
];

#[cfg(not(target_arch = "x86_64"))]
const SERVES_LEGACY: &[c_long] = &[];

/// What neither a broker nor any version of its libraries does: whoever calls one of these is
/// somebody else, and the process ends before the next instruction. The kernel logs it.
const ATTACKS: &[c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    libc::SYS_execveat,
    // The kernel's own attack surface.
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_fanotify_init,
    // Another view of the system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_mknodat,
    // Another user, and what only root may.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_personality,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];
