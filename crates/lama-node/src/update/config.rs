// SPDX-License-Identifier: Apache-2.0
//! How this machine updates itself: what the host's description says ([`super::source`]), and the
//! administrator's file over it.

use super::source::Source;
use crate::{Error, Result, fs};
use serde::Serialize;

/// The administrator's file, lines of `KEY=VALUE`, `#` before a comment.
pub const PATH: &str = "/etc/lamadist/update.conf";
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const DAY: u32 = 24 * 60;

/// What it does by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Automatic {
    /// Nothing.
    Off,
    /// It looks for a new version.
    #[default]
    Check,
    /// It installs a new version, and restarts in a maintenance window.
    Install,
}

/// A time in which the machine may restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Days of the week on which it begins, Sunday first.
    days: [bool; 7],
    /// Minutes after midnight.
    from: u32,
    /// Minutes after midnight; below `from` it ends on the next day.
    to: u32,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Where updates come from.
    pub source: Source,
    /// What it does by itself.
    pub automatic: Automatic,
    /// When it may restart; at any time where there is none.
    pub windows: Vec<Window>,
    /// Minutes after the kernel's start that a new system has to become well.
    pub patience: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: Source::default(),
            automatic: Automatic::default(),
            windows: Vec::new(),
            patience: 10,
        }
    }
}

impl Config {
    /// Of the running system.
    ///
    /// # Errors
    /// A file cannot be read or understood.
    pub fn read() -> Result<Self> {
        let mut this = Self {
            source: Source::read()?.unwrap_or_default(),
            ..Self::default()
        };
        if let Some(data) = fs::read_optional(PATH)? {
            this.parse(&String::from_utf8_lossy(&data))?;
        }
        Ok(this)
    }

    /// Takes over what the administrator's file says.
    ///
    /// # Errors
    /// A line is wrong, with its number.
    pub fn parse(&mut self, text: &str) -> Result<()> {
        for (n, line) in (1u32..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| {
                Error::new(format!("{PATH}, line {n}: {why}: {line:?}"))
                    .hint("docs/UPDATE.md lists the settings")
            };
            let (key, value) = line
                .split_once('=')
                .map(|(k, v)| (k.trim(), v.trim()))
                .ok_or_else(|| wrong("this is not KEY=VALUE"))?;
            match key {
                "url" if value.starts_with("https://") || value.starts_with("http://") => {
                    self.source.url = Some(value.to_owned());
                }
                "track" if is_name(value) => self.source.track = Some(value.to_owned()),
                "automatic" => {
                    self.automatic = match value {
                        "off" => Automatic::Off,
                        "check" => Automatic::Check,
                        "install" => Automatic::Install,
                        _ => return Err(wrong("automatic is off, check or install")),
                    }
                }
                "window" => {
                    let w = Window::parse(value);
                    let w = w.ok_or_else(|| wrong("a window is such as Sat,Sun 02:00-05:00"))?;
                    self.windows.push(w);
                }
                "patience" => {
                    let minutes = value.parse().ok().filter(|m| (1..=240).contains(m));
                    self.patience = minutes.ok_or_else(|| wrong("patience is 1 to 240 minutes"))?;
                }
                "url" | "track" => return Err(wrong("this value cannot be")),
                _ => return Err(wrong("there is no such setting")),
            }
        }
        Ok(())
    }

    /// Whether the machine may restart at a time of the week: the day, Sunday is 0, and minutes after
    /// midnight.
    pub fn may_restart(&self, day: usize, minute: u32) -> bool {
        self.windows.is_empty() || self.windows.iter().any(|w| w.holds(day, minute))
    }
}

/// A track's name: letters, digits, `-` and `.`, for it becomes part of an address.
pub fn is_name(s: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    !s.is_empty() && s.len() <= 64 && !s.starts_with('.') && s.chars().all(plain)
}

impl Window {
    /// `02:00-05:00`, or `Sat,Sun 22:00-04:00`.
    fn parse(text: &str) -> Option<Self> {
        let (days, times) = match text.split_once(' ') {
            Some((d, t)) => (Some(d), t.trim()),
            None => (None, text),
        };
        let mut this = Self {
            days: [days.is_none(); 7],
            from: 0,
            to: 0,
        };
        for d in days.into_iter().flat_map(|d| d.split(',')) {
            let n = DAYS.iter().position(|x| x.eq_ignore_ascii_case(d))?;
            *this.days.get_mut(n)? = true;
        }
        let time = |t: &str| {
            let (h, m) = t.split_once(':')?;
            let (h, m) = (h.parse::<u32>().ok()?, m.parse::<u32>().ok()?);
            (h < 24 && m < 60).then_some(h * 60 + m)
        };
        let (from, to) = times.split_once('-')?;
        this.from = time(from)?;
        this.to = time(to)?;
        (this.from != this.to).then_some(this)
    }

    fn holds(&self, day: usize, minute: u32) -> bool {
        let on = |d: usize| self.days.get(d % 7).copied().unwrap_or(false);
        if self.from < self.to {
            return on(day) && (self.from..self.to).contains(&minute);
        }
        let late = on(day) && (self.from..DAY).contains(&minute);
        late || (on(day + 6) && minute < self.to)
    }
}

/// The day of the week, Sunday is 0, and the minutes after midnight, in the machine's time zone.
pub fn now() -> (usize, u32) {
    // SAFETY: both only fill what they are given; zeroed is a value of plain numbers.
    let tm = unsafe {
        let seconds = libc::time(std::ptr::null_mut());
        let mut tm: libc::tm = std::mem::zeroed();
        libc::localtime_r(&seconds, &mut tm);
        tm
    };
    let number = |n: libc::c_int| u32::try_from(n).unwrap_or(0);
    let day = usize::try_from(tm.tm_wday).unwrap_or(0);
    (day, number(tm.tm_hour) * 60 + number(tm.tm_min))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_administrators_file_comes_over_the_hosts() {
        let mut c = Config::default();
        c.source.url = Some("https://a".into());
        c.source.track = Some("stable".into());
        c.parse("# mine\ntrack = beta\nautomatic=install\nwindow=02:00-05:00\n")
            .unwrap();
        assert_eq!(c.source.to_string(), "beta, from https://a");
        assert_eq!((c.automatic, c.windows.len()), (Automatic::Install, 1));
        for wrong in [
            "x",
            "url=ftp://a",
            "track=../x",
            "track=",
            "automatic=yes",
            "window=02:00",
            "window=Day 02:00-03:00",
            "window=02:00-02:00",
            "window=24:00-02:00",
            "patience=0",
            "colour=red",
        ] {
            let e = Config::default().parse(&format!("\n{wrong}")).unwrap_err();
            assert!(
                e.to_string().contains("line 2") && e.help().is_some(),
                "{e}"
            );
        }
    }

    #[test]
    fn windows_may_pass_midnight() {
        let mut c = Config::default();
        assert!(c.may_restart(0, 0));
        c.parse("window=Sat,Sun 22:30-04:00\nwindow=Wed 12:00-13:00")
            .unwrap();
        let at = |d, h: u32, m: u32| c.may_restart(d, h * 60 + m);
        // Sunday is 0.
        assert!(at(6, 22, 30) && at(6, 23, 59) && at(0, 3, 59) && at(1, 0, 0));
        assert!(!at(6, 22, 29) && !at(0, 4, 0) && !at(1, 22, 30) && !at(6, 0, 0));
        assert!(at(3, 12, 0) && !at(3, 13, 0));
        let (day, minute) = now();
        assert!(day < 7 && minute < DAY);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = Config::default().parse(&text);
        }
    }
}
