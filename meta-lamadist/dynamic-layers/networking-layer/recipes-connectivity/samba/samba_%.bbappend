# SPDX-License-Identifier: Apache-2.0
# A server for files: no printers, and so no CUPS with its accounts and daemon.

PACKAGECONFIG:remove:lamadist = "cups"
