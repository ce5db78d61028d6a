// SPDX-License-Identifier: Apache-2.0
//! QEMU's command line, rendered from a configuration. Names of files in the machine's directory
//! are relative to it; QEMU is started there.

use crate::accel::Accel;
use crate::config::{Arch, Bus, Display, Firmware, NetBoot, Network, OnReboot, Smm, Tpm, VmConfig};
use crate::disk::Drive;
use crate::firmware;
use serde_json::json;
use std::path::Path;
use uuid::Uuid;

/// Where the serial console goes, besides `console.log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleTo {
    /// The socket `console.sock`.
    Socket,
    /// Standard input and output, with QEMU's monitor behind Ctrl-A.
    Terminal,
}

/// What a start adds to a configuration.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The accelerator.
    pub accel: Accel,
    /// The machine's UUID.
    pub uuid: Uuid,
    /// The files behind its disks, in their order.
    pub drives: Vec<Drive>,
    /// Where its console goes.
    pub console: ConsoleTo,
    /// The port of its SPICE server.
    pub spice_port: u16,
    /// Files (relative) that hold one SMBIOS type 11 string each.
    pub smbios: Vec<String>,
}

/// QEMU's arguments.
pub fn command_line(c: &VmConfig, p: &Plan) -> Vec<String> {
    let mut a = Args(Vec::new());
    a.flag("-nodefaults").flag("-no-user-config");
    a.add("-name", format!("guest={}", c.name))
        .add("-uuid", p.uuid.to_string());
    machine(&mut a, c, p);
    a.add("-smp", c.cpus.to_string())
        .add("-m", format!("{}M", c.memory_mib));
    a.add("-rtc", "base=utc");
    if c.on_reboot == OnReboot::Exit {
        a.flag("-no-reboot");
    }
    a.add("-chardev", "socket,id=qmp,path=qmp.sock,server=on,wait=off");
    a.add("-mon", "chardev=qmp,mode=control");
    console(&mut a, p);
    a.add("-object", "rng-builtin,id=rng0")
        .add("-device", "virtio-rng-pci,rng=rng0");
    network(&mut a, c);
    disks(&mut a, c, p);
    if c.tpm != Tpm::None {
        a.add("-chardev", "socket,id=swtpm,path=swtpm.sock");
        a.add("-tpmdev", "emulator,id=tpm0,chardev=swtpm");
        let device = if c.arch == Arch::X86_64 {
            "tpm-crb"
        } else {
            "tpm-tis-device"
        };
        a.add("-device", format!("{device},tpmdev=tpm0"));
    }
    for file in &p.smbios {
        a.add("-smbios", format!("type=11,path={file}"));
    }
    display(&mut a, c, p);
    a.0.extend(c.extra_args.iter().cloned());
    a.0
}

struct Args(Vec<String>);

impl Args {
    fn flag(&mut self, f: &str) -> &mut Self {
        self.0.push(f.into());
        self
    }
    fn add(&mut self, option: &str, value: impl Into<String>) -> &mut Self {
        self.0.push(option.into());
        self.0.push(value.into());
        self
    }
}

fn machine(a: &mut Args, c: &VmConfig, p: &Plan) {
    let mut m = match c.arch {
        Arch::X86_64 => "q35,vmport=off".to_owned(),
        Arch::Arm64 => "virt".to_owned(),
    };
    let smm = matches!(c.firmware, Firmware::Uefi { smm: Smm::On, .. }) && c.arch == Arch::X86_64;
    if c.arch == Arch::X86_64 {
        m += if smm { ",smm=on" } else { ",smm=off" };
    }
    if let Firmware::Uefi { smm: want, .. } = &c.firmware {
        m += ",pflash0=fw-code,pflash1=fw-vars";
        flash(a, "fw-code", &firmware::code(c.arch, *want), true);
        flash(a, "fw-vars", Path::new("vars.fd"), false);
    }
    a.add("-machine", m);
    if smm {
        // Only code in SMM may write the variable store.
        a.add("-global", "driver=cfi.pflash01,property=secure,value=on");
        a.add("-global", "ICH9-LPC.disable_s3=1");
    }
    if c.arch == Arch::X86_64 {
        // As on real hardware: the chipset's watchdog may reset the machine.
        a.add("-global", "ICH9-LPC.noreboot=off");
    }
    match p.accel {
        Accel::Kvm => a.add("-accel", "kvm").add("-cpu", "host"),
        Accel::Tcg => {
            a.add("-accel", "tcg,thread=multi");
            // String instructions are emulated a byte at a time, and kernel and C library copy by them
            // where the processor calls them fast. Pointer authentication with the architected
            // cipher costs half the speed.
            let cpu = if c.arch == Arch::X86_64 {
                "max,erms=off,fsrm=off,fsrs=off,fzrm=off,fsrc=off"
            } else {
                "max,pauth-impdef=on"
            };
            a.add("-cpu", cpu)
        }
    };
}

