// SPDX-License-Identifier: Apache-2.0
//! A test that hangs says where it does, and ends the run: whoever waits for it learns nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// No test of the default suite takes longer; what is ignored there may.
const MOST: Duration = Duration::from_secs(25 * 60);

static RUNNING: Mutex<BTreeMap<u64, (String, Instant)>> = Mutex::new(BTreeMap::new());
static THREAD: Once = Once::new();

/// Something that ends in time.
pub struct Watched(u64);

/// Watches the rest of this test.
pub fn watch() -> Watched {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.insert(number, (name, Instant::now()));
    if !std::env::args().any(|a| a == "--ignored" || a == "--include-ignored") {
        THREAD.call_once(|| drop(std::thread::spawn(look)));
    }
    Watched(number)
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.0);
    }
}

fn look() {
    loop {
        std::thread::sleep(Duration::from_secs(10));
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((name, began)) = running.values().find(|(_, b)| b.elapsed() > MOST) else {
            continue;
        };
        // Not to the test harness, which keeps what a test says until its end.
        let mut out = std::fs::File::options()
            .write(true)
            .open("/proc/self/fd/2")
            .unwrap();
        let _ = writeln!(
            out,
            "error: {name} is not done after {:?}; these run:\n{}",
            began.elapsed(),
            descendants()
        );
        std::process::exit(101);
    }
}

/// The processes below this one, a line each: number, state, what it waits for in the kernel, command
/// line.
fn descendants() -> String {
    let read = |pid: u32, what: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for e in std::fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(pid) = e.file_name().to_string_lossy().parse() {
            // After the name, which is in brackets and may hold anything: state, parent.
            let stat = read(pid, "stat");
            let parent = stat.rsplit(')').next().unwrap_or("");
            if let Some(Ok(parent)) = parent.split_whitespace().nth(1).map(str::parse) {
                children.entry(parent).or_default().push(pid);
            }
        }
    }
    let mut text = String::new();
    let mut todo = vec![std::process::id()];
    while let Some(pid) = todo.pop() {
        let stat = read(pid, "stat");
        let state = stat.rsplit(')').next().unwrap_or("").trim().chars().next();
        let line: String = read(pid, "cmdline").chars().take(300).collect();
        text += &format!("{pid} {state:?} {} {line}\n", read(pid, "wchan"));
        todo.extend(children.remove(&pid).unwrap_or_default());
    }
    text
}
