# SPDX-License-Identifier: Apache-2.0
# Rendered by `lamadist oe render` from distro/; change it there.
SUMMARY = "LamaDist's image homelab"
DESCRIPTION = "A home server and NAS"

LAMA_IMAGE = "homelab"
LAMA_PACKAGES = " \
    packagegroup-lamadist-core \
    packagegroup-lamadist-homelab \
    packagegroup-lamadist-security \
"
# mkfs.erofs(1)
LAMA_EROFS_OPTIONS = "-zlz4hc,3 -C65536"
LAMA_EROFS_UUID = "a4b6cd92-7b33-544b-9fa9-48c0d2b96762"

require lama-image.inc
