# SPDX-License-Identifier: Apache-2.0
# Rendered by `lamadist oe render` from distro/; change it there.
SUMMARY = "LamaDist's package group development"
DESCRIPTION = "Tools to look into a running system, and a login on the console"
HOMEPAGE = "${LAMADIST_HOME_URL}"
SECTION = "base"

inherit packagegroup features_check

# The packages are in layers that only this policy is sure of.
REQUIRED_DISTRO_FEATURES = "lamadist"

RDEPENDS:${PN} = " \
    bash-completion \
    file \
    gdb \
    git \
    htop \
    iperf3 \
    jq \
    lsof \
    pciutils \
    strace \
    tcpdump \
    tmux \
    usbutils \
    vim-tiny \
"
