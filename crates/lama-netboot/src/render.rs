// SPDX-License-Identifier: Apache-2.0
//! Texts for others: the iPXE script, and what a DHCP server has to be told.

use serde::Serialize;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The architecture of the machines that boot, as DHCP's option 93 names it (RFC 4578, IANA's
/// "Processor Architecture Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// x86-64.
    X86_64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    /// Numbers of a firmware that boots by TFTP.
    fn tftp(self) -> &'static [u16] {
        match self {
            // 9 is what the specification says, 7 what most firmware does.
            Self::X86_64 => &[7, 9],
            Self::Arm64 => &[11],
        }
    }

    /// The number of a firmware that boots by HTTP.
    fn http(self) -> u16 {
        match self {
            Self::X86_64 => 16,
            Self::Arm64 => 19,
        }
    }

    /// dnsmasq's name in `pxe-service`.
    fn pxe_service(self) -> &'static str {
        match self {
            Self::X86_64 => "X86-64_EFI",
            Self::Arm64 => "ARM64_EFI",
        }
    }
}

/// Where the server is reached.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its address.
    pub address: IpAddr,
    /// The port of HTTP.
    pub http_port: u16,
    /// The port of TFTP, where it serves it.
    pub tftp_port: Option<u16>,
    /// The machines.
    pub architecture: Architecture,
}

/// What to tell a DHCP server, for each of some.
#[derive(Debug, Clone, Serialize)]
pub struct Dhcp {
    /// dnsmasq, as the network's DHCP server.
    pub dnsmasq: String,
    /// dnsmasq beside the network's DHCP server, which stays as it is (proxy DHCP).
    pub proxy: String,
    /// ISC dhcpd.
    pub isc: String,
    /// Kea.
    pub kea: String,
}

impl Place {
    /// The URL of a file, by HTTP.
    pub fn url(&self, name: &str) -> String {
        let host = match self.address {
            IpAddr::V4(a) => a.to_string(),
            IpAddr::V6(a) => format!("[{a}]"),
        };
        format!("http://{host}:{}/{name}", self.http_port)
    }

    /// PXE's clients ask at port 69 and at no other.
    fn pxe(&self) -> bool {
        self.tftp_port == Some(69)
    }

    /// What to tell DHCP servers.
    pub fn dhcp(&self) -> Dhcp {
        Dhcp {
            dnsmasq: self.dnsmasq(),
            proxy: self.proxy(),
            isc: self.isc(),
            kea: self.kea(),
        }
    }

    fn dnsmasq(&self) -> String {
        let mut o = String::from("dhcp-match=set:lamadist-ipxe,175\n");
        let http = self.architecture.http();
        let _ = write!(
            o,
            "dhcp-boot=tag:lamadist-ipxe,{}\n\
             dhcp-match=set:lamadist-http,option:client-arch,{http}\n\
             dhcp-option-force=tag:lamadist-http,60,HTTPClient\n\
             dhcp-boot=tag:lamadist-http,{}\n",
            self.url("boot.ipxe"),
            self.url("installer.efi"),
        );
        if self.pxe() {
            for n in self.architecture.tftp() {
                let _ = writeln!(o, "dhcp-match=set:lamadist-pxe,option:client-arch,{n}");
            }
            let _ = writeln!(
                o,
                "dhcp-boot=tag:lamadist-pxe,tag:!lamadist-ipxe,installer.efi,,{}",
                self.address
            );
        }
        o
    }

    fn proxy(&self) -> String {
        let mut o = format!(
            "port=0\n\
             dhcp-range={},proxy\n\
             dhcp-match=set:lamadist-ipxe,175\n\
             dhcp-boot=tag:lamadist-ipxe,{}\n",
            self.address,
            self.url("boot.ipxe")
        );
        if self.pxe() {
            let _ = writeln!(
                o,
                "pxe-service=tag:!lamadist-ipxe,{},\"LamaDist\",installer.efi,{}",
                self.architecture.pxe_service(),
                self.address
            );
        }
        o
    }

