// SPDX-License-Identifier: Apache-2.0
//! The namespace a tool runs in: a fresh root with the tools tree's `/usr` and `/etc`, `/proc`,
//! `/dev`, a private `/tmp`, and what the caller bound.
//!
//! All of it is done between fork and exec, where only async-signal-safe calls are allowed: every
//! string is made beforehand, and the child does nothing but system calls.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A host path made visible inside.
#[derive(Debug, Clone)]
pub(crate) struct Bind {
    pub source: PathBuf,
    pub target: PathBuf,
    pub writable: bool,
}

type StepError = (&'static str, io::Error);

enum Op {
    Mkdir(CString),
    Touch(CString),
    Link(CString, CString),
    Bind {
        source: CString,
        target: CString,
        writable: bool,
        what: usize,
    },
    Tmpfs(CString, usize),
}

/// A prepared sandbox.
pub(crate) struct Sandbox {
    plan: Option<Plan>,
    read: OwnedFd,
}

struct Plan {
    ops: Vec<Op>,
    cwd: CString,
    uid_map: Option<(CString, CString)>,
    report: OwnedFd,
}

/// Names of the steps, sent back by index through a pipe.
const STEPS: &[&str] = &[
    "unshare the user and mount namespaces",
    "write the user namespace's ID map",
    "make mounts private",
    "mount the sandbox's root (tmpfs)",
    "create a mount point in it",
    "bind the tools tree's /usr",
    "bind the tools tree's /etc",
    "bind /proc",
    "bind /dev",
    "bind a path given to the tool",
    "mount a tmpfs",
    "enter the sandbox (pivot_root)",
    "enter the working directory",
];

pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: a plain system call.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    Ok(())
}

pub(crate) fn leave_parent() -> io::Result<()> {
    // SAFETY: plain system calls.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_PDEATHSIG, 0);
    }
    Ok(())
}

fn cstr(p: impl AsRef<Path>) -> Result<CString, StepError> {
    CString::new(p.as_ref().as_os_str().as_bytes()).map_err(|_| {
        (
            "create a mount point in it",
            io::ErrorKind::InvalidInput.into(),
        )
    })
}

