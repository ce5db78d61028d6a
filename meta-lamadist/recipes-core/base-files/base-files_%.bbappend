# SPDX-License-Identifier: Apache-2.0
# Files that lamadist-config has: each one belongs to one package. Directories whose content is
# the machine's are links into /var there.

dirs755:remove:lamadist = "/home ${ROOT_HOME} ${servicedir}"

do_install:append:lamadist() {
    rm -f ${D}${sysconfdir}/hosts ${D}${sysconfdir}/hostname ${D}${sysconfdir}/issue \
        ${D}${sysconfdir}/mtab ${D}${sysconfdir}/nsswitch.conf
    # The initrd mounts what is to be mounted, by lama-node's generator.
    rm -f ${D}${sysconfdir}/fstab
}
