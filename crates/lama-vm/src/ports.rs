// SPDX-License-Identifier: Apache-2.0
//! Which host ports the kernel gave for the guest's.

/// A forwarded TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Forward {
    /// The port on 127.0.0.1.
    pub host: u16,
    /// The port in the guest.
    pub guest: u16,
}

/// Reads the answer of QEMU's monitor command `info usernet`: the lines
/// `TCP[HOST_FORWARD]  FD  SOURCE-ADDRESS  PORT  DEST-ADDRESS  PORT  RECVQ  SENDQ`.
pub fn parse_usernet(text: &str) -> Vec<Forward> {
    text.lines()
        .filter_map(|l| {
            let f: Vec<&str> = l.split_ascii_whitespace().collect();
            match f.as_slice() {
                ["TCP[HOST_FORWARD]", _, _, host, _, guest, ..] => Some(Forward {
                    host: host.parse().ok()?,
                    guest: guest.parse().ok()?,
                }),
                _ => None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_real_answer() {
        let text = "Hub -1 (n0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]   8       127.0.0.1 42261       10.0.2.15    22     0     0\r\n  TCP[HOST_FORWARD]   3       127.0.0.1 33179       10.0.2.15   443     0     0\r\n  TCP[ESTABLISHED]   9       127.0.0.1 42261       10.0.2.15    22     0     0\r\n  UDP[236 sec]  11       10.0.2.15 51000        10.0.2.3    53     0     0\r\n";
        assert_eq!(
            parse_usernet(text),
            [
                Forward {
                    host: 42261,
                    guest: 22
                },
                Forward {
                    host: 33179,
                    guest: 443
                }
            ]
        );
    }

    #[test]
    fn nonsense() {
        for t in [
            "",
            "TCP[HOST_FORWARD]",
            "TCP[HOST_FORWARD] 8 127.0.0.1 99999 10.0.2.15 22 0 0",
        ] {
            assert!(parse_usernet(t).is_empty(), "{t}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(s in ".*") {
            parse_usernet(&s);
        }
    }
}
