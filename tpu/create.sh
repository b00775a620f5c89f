#!/usr/bin/env bash
# Asks for a TPU VM as a queued resource and waits until it can be used. Does nothing where it is there already.
set -euo pipefail

usage="usage: tpu/create.sh --name NAME --zone ZONE [options]

Asks for a TPU VM and waits until it is ready. The same command again waits on.

  --timeout TIME           how long to wait, 2h; after that the request is withdrawn
  --poll SECONDS           between two looks, 20

Exit codes: 0 ready; 2 the input is wrong, or gcloud refused it; 4 there was none to be had, or no way to ask."
accepts="--timeout --poll" takes_config=""
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

warn_about_type() {
    local chips=${type##*-}
    ((chips <= 8)) ||
        warn "--type $type: more than one host, which tfpipe has not been tried on; setup and run use the first"
    case $type in
        v5litepod-*) ;;
        *) warn "--type $type: experimental with TensorFlow 2.20; see the table in tpu/README.md" ;;
    esac
}

request() {
    # --max-run-duration and --provisioning-model exist under alpha only. Both --spot and the model are given, as
    # versions of gcloud alpha turn --spot alone into the model "standard".
    local options=(--node-id="$name" --accelerator-type="$type" --runtime-version="$version")
    [[ -z $spot ]] || options+=(--spot --provisioning-model=spot)
    [[ $max_run_duration == none ]] || options+=(--max-run-duration="$max_run_duration")
    cloud alpha compute tpus queued-resources create "$name" "${where[@]}" "${options[@]}" ||
        fail "gcloud did not take the request for $type in $zone; its reason is above (run duration? say none)"
}

withdraw() { # a request that nobody waits for must not become a TPU that nobody uses
    say "withdrawing the request"
    "$here/delete.sh" "${same_target[@]}" --poll "$poll" || warn "$name could not be deleted: run $delete_it"
}

parse_options "$@"
warn_about_type
queued=$(queued_state NONE)
node=$(node_state NONE)
[[ $queued != UNKNOWN && $node != UNKNOWN ]] ||
    stop 4 "gcloud could not say whether $name is there; its reason is above"
if is_dead "$queued" "$node"; then
    fail "$name is gone for good and in the way (queued resource $queued, TPU VM $node): run $delete_it first"
fi
if [[ $queued == NONE && $node == NONE ]]; then
    price=${spot:+spot}
    say "asking for $type, ${price:-on demand}, for at most ${max_run_duration/none/any time}"
    request
else
    say "there already (queued resource $queued, TPU VM $node); type and price stay as they are"
fi

trap 'printf "\n%s: the request stays; the same command waits on; withdraw it by %s\n" "$script" "$delete_it" >&2
    exit 130' INT
say "waiting until the queued resource is ACTIVE and the TPU VM is READY, for $timeout at most"
limit=$(seconds_of --timeout "$timeout")
SECONDS=0 shown="" shown_at=0
while true; do
    queued=$(queued_state ACTIVE)
    node=$(node_state READY)
    if is_ready "$queued" "$node"; then
        say "ready"
        exit 0
    fi
    if is_dead "$queued" "$node"; then
        # The words of the service, where it has any: no quota, no capacity, …
        cloud compute tpus queued-resources describe "$name" "${where[@]}" --format='yaml(state)' >&2 || true
        stop 4 "the request for $name ended as $queued (TPU VM $node); its reason, where Cloud TPU gives one, is above"
    fi
    if [[ $queued/$node != "$shown" ]] || ((SECONDS - shown_at >= 300)); then
        say "queued resource $queued, TPU VM $node, after $((SECONDS / 60)) min"
        shown=$queued/$node shown_at=$SECONDS
    fi
    if ((SECONDS >= limit)); then
        withdraw
        stop 4 "no $type in $zone within $timeout: try another zone, --spot, or a longer --timeout"
    fi
    pause "$poll"
done
