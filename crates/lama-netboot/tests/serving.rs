// SPDX-License-Identifier: Apache-2.0
//! Both servers, asked over the loopback: by clients that send exactly what they are told to, and by
//! curl.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use lama_netboot::{Event, Files, Options, Server, Stopper};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Running {
    http: u16,
    tftp: u16,
    stopper: Stopper,
    thread: Option<JoinHandle<u64>>,
    events: Arc<Mutex<Vec<Event>>>,
    _dir: tempfile::TempDir,
}

impl Running {
    fn end(&mut self) -> u64 {
        self.stopper.stop();
        self.thread.take().unwrap().join().unwrap()
    }

    fn said(&self) -> String {
        let events = self.events.lock().unwrap();
        events.iter().map(|e| format!("{e}\n")).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}

/// Bytes in which every place is told from every other.
fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

fn serve(len: usize, count: Option<u64>) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, data(len)).unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    let mut files = Files::new();
    files.add_file("hosts/nas/installer.efi", &file).unwrap();
    files
        .alias("installer.efi", "hosts/nas/installer.efi")
        .unwrap();
    files.add_text("boot.ipxe", "#!ipxe\nexit\n").unwrap();
    let server = Server::bind(&Options {
        listen: HOME,
        http_port: 0,
        tftp_port: Some(0),
        count,
    })
    .unwrap();
    let (http, tftp) = (server.http_port(), server.tftp_port().unwrap());
    let stopper = server.stopper();
    let events = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&events);
    let thread = std::thread::spawn(move || {
        server
            .run(files, move |e| to.lock().unwrap().push(e))
            .unwrap()
    });
    Running {
        http,
        tftp,
        stopper,
        thread: Some(thread),
        events,
        _dir: dir,
    }
}

/// One request, as it is; the answer's head and body.
fn http(r: &Running, request: &str) -> (String, Vec<u8>) {
    let mut s = TcpStream::connect((HOME, r.http)).unwrap();
    s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    s.write_all(request.as_bytes()).unwrap();
    let mut all = Vec::new();
    s.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(all[..end].to_vec())
        .unwrap()
        .to_lowercase();
    (head, all[end + 4..].to_vec())
}

fn get(r: &Running, path: &str, headers: &str) -> (String, Vec<u8>) {
    let rest = "Host: x\r\nConnection: close\r\n";
    http(r, &format!("GET {path} HTTP/1.1\r\n{rest}{headers}\r\n"))
}

#[test]
fn http_gives_lengths_parts_and_heads() {
    let r = serve(1_000_003, None);
    let all = data(1_000_003);
    let (head, body) = get(&r, "/installer.efi", "");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    for line in [
        "content-length: 1000003",
        "content-type: application/efi",
        "accept-ranges: bytes",
    ] {
        assert!(head.contains(line), "no `{line}`: {head}");
    }
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert!(body == all);
    let (head, body) = http(
        &r,
        "HEAD /hosts/nas/installer.efi HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 1000003"));
    assert!(body.is_empty());
    // iPXE's first versions, and some firmware.
    let (head, body) = http(&r, "GET /installer.efi HTTP/1.0\r\n\r\n");
    assert!(head.contains(" 200 ") && body == all);

    let (head, body) = get(&r, "/installer.efi", "Range: bytes=999990-\r\n");
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert!(head.contains("content-range: bytes 999990-1000002/1000003"));
    assert!(head.contains("content-length: 13") && body == all[999_990..]);
    let (head, body) = get(&r, "/installer.efi", "Range: bytes=5-6\r\n");
    assert!(head.contains(" 206 ") && body == all[5..7]);
    let (head, _) = get(&r, "/installer.efi", "Range: bytes=1000003-\r\n");
    assert!(head.contains(" 416 ") && head.contains("content-range: bytes */1000003"));
    let (head, body) = get(&r, "/boot.ipxe", "");
    assert!(head.contains("text/plain") && body == b"#!ipxe\nexit\n");
}

