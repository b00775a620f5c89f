# shellcheck shell=bash disable=SC2034,SC2154 # seen alone, it sets what only others use, and uses what they set
# What the scripts of this directory share: options, messages, the one way to gcloud, and the states of a TPU.
# Sourced by each of them, which first sets `usage` (its help), `accepts` (its options beside the common ones) and
# `takes_config` (yes where a configuration is its argument). Nothing here needs more than the bash 3.2 of macOS.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
script=tpu/$(basename "$0")
exec 3>&1 # where a dry run prints, from inside $(…) too

common_usage="
Common options:
  --name NAME              the TPU VM and its queued resource
  --zone ZONE              such as us-west4-a
  --project PROJECT        gcloud's own setting, unless given
  --type TYPE              accelerator type: v5litepod-8 unless given
  --version VERSION        runtime image: by the type unless given
  --spot                   cheaper, and taken away at any time; on demand unless given
  --max-run-duration TIME  asks Cloud TPU to delete the VM after this, 12h unless given; none: does not ask
  --dry-run                print every gcloud command, ready to paste, and run none
  --help                   this"

# --- messages

fail() { # MESSAGE: the input is wrong
    stop 2 "$1"
}

stop() { # CODE MESSAGE
    printf '%s: %s\n' "$script" "$2" >&2
    exit "$1"
}

warn() { # MESSAGE
    printf '%s: warning: %s\n' "$script" "$1" >&2
}

say() { # MESSAGE: one line for an event; a comment in a dry run, whose output is itself a script
    if [[ $dry_run ]]; then
        printf '# %s\n' "$1"
    else
        printf '%s %s: %s\n' "$(date +%H:%M:%S)" "$name" "$1"
    fi
}

# --- options

name="" zone="" project="" type=v5litepod-8 version="" spot="" max_run_duration=12h dry_run=""
timeout=2h poll=20 run_dir="" max_attempts=10 at_end=delete config=""
extra=()      # for tfpipe run, after --
same_target=() # the common options again, for another script of this directory

parse_options() { # "$@" of the script
    local option value
    while (($#)); do
        option=$1
        shift
        case $option in
            --*=*)
                value=${option#*=}
                option=${option%%=*}
                set -- "$value" "$@"
                case $option in --spot | --dry-run | --delete | --keep | --help) fail "$option takes no value" ;; esac
                ;;
        esac
        case $option in
            --help | -h)
                printf '%s\n%s\n' "$usage" "$common_usage"
                exit 0
                ;;
            --spot) spot=yes ;;
            --dry-run) dry_run=yes ;;
            --)
                [[ $takes_config ]] || fail "-- and what follows it: nothing is passed on here; try --help"
                extra=("$@")
                break
                ;;
            --delete | --keep)
                accepted "$option"
                at_end=${option#--}
                ;;
            --name | --zone | --project | --type | --version | --max-run-duration | --timeout | --poll | --run-dir | \
                --max-attempts)
                accepted "$option"
                (($#)) && [[ $1 && $1 != --* ]] || fail "$option has no value: write $option VALUE; try --help"
                value=$1
                shift
                case $option in
                    --name) name=$value ;;
                    --zone) zone=$value ;;
                    --project) project=$value ;;
                    --type) type=$value ;;
                    --version) version=$value ;;
                    --max-run-duration) max_run_duration=$value ;;
                    --timeout) timeout=$value ;;
                    --poll) poll=$value ;;
                    --run-dir) run_dir=$value ;;
                    --max-attempts) max_attempts=$value ;;
                esac
                ;;
            -*) fail "$option: no such option; try --help" ;;
            *)
                [[ $takes_config ]] || fail "$option: no such argument; try --help"
                [[ -z $config ]] || fail "$option: a second configuration after $config; options of tfpipe follow --"
                config=$option
                ;;
        esac
    done
    check_options
}

accepted() { # OPTION: refuses one that this script does nothing with
    case " --name --zone --project --type --version --max-run-duration $accepts " in
        *" $1 "*) ;;
        *) fail "$1: not an option of this script; try --help" ;;
    esac
}

matches() { # VALUE REGULAR-EXPRESSION
    [[ $1 =~ ^($2)$ ]]
}

check_options() {
    [[ $name ]] || fail "--name is missing: which TPU VM? try --help"
    matches "$name" '[a-z]([-a-z0-9]{0,61}[a-z0-9])?' ||
        fail "--name $name: lower-case letters, digits and -, beginning with a letter, were expected"
    [[ $zone ]] || fail "--zone is missing: where does $name live, or shall it? such as us-west4-a"
    matches "$zone" '[a-z]+-[a-z]+[0-9]+-[a-z0-9]+' || fail "--zone $zone: a zone such as us-west4-a was expected"
    matches "$type" 'v[0-9]+[a-z]*-[0-9]+' || fail "--type $type: an accelerator type such as v5litepod-8 was expected"
    [[ $max_run_duration == none ]] || seconds_of --max-run-duration "$max_run_duration" >/dev/null
    seconds_of --timeout "$timeout" >/dev/null
    matches "$poll" '[0-9]+' || fail "--poll $poll: a number of seconds was expected"
    matches "$max_attempts" '[1-9][0-9]*' || fail "--max-attempts $max_attempts: a number from 1 up was expected"
    if [[ -z $version ]]; then
        case $type in
            v5litepod-*) version=v2-alpha-tpuv5-lite ;;
            v6e-*) version=v2-alpha-tpuv6e ;;
            *) version=tpu-ubuntu2204-base ;;
        esac
    fi

    where=(--zone="$zone")
    same_target=(--name "$name" --zone "$zone" --type "$type" --version "$version"
        --max-run-duration "$max_run_duration")
    if [[ $project ]]; then
        where+=(--project="$project")
        same_target+=(--project "$project")
    fi
    [[ -z $spot ]] || same_target+=(--spot)
    delete_it="tpu/delete.sh $(quoted --name "$name" "${where[@]}")" # for messages

    [[ -z $takes_config ]] || check_run
    if [[ $dry_run ]]; then
        same_target+=(--dry-run)
        return
    fi
    command -v gcloud >/dev/null ||
        fail "gcloud is not installed: see https://cloud.google.com/sdk/docs/install, or add it to PATH"
    [[ $(cloud auth list --filter=status:ACTIVE --format='value(account)' 2>/dev/null) ]] ||
        fail "gcloud is not logged in: run gcloud auth login"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
}

