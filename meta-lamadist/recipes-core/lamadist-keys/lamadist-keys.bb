# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Public keys that a LamaDist node trusts"
DESCRIPTION = "The certificates that update bundles have to be signed under, and the OpenPGP keys of packages. Of the key set that LAMA_KEYS names; no key lies in this layer"
HOMEPAGE = "${LAMADIST_HOME_URL}"
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

# The keys are found by LAMA_KEYS, not fetched.
SRC_URI = ""

inherit allarch

INHIBIT_DEFAULT_DEPS = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

# What is taken from the key set, and what it is called on the node.
LAMA_PUBLIC_KEYS = "rauc-ca.crt=${nonarch_libdir}/rauc/keyring.pem openpgp.asc=${sysconfdir}/pki/rpm-gpg/RPM-GPG-KEY-lamadist"

do_install[file-checksums] += "${@' '.join(d.getVar('LAMA_KEYS') + '/' + k.split('=')[0] + ':True' for k in d.getVar('LAMA_PUBLIC_KEYS').split()) if d.getVar('LAMA_KEYS') else ''}"
do_install() {
    if [ -z "${LAMA_KEYS}" ]; then
        bbfatal "LAMA_KEYS names no key set, so there is nothing that a node could trust; 'lamadist build --engine oe' sets it, by hand it is keys/development of the checkout after 'lamadist keys init'"
    fi
    for key in ${LAMA_PUBLIC_KEYS}; do
        if [ ! -e "${LAMA_KEYS}/${key%%=*}" ]; then
            bbfatal "${LAMA_KEYS} has no ${key%%=*}; is it a key set? 'lamadist keys status' tells"
        fi
        install -D -m 0644 "${LAMA_KEYS}/${key%%=*}" ${D}${key##*=}
    done
}

FILES:${PN} += "${nonarch_libdir}/rauc ${sysconfdir}/pki"
