#!/usr/bin/env bash
# Run a configuration with several seeds and pool them: bash local/recipe.sh RECIPE_DIR [options of run.sh]
#
# SEEDS="1 2 3 4 5" sets other seeds. A seed whose rows are in RECIPE_DIR/rows for this configuration is not run again.
set -euo pipefail

mkdir -p "$1"
recipe=$(cd "$1" && pwd)
options=("${@:2}")
export DROPASR_CALLER_DIR=$PWD # relative paths in options are meant from here
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
# shellcheck source=local/env.sh
source local/env.sh
"$(dropasr_any_python)" -m dropasr.options "${options[@]}" >/dev/null # a wrong option is answered before anything is installed
dropasr_environment

for seed in ${SEEDS:-1 2 3}; do
  # Fails where rows are missing and the run that makes them has not ended, and with 2 where they could not stand beside those that are there.
  collect=(python -m dropasr collect "${options[@]}" --seed "$seed" "$recipe")
  status=0
  "${collect[@]}" 2>/dev/null || status=$?
  if ((status == 1)); then
    (cd "$DROPASR_CALLER_DIR" && bash "$root/run.sh" "${options[@]}" --seed "$seed")
  fi
  if ((status > 0)); then
    "${collect[@]}"
  fi
done
python -m dropasr table "$recipe"