impl Sandbox {
    pub(crate) fn new(tree: &Path, binds: &[Bind], cwd: Option<&Path>) -> Result<Self, StepError> {
        let mut ops = Vec::new();
        let mut made = std::collections::BTreeSet::new();
        let mkdirs =
            |ops: &mut Vec<Op>, made: &mut std::collections::BTreeSet<PathBuf>, p: &Path| {
                let mut all: Vec<&Path> = p.ancestors().filter(|a| *a != Path::new("/")).collect();
                all.reverse();
                for a in all {
                    if made.insert(a.to_owned()) {
                        ops.push(Op::Mkdir(cstr(a)?));
                    }
                }
                Ok::<_, StepError>(())
            };
        for (dir, what) in [("usr", 5), ("etc", 6)] {
            let source = tree.join(dir);
            if source.is_dir() {
                let target = Path::new("/").join(dir);
                mkdirs(&mut ops, &mut made, &target)?;
                ops.push(Op::Bind {
                    source: host(&source)?,
                    target: cstr(&target)?,
                    writable: false,
                    what,
                });
            }
        }
        for l in ["bin", "sbin", "lib", "lib64"] {
            ops.push(Op::Link(
                cstr(Path::new("usr").join(l))?,
                cstr(Path::new("/").join(l))?,
            ));
            made.insert(Path::new("/").join(l));
        }
        for (dir, what) in [("/proc", 7), ("/dev", 8)] {
            mkdirs(&mut ops, &mut made, Path::new(dir))?;
            ops.push(Op::Bind {
                source: host(Path::new(dir))?,
                target: cstr(dir)?,
                writable: true,
                what,
            });
        }
        for dir in ["/tmp", "/run", "/var"] {
            mkdirs(&mut ops, &mut made, Path::new(dir))?;
            ops.push(Op::Tmpfs(cstr(dir)?, 10));
        }
        mkdirs(&mut ops, &mut made, Path::new("/var/tmp"))?;
        mkdirs(&mut ops, &mut made, Path::new("/var/lib"))?;
        for b in binds {
            let meta = std::fs::metadata(&b.source).map_err(|e| (STEPS[9], e))?;
            if meta.is_dir() {
                mkdirs(&mut ops, &mut made, &b.target)?;
            } else {
                if let Some(dir) = b.target.parent() {
                    mkdirs(&mut ops, &mut made, dir)?;
                }
                if made.insert(b.target.clone()) {
                    ops.push(Op::Touch(cstr(&b.target)?));
                }
            }
            ops.push(Op::Bind {
                source: host(&b.source)?,
                target: cstr(&b.target)?,
                writable: b.writable,
                what: 9,
            });
        }
        // SAFETY: plain system calls.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let map = |id: u32| CString::new(format!("0 {id} 1\n")).unwrap_or_default();
        let uid_map = (uid != 0).then(|| (map(uid), map(gid)));
        let mut fds = [0; 2];
        // SAFETY: fds is a valid array of two.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return Err((STEPS[0], io::Error::last_os_error()));
        }
        // SAFETY: both are fresh descriptors that nothing else owns.
        let (read, report) =
            unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
        let plan = Plan {
            ops,
            cwd: cstr(cwd.unwrap_or(Path::new("/")))?,
            uid_map,
            report,
        };
        Ok(Self {
            plan: Some(plan),
            read,
        })
    }

    /// Makes the command enter this sandbox before it is executed.
    pub(crate) fn attach(&self, c: &mut Command) {
        let Some(plan) = &self.plan else { return };
        // The closure must own its data; the plan is rebuilt from raw parts by copy.
        let plan = plan.clone_for_child();
        // SAFETY: `enter` makes system calls only, on memory allocated before the fork.
        unsafe { c.pre_exec(move || plan.enter()) };
    }

    /// The step that failed in the child, if one did.
    pub(crate) fn failed_step(mut self) -> Option<&'static str> {
        self.plan = None;
        let mut b = 0u8;
        // SAFETY: reads one byte into a valid place; O_NONBLOCK, since the Command that holds the
        // other writing end may still live.
        let n = unsafe {
            libc::fcntl(self.read.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK);
            libc::read(self.read.as_raw_fd(), (&raw mut b).cast(), 1)
        };
        (n == 1).then(|| STEPS.get(usize::from(b)).copied().unwrap_or("unknown step"))
    }
}

/// A host path as the child sees it after the pivot: below the old root at /.host.
fn host(p: &Path) -> Result<CString, StepError> {
    cstr(Path::new("/.host").join(p.strip_prefix("/").unwrap_or(p)))
}

impl Plan {
    fn clone_for_child(&self) -> Plan {
        let ops = self
            .ops
            .iter()
            .map(|o| match o {
                Op::Mkdir(p) => Op::Mkdir(p.clone()),
                Op::Touch(p) => Op::Touch(p.clone()),
                Op::Link(a, b) => Op::Link(a.clone(), b.clone()),
                Op::Bind {
                    source,
                    target,
                    writable,
                    what,
                } => Op::Bind {
                    source: source.clone(),
                    target: target.clone(),
                    writable: *writable,
                    what: *what,
                },
                Op::Tmpfs(p, w) => Op::Tmpfs(p.clone(), *w),
            })
            .collect();
        // SAFETY: duplicates an open descriptor, close-on-exec.
        let report = unsafe {
            OwnedFd::from_raw_fd(libc::fcntl(
                self.report.as_raw_fd(),
                libc::F_DUPFD_CLOEXEC,
                3,
            ))
        };
        Plan {
            ops,
            cwd: self.cwd.clone(),
            uid_map: self.uid_map.clone(),
            report,
        }
    }

    fn enter(&self) -> io::Result<()> {
        die_with_parent()?;
        self.steps().map_err(|(step, e)| {
            let b = step as u8;
            // SAFETY: writes one byte from a valid place.
            unsafe { libc::write(self.report.as_raw_fd(), (&raw const b).cast(), 1) };
            e
        })
    }

