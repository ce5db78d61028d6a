# SPDX-License-Identifier: Apache-2.0
# Rendered by `lamadist oe render` from distro/; change it there.
SUMMARY = "LamaDist's package group homelab"
DESCRIPTION = "What a home server and NAS is for: containers, files, disks, power"
HOMEPAGE = "${LAMADIST_HOME_URL}"
SECTION = "base"

inherit packagegroup features_check

# The packages are in layers that only this policy is sure of.
REQUIRED_DISTRO_FEATURES = "lamadist"

RDEPENDS:${PN} = " \
    aardvark-dns \
    avahi-daemon \
    btrfs-tools \
    crun \
    ethtool \
    fuse-overlayfs \
    hdparm \
    lvm2 \
    mdadm \
    netavark \
    nfs-utils \
    nfs-utils-client \
    nvme-cli \
    passt \
    podman \
    rsync \
    samba \
    smartmontools \
    wireguard-tools \
    xfsprogs \
"
