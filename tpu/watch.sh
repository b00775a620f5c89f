#!/usr/bin/env bash
# The whole: create, set up, run, watch. A TPU that is taken away is made anew and the run goes on in its directory.
set -euo pipefail

usage="usage: tpu/watch.sh CONFIG --run-dir gs://BUCKET/PATH --name NAME --zone ZONE [options] [-- OPTIONS OF tfpipe]

Brings a run to its end on a TPU VM: creates it where there is none, sets it up, runs, and watches. When the TPU is
preempted, lost or stopped, it is deleted and made anew, and the run goes on from its last checkpoint. The same command
joins a run that goes on.

  --max-attempts N         TPUs to try, 10
  --timeout TIME           how long to wait for one, 2h
  --poll SECONDS           between two looks, 20
  --delete                 delete the TPU at the end, however the run ended: so it is unless you say --keep
  --keep                   leave it there, and pay for it; --run-dir may then be a directory on the VM, without --spot

Exit codes: 0 done; 1 a gate failed; 2 the input is wrong; 4 no attempt brought it to an end; 130 you left."
accepts="--run-dir --timeout --poll --max-attempts --delete --keep" takes_config=yes
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

delete() {
    trouble=0
    "$here/delete.sh" "${same_target[@]}" --poll "$poll"
}

try_again_here() { # the first time that the VM is READY and fails all the same; the second time it is made anew
    # A directory on the VM goes with the VM, so that one is kept.
    if ((++trouble < 2)) || [[ $run_dir != gs://* ]]; then
        pause "$poll"
    else
        say "that was twice; making the TPU anew"
        delete || true # the next attempt looks again
    fi
}

finish() { # CODE
    trap - INT
    if [[ $at_end == keep ]]; then
        say "the TPU stays, and costs; delete it by $delete_it"
    else
        delete || warn "$name IS STILL THERE AND COSTS: run $delete_it"
    fi
    exit "$1"
}

known_states() { # sets queued and node; a network that is away for minutes must not end the watch of a night
    local tries=0 patience=1
    [[ -z $had_one ]] || patience=60
    while true; do
        queued=$(queued_state "$1")
        node=$(node_state "$2")
        [[ $queued == UNKNOWN || $node == UNKNOWN ]] || return 0
        ((++tries < patience)) ||
            stop 4 "gcloud could not say how $name is; its reason is above; it may be there and cost: see $delete_it"
        pause "$poll"
    done
}

parse_options "$@"
if [[ $run_dir != gs://* && $at_end == delete ]]; then
    fail "--run-dir $run_dir: it would be deleted with the TPU at the end; use gs://BUCKET/PATH, or --keep"
fi
trap 'printf "\n%s: %s stays, and costs; the same command goes on; end it by %s\n" "$script" "$name" "$delete_it" >&2
    exit 130' INT

[[ $dry_run ]] || head_commit >/dev/null # before any money is spent
had_one="" # once there was a TPU, trouble is given time to pass
trouble=0  # on this VM, without a word from Cloud TPU that it is gone
for ((attempt = 1; attempt <= max_attempts; attempt++)); do
    say "attempt $attempt of $max_attempts"
    known_states NONE NONE
    [[ $had_one || $node != STOP* ]] ||
        fail "$name is $node, which was done by hand and may hold something: start it, or run $delete_it"
    if is_dead "$queued" "$node"; then
        say "the TPU is gone for good (queued resource $queued, TPU VM $node); making it anew"
        delete || { pause "$poll"; continue; }
    fi

    code=0
    "$here/create.sh" "${same_target[@]}" --timeout "$timeout" --poll "$poll" || code=$?
    case $code in
        0) had_one=yes ;;
        130) exit 130 ;;
        2)
            # A request that is refused at first will be refused again; one that went through before may go through.
            [[ $had_one ]] || exit 2
            pause "$poll"
            continue
            ;;
        *)
            pause "$poll"
            continue
            ;;
    esac

    code=0
    "$here/setup.sh" "${same_target[@]}" || code=$?
    [[ $code != 130 ]] || exit 130
    if ((code != 0)); then
        say "the setup failed"
        try_again_here
        continue
    fi

    code=0
    "$here/run.sh" "$config" --run-dir "$run_dir" "${same_target[@]}" --poll "$poll" \
        ${extra[@]+-- "${extra[@]}"} || code=$?
    case $code in
        0 | 1 | 2) finish "$code" ;;
        4) exit 2 ;; # the run of somebody else, whose TPU is not deleted
        130) exit 130 ;;
    esac
    known_states ACTIVE READY
    if is_dead "$queued" "$node" || [[ $queued/$node == NONE/NONE ]]; then
        say "preempted (queued resource $queued, TPU VM $node; exit code $code)"
        delete || true # the next attempt looks again
        continue
    fi
    case $code in
        3 | 143) # a notice of preemption, as a rule: the VM has seconds left
            say "interrupted (exit code $code)"
            if [[ $run_dir == gs://* ]]; then delete || true; else pause "$poll"; fi
            ;;
        255) # restarted, or out of reach for a while
            say "the connection to the run is lost, the TPU VM is $node"
            try_again_here
            ;;
        *)
            say "exit code $code is not one that another attempt helps"
            finish "$code"
            ;;
    esac
done
say "giving up after $max_attempts attempts; the run goes on from its last checkpoint with the same command"
finish 4
