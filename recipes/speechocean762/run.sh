#!/usr/bin/env bash
# Learners of English, half of them children, pooled to RESULTS.md and results.json here, with the claims: three seeds at 1/8 and 1/16, of which
# seed 1 has 1/4, too. On 2 cores about an hour per seed.
#
#   bash recipes/speechocean762/run.sh --corpus-dir …/speechocean762 [options of run.sh]
#
# A run whose rows are all in rows/ for this configuration is not made again; what was killed goes on where it was.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
given=("$@")
run() { # run SEEDS OPTIONS...
  SEEDS=$1 bash "$root/local/recipe.sh" "$recipe" --conf "$recipe/conf.yaml" \
    --data-dir "$root/data/speechocean762" --exp-dir "$root/exp/speechocean762" "${given[@]}" "${@:2}"
}

run 1
run "2 3" --set "experiment.budgets=[0.125,0.0625]"
