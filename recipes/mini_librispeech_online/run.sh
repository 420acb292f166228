#!/usr/bin/env bash
# Online compaction, our own variant, on mini LibriSpeech at 1/8 and 1/16: three seeds, with training from scratch and removal by lot. Data,
# alignment and the nets that both have are those of recipes/mini_librispeech. On 2 cores about 70 minutes per seed after them.
#
#   bash recipes/mini_librispeech_online/run.sh --corpus-dir …/LibriSpeech [options of run.sh]
#
# SEEDS="1" sets other seeds than 1, 2 and 3.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
exec bash "$root/local/recipe.sh" "$recipe" --conf "$recipe/conf.yaml" \
  --data-dir "$root/data/mini_librispeech" --exp-dir "$root/exp/mini_librispeech" "$@"
