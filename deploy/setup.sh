#!/usr/bin/env bash
# Makes this checkout ready: DOLFINx (Debian packages, only as root), .venv with the server, compiled
# forms in .cache. Nothing else outside the checkout is touched. Safe to run again, and quick then.
# Without root or apt it goes as far as it can and says what is missing; the numpy solvers need
# only .venv.
#
#   PENSTOCK_SOLVER_PYTHON=/path/python   use this interpreter's DOLFINx
#   PENSTOCK_NO_APT=1                     never call apt
#   deploy/setup.sh compilers             what the clients in C, C++ and Fortran are built with, too
#   deploy/setup.sh network               what the chaos tests cut networks with, too
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
cache=${PENSTOCK_CACHE:-$root/.cache} # of compiled forms; the server looks there, too
mkdir -p .cache

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

# One set-up at a time; the lock goes with this shell.
if command -v flock >/dev/null; then
    exec 9>.cache/setup.lock
    flock -n 9 || { say "waiting for another set-up of this checkout"; flock 9; }
fi

has_commands() { # NAME..: all of them; `command -v` is content with one
    local name
    for name in "$@"; do command -v "$name" >/dev/null || return 1; done
}

has_modules() { # INTERPRETER MODULE..
    "$1" -c 'import importlib.util as u, sys; sys.exit(any(u.find_spec(m) is None for m in sys.argv[1:]))' \
        "${@:2}" 2>/dev/null
}

solver_candidates() {
    if [ -n "${PENSTOCK_SOLVER_PYTHON:-}" ]; then echo "$PENSTOCK_SOLVER_PYTHON"; return; fi
    for python in "${CONDA_PREFIX:+$CONDA_PREFIX/bin/python}" /usr/bin/python3 "$(command -v python3 || true)"; do
        [ -n "$python" ] && [ -x "$python" ] && echo "$python"
    done
    return 0
}

find_solver_python() { # prints the first interpreter that runs the FEniCSx solvers
    local python
    while read -r python; do
        if has_modules "$python" dolfinx petsc4py mpi4py numpy zmq; then echo "$python"; return 0; fi
    done < <(solver_candidates)
    return 1
}

server_python_ok() { # INTERPRETER: new enough, and able to make environments
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_server_python() {
    local python
    for python in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do
        python=$(command -v "$python" || true)
        if [ -n "$python" ] && server_python_ok "$python"; then echo "$python"; return 0; fi
    done
    return 1
}

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -z "${PENSTOCK_NO_APT:-}" ]; }

install_packages() {
    say "installing Debian packages: $*"
    local options=(-y --no-install-recommends -o DPkg::Lock::Timeout=300) log=.cache/apt.log
    export DEBIAN_FRONTEND=noninteractive
    # The lists are fetched only if they do not know a package, or are too old to get one.
    for package in "$@"; do
        if ! apt-cache show "$package" >/dev/null 2>&1; then
            say "fetching the package lists"
            apt-get update >"$log" 2>&1 || true
            break
        fi
    done
    if ! apt-get install "${options[@]}" "$@" >"$log" 2>&1; then
        say "that did not work; once more with fresh package lists"
        apt-get update >"$log" 2>&1 || true
        if ! apt-get install "${options[@]}" "$@" >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            say "the packages could not be installed (all of it in $log); going on without them"
        fi
    fi
}

debian_packages() {
    local needed=()
    if ! find_solver_python >/dev/null && [ -z "${PENSTOCK_SOLVER_PYTHON:-}" ]; then
        needed+=(python3-dolfinx python3-zmq)
    fi
    if [ ! -x .venv/bin/python ] && ! server_python_ok /usr/bin/python3; then
        if [ ! -x /usr/bin/python3 ] || /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            needed+=(python3-venv)
        fi
    fi
    [ ${#needed[@]} = 0 ] && return 0
    if can_apt; then
        install_packages "${needed[@]}"
    else
        say "not installed, for want of root or apt: ${needed[*]}"
    fi
}

pip_install() {
    local log=.cache/pip.log
    if ! .venv/bin/python -m pip install --disable-pip-version-check --no-input -c constraints.txt \
        "$@" >"$log" 2>&1; then
        grep -v '^WARNING' "$log" | tail -n 20 >&2
        die "pip could not install $*; all that it said is in $log. Without a network, or with a" \
            "mirror, set pip's index (PIP_INDEX_URL) and run make setup again."
    fi
}

server_environment() {
    local wanted python
    wanted=$(cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)
    if [ -x .venv/bin/penstock ] && [ "$(cat .venv/penstock-setup 2>/dev/null)" = "$wanted $root" ]; then
        return 0
    fi
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
        python=$(find_server_python) || die "no Python 3.11 or newer that can make environments was" \
            "found. Debian: apt-get install python3-venv; elsewhere see environment.yml."
        say "making .venv with $python ($("$python" -V))"
        "$python" -m venv --clear .venv
    fi
    local torch
    torch=$(grep -E '^torch==' constraints.txt)
    say "installing $torch into .venv (the largest part)"
    pip_install "$torch"
    say "installing the server and its tools into .venv"
    pip_install -e '.[server,dev]'
    echo "$wanted $root" >.venv/penstock-setup
}

compiled_forms() {
    local python wanted
    if ! python=$(find_solver_python); then
        say "no interpreter has DOLFINx with petsc4py, mpi4py and pyzmq: the FEniCSx solvers will not"
        say "run, the numpy solvers will. To get it: as root 'apt-get install python3-dolfinx"
        say "python3-zmq', or 'conda env create -f environment.yml', or set PENSTOCK_SOLVER_PYTHON."
        return 0
    fi
    wanted=$( (echo "$python"; "$python" -V; stat -c '%Y' "$("$python" -c 'import importlib.util as u; print(u.find_spec("dolfinx").origin)')"
        cat solvers/penstock_solvers/*.py) | sha256sum | cut -d' ' -f1)
    if [ "$(cat .cache/warm 2>/dev/null)" = "$wanted" ] && [ -d "$cache/fenics" ]; then return 0; fi
    say "compiling the solvers' forms with $python into $cache"
    if env PYTHONPATH="$root/clients:$root/solvers${PYTHONPATH:+:$PYTHONPATH}" \
        XDG_CACHE_HOME="$cache" OMP_NUM_THREADS=1 \
        OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        "$python" -m penstock_solvers.warm >.cache/warm.log 2>&1; then
        echo "$wanted" >.cache/warm
    else
        tail -n 15 .cache/warm.log >&2
        say "the forms could not be compiled (all of it in .cache/warm.log); FEniCSx solvers may fail"
    fi
}

compilers() { # what `make test-conformance` needs
    if has_commands gcc g++ gfortran mpicc mpirun pkg-config && pkg-config --exists libzmq; then
        return 0
    fi
    local needed=(gcc g++ gfortran libopenmpi-dev openmpi-bin libzmq3-dev pkg-config)
    if can_apt; then
        install_packages "${needed[@]}"
    else
        say "not installed, for want of root or apt: ${needed[*]}"
    fi
}

network() { # what `make test-chaos` needs
    if has_commands ip iptables; then return 0; fi
    local needed=(iproute2 iptables)
    if can_apt; then
        install_packages "${needed[@]}"
    else
        say "not installed, for want of root or apt: ${needed[*]}"
    fi
}

begin=$SECONDS
debian_packages
case "${1:-}" in compilers | network) "$1" ;; esac
server_environment
compiled_forms
elapsed=$((SECONDS - begin))
if [ "$elapsed" -gt 2 ]; then say "ready after $elapsed s; .venv/bin/penstock doctor says what was found"; fi
