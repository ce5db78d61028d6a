// SPDX-License-Identifier: Apache-2.0
//! A system on trial looks at itself: kept when it is well, else back to the old slot.
//!
//! It starts as early as /var is there and has until a deadline ([`Config::patience`]), so that a boot that never comes to
//! an end is judged, too. What it cannot judge, because nothing runs any more, the watchdog ends; the
//! firmware starts the old slot then, since nobody has marked the new one good.

use super::book::{Book, DIR, Step};
use super::config::Config;
use super::rauc;
use super::store::Store;
use super::trial::{NETWORK, SERVER, Trial};
use crate::health::{Check, Health, LIMIT, Verdict, checks, own};
use crate::kernel::{Cmdline, Slot};
use crate::loader::fallback;
use crate::machine::Machine;
use crate::run::Run;
use crate::{Error, Result, boot_count, fs};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// How long it has to stay well.
const STEADY: Duration = Duration::from_secs(20);
/// How long RAUC is asked to keep a system at least that is well.
const CALL: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);
/// Where systemd-pstore(8) puts what the kernel kept of a crash.
const PSTORE: [&str; 2] = ["/var/lib/systemd/pstore", "/sys/fs/pstore"];

/// What the initrd writes before it lists the units that failed.
const GIVEN_UP: &str = "LamaDist: the initrd gave up";
/// A failed unit, as systemctl(1) lists it.
const FAILED: &str = " loaded failed failed ";

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// There was nothing to judge.
    Nothing,
    /// The new slot is kept.
    Kept,
    /// The old slot runs again, and the reason was written down.
    FellBack,
    /// The machine restarts into the old slot.
    Restart,
}

/// Does what this boot has to do about a trial.
///
/// # Errors
/// The book cannot be read, or what came of a trial not be written; the restart fails.
pub fn judge(book: &Book) -> Result<Judged> {
    let Some(running @ (Slot::A | Slot::B)) = Cmdline::read()?.slot() else {
        return Err(Error::new("this is not an installed machine"));
    };
    match book.step(running, &boot_id(), &clues(book.written()))? {
        Step::Wait => Ok(Judged::Nothing),
        Step::FellBack(outcome) => {
            eprintln!("{}", outcome.text());
            book.end(&outcome)?;
            // What was loaded for one that was not even installed is needed again.
            if outcome.tries > 0 {
                tidy();
            }
            Ok(Judged::FellBack)
        }
        Step::Judge(trial) => judge_this(book, trial),
    }
}

/// Judges the system that runs. Nothing but a restart ends that badly: one who returns here with an
/// error would leave a system running that nobody has found well.
fn judge_this(book: &Book, trial: Trial) -> Result<Judged> {
    let look = || {
        let mut health = Health::of(of_trial(&trial));
        trial.weigh(&mut health.checks);
        health
    };
    // A mistake in the administrator's file is none of the new system's.
    let patience = Config::read().unwrap_or_default().patience;
    let time = left(Duration::from_secs(u64::from(patience) * 60));
    let end = Instant::now() + time;
    let well = wait(look, time, STEADY, PAUSE);
    // Somebody may have taken it back meanwhile.
    if matches!(book.trial(), Ok(None)) {
        return Ok(Judged::Nothing);
    }
    let end = end.max(Instant::now() + CALL);
    match well.and_then(|()| keep(trial.to, end).map_err(NotWell::inside)) {
        Ok(()) => {
            let outcome = trial.outcome(true, String::new());
            eprintln!("{}", outcome.text());
            // The firmware knows; what is left for people, and may fail.
            told(book.end(&outcome));
            tidy();
            // What failed to come up there was another system.
            told(boot_count::forgive(trial.to));
            let refreshed = Machine::read().and_then(|m| fallback::refresh(&m, trial.to).map(drop));
            if let Err(e) = refreshed {
                eprintln!("what starts without a boot entry stays as it was: {e}");
            }
            Ok(Judged::Kept)
        }
        Err(NotWell { reason, outside }) => {
            eprintln!("{} is not well: {reason}", trial.version);
            let from = trial.from;
            // A full or read-only /var is no reason to stay.
            told(book.fail(trial, &reason, outside));
            // It was kept already where a power cut came before that was noted.
            told(rauc::keep(from));
            restart()?;
            Ok(Judged::Restart)
        }
    }
}

