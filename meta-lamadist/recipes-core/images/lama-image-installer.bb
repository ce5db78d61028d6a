# SPDX-License-Identifier: Apache-2.0
# The system that is installed is the one that the medium runs.
require lama-image-base.bb
require lama-medium.inc

SUMMARY:append = ", as a medium"
DESCRIPTION:append = ". A bootable disk: starts without touching the machine, and installs it when told to"
