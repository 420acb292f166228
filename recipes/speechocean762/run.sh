#!/usr/bin/env bash
# Three seeds of conf.yaml (learners of English, half of them children), pooled to RESULTS.md and results.json here, with
# the claims.
#
#   bash recipes/speechocean762/run.sh --corpus-dir …/speechocean762 [options of run.sh]
#
# SEEDS="1" sets other seeds. A seed whose rows are all in rows/ for this configuration is not run again; what was killed goes on where it was.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
exec bash "$root/local/recipe.sh" "$recipe" --conf "$recipe/conf.yaml" \
  --data-dir "$root/data/speechocean762" --exp-dir "$root/exp/speechocean762" "$@"
