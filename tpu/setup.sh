#!/usr/bin/env bash
# Copies this checkout to the TPU VM and installs it there. What is done already is skipped.
set -euo pipefail

usage="usage: tpu/setup.sh --name NAME --zone ZONE [options]

Copies the checkout's HEAD to the TPU VM and installs Python 3.11, the packages of requirements.lock with TensorFlow for
TPUs in place of the lock's, and tfpipe. Shows what the VM has. The same command again does only what is new.

Exit codes: 0 done; 1 it failed on the VM, or on the way; 2 the input is wrong."
accepts="" takes_config=""
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

parse_options "$@"
root=$(dirname "$here")
head=HEAD
if [[ -z $dry_run ]]; then
    head=$(head_commit)
    changed=$(git -C "$root" status --porcelain | wc -l)
    ((changed == 0)) || warn "$((changed)) files differ from HEAD ($head); the VM gets HEAD: commit what it shall have"
fi

say "copying $head"
archive=${scratch:-${TMPDIR:-/tmp}}/tfpipe-source.tar.gz
show_in_dry_run git -C "$root" archive --format=tar.gz --output="$archive" HEAD ||
    git -C "$root" archive --format=tar.gz --output="$archive" HEAD
cloud compute tpus tpu-vm scp "$archive" "$here/setup_on_vm.sh" "$name": "${where[@]}" --worker=0 ||
    stop 1 "nothing could be copied to $name; gcloud's reason is above"
say "installing"
on_vm "bash setup_on_vm.sh" || stop 1 "the installation on $name did not end well; its words are above"
say "installed"
