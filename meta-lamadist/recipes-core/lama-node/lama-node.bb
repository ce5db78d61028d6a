# SPDX-License-Identifier: Apache-2.0
SUMMARY = "LamaDist's program on the node"
DESCRIPTION = "Installs, unlocks, judges, reports, backs up: what a node does by itself"
HOMEPAGE = "${LAMADIST_HOME_URL}"
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

# Its source is the checkout that this layer is a folder of, so that both engines have the same.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext - the checkout is no part of the layer
FILESEXTRAPATHS:prepend := "${LAMADIST_CHECKOUT}/crates:"

inherit cargo

# The version, the crates and their checksums, from Cargo.lock.
require lama-node-crates.inc

# The manifests without what the program is not made of, as the other engine compiles it.
SRC_URI += " \
    file://lama-node;subdir=sources/crates \
    file://lama-node.toml \
    file://workspace.toml \
    file://Cargo.lock \
"

S = "${UNPACKDIR}/sources"

# The profile that makes it small; see Cargo.toml of the checkout.
BUILD_MODE = "--profile node"
BUILD_DIR = "node"

# The lock pins what the whole workspace's features need, which may be more than the program's own:
# cargo leaves that out of the lock, which --frozen forbids. Nothing is fetched all the same.
CARGO_BUILD_FLAGS:remove = "--frozen"
CARGO_BUILD_FLAGS:append = " --offline"

do_configure:prepend() {
    install -m 0644 ${UNPACKDIR}/workspace.toml ${S}/Cargo.toml
    install -m 0644 ${UNPACKDIR}/Cargo.lock ${S}/Cargo.lock
    install -m 0644 ${UNPACKDIR}/lama-node.toml ${S}/crates/lama-node/Cargo.toml
}
