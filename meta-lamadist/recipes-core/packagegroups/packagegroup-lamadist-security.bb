# SPDX-License-Identifier: Apache-2.0
# Rendered by `lamadist oe render` from distro/; change it there.
SUMMARY = "LamaDist's package group security"
DESCRIPTION = "A firewall that is closed unless opened, and mandatory access control"
HOMEPAGE = "${LAMADIST_HOME_URL}"
SECTION = "base"

inherit packagegroup features_check

# The packages are in layers that only this policy is sure of.
REQUIRED_DISTRO_FEATURES = "lamadist"

RDEPENDS:${PN} = " \
    apparmor \
    libcap-bin \
    nftables \
"
