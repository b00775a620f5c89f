#!/usr/bin/env bash
# On the TPU VM: one run at a time, which outlives the connection that started it.
#
#   run_on_vm.sh start TOKEN CONFIG RUN_DIR OPTIONS…   start it, or join it where it goes on, and show its log
#   run_on_vm.sh code TOKEN                            its exit code | running | lost | busy | unknown
#   run_on_vm.sh work CONFIG RUN_DIR OPTIONS…          the process that stays; only `start` calls it
#
# It stays by setsid: a session of its own, which no lost connection ends. systemd-run would want root, or lingering, and a
# unit's exit code is forgotten with the unit. What is known of the run lies in ~/tfpipe/run:
#
#   lock        held exclusively by `work` as long as it lives: the kernel lets go of it, however that ends
#   tokens      the calls that started or joined this run: gcloud repeats a command whose connection broke
#   command     what was asked for
#   log         what it printed
#   exit_code   written before the lock is let go
set -euo pipefail
self=$(realpath "$0")
cd ~/tfpipe
mkdir -p run

goes_on() {
    ! flock --shared --nonblock run/lock true
}

knows() { # TOKEN
    grep --quiet --line-regexp --fixed-strings "$1" run/tokens 2>/dev/null
}

show_until_it_ends() {
    tail --lines="$1" --follow=name --sleep-interval=0.2 run/log &
    local tail=$!
    flock --shared run/lock true
    sleep 0.5 # for the last lines
    kill "$tail"
    wait "$tail" 2> /dev/null || true
}

case $1 in
    start)
        token=$2
        shift 2
        command=$(printf '%q ' "$@")
        [[ -x venv/bin/tfpipe ]] || exit 127 # as where this script is missing: not set up
        exec 8> run/starting
        flock 8 # two that come at once
        if knows "$token"; then
            lines=20 # the connection broke; perhaps the run has ended meanwhile
        elif ! goes_on; then
            rm -f run/exit_code
            : > run/log
            echo "$command" > run/command
            echo "$token" > run/tokens
            exec 9> run/lock
            flock --timeout 10 9 # held on by `work`, which inherits it; here it is closed
            setsid --fork bash "$self" work "$@" >> run/log 2>&1 < /dev/null 8>&-
            exec 9>&-
            lines=+1
        elif [[ $command == "$(cat run/command)" ]]; then
            echo "this run goes on already; its last lines:"
            echo "$token" >> run/tokens
            lines=100
        else
            echo "this run goes on: $(cat run/command)" >&2
            exit 2
        fi
        exec 8>&-
        show_until_it_ends "$lines"
        ;;
    work)
        shift
        # When the VM shuts down, SIGTERM, and from systemd SIGHUP after it, are for tfpipe, which saves a checkpoint and
        # ends with 143; this waits for it.
        trap : TERM HUP
        code=0
        PYTHONUNBUFFERED=1 venv/bin/tfpipe run "$1" --run-dir "$2" --set train.strategy=tpu "${@:3}" 9>&- || code=$?
        echo "$code" > run/exit_code.new
        mv run/exit_code.new run/exit_code
        ;;
    code)
        # In this order: the exit code is there before the lock is free.
        if goes_on; then
            if knows "$2"; then echo running; else echo busy; fi
        elif ! knows "$2"; then
            echo unknown
        elif [[ -f run/exit_code ]]; then
            cat run/exit_code
        else
            echo lost
        fi
        ;;
    *)
        echo "run_on_vm.sh $1: start, work or code was expected" >&2
        exit 2
        ;;
esac
