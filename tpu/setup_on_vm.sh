#!/usr/bin/env bash
# On the TPU VM: installs tfpipe from ~/tfpipe-source.tar.gz, which setup.sh put there, into ~/tfpipe.
#
#   ~/tfpipe/source    the checkout, without .git
#   ~/tfpipe/venv      Python 3.11 and the packages
#   ~/tfpipe/run       the run that goes on, or the last one: see run_on_vm.sh
#
# Each part is stamped with the hash of what it was made from, last: it is skipped while that holds, and an interrupted
# one is done again.
set -euo pipefail

say() {
    printf '%s on the VM: %s\n' "$(date +%H:%M:%S)" "$1"
}

retried() { # WORDS: a VM that has just started is still busy with its own updates, and mirrors have bad minutes
    local try
    for try in 1 2 3 4 5; do
        "$@" && return
        say "that failed ($try of 5): $*"
        sleep $((try * 10))
    done
    return 1
}

as_root() {
    retried sudo env DEBIAN_FRONTEND=noninteractive "$@"
}

# The lock's tensorflow, and only that, is left out: tensorflow-tpu has the same files. tensorflow-text, tf-keras and
# others ask for "tensorflow" by name and would bring it back, so everything is installed with --no-deps.
without_tensorflow() { # LOCK: an entry goes on as long as its lines end in a backslash
    awk '/^tensorflow==/ { left_out = 1 } !left_out { print } !/\\$/ { left_out = 0 }' "$1"
}

python_311() {
    command -v python3.11 >/dev/null && python3.11 -c 'import ensurepip, venv' 2>/dev/null && return
    say "Python 3.11 from the deadsnakes PPA, as this image has $(python3 --version 2>&1)"
    as_root add-apt-repository --yes ppa:deadsnakes/ppa
    as_root apt-get --option DPkg::Lock::Timeout=300 update --quiet
    as_root apt-get --option DPkg::Lock::Timeout=300 install --quiet --yes python3.11 python3.11-venv
}

mkdir -p ~/tfpipe/run
cd ~/tfpipe
if ! flock --shared --nonblock run/lock true; then
    say "a run goes on here; nothing is changed under it"
    exit 0
fi

source_hash=$(sha256sum < ~/tfpipe-source.tar.gz)
if [[ $(cat source.stamp 2>/dev/null) != "$source_hash" ]]; then
    rm -rf source source.stamp
    mkdir source
    tar --extract --gzip --file ~/tfpipe-source.tar.gz --directory source
    echo "$source_hash" > source.stamp
fi

pip=(venv/bin/python -m pip)
pip_options=(--quiet --disable-pip-version-check --no-deps)
packages_hash=$(cat source/requirements.lock source/tpu/requirements.txt | sha256sum)
if [[ $(cat venv/packages.stamp 2>/dev/null) != "$packages_hash" ]]; then
    python_311
    say "the packages of requirements.lock and tpu/requirements.txt: some minutes"
    rm -rf venv
    python3.11 -m venv venv
    without_tensorflow source/requirements.lock > requirements-without-tensorflow.lock
    retried "${pip[@]}" install "${pip_options[@]}" --require-hashes -r requirements-without-tensorflow.lock
    retried "${pip[@]}" install "${pip_options[@]}" --require-hashes -r source/tpu/requirements.txt
    echo "$packages_hash" > venv/packages.stamp
fi

if [[ $(cat venv/tfpipe.stamp 2>/dev/null) == "$source_hash" ]]; then
    say "everything is installed already"
    exit 0
fi
say "tfpipe"
"${pip[@]}" install "${pip_options[@]}" --no-build-isolation --force-reinstall ./source
# Before the stamp: where the TPU does not answer, the next try looks again.
venv/bin/tfpipe doctor
echo "$source_hash" > venv/tfpipe.stamp
