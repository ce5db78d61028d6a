# SPDX-License-Identifier: Apache-2.0
# Rendered by `lamadist oe render` from distro/; change it there.
SUMMARY = "LamaDist's image base"
DESCRIPTION = "The system alone: managed over SSH, updated by RAUC"

LAMA_IMAGE = "base"
LAMA_PACKAGES = " \
    packagegroup-lamadist-core \
    packagegroup-lamadist-security \
"
# mkfs.erofs(1)
LAMA_EROFS_OPTIONS = "-zlz4hc,3 -C65536"
LAMA_EROFS_UUID = "c3c14c45-1bfc-5e15-88b0-8e080be6fd12"

require lama-image.inc
