# shellcheck shell=bash
# Sourced by run.sh in the repository's folder: finds a Python, makes the virtual environment, installs requirements.txt.
#
#   DROPASR_PYTHON   the Python to build the environment with (default: a CPython 3.10, for k2; else one from 3.11 on)
#   DROPASR_VENV     the environment's folder (default .venv)
#
# The environment is built again when requirements.txt, k2.txt or pyproject.toml change; otherwise it costs no time.

dropasr_venv() {
  local venv=${DROPASR_VENV:-.venv}
  case $venv in
    /*) printf '%s\n' "$venv" ;;
    *) printf '%s/%s\n' "$PWD" "$venv" ;;
  esac
}

# The real path of a Python whose version lies in a range, given as tuples: dropasr_accept COMMAND '(3, 10)' '(3, 11)'. A command may
# exist and not run (shims), or lack the modules that make environments.
dropasr_accept() {
  "$1" -c "import sys, venv, ensurepip
sys.exit(not $2 <= sys.version_info[:2] < $3)
" >/dev/null 2>&1 && "$1" -c 'import os, sys; print(os.path.realpath(sys.executable))'
}

# Any Python that can check the options; nothing is installed for that.
dropasr_any_python() {
  local candidate venv
  venv=$(dropasr_venv)
  for candidate in "$venv/bin/python" "${DROPASR_PYTHON:-python3}" python3 python3.{10..14} "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  echo "error: no Python from 3.8 on was found. Install Python 3.10, or name one: DROPASR_PYTHON=/path/to/python3.10 bash run.sh" >&2
  return 1
}

# A CPython 3.10, for the k2 stack.
dropasr_find_310() {
  local candidate
  for candidate in python3.10 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10*/bin/python "$(uv python find 3.10 2>/dev/null || true)" python3; do
    dropasr_accept "$candidate" '(3, 10)' '(3, 11)' && return
  done
  return 1
}

# A newer one, for the torch 2 stack.
dropasr_find_newer() {
  local candidate
  for candidate in python3 python3.{11..14} "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-4]*/bin/python "$(uv python find '>=3.11' 2>/dev/null || true)"; do
    dropasr_accept "$candidate" '(3, 11)' '(3, 15)' && return
  done
  return 1
}

# The Python to build the environment with.
dropasr_find_python() {
  if [[ -n ${DROPASR_PYTHON:-} ]]; then
    dropasr_accept "$DROPASR_PYTHON" '(3, 10)' '(3, 15)' && return
    echo "error: DROPASR_PYTHON=$DROPASR_PYTHON: expected a Python from 3.10 to 3.14 that runs and has venv and ensurepip." >&2
    return 1
  fi
  dropasr_find_310 || dropasr_find_newer && return
  echo "error: neither a CPython 3.10 nor one from 3.11 to 3.14 with venv and ensurepip was found. Install one (Debian, Ubuntu: apt install" \
    "python3-venv; or: uv python install 3.10), or name it: DROPASR_PYTHON=/path/to/python3.10 bash run.sh" >&2
  return 1
}

# pip without chatter; what it says goes to a file, whose end is shown when it fails.
dropasr_pip() {
  local venv=$1
  shift
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off "$@" >>"$venv/install.log" 2>&1 && return
  tail -n 15 "$venv/install.log" >&2
  echo "error: pip could not install the packages; its last lines stand above, all of them in $venv/install.log. Check the network, the" \
    "free disk space (about 7 GB) and that requirements.txt has files for this Python, then give the same command again." >&2
  return 1
}

dropasr_install() {
  local venv=$1 interpreter=$2
  if [[ -e $venv && ! -e $venv/pyvenv.cfg && -n $(ls -A "$venv") ]]; then
    echo "error: DROPASR_VENV: $venv holds files and is no virtual environment. Name another folder." >&2
    return 1
  fi
  echo "making the environment $venv with $interpreter (once; one to three minutes)"
  "$interpreter" -m venv --clear "$venv" || return
  dropasr_pip "$venv" --no-deps --require-hashes -r local/k2.txt || return # see there
  dropasr_pip "$venv" -r requirements.txt || return
  dropasr_pip "$venv" --no-deps --no-build-isolation -e . || return
}

# Whether the environment was made from these files with this Python (empty: any) and runs. The stamp holds, a line each: what it was made
# from, what was found in it, its Python.
dropasr_ready() {
  local venv=$1 want=$2 interpreter=$3 stamp=$1/dropasr-stamp
  [[ -r $stamp && $(sed -n 1p "$stamp") == "$want" ]] || return
  [[ -z $interpreter || $(sed -n 3p "$stamp") == "$interpreter" ]] || return
  "$venv/bin/python" -c '' 2>/dev/null || return
  # A k2 that the user installed later changes what is found.
  [[ -z $(find "$venv"/lib/python3*/site-packages -maxdepth 1 -name 'k2-*' -newer "$stamp" -print -quit) ]] || dropasr_stamp "$@"
}

dropasr_stamp() {
  local found
  found=$("$1/bin/python" -m dropasr stack) || return
  printf '%s\n' "$2" "$found" "${3:-$(sed -n 3p "$1/dropasr-stamp")}" >"$1/dropasr-stamp.new" && mv "$1/dropasr-stamp.new" "$1/dropasr-stamp"
}

# Make the environment unless it is ready, say what is in it, and put it on the PATH.
dropasr_environment() {
  local venv want interpreter=
  venv=$(dropasr_venv)
  want="$PWD $(cat requirements.txt local/k2.txt pyproject.toml | sha256sum | cut -c1-64)"
  if [[ -n ${DROPASR_PYTHON:-} ]]; then
    interpreter=$(dropasr_find_python) || return
  fi
  if ! dropasr_ready "$venv" "$want" "$interpreter"; then
    exec 9<local/env.sh
    if command -v flock >/dev/null; then flock 9; fi # one installation at a time
    if ! dropasr_ready "$venv" "$want" "$interpreter"; then
      interpreter=$(dropasr_find_python) || return
      dropasr_install "$venv" "$interpreter" || return
      dropasr_stamp "$venv" "$want" "$interpreter" || return
    fi
    exec 9<&-
  fi
  echo "$(sed -n 2p "$venv/dropasr-stamp"), threads: $(nproc)"
  export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv"
}
