// SPDX-License-Identifier: Apache-2.0
//! A server that is gone without a word, in the middle of a stream and at its beginning: `mise run
//! campaign`. RAUC waits for it for ever; the machine does not.

use crate::common::installed::{ask, healthy, node, reboot};
use crate::common::updates::{Next, Web, judged, slot, standing, tries};
use crate::common::{Bench, base, turn};
use lama_vm::Stop;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Instant;

/// What comes through before it falls silent where nothing is said.
const ALL: i64 = i64::MAX;

/// What stands before a server and falls silent after some bytes, until the one that it left waiting
/// hangs up.
struct Mute {
    port: u16,
    left: Arc<AtomicI64>,
}

impl Mute {
    fn before(web: &Web) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self {
            port: listener.local_addr().unwrap().port(),
            left: Arc::new(AtomicI64::new(ALL)),
        };
        let (to, left) = (web.port(), this.left.clone());
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                pass(client.unwrap(), server, &left);
            }
        });
        this
    }

    fn url(&self, name: &str) -> String {
        format!("http://10.0.2.2:{}/{name}", self.port)
    }

    fn after(&self, bytes: i64) {
        self.left.store(bytes, SeqCst);
    }

    /// Whether it has been silent, and was hung up on.
    fn talks(&self) -> bool {
        self.left.load(SeqCst) > ALL / 2
    }
}

/// Passes on what both sides say, as long as there is something left.
fn pass(client: TcpStream, server: TcpStream, left: &Arc<AtomicI64>) {
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let asks = left.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        // The client has hung up.
        let _ = to.shutdown(std::net::Shutdown::Both);
        if asks.load(SeqCst) <= 0 {
            asks.store(ALL, SeqCst);
        }
    });
    let (mut from, mut to, left) = (server, client, left.clone());
    std::thread::spawn(move || {
        let mut buffer = [0; 1 << 14];
        loop {
            let n = from.read(&mut buffer).unwrap_or(0);
            let sent = i64::try_from(n).unwrap();
            if n == 0 {
                let _ = to.shutdown(std::net::Shutdown::Both);
                return;
            }
            if left.fetch_sub(sent, SeqCst) <= sent {
                // Held open: the other thread sees when the client goes.
                return;
            }
            if to.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
    });
}

#[test]
#[ignore = "a campaign: half an hour (mise run campaign)"]
fn a_server_that_falls_silent_holds_nobody_up() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let bench = Bench::new(built);
    let mut vm = bench.clone_of(&node.dir, "waits").boot();
    healthy(&mut vm);
    let next = Next::build();
    next.encrypt_to(&vm);
    let mut files = next.publish(built);
    // The channel names a delta bundle that the server has lost.
    files.retain(|(name, _)| !name.ends_with(".delta"));
    let (bundle, _) = files.iter().find(|f| f.0.ends_with(".raucb")).unwrap();
    let web = Web::serve(&files);
    let mute = Mute::before(&web);

    mute.after(0);
    let start = Instant::now();
    let (ok, said) = tries(
        &vm,
        &format!("lama-node update install {}", mute.url(bundle)),
    );
    println!(
        "at the beginning: {:.0} s\n{said}",
        start.elapsed().as_secs_f64()
    );
    assert!(
        !ok && said.contains("came no further for 5 minutes; RAUC was stopped"),
        "{said}"
    );
    assert!(mute.talks());
    // RAUC is there again for whoever asks.
    let status = standing(&vm);
    assert_eq!(
        (&status["slot"], &status["trial"]),
        (&"a".into(), &().into())
    );

    ask(
        &vm,
        &format!(
            "mkdir -p /etc/lamadist; printf 'url=%s\ntrack=stable\nautomatic=off\n' {} \
             > /etc/lamadist/update.conf",
            mute.url("")
        ),
    );
    mute.after(20 << 20);
    let start = Instant::now();
    let (ok, said) = tries(&vm, "lama-node update install");
    println!(
        "in the middle: {:.0} s\n{said}",
        start.elapsed().as_secs_f64()
    );
    assert!(ok, "{said}");
    for says in [
        "no delta bundle: ",
        "came no further for 15 minutes; RAUC was stopped",
        "; the whole bundle is loaded first",
    ] {
        assert!(said.contains(says), "{says}: {said}");
    }
    let status = standing(&vm);
    assert_eq!(
        status["trial"]["loaded"], status["trial"]["size"],
        "{status}"
    );
    reboot(&mut vm);
    healthy(&mut vm);
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], true, "{status}");
    assert_eq!(slot(&vm), "b");
    vm.stop(Stop::Now).unwrap();
}
