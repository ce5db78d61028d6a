# SPDX-License-Identifier: Apache-2.0
# What the boot chain needs: LUKS2 with the TPM, dm-verity, repart for the installer, the stub.

PACKAGECONFIG:append:lamadist = " cryptsetup cryptsetup-plugins firstboot openssl repart tpm2"
# Consoles are the image's decision (files of lamadist-config mask getty's generator), and nothing
# asks for time or names at servers that nobody has chosen.
PACKAGECONFIG:append:lamadist = " no-dns-fallback"
PACKAGECONFIG:remove:lamadist = "backlight binfmt hibernate osc-context quotacheck serial-getty-generator vconsole"