    fn steps(&self) -> Result<(), (usize, io::Error)> {
        use libc::{MS_BIND, MS_NODEV, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT};
        let err = |i: usize| (i, io::Error::last_os_error());
        let ok = |r: libc::c_int, i: usize| if r == 0 { Ok(()) } else { Err(err(i)) };
        // SAFETY: system calls on NUL-terminated strings that live as long as self.
        unsafe {
            let flags = libc::CLONE_NEWNS
                | if self.uid_map.is_some() {
                    libc::CLONE_NEWUSER
                } else {
                    0
                };
            ok(libc::unshare(flags), 0)?;
            if let Some((uid, gid)) = &self.uid_map {
                write_file(c"/proc/self/setgroups", c"deny").map_err(|e| (1, e))?;
                write_file(c"/proc/self/uid_map", uid).map_err(|e| (1, e))?;
                write_file(c"/proc/self/gid_map", gid).map_err(|e| (1, e))?;
            }
            ok(mount(None, c"/", None, MS_REC | MS_PRIVATE, None), 2)?;
            // /tmp is only the place where the new root is first mounted; the pivot moves the old
            // root, whole, to /.host of the new one.
            let tmpfs = Some(c"tmpfs");
            ok(
                mount(
                    tmpfs,
                    c"/tmp",
                    tmpfs,
                    MS_NOSUID | MS_NODEV,
                    Some(c"mode=0755"),
                ),
                3,
            )?;
            ok(libc::chdir(c"/tmp".as_ptr()), 3)?;
            ok(libc::mkdir(c".host".as_ptr(), 0o700), 4)?;
            let r = libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".host".as_ptr());
            ok(r as libc::c_int, 11)?;
            // The old /tmp lies under the mount just moved away, where binds find it.
            for op in &self.ops {
                match op {
                    Op::Mkdir(p) => {
                        if libc::mkdir(p.as_ptr(), 0o755) != 0 && errno() != libc::EEXIST {
                            return Err(err(4));
                        }
                    }
                    Op::Touch(p) => {
                        let fd = libc::open(
                            p.as_ptr(),
                            libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC,
                            0o644,
                        );
                        if fd < 0 {
                            return Err(err(4));
                        }
                        libc::close(fd);
                    }
                    Op::Link(to, at) => ok(libc::symlink(to.as_ptr(), at.as_ptr()), 4)?,
                    Op::Tmpfs(p, w) => ok(
                        mount(tmpfs, p, tmpfs, MS_NOSUID | MS_NODEV, Some(c"mode=1777")),
                        *w,
                    )?,
                    Op::Bind {
                        source,
                        target,
                        writable,
                        what,
                    } => {
                        ok(
                            mount(Some(source), target, None, MS_BIND | MS_REC, None),
                            *what,
                        )?;
                        if !writable {
                            // A user namespace locks flags of the source mount; a remount has to
                            // repeat them, and these two are the usual ones.
                            let base = MS_BIND | MS_REMOUNT | MS_RDONLY;
                            let more = base | MS_NOSUID | MS_NODEV;
                            if mount(None, target, None, base, None) != 0 {
                                ok(mount(None, target, None, more, None), *what)?;
                            }
                        }
                    }
                }
            }
            ok(libc::umount2(c"/.host".as_ptr(), libc::MNT_DETACH), 11)?;
            libc::rmdir(c"/.host".as_ptr());
            libc::umask(0o022);
            ok(libc::chdir(self.cwd.as_ptr()), 12)?;
        }
        Ok(())
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// mount(2) with optional strings.
unsafe fn mount(
    source: Option<&CStr>,
    target: &CStr,
    fstype: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) -> libc::c_int {
    let p = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: every pointer is null or a NUL-terminated string that outlives the call.
    unsafe { libc::mount(p(source), target.as_ptr(), p(fstype), flags, p(data).cast()) }
}

unsafe fn write_file(path: &CStr, data: &CStr) -> io::Result<()> {
    // SAFETY: both are NUL-terminated; the descriptor is closed on every way out.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let n = libc::write(fd, data.as_ptr().cast(), data.to_bytes().len());
        let e = io::Error::last_os_error();
        libc::close(fd);
        if n < 0 { Err(e) } else { Ok(()) }
    }
}