/// Has RAUC keep a slot, which may not be there yet, or not any more.
fn keep(slot: Slot, end: Instant) -> std::result::Result<(), String> {
    loop {
        let Err(e) = rauc::keep(slot) else {
            return Ok(());
        };
        if Instant::now() >= end {
            return Err(format!("RAUC does not mark it good: {e}"));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Says what went wrong with something that is not needed.
fn told(result: Result<()>) {
    if let Err(e) = result {
        eprintln!("{e}");
    }
}

/// What was loaded for a version that was tried is not needed any more; a power cut may have left it.
fn tidy() {
    Store::clear_below(Path::new(DIR));
}

/// This boot's ID.
pub fn boot_id() -> String {
    fs::line("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// What is left of a time after the kernel's start.
fn left(time: Duration) -> Duration {
    let up = fs::line("/proc/uptime").unwrap_or_default();
    let seconds = up.split_whitespace().next().and_then(|s| s.parse().ok());
    let up = Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default();
    time.saturating_sub(up)
}

/// The usual checks, the administrator's own, and whether the server can be reached that the update
/// came from: a system that cannot be updated any more is none to keep.
fn of_trial(trial: &Trial) -> Vec<Check> {
    let mut all = checks::all().unwrap_or_else(|e| {
        let why = e.to_string();
        vec![Check::new("machine", move || Err(Error::new(why)))]
    });
    all.extend(own::all());
    all.push(Check::new("boot", booted));
    if let Some(server) = trial.server.clone() {
        all.push(Check::new(SERVER, move || {
            Run::new("curl")
                .args(["--fail", "--silent", "--show-error", "--head", "--location"])
                .args(["--max-time", "8", "--output", "/dev/null", &server])
                .run()?;
            Ok((Verdict::Ok, "the update server answers".to_owned()))
        }));
    }
    all
}

/// Whether the boot has come to its end: a service that hangs in its start is no failed one.
fn booted() -> Result<crate::health::Answer> {
    let systemctl = |args: &[&str]| {
        let run = Run::new("systemctl").args(args).arg("--no-pager");
        run.within(LIMIT)
    };
    let reached = systemctl(&["is-active", "--quiet", "multi-user.target"])?;
    if reached.status.success() {
        return Ok((Verdict::Ok, "multi-user.target is reached".to_owned()));
    }
    let jobs = systemctl(&["list-jobs", "--plain", "--no-legend"])?;
    let jobs = String::from_utf8_lossy(&jobs.stdout).into_owned();
    Ok((Verdict::Failed, unreached(&jobs)))
}

/// Why multi-user.target is not reached, by what `systemctl list-jobs` says.
fn unreached(jobs: &str) -> String {
    let running = jobs.lines().filter_map(|l| {
        let mut words = l.split_whitespace().skip(1);
        let (unit, state) = (words.next()?, words.nth(1)?);
        (state == "running").then_some(unit)
    });
    match running.collect::<Vec<_>>().join(", ") {
        units if units.is_empty() => "multi-user.target is not reached".to_owned(),
        units => format!("multi-user.target is not reached, it waits for {units}"),
    }
}

/// Why a system is not kept.
#[derive(Debug, PartialEq, Eq)]
struct NotWell {
    reason: String,
    /// Whether all of that lies outside of the machine.
    outside: bool,
}

impl NotWell {
    fn inside(reason: String) -> Self {
        Self {
            reason,
            outside: false,
        }
    }

    /// What failed; none where nothing did.
    fn of(health: &Health) -> Option<Self> {
        let all: Vec<String> = health
            .failed()
            .map(|c| format!("{}: {}", c.name, c.reason))
            .collect();
        (!all.is_empty()).then(|| Self {
            reason: all.join("; "),
            outside: health
                .failed()
                .all(|c| [NETWORK, SERVER].contains(&c.name.as_str())),
        })
    }
}

/// Looks until all has been well for `steady`. What was wrong at the last look when the time is over
/// is the error.
fn wait(
    mut look: impl FnMut() -> Health,
    time: Duration,
    steady: Duration,
    pause: Duration,
) -> std::result::Result<(), NotWell> {
    let end = Instant::now() + time;
    let mut since = None;
    loop {
        let health = look();
        let now = Instant::now();
        match NotWell::of(&health) {
            None if now.duration_since(*since.get_or_insert(now)) >= steady => return Ok(()),
            None => {}
            Some(failed) if now >= end => return Err(failed),
            Some(_) => since = None,
        }
        if now >= end + steady + pause {
            let by_turns = "it was well and not well by turns".to_owned();
            return Err(NotWell::inside(by_turns));
        }
        std::thread::sleep(pause);
    }
}

/// What the firmware kept of a failed start within the last hour.
pub fn recent_clues() -> String {
    let hour = Duration::from_secs(3600);
    clues(
        SystemTime::now()
            .checked_sub(hour)
            .unwrap_or(SystemTime::UNIX_EPOCH),
    )
}

/// The last words of a kernel that crashed, or of an initrd that gave up, since this time, where the
/// firmware kept them.
fn clues(since: SystemTime) -> String {
    let texts = PSTORE.iter().flat_map(|dir| files(Path::new(dir), 3));
    let mut newest: Option<(SystemTime, String)> = None;
    for path in texts {
        let time = std::fs::metadata(&path).and_then(|m| m.modified());
        let (Ok(time), Ok(text)) = (time, fs::text(&path)) else {
            continue;
        };
        // What crashed long ago explains nothing.
        let Some(line) = last_words(&text).filter(|_| time >= since) else {
            continue;
        };
        if newest.as_ref().is_none_or(|(t, _)| *t < time) {
            newest = Some((time, line));
        }
    }
    newest.map_or(String::new(), |(_, l)| l)
}

fn files(dir: &Path, depth: u32) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for name in fs::names(dir).unwrap_or_default() {
        let path = dir.join(&name);
        if path.is_dir() {
            if depth > 0 {
                out.extend(files(&path, depth - 1));
            }
        } else if name.starts_with("dmesg") {
            out.push(path);
        }
    }
    out
}

/// What says in a kernel's log why it stopped: its own line, or the units that failed in the initrd.
fn last_words(log: &str) -> Option<String> {
    let at = |l: &str| {
        ["Kernel panic", "BUG: ", "Oops: "]
            .iter()
            .find_map(|w| l.find(w))
    };
    let line = log.lines().find_map(|l| l.get(at(l)?..));
    let text = line.map(str::to_owned).or_else(|| given_up(log));
    text.map(|t| t.chars().take(200).collect())
}

/// What `lamadist-last-words.service` of the initrd writes into the kernel's log.
fn given_up(log: &str) -> Option<String> {
    let (_, after) = log.split_once(GIVEN_UP)?;
    let failed = after.lines().filter_map(|l| l.split_once(FAILED));
    let units: Vec<_> = failed
        .filter_map(|(before, _)| before.split_whitespace().next_back())
        .collect();
    Some(match units.as_slice() {
        [] => "the initrd could not start the system".to_owned(),
        all => format!("the initrd could not start {}", all.join(", ")),
    })
}

/// Restarts, by force where an orderly end takes too long.
fn restart() -> Result<()> {
    let minute = Duration::from_secs(60);
    // A disk that is gone lets neither of them end.
    let _ = Run::new("sync").within(minute);
    let reboot = Run::new("systemctl").args(["--no-block", "reboot"]);
    let _ = reboot.within(minute);
    std::thread::sleep(Duration::from_secs(120));
    Run::new("systemctl")
        .args(["reboot", "--force", "--force"])
        .run()
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Answer;

    fn health(answer: Answer) -> Health {
        Health::of(vec![Check::new("x", move || Ok(answer))])
    }

    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn well_means_for_a_while() {
        let mut looks = 0;
        let result = wait(
            || {
                looks += 1;
                let bad = looks < 3 || looks == 4;
                let verdict = if bad {
                    Verdict::Failed
                } else {
                    Verdict::Warning
                };
                health((verdict, "why".to_owned()))
            },
            Duration::from_secs(60),
            Duration::from_millis(5),
            SHORT,
        );
        assert_eq!(result, Ok(()));
        assert!(looks > 5);
    }

    #[test]
    fn what_stays_wrong_is_the_reason() {
        let look = || health((Verdict::Failed, "no disk".to_owned()));
        let e = wait(look, Duration::from_millis(5), SHORT, SHORT).unwrap_err();
        assert_eq!(e, NotWell::inside("x: no disk".into()));
        let of = |names: &[&'static str]| {
            let bad = |n: &&'static str| Check::new(n, || Ok((Verdict::Failed, "gone".into())));
            NotWell::of(&Health::of(names.iter().map(bad).collect()))
        };
        assert!(of(&[SERVER, NETWORK]).unwrap().outside);
        assert!(!of(&[SERVER, "units"]).unwrap().outside);
        assert_eq!(of(&[]), None);
        let mut looks = 0;
        let by_turns = || {
            looks += 1;
            let v = [Verdict::Failed, Verdict::Ok][looks % 2];
            health((v, "?".to_owned()))
        };
        let long = Duration::from_secs(60);
        assert!(wait(by_turns, Duration::from_millis(5), long, SHORT).is_err());
    }

    #[test]
    fn what_a_boot_waits_for_is_named() {
        let jobs = "12 multi-user.target start waiting\n9 own.service start running\n";
        let want = "multi-user.target is not reached, it waits for own.service";
        assert_eq!(unreached(jobs), want);
        assert_eq!(unreached(""), "multi-user.target is not reached");
    }

    #[test]
    fn a_kernels_last_words_are_found() {
        let log = "<6>[1.0] x\n<0>[    2.5] Kernel panic - not syncing: Attempted to kill init!\n";
        assert_eq!(
            last_words(log).unwrap(),
            "Kernel panic - not syncing: Attempted to kill init!"
        );
        assert_eq!(last_words("all is well"), None);
        let log = "<6>[7.1] echo[90]: LamaDist: the initrd gave up:\n\
                   <6>[7.2] systemctl[91]: sysroot.mount loaded failed failed Root\n\
                   <6>[7.2] systemctl[91]: a@b.service loaded failed failed Some name\n<0>x\n";
        assert_eq!(
            last_words(log).unwrap(),
            "the initrd could not start sysroot.mount, a@b.service"
        );
        assert_eq!(
            last_words(&log[..log.find(":\n").unwrap()]).unwrap(),
            "the initrd could not start the system"
        );
        assert!(files(Path::new("/nonexistent"), 3).is_empty());
    }
}