    fn isc(&self) -> String {
        let mut o = format!(
            "option lamadist-arch code 93 = unsigned integer 16;\n\
             option lamadist-ipxe code 175 = string;\n\
             if exists lamadist-ipxe {{\n\
             \x20 filename \"{}\";\n\
             }} elsif option lamadist-arch = {} {{\n\
             \x20 option vendor-class-identifier \"HTTPClient\";\n\
             \x20 filename \"{}\";\n\
             }}",
            self.url("boot.ipxe"),
            self.architecture.http(),
            self.url("installer.efi"),
        );
        if self.pxe() {
            let any = self.architecture.tftp().iter();
            let any: Vec<String> = any.map(|n| format!("option lamadist-arch = {n}")).collect();
            let _ = write!(
                o,
                " elsif {} {{\n\x20 next-server {};\n\x20 filename \"installer.efi\";\n}}",
                any.join(" or "),
                self.address
            );
        }
        o.push('\n');
        o
    }

    fn kea(&self) -> String {
        let mut classes = format!(
            "\"client-classes\": [\n\
             \x20 {{ \"name\": \"lamadist-ipxe\", \"test\": \"option[175].exists\",\n\
             \x20   \"boot-file-name\": \"{}\" }},\n\
             \x20 {{ \"name\": \"lamadist-http\", \"test\": \"option[93].hex == 0x{:04x}\",\n\
             \x20   \"option-data\": [ {{ \"name\": \"vendor-class-identifier\", \"data\": \"HTTPClient\" }} ],\n\
             \x20   \"boot-file-name\": \"{}\" }}",
            self.url("boot.ipxe"),
            self.architecture.http(),
            self.url("installer.efi"),
        );
        if self.pxe() {
            let any = self.architecture.tftp().iter();
            let any: Vec<String> = any
                .map(|n| format!("option[93].hex == 0x{n:04x}"))
                .collect();
            let _ = write!(
                classes,
                ",\n\x20 {{ \"name\": \"lamadist-pxe\",\n\
                 \x20   \"test\": \"not option[175].exists and ({})\",\n\
                 \x20   \"next-server\": \"{}\", \"boot-file-name\": \"installer.efi\" }}",
                any.join(" or "),
                self.address
            );
        }
        classes.push_str("\n]\n");
        classes
    }
}

/// `boot.ipxe`: the installer of the machine whose hardware address, or else whose name as DHCP gave
/// it, is known; else the one of no machine in particular. Names are relative, so it works from
/// wherever it was fetched.
///
/// `what` is said on the screen.
pub fn ipxe(what: &str) -> String {
    let what: String = what.chars().filter(|c| !c.is_control()).collect();
    format!(
        "#!ipxe\n\
         echo {what}\n\
         chain --autofree mac/${{netX/mac:hexhyp}}/installer.efi ||\n\
         isset ${{hostname}} && chain --autofree hosts/${{hostname}}/installer.efi ||\n\
         chain --autofree installer.efi ||\n\
         echo No installer was started. Under Secure Boot iPXE itself and the installer both have to be signed.\n\
         exit 1\n"
    )
}

/// A hardware address as it stands in file names, the way iPXE's `:hexhyp` writes it.
pub fn mac_name(mac: &str) -> String {
    mac.to_ascii_lowercase().replace(':', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(tftp_port: Option<u16>, architecture: Architecture) -> Place {
        Place {
            address: [192, 168, 1, 2].into(),
            http_port: 8080,
            tftp_port,
            architecture,
        }
    }

    fn all(d: &Dhcp) -> String {
        format!(
            "== dnsmasq\n{}== proxy\n{}== isc\n{}== kea\n{}",
            d.dnsmasq, d.proxy, d.isc, d.kea
        )
    }

    #[test]
    fn dhcp_for_x86_64() {
        insta::assert_snapshot!(all(&place(Some(69), Architecture::X86_64).dhcp()));
    }

    #[test]
    fn dhcp_for_arm64_without_tftp() {
        insta::assert_snapshot!(all(&place(None, Architecture::Arm64).dhcp()));
    }

    #[test]
    fn the_script() {
        insta::assert_snapshot!(ipxe("LamaDist 0.1.0\n (x86_64/base)"));
        assert_eq!(mac_name("52:54:00:AB:cd:ef"), "52-54-00-ab-cd-ef");
    }

    #[test]
    fn another_port_of_tftp_is_no_use_to_pxe_and_ipv6_is_bracketed() {
        let p = place(Some(6969), Architecture::X86_64).dhcp();
        assert!(!all(&p).contains("lamadist-pxe"));
        let p = Place {
            address: "fd00::1".parse().unwrap(),
            ..place(None, Architecture::X86_64)
        };
        assert_eq!(p.url("a"), "http://[fd00::1]:8080/a");
    }
}
