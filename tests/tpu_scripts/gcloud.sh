#!/bin/bash
# A stand-in for gcloud: notes its arguments, answers from files, reaches no network. In bash, as tests call it a
# thousand times. The directory STAND_IN holds, an answer a line:
#
#   queued, node           states that the next `describe` gives; the last one stays
#   queued_made, node_made the same, put in their place by `create`
#   create, setup          exit codes of the next creations and setups; 0 where no line is left
#   runs                   what becomes of the next runs: an exit code, a word of `run_on_vm.sh code`, "preempted",
#                          or "endless"
#   account                what `auth list` prints
#
# and gets `calls`: a line for each call, its words separated by the character 31.
cd "$STAND_IN" || exit 99
(IFS=$'\x1f' && printf '%s\n' "$*" >> calls)

next_of() { # FILE, of which the line is taken; sets `line`
    local lines
    mapfile -t lines < "$1"
    line=${lines[0]-}
    case $1 in queued | node) ((${#lines[@]} > 1)) || return 0 ;; esac
    ((${#lines[@]} == 0)) || printf '%s\n' "${lines[@]:1}" > "$1"
}

describe() { # FILE
    next_of "$1"
    case $line in
        NONE) echo "ERROR: (gcloud) NOT_FOUND: Resource was not found" >&2 ;;
        UNKNOWN) echo "ERROR: (gcloud) no network" >&2 ;;
        *) echo "$line" && exit 0 ;;
    esac
    exit 1
}

case $* in
    "auth list "*) echo "$(< account)" ;;
    *" queued-resources describe "*) describe queued ;;
    *" tpu-vm describe "*) describe node ;;
    *" delete "*)
        echo NONE > queued
        echo NONE > node
        ;;
    *" queued-resources create "*)
        next_of create
        [[ ${line:-0} == 0 ]] || exit "$line"
        cat queued_made > queued
        cat node_made > node
        ;;
    *"run_on_vm.sh start "*)
        next_of runs
        echo "${line:=unknown}" > answer
        echo "a line of the run's log"
        case $line in
            preempted)
                echo SUSPENDED > queued
                echo PREEMPTED > node
                exit 255
                ;;
            running) exit 255 ;;
            endless) sleep 20 ;;
            unknown) exit 127 ;;
        esac
        ;;
    *"run_on_vm.sh code "*)
        [[ $(< answer) != preempted ]] || exit 1
        cat answer
        ;;
    *" ssh "*"setup_on_vm.sh"*)
        next_of setup
        exit "${line:-0}"
        ;;
esac
