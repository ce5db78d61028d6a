// SPDX-License-Identifier: Apache-2.0
//! A server that is gone for RAUC at the beginning of a stream or in the middle of it, without a word
//! or with one: `mise run campaign`. The machine is held up by neither, and loads the bundle instead.

use crate::common::installed::{ask, healthy, node, reboot};
use crate::common::updates::{Next, Web, judged, slot, standing, tries};
use crate::common::{Bench, base, turn};
use lama_vm::{Stop, Vm};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Instant;

/// What stands before a server. RAUC gets so many bytes of it, and no more.
#[derive(Clone)]
struct Mute {
    port: u16,
    left: Arc<AtomicI64>,
    /// Whether connections end then; else they are held, and nothing comes.
    ends: Arc<AtomicBool>,
}

impl Mute {
    fn before(web: &Web) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self {
            port: listener.local_addr().unwrap().port(),
            left: Arc::default(),
            ends: Arc::default(),
        };
        let (of, to) = (this.clone(), web.port());
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                of.pass(client.unwrap(), server);
            }
        });
        this
    }

    fn url(&self, name: &str) -> String {
        format!("http://10.0.2.2:{}/{name}", self.port)
    }

    fn after(&self, bytes: i64, ends: bool) {
        self.ends.store(ends, SeqCst);
        self.left.store(bytes, SeqCst);
    }

    /// Passes on what both sides say, to RAUC only as long as there is something left.
    fn pass(&self, client: TcpStream, server: TcpStream) {
        // Not all requests of RAUC 1.13 say who asks; curl's do.
        let rauc = Arc::new(AtomicBool::new(true));
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let is = rauc.clone();
        std::thread::spawn(move || {
            each(&mut from, |data| {
                if String::from_utf8_lossy(data).contains("User-Agent: curl/") {
                    is.store(false, SeqCst);
                }
                to.write_all(data).is_ok()
            });
            let _ = to.shutdown(Shutdown::Both);
        });
        let (mut from, mut to, this) = (server, client, self.clone());
        std::thread::spawn(move || {
            each(&mut from, |data| {
                let size = i64::try_from(data.len()).unwrap();
                let more = !rauc.load(SeqCst) || this.left.fetch_sub(size, SeqCst) > size;
                more && to.write_all(data).is_ok()
            });
            // Held, where it does not end: the other thread has a copy until the client goes.
            if this.ends.load(SeqCst) || !rauc.load(SeqCst) {
                let _ = to.shutdown(Shutdown::Both);
            }
        });
    }
}

fn each(from: &mut TcpStream, mut what: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 1 << 14];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !what(&buffer[..n]) {
            return;
        }
    }
}

/// Installs by the channel file, whose delta bundle the server has lost.
fn streams_in_vain(vm: &Vm, what: &str) {
    let start = Instant::now();
    let (ok, said) = tries(vm, "lama-node update install");
    println!("{what}: {:.0} s\n{said}", start.elapsed().as_secs_f64());
    assert!(ok, "{said}");
    for says in [
        "no delta bundle: ",
        "streamed, it was not installed: ",
        "; the whole bundle is loaded first",
    ] {
        assert!(said.contains(says), "{says}: {said}");
    }
    let status = standing(vm);
    let trial = &status["trial"];
    assert_eq!(trial["loaded"], trial["size"], "{status}");
    assert!(status["failed"].is_null(), "{status}");
}

#[test]
#[ignore = "a campaign: half an hour (mise run campaign)"]
fn a_server_that_is_gone_in_the_middle_holds_nobody_up() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let bench = Bench::new(built);
    let mut vm = bench.clone_of(&node.dir, "waits").boot();
    healthy(&mut vm);
    let next = Next::of("waits", |_| ());
    next.encrypt_to(&vm);
    let mut files = next.publish(built);
    files.retain(|(name, _)| !name.ends_with(".delta"));
    let (bundle, _) = files.iter().find(|f| f.0.ends_with(".raucb")).unwrap();
    let web = Web::serve(&files);
    let mute = Mute::before(&web);

    mute.after(0, false);
    let start = Instant::now();
    let url = mute.url(bundle);
    let (ok, said) = tries(&vm, &format!("lama-node update install {url}"));
    println!(
        "silent at the beginning: {:.0} s\n{said}",
        start.elapsed().as_secs_f64()
    );
    let says = "came no further for 5 minutes; RAUC was stopped";
    assert!(!ok && said.contains(says), "{said}");
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
    // The root comes first, of which it has most; then the UKI, 46 MiB: it is in that.
    mute.after(20 << 20, true);
    streams_in_vain(&vm, "it hangs up in the middle");
    // The kernel ends it, by the time limit of RAUC's network block device.
    mute.after(20 << 20, false);
    streams_in_vain(&vm, "silent in the middle");
    reboot(&mut vm);
    healthy(&mut vm);
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], true, "{status}");
    assert_eq!(slot(&vm), "b");
    vm.stop(Stop::Now).unwrap();
}