fn flash(a: &mut Args, node: &str, file: &Path, read_only: bool) {
    let v = json!({
        "driver": "raw",
        "node-name": node,
        "read-only": read_only,
        "file": { "driver": "file", "filename": file.to_string_lossy() },
    });
    a.add("-blockdev", v.to_string());
}

fn console(a: &mut Args, p: &Plan) {
    match p.console {
        ConsoleTo::Socket => {
            a.add(
                "-chardev",
                "socket,id=console,path=console.sock,server=on,wait=off,logfile=console.log",
            );
        }
        ConsoleTo::Terminal => {
            a.add(
                "-chardev",
                "stdio,id=console,mux=on,signal=off,logfile=console.log",
            );
            a.add("-mon", "chardev=console,mode=readline");
        }
    }
    a.add("-serial", "chardev:console");
}

fn network(a: &mut Args, c: &VmConfig) {
    let restrict = match c.network {
        Network::None => return,
        Network::Isolated => "on",
        Network::User => "off",
    };
    // Port 0: the kernel gives a free one; `info usernet` tells which.
    let mut n = format!("user,id=net0,restrict={restrict},hostfwd=tcp:127.0.0.1:0-:22");
    for port in c.guest_ports.iter().filter(|p| **p != 22) {
        n += &format!(",hostfwd=tcp:127.0.0.1:0-:{port}");
    }
    if let NetBoot::Ipxe(url) = &c.netboot {
        n += &format!(",bootfile={url}");
    }
    a.add("-netdev", n);
    // Where nothing starts from the network, the card is without its boot ROM, and the firmware's own
    // network stack is switched off. (AAVMF still tries HTTP.)
    let rom = match c.netboot {
        NetBoot::Off | NetBoot::Http => ",romfile=",
        NetBoot::Ipxe(_) => "",
    };
    a.add("-device", format!("virtio-net-pci,netdev=net0{rom}"));
    if c.firmware != Firmware::Bios {
        let stack = c.netboot != NetBoot::Off;
        let pxe = matches!(c.netboot, NetBoot::Ipxe(_));
        for (what, on) in [
            ("IPv4Support", stack),
            ("IPv4PXESupport", pxe),
            ("IPv6Support", false),
            ("IPv6PXESupport", false),
        ] {
            if !on {
                a.add(
                    "-fw_cfg",
                    format!("name=opt/org.tianocore/{what},string=no"),
                );
            }
        }
    }
}

fn disks(a: &mut Args, c: &VmConfig, p: &Plan) {
    let usb = c.disks.iter().any(|d| d.bus == Bus::Usb) || c.display != Display::None;
    if usb {
        a.add("-device", "qemu-xhci,id=usb");
    }
    for (n, (disk, drive)) in c.disks.iter().zip(&p.drives).enumerate() {
        let node = format!("disk{n}");
        let v = json!({
            "driver": drive.format.name(),
            "node-name": node,
            "read-only": drive.read_only,
            "discard": "unmap",
            "cache": { "direct": false, "no-flush": drive.disposable },
            "file": {
                "driver": "file",
                "filename": drive.file.to_string_lossy(),
                "aio": "threads",
                "discard": "unmap",
            },
        });
        a.add("-blockdev", v.to_string());
        let mut device = match disk.bus {
            Bus::Virtio => json!({ "driver": "virtio-blk-pci" }),
            Bus::Usb => json!({ "driver": "usb-storage", "bus": "usb.0", "removable": true }),
            // NVMe insists on a serial number.
            Bus::Nvme => json!({ "driver": "nvme", "serial": format!("nvme{n}") }),
        };
        if let Some(o) = device.as_object_mut() {
            o.insert("id".into(), format!("dev{n}").into());
            o.insert("drive".into(), node.into());
            if let Some(s) = &disk.serial {
                o.insert("serial".into(), s.clone().into());
            }
            if let Some(b) = disk.boot_index {
                o.insert("bootindex".into(), b.into());
            }
        }
        a.add("-device", device.to_string());
    }
}

fn display(a: &mut Args, c: &VmConfig, p: &Plan) {
    a.add("-display", "none");
    match c.display {
        Display::None => {
            a.add("-vga", "none");
            return;
        }
        Display::Spice => {
            a.add(
                "-spice",
                format!("addr=127.0.0.1,port={},disable-ticketing=on", p.spice_port),
            );
            a.add("-device", "virtio-serial-pci");
            a.add("-chardev", "spicevmc,id=vdagent,name=vdagent");
            a.add(
                "-device",
                "virtserialport,chardev=vdagent,name=com.redhat.spice.0",
            );
        }
        // QEMU itself looks for a free display number.
        Display::Vnc => {
            a.add("-vnc", "127.0.0.1:0,to=999");
        }
    }
    let vga = if c.arch == Arch::X86_64 {
        "virtio-vga"
    } else {
        "virtio-gpu-pci"
    };
    a.add("-device", vga);
    a.add("-device", "usb-tablet,bus=usb.0")
        .add("-device", "usb-kbd,bus=usb.0");
}
