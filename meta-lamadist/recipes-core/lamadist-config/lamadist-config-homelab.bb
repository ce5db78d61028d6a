# SPDX-License-Identifier: Apache-2.0
# Rendered by `lamadist oe render` from distro/; change it there.
SUMMARY = "Configuration of LamaDist's image homelab"

LAMA_FILES = "core homelab"
LAMA_MODES = " \
    etc/ssh/sshd_config=0600 \
    etc/nftables.conf=0640 \
"
LAMA_PRESET = "homelab.preset"

require lamadist-config.inc
