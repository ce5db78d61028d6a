# SPDX-License-Identifier: Apache-2.0
SUMMARY = "LamaDist's initrd: opens, verifies and mounts the root"
DESCRIPTION = "systemd, the program on the node, and what TPM, LUKS2 and dm-verity need; for the images that BitBake itself makes bootable"
HOMEPAGE = "${LAMADIST_HOME_URL}"
LICENSE = "Apache-2.0"

inherit image features_check

REQUIRED_DISTRO_FEATURES = "lamadist systemd"

PACKAGE_INSTALL = " \
    base-passwd \
    coreutils \
    cryptsetup \
    e2fsprogs-e2fsck \
    kernel-modules \
    lama-node \
    lamadist-initrd-config \
    libtss2-tcti-device \
    systemd \
    systemd-crypt \
    systemd-initramfs \
    udev \
    util-linux-mount \
"

# Only what is named: no features of the image that it starts, no kernel, no locales.
IMAGE_FEATURES = ""
IMAGE_LINGUAS = ""
PACKAGE_EXCLUDE = "kernel-image-*"
BAD_RECOMMENDATIONS += "systemd-vconsole-setup systemd-networkd udev-hwdb"

IMAGE_FSTYPES = "${INITRAMFS_FSTYPES}"
INITRAMFS_FSTYPES = "cpio.zst"
IMAGE_NAME_SUFFIX = ""
IMAGE_ROOTFS_EXTRA_SPACE = "0"

# systemd takes a root with this file for an initrd.
ROOTFS_POSTPROCESS_COMMAND += "lama_initrd_release"
lama_initrd_release() {
    ln -sfn os-release ${IMAGE_ROOTFS}${nonarch_libdir}/initrd-release
    ln -sfn ..${nonarch_libdir}/initrd-release ${IMAGE_ROOTFS}${sysconfdir}/initrd-release
}
