# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Configuration of LamaDist's initrd"
DESCRIPTION = "Units that mount the overlay of /etc and restore a backup, how emergencies end, and the policy of what IMA measures"
HOMEPAGE = "${LAMADIST_HOME_URL}"
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

inherit allarch

# Rendered from distro/initrd/.
SRC_URI = "file://initrd file://links"

S = "${UNPACKDIR}"

INHIBIT_DEFAULT_DEPS = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    (cd ${S}/initrd && find . -type f) | while read -r file; do
        install -D -m 0644 ${S}/initrd/$file ${D}/$file
    done
    while read -r link target; do
        install -d ${D}/$(dirname $link)
        ln -sfn $target ${D}/$link
    done < ${S}/links/initrd
}

FILES:${PN} += "/"
