# SPDX-License-Identifier: Apache-2.0
# rpm of an image that has one. Without this it is built with no OpenPGP at all, and what
# macros.lamadist asks for refuses every package.
PACKAGECONFIG:append:class-target:lamadist = " sequoia"