#[test]
fn http_gives_nothing_else() {
    let r = serve(10, None);
    for path in [
        "/",
        "/secret",
        "/../secret",
        "/hosts/nas/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/hosts",
        "/installer.efi/",
        "/INSTALLER.EFI",
        "//",
        "/\x7f",
    ] {
        let (head, body) = get(&r, path, "");
        let refused = head.contains(" 404 ") || head.contains(" 400 ");
        assert!(refused && body.is_empty(), "{path}: {head}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = format!(
            "{method} /installer.efi HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let (head, _) = http(&r, &request);
        assert!(head.contains(" 405 ") && head.contains("allow: get, head"));
    }
    let (head, _) = http(&r, "nonsense\r\n\r\n");
    assert!(head.contains(" 400 "), "{head}");
    let said = r.said();
    assert!(said.contains("HTTP /secret: get: 404 not found"), "{said}");
}

/// A TFTP client that does what it is told.
struct Tftp {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Tftp {
    fn ask(r: &Running, opcode: u8, name: &str, options: &[(&str, &str)]) -> (Self, Vec<u8>) {
        let socket = UdpSocket::bind((HOME, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut p = vec![0, opcode];
        let words = [name, "octet"].into_iter();
        for w in words.chain(options.iter().flat_map(|(k, v)| [*k, *v])) {
            p.extend(w.as_bytes());
            p.push(0);
        }
        socket.send_to(&p, (HOME, r.tftp)).unwrap();
        let mut buf = vec![0; 70_000];
        let (n, server) = socket.recv_from(&mut buf).unwrap();
        buf.truncate(n);
        // A transfer has a port of its own.
        assert_ne!(server.port(), r.tftp);
        (Self { socket, server }, buf)
    }

    fn ack(&self, block: u16) {
        let b = block.to_be_bytes();
        self.socket
            .send_to(&[0, 4, b[0], b[1]], self.server)
            .unwrap();
    }

    /// Takes blocks until a short one, acknowledging each window.
    fn take(&self, first: Option<Vec<u8>>, size: usize, window: u16) -> (Vec<u8>, usize) {
        let (mut all, mut blocks) = (Vec::new(), 0usize);
        let mut buf = vec![0; 70_000];
        let mut next = first;
        loop {
            let packet = next.take().unwrap_or_else(|| {
                let n = self.socket.recv(&mut buf).unwrap();
                buf[..n].to_vec()
            });
            assert_eq!(packet[..2], [0, 3]);
            let number = u16::from_be_bytes([packet[2], packet[3]]);
            assert_eq!(usize::from(number), (blocks + 1) % 65_536);
            blocks += 1;
            all.extend(&packet[4..]);
            let last = packet.len() - 4 < size;
            if last || blocks % usize::from(window) == 0 {
                self.ack(number);
            }
            if last {
                return (all, blocks);
            }
        }
    }
}

#[test]
fn tftp_plain_and_with_options() {
    let r = serve(100_000, None);
    let all = data(100_000);
    let (t, first) = Tftp::ask(&r, 1, "installer.efi", &[]);
    let (got, blocks) = t.take(Some(first), 512, 1);
    assert!(got == all && blocks == 196);

    let options = [("blksize", "1468"), ("tsize", "0"), ("windowsize", "8")];
    let (t, oack) = Tftp::ask(&r, 1, "/hosts/nas/installer.efi", &options);
    let text = String::from_utf8_lossy(&oack).into_owned();
    assert_eq!(oack[..2], [0, 6], "{text}");
    for o in [
        "blksize\x001468\0",
        "tsize\x00100000\0",
        "windowsize\x008\0",
    ] {
        assert!(text.contains(o), "{text:?}");
    }
    t.ack(0);
    let (got, _) = t.take(None, 1468, 8);
    assert!(got == all);
    // Nobody makes the server hold gigabytes.
    let options = [("windowsize", "65535"), ("blksize", "65464")];
    let (_, oack) = Tftp::ask(&r, 1, "installer.efi", &options);
    let text = String::from_utf8_lossy(&oack).into_owned();
    assert!(text.contains("windowsize\x0064\0"), "{text:?}");
}

#[test]
fn tftp_goes_on_after_65535_blocks() {
    let len = 8 * 66_000 + 3;
    let r = serve(len, None);
    let options = [("blksize", "8"), ("windowsize", "64")];
    let (t, oack) = Tftp::ask(&r, 1, "installer.efi", &options);
    assert_eq!(oack[..2], [0, 6]);
    t.ack(0);
    let (got, blocks) = t.take(None, 8, 64);
    assert!(got == data(len) && blocks == 66_001);
}

#[test]
fn tftp_gives_nothing_else_and_takes_nothing() {
    let r = serve(10, None);
    for name in [
        "secret",
        "../secret",
        "/",
        "",
        "hosts/nas/../../secret",
        "..\\secret",
    ] {
        let (_, answer) = Tftp::ask(&r, 1, name, &[]);
        assert_eq!(answer[..4], [0, 5, 0, 1], "{name}");
    }
    let (_, answer) = Tftp::ask(&r, 2, "installer.efi", &[]);
    assert_eq!(answer[..2], [0, 5], "written to");
    assert!(r.said().contains("nothing can be written here"));
}

#[test]
fn it_ends_after_so_many_downloads() {
    let mut r = serve(300_000, Some(3));
    let (_, body) = get(&r, "/installer.efi", "");
    assert_eq!(body.len(), 300_000);
    // Neither texts, nor lengths, nor beginnings count.
    get(&r, "/boot.ipxe", "");
    get(&r, "/installer.efi", "Range: bytes=0-9\r\n");
    assert!(!r.thread.as_ref().unwrap().is_finished());
    let (t, first) = Tftp::ask(&r, 1, "installer.efi", &[]);
    t.take(Some(first), 512, 1);
    // The last one is complete although the server ends with it.
    let (_, body) = get(&r, "/installer.efi", "Range: bytes=10-\r\n");
    assert_eq!(body.len(), 299_990);
    assert!(r.thread.take().unwrap().join().unwrap() == 3);
}

#[test]
fn a_taken_port_is_an_error_with_a_hint() {
    let r = serve(1, None);
    let taken = Server::bind(&Options {
        listen: HOME,
        http_port: r.http,
        tftp_port: None,
        count: None,
    });
    let e = taken.unwrap_err();
    let hint = miette::Diagnostic::help(&e).unwrap().to_string();
    assert!(e.to_string().contains("HTTP on 127.0.0.1"), "{e}");
    assert!(hint.contains("another port"), "{hint}");
}

/// A client that others wrote, and more than 65535 blocks of 512 bytes.
#[test]
fn curl_gets_the_same_by_both() {
    if !Command::new("curl").arg("-V").output().is_ok_and(|o| {
        let said = String::from_utf8_lossy(&o.stdout).into_owned();
        said.contains(" tftp")
    }) {
        println!("SKIP: no curl that knows TFTP");
        return;
    }
    let len = 33 << 20;
    let r = serve(len, None);
    let dir = tempfile::tempdir().unwrap();
    let curl = |url: &str, more: &[&str]| {
        let out = dir.path().join("got");
        let status = Command::new("curl")
            .args(["-sS", "-f", "-m", "120", "-o"])
            .arg(&out)
            .args(more)
            .arg(url)
            .status()
            .unwrap();
        status
            .success()
            .then(|| std::fs::read(Path::new(&out)).unwrap())
    };
    let tftp = format!("tftp://127.0.0.1:{}/installer.efi", r.tftp);
    let http = format!("http://127.0.0.1:{}/installer.efi", r.http);
    let all = data(len);
    assert!(curl(&http, &[]).unwrap() == all);
    assert!(curl(&tftp, &["--tftp-blksize", "512"]).unwrap() == all);
    assert!(curl(&tftp, &["--tftp-no-options"]).unwrap() == all);
    assert!(curl(&format!("tftp://127.0.0.1:{}/secret", r.tftp), &[]).is_none());
}
