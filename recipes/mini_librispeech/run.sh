#!/usr/bin/env bash
# Three seeds of mini LibriSpeech, pooled to RESULTS.md and results.json here, with the claims. About three hours per seed on 2 cores.
#
#   bash recipes/mini_librispeech/run.sh --corpus-dir …/LibriSpeech [options of run.sh]
#
# SEEDS="1" runs one. A seed whose rows are in rows/ for this configuration is not run again; what was killed goes on where it was.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
exec bash "$root/local/recipe.sh" "$recipe" --conf "$root/recipes/mini_librispeech/conf.yaml" \
  --data-dir "$root/data/mini_librispeech" --exp-dir "$root/exp/mini_librispeech" "$@"
