#!/usr/bin/env bash
# LSTMs with dropout and with approximate dropout at a rate of 0.5, 2 × 512 cells at full size, default corpus, pooled over seeds to
# RESULTS.md and results.json here: WER and training time.
#
#   bash recipes/approximate_dropout_lstm/run.sh [options of run.sh]
#
# SEEDS="1 2 3 4 5" sets other seeds. A seed whose rows are in rows/ for this configuration is not run again.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
exec bash "$root/local/recipe.sh" "$recipe" --conf "$recipe/conf.yaml" --model lstm \
  --data-dir "$root/data/synth_commands" --exp-dir "$root/exp/approximate_dropout_lstm" "$@"
