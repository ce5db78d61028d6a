# SPDX-License-Identifier: Apache-2.0
SUMMARY = "Update bundle of LamaDist's image base"
DESCRIPTION = "Root, hash tree and unified kernel image of the installer, which runs the image base"

LAMA_BUNDLE_IMAGE = "lama-image-installer"

require lama-bundle.inc
