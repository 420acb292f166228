#!/usr/bin/env bash
# Three seeds of conf/synth_commands.yaml, pooled to RESULTS.md and results.json here, with the claims. About 45 minutes on 2 cores,
# estimated from the stages of the main job.
# Beyond the main job: half as many sentences again in train, twice as many in test and dev, and a third budget.
#
#   bash recipes/synth_commands/run.sh [options of run.sh]
#
# SEEDS="1 2 3 4 5" sets other seeds. A seed whose rows are in rows/ for this configuration is not run again.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
exec bash "$root/local/recipe.sh" "$recipe" --conf "$root/conf/synth_commands.yaml" \
  --data-dir "$root/data/synth_commands_recipe" --exp-dir "$root/exp/synth_commands_recipe" \
  --set corpus.options.train_utterances=4500 --set corpus.options.test_utterances=1520 --set corpus.options.dev_utterances=600 --set "experiment.budgets=[0.25,0.125,0.0625]" "$@"
