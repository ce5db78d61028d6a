# SPDX-License-Identifier: Apache-2.0
# Rendered by `lamadist oe render` from distro/; change it there.
SUMMARY = "LamaDist's image dev"
DESCRIPTION = "For developing LamaDist: debugging tools and a login on the console; not for production"

LAMA_IMAGE = "dev"
LAMA_PACKAGES = " \
    packagegroup-lamadist-core \
    packagegroup-lamadist-development \
    packagegroup-lamadist-security \
"
# mkfs.erofs(1)
LAMA_EROFS_OPTIONS = "-zlz4hc,3 -C65536"
LAMA_EROFS_UUID = "fcc7bd79-524d-5149-9c0f-ae84554d86c1"

require lama-image.inc
