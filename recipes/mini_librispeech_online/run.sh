#!/usr/bin/env bash
# Online and input compaction, our own variants, on mini LibriSpeech at 1/8 and 1/16, with training from scratch and removal by lot.
# Data, alignment and the nets that all have are those of recipes/mini_librispeech; the rest takes about 45 minutes on 2 cores.
#
#   bash recipes/mini_librispeech_online/run.sh --corpus-dir …/LibriSpeech [options of run.sh]
#
# SEEDS="1" sets other seeds than 3.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
export SEEDS=${SEEDS:-3}
exec bash "$root/local/recipe.sh" "$recipe" --conf "$recipe/conf.yaml" \
  --data-dir "$root/data/mini_librispeech" --exp-dir "$root/exp/mini_librispeech" "$@"
