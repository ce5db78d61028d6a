# SPDX-License-Identifier: Apache-2.0
# Rendered by `lamadist oe render` from distro/; change it there.
SUMMARY = "LamaDist's package group core"
DESCRIPTION = "What every LamaDist machine runs"
HOMEPAGE = "${LAMADIST_HOME_URL}"
SECTION = "base"

inherit packagegroup features_check

# The packages are in layers that only this policy is sure of.
REQUIRED_DISTRO_FEATURES = "lamadist"

RDEPENDS:${PN} = " \
    base-files \
    base-passwd \
    bash \
    ca-certificates \
    coreutils \
    cryptsetup \
    curl \
    dbus \
    diffutils \
    dosfstools \
    e2fsprogs \
    e2fsprogs-e2fsck \
    e2fsprogs-mke2fs \
    e2fsprogs-resize2fs \
    e2fsprogs-tune2fs \
    efibootmgr \
    findutils \
    gawk \
    grep \
    gzip \
    iproute2 \
    iputils-ping \
    kmod \
    less \
    libdevmapper \
    libnss-myhostname \
    libnss-resolve \
    libnss-systemd \
    libtss2 \
    libtss2-mu \
    libtss2-tcti-device \
    ncurses-terminfo-base \
    ncurses-tools \
    netbase \
    openssh-keygen \
    openssh-scp \
    openssh-sftp-server \
    openssh-ssh \
    openssh-sshd \
    pam-plugin-deny \
    pam-plugin-limits \
    pam-plugin-permit \
    pam-plugin-unix \
    procps \
    rauc \
    rauc-service \
    sed \
    shadow \
    shadow-base \
    systemd \
    systemd-crypt \
    tar \
    tpm2-tools \
    tpm2-tss \
    tzdata \
    udev \
    util-linux-agetty \
    util-linux-blkid \
    util-linux-fdisk \
    util-linux-findmnt \
    util-linux-fstrim \
    util-linux-losetup \
    util-linux-lsblk \
    util-linux-mkfs \
    util-linux-mount \
    util-linux-sfdisk \
    util-linux-sulogin \
    util-linux-umount \
    util-linux-wipefs \
    xz \
    zstd \
"
