# SPDX-License-Identifier: Apache-2.0
SUMMARY = "What rpm and dnf accept on a LamaDist node"
DESCRIPTION = "Signed packages and feeds alone. An image has no rpm; whoever adds one to it finds this"
HOMEPAGE = "${LAMADIST_HOME_URL}"
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

SRC_URI = "file://macros.lamadist file://lamadist.repo"
S = "${UNPACKDIR}"

inherit allarch

INHIBIT_DEFAULT_DEPS = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

# In /usr, not in /etc/rpm: BitBake's own rpm reads the latter of the root that it makes, whose
# packages are not signed yet.
do_install() {
    install -D -m 0644 ${UNPACKDIR}/macros.lamadist ${D}${nonarch_libdir}/rpm/macros.d/macros.lamadist
    if [ -n "${LAMA_FEED_URI}" ]; then
        install -d ${D}${sysconfdir}/yum.repos.d
        sed 's|@LAMA_FEED_URI@|${LAMA_FEED_URI}|' ${UNPACKDIR}/lamadist.repo > ${D}${sysconfdir}/yum.repos.d/lamadist.repo
        chmod 0644 ${D}${sysconfdir}/yum.repos.d/lamadist.repo
    fi
}

FILES:${PN} += "${nonarch_libdir}/rpm"
# The keys.
RDEPENDS:${PN} = "lamadist-keys"
