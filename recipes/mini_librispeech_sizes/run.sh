#!/usr/bin/env bash
# What size costs on mini LibriSpeech: plain nets of 1024, 512, 256 and 128 units per layer. Where it costs nothing, compaction has nothing to
# win. Data, alignment and the large nets are those of recipes/mini_librispeech.
#
#   bash recipes/mini_librispeech_sizes/run.sh --corpus-dir …/LibriSpeech [options of run.sh]
#
# SEEDS="1" sets other seeds than 3.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
export SEEDS=${SEEDS:-3}
exec bash "$root/local/recipe.sh" "$recipe" --conf "$recipe/conf.yaml" \
  --data-dir "$root/data/mini_librispeech" --exp-dir "$root/exp/mini_librispeech" "$@"
