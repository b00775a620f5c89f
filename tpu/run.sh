#!/usr/bin/env bash
# Starts a run on the TPU VM, shows its log, and ends with its exit code. Where the same run goes on there already, it
# is shown, not started a second time. The run does not need this connection.
set -euo pipefail

usage="usage: tpu/run.sh CONFIG --run-dir DIR --name NAME --zone ZONE [options] [-- OPTIONS OF tfpipe run]

Runs \`tfpipe run CONFIG --run-dir DIR\` on a TPU VM that setup.sh has prepared. CONFIG is copied there; what it names
must be there or on gs://. DIR is gs://BUCKET/PATH or a directory on the VM (below ~/tfpipe unless it is absolute).

  --poll SECONDS           before a broken connection is tried again, 20

Exit codes: those of the run (0 done; 1 a gate failed; 2 the input is wrong; 3 a worker was lost and 143 it was stopped:
start it again, it goes on); 4 another run goes on there; 130 you left; 255 the VM or the run on it is lost."
accepts="--run-dir --poll" takes_config=yes
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

parse_options "$@"
# What comes from one call of this script starts at most one run, however often gcloud sends it.
token=$(date +%Y%m%dT%H%M%S)-$$
vm_script="bash tfpipe/source/tpu/run_on_vm.sh"
on_the_vm=configs/$(basename "$config")
start="$vm_script $(quoted start "$token" "$on_the_vm" "$run_dir" ${extra[@]+"${extra[@]}"})"

trap 'printf "\n%s: the run goes on, and %s costs; the same command shows it again; end both by %s\n" \
    "$script" "$name" "$delete_it" >&2
    exit 130' INT

start_or_join() {
    on_vm "mkdir -p tfpipe/configs" &&
        cloud compute tpus tpu-vm scp "$config" "$name:tfpipe/$on_the_vm" "${where[@]}" --worker=0 &&
        on_vm "$start"
}

silent=0 unknown=0
while true; do
    status=0
    start_or_join || status=$?
    # gcloud and ssh have exit codes 1 and 2 of their own, so the run's is asked for.
    answer=$(on_vm "$vm_script code $token") || answer=""
    [[ -z $dry_run ]] || answer=0
    answer=${answer##*$'\n'}
    case $answer in
        [0-9]*)
            say "the run ended with exit code $answer"
            exit "$answer"
            ;;
        running) say "the connection broke, the run goes on" ;;
        busy) stop 4 "another run goes on on $name, named above: let it end, or take another --name" ;;
        lost) stop 255 "the run on $name was cut off: the VM was restarted, or the run killed" ;;
        *)
            [[ $status != 127 ]] || fail "$name has no tfpipe: run tpu/setup.sh --name $name --zone $zone first"
            node=$(node_state READY)
            case $node in
                READY) ((++silent < 5)) || stop 255 "$name does not answer, though it is READY" ;;
                # Perhaps there is no network here, for a while; there the run goes on.
                UNKNOWN) ((++unknown < 60)) || stop 255 "gcloud could not say how $name is, 60 times" ;;
                *) stop 255 "$name is lost: the TPU VM is $node" ;;
            esac
            say "no connection to $name, which is $node"
            ;;
    esac
    pause "$poll"
done
