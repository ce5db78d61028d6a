# SPDX-License-Identifier: Apache-2.0
# NVIDIA's kernel with what LamaDist needs to boot: the same fragment as linux-yocto gets.

FILESEXTRAPATHS:prepend:lamadist-machine := "${THISDIR}/../../../../recipes-kernel/linux/files:"

SRC_URI:append:lamadist-machine = " file://lamadist.cfg"
