// SPDX-License-Identifier: Apache-2.0

use super::*;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0kYq5X0sG0PjV5hYx0tN0Jm5d2qYp8yF0qJbq0r3mT admin";

fn parse(text: &str) -> Result<Checked> {
    Host::parse(Path::new("hosts/nas.toml"), text)
}

fn credentials(cmdline: &str) -> Vec<(String, String)> {
    cmdline
        .split(' ')
        .filter_map(|w| w.strip_prefix("systemd.set_credential_binary="))
        .filter_map(|w| w.split_once(':'))
        .map(|(n, v)| {
            let text = BASE64.decode(v).unwrap();
            (n.to_owned(), String::from_utf8(text).unwrap())
        })
        .collect()
}

#[test]
fn what_a_host_says_becomes_kernel_parameters() {
    let c = parse(&format!(
        r#"
        bsp = "x86_64"
        machine-id = "0123456789abcdef0123456789abcdef"
        time-zone = "Europe/Berlin"
        ssh-keys = ["{KEY}"]
        consoles = ["ttyS1,115200"]
        [[network]]
        mac = "52:54:00:12:34:56"
        addresses = ["192.168.1.5/24", "fd00::5/64"]
        gateways = ["192.168.1.1", "fd00::1"]
        dns = ["192.168.1.1"]
        domains = ["home.arpa"]
        ntp = ["pool.example"]
        [update]
        url = "https://updates.example/a%20b"
        track = "stable"
        "#
    ))
    .unwrap();
    assert_eq!(c.hostname, "nas");
    assert!(c.cmdline.starts_with(
        "systemd.hostname=nas systemd.machine_id=0123456789abcdef0123456789abcdef \
         console=ttyS1,115200 systemd.set_credential_binary="
    ));
    let found = credentials(&c.cmdline);
    assert_eq!(found[0].0, "network.network.10-lamadist-host-0");
    assert_eq!(
        found[0].1,
        "[Match]\nMACAddress=52:54:00:12:34:56\n[Network]\nDHCP=no\n\
         Address=192.168.1.5/24\nAddress=fd00::5/64\n\
         Gateway=192.168.1.1\nGateway=fd00::1\nDNS=192.168.1.1\n\
         Domains=home.arpa\nNTP=pool.example\n"
    );
    assert_eq!(
        found[1],
        (
            "tmpfiles.extra".to_owned(),
            format!(
                "L+ /etc/localtime - - - - ../usr/share/zoneinfo/Europe/Berlin\n\
                 f {AUTHORIZED_KEYS} 0600 root root - {KEY}\\n\n\
                 f+ {} 0644 root root - url=https://updates.example/a%%20b\\ntrack=stable\\n\n",
                update::PATH
            )
        )
    );
}

#[test]
fn little_is_enough() {
    let c = parse("bsp = \"x86_64\"").unwrap();
    assert_eq!(c.cmdline, "systemd.hostname=nas");
    let c = parse("[[network]]").unwrap();
    assert!(credentials(&c.cmdline)[0].1.ends_with("DHCP=yes\n"));
}

#[test]
fn mistakes_are_told_with_their_line() {
    for (text, says) in [
        ("hostname = \"-x\"", "is no host name"),
        ("hostname = \"a b\"", "is no host name"),
        (
            "machine-id = \"00000000000000000000000000000000\"",
            "is no machine ID",
        ),
        (
            "machine-id = \"0123456789ABCDEF0123456789ABCDEF\"",
            "is no machine ID",
        ),
        ("time-zone = \"Europe/Atlantis\"", "time zone database"),
        ("time-zone = \"../../../etc/shadow\"", "time zone database"),
        ("ssh-keys = [\"ssh-ed25519 AAAA\"]", "is no SSH public key"),
        ("consoles = [\"ttyS0 init=/bin/sh\"]", "is no console"),
        ("[[network]]\ninterface = \"a b\"", "name of an interface"),
        ("[[network]]\nmac = \"1:2\"", "hardware address"),
        (
            "[[network]]\nmac = \"52:54:00:12:34:56\"\ninterface = \"e\"",
            "not by both",
        ),
        (
            "[[network]]\naddresses = [\"192.168.1.5\"]",
            "prefix length",
        ),
        (
            "[[network]]\naddresses = [\"192.168.1.5/33\"]",
            "prefix length",
        ),
        (
            "[[network]]\naddresses = [\"192.168.1.5/24\"]\ngateways = [\"192.168.2.1\"]",
            "in none of the networks",
        ),
        ("[[network]]\ndns = [\"dns.example\"]", "is no IP address"),
        ("[[network]]\nntp = [\"a b\"]", "is no time server"),
        ("hostnam = \"x\"", "unknown field"),
        (
            "[update]\nurl = \"ftp://a\"",
            "is no address of an update server",
        ),
        (
            "[update]\nurl = \"https://me:x@a\"",
            "everybody on the machine could read",
        ),
        ("[update]\ntrack = \"a b\"", "is no name of a track"),
        ("[install]\ndsik = \"any\"", "unknown field"),
        ("[install]\ndisk = \"sda\"", "is no disk"),
        ("[install]\nwipe = true", "expected a string"),
        ("[install]\nreinstall = \"1\"", "is no UUID"),
        (
            "[install]\nrecovery-to = [\"root\"]",
            "a key can be encrypted to",
        ),
        (
            "[install]\ndisk = \"model:a'b\"",
            "cannot stand on a command line",
        ),
    ] {
        let e = parse(&format!("# a comment\n{text}\n")).unwrap_err();
        let said = e.to_string();
        assert!(said.starts_with("hosts/nas.toml:"), "{said}");
        assert!(said.contains(says), "{text}: {said}");
        assert!(miette::Diagnostic::help(&e).is_some(), "{text}: no hint");
    }
    let many = vec![format!("{KEY:?}"); 20].join(",");
    let e = parse(&format!("ssh-keys = [{many}]")).unwrap_err();
    assert!(e.to_string().contains("1400 is the most"), "{e}");
    assert!(Host::parse(Path::new("hosts/a_b.toml"), "").is_err());
}

#[test]
fn the_installers_answers_are_apart() {
    let c = parse("[install]\ndisk = \"model:A B\"\nwipe = \"yes\"").unwrap();
    assert_eq!(c.cmdline, "systemd.hostname=nas");
    assert_eq!(
        install::cmdline(&c.install),
        "\"lamadist.install.disk=model:A B\" lamadist.install.wipe=yes"
    );
    let over = [Answer::parse("disk = any").unwrap()];
    let all = install::merge(&c.install, &over);
    assert_eq!(
        install::cmdline(&all),
        "lamadist.install.wipe=yes lamadist.install.disk=any"
    );
    let text = toml::to_string(&Install::of(&all)).unwrap();
    assert_eq!(text, "disk = \"any\"\nwipe = \"yes\"\n");
}

proptest::proptest! {
    #[test]
    fn no_word_gets_into_the_command_line(value in "[ -~]{0,40}") {
        for key in ["hostname", "machine-id", "time-zone"] {
            if let Ok(c) = parse(&format!("{key} = {}", toml::Value::from(value.as_str()))) {
                proptest::prop_assert!(c.cmdline.split(' ').all(|w| w.starts_with("systemd.")));
            }
        }
    }
}
