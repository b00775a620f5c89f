#!/usr/bin/env bash
# Deletes the TPU VM and its queued resource, and waits until they are gone. No error where there is none.
set -euo pipefail

usage="usage: tpu/delete.sh --name NAME --zone ZONE [options]

Deletes the TPU VM, with its disk, and its queued resource.

  --poll SECONDS           between two looks, 20

Exit codes: 0 gone; 1 not gone; 2 the input is wrong."
accepts="--poll" takes_config=""
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

parse_options "$@"
still="it may still cost money: see gcloud compute tpus tpu-vm list --zone=$zone"
tries=0
queued=$(queued_state ACTIVE)
node=$(node_state READY)
while [[ $queued != NONE || $node != NONE ]]; do
    ((++tries <= 30)) || stop 1 "$name is not gone (queued resource $queued, TPU VM $node); $still"
    case $queued in
        NONE | UNKNOWN | DELETING | SUSPENDING) ;;
        *)
            # --force takes its TPU VM along; without it a queued resource that is ACTIVE can't be deleted.
            say "deleting the queued resource, which is $queued"
            cloud compute tpus queued-resources delete "$name" "${where[@]}" --force || warn "that failed; trying again"
            ;;
    esac
    node=$(node_state READY) # gone with its queue, as a rule
    case $node in
        NONE | UNKNOWN | DELETING) ;;
        *)
            say "deleting the TPU VM, which is $node"
            cloud compute tpus tpu-vm delete "$name" "${where[@]}" || warn "that failed; trying again"
            ;;
    esac
    queued=$(queued_state NONE)
    node=$(node_state NONE)
    [[ $queued == NONE && $node == NONE ]] || pause "$poll"
done
say "gone"