check_run() { # what run.sh and watch.sh ask of a run
    [[ $config ]] || fail "no configuration: name one, such as configs/imdb.yaml"
    [[ -f $config ]] || fail "$config: no such file; a configuration such as configs/imdb.yaml was expected"
    matches "$(basename "$config")" '[A-Za-z0-9][A-Za-z0-9._-]*' ||
        fail "$config: letters, digits, . _ - were expected in the file's name, which goes through two shells"
    [[ $run_dir ]] || fail "--run-dir is missing: gs://BUCKET/runs/NAME, or a directory on the VM"
    case $run_dir in
        gs://?*) ;;
        *://*) fail "--run-dir $run_dir: gs://BUCKET/PATH or a directory on the VM was expected" ;;
        *)
            [[ -z $spot ]] ||
                fail "--run-dir $run_dir: a spot TPU is lost with its disk; with --spot, gs://BUCKET/PATH is needed"
            ;;
    esac
}

seconds_of() { # OPTION TIME, such as 1d12h, 90m
    if ! [[ $2 && $2 =~ ^(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?$ ]]; then
        fail "$1 $2: a time such as 12h, 90m or 1d12h was expected"
    fi
    local days=${BASH_REMATCH[2]:-0} hours=${BASH_REMATCH[4]:-0} minutes=${BASH_REMATCH[6]:-0}
    local rest=${BASH_REMATCH[8]:-0}
    echo $((((10#$days * 24 + 10#$hours) * 60 + 10#$minutes) * 60 + 10#$rest))
}

head_commit() { # the checkout's commit: what setup.sh copies
    git -C "$(dirname "$here")" rev-parse --short HEAD 2>/dev/null ||
        fail "$(dirname "$here"): no git checkout with a commit, which is what the VM gets; clone the repository"
}

# --- gcloud

quoted() { # WORDS: one line that a shell reads back as the same words
    local word line="" quote="'" escaped="'\\''"
    for word in "$@"; do
        case $word in
            "" | *[!A-Za-z0-9_./:=@,+-]*) word="'${word//$quote/$escaped}'" ;;
        esac
        line+="${line:+ }$word"
    done
    printf '%s\n' "$line"
}

show_in_dry_run() { # WORDS: prints a command in a dry run; false else, for it to be run
    [[ $dry_run ]] && quoted "$@" >&3
}

# The only place that calls gcloud, so that a dry run is one. --quiet: no question waits for an answer in the night.
# Standard input is closed to it, as ssh would eat what is not meant for it.
cloud() { # WORDS
    show_in_dry_run gcloud "$@" --quiet || gcloud "$@" --quiet </dev/null
}

on_vm() { # COMMAND: runs it on the TPU VM; its exit code, or 1, 2 or 255 of gcloud and ssh themselves
    # A dead connection is noticed within two minutes. gcloud then tries again, ten times, with the same command: so
    # whatever is sent here must bear to be sent twice.
    cloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=0 --ssh-flag=-oServerAliveInterval=30 \
        --ssh-flag=-oServerAliveCountMax=4 --command="$1"
}

# --- states

# Each prints Cloud TPU's own word, NONE where there is no such thing, UNKNOWN where gcloud could not tell, and what it
# is given in a dry run. The words: https://cloud.google.com/tpu/docs/reference/rest (QueuedResource and Node).
queued_state() { # ASSUMED-IN-A-DRY-RUN
    ask_state "$1" compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)'
}

node_state() { # ASSUMED-IN-A-DRY-RUN
    ask_state "$1" compute tpus tpu-vm describe "$name" "${where[@]}" --format='value(state)'
}

ask_state() { # ASSUMED WORDS
    local assumed=$1 answer
    shift
    if [[ $dry_run ]]; then
        cloud "$@"
        echo "$assumed"
    elif answer=$(cloud "$@" 2>"$scratch/stderr"); then
        echo "${answer:-UNKNOWN}"
    elif grep -q 'NOT_FOUND\|was not found' "$scratch/stderr"; then
        echo NONE
    else
        cat "$scratch/stderr" >&2
        echo UNKNOWN
    fi
}

is_dead() { # QUEUED NODE: what is there will never be ready again, and is in the way of a new one
    case $1 in SUSPENDING | SUSPENDED | FAILED | DELETING) return 0 ;; esac
    case $2 in PREEMPTED | TERMINATED | STOPPING | STOPPED | DELETING) return 0 ;; esac
    [[ $1/$2 == ACTIVE/NONE ]]
}

is_ready() { # QUEUED NODE; a TPU VM made without a queue has none
    [[ $1/$2 == ACTIVE/READY || $1/$2 == NONE/READY ]]
}

pause() { # SECONDS
    [[ $dry_run ]] || sleep "$1"
}
