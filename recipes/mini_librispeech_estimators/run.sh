#!/usr/bin/env bash
# How the units that leave are chosen: gradient estimators, lot and weights at 1/8 on mini LibriSpeech, with the signal of every estimator at every
# update. Data, alignment and the nets that both have are those of recipes/mini_librispeech.
#
#   bash recipes/mini_librispeech_estimators/run.sh --corpus-dir …/LibriSpeech [options of run.sh]
#
# SEEDS="1" sets other seeds than 3.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
export SEEDS=${SEEDS:-3}
exec bash "$root/local/recipe.sh" "$recipe" --conf "$recipe/conf.yaml" \
  --data-dir "$root/data/mini_librispeech" --exp-dir "$root/exp/mini_librispeech" "$@"
