#!/usr/bin/env bash
# Three seeds of recurrent nets on conf/synth_commands.yaml, pooled to RESULTS.md and results.json here, with the claims.
# Beyond the main job: four times as many sentences in train, because recurrent nets know fewer by heart, twice as many in test and dev, and
# nets of a quarter that learn from the large net trained with annealed dropout, too.
#
#   bash recipes/synth_commands_lstm/run.sh [options of run.sh]      another net: --model blstm, --model lstmp
#
# About 20 minutes a seed on 2 cores, estimated from its stages.
# SEEDS="1 2 3 4 5" sets other seeds. A seed whose rows are in rows/ for this configuration is not run again.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
exec bash "$root/local/recipe.sh" "$recipe" --conf "$root/conf/synth_commands.yaml" --model lstm \
  --data-dir "$root/data/synth_commands_lstm" --exp-dir "$root/exp/synth_commands_lstm" \
  --set corpus.options.train_utterances=12000 --set corpus.options.test_utterances=1520 --set corpus.options.dev_utterances=600 \
  --set train.epoch_share=0.2 --set "experiment.small=[dense,distilled]" --set "experiment.compact=[dropout_compaction,distilled_compaction]" \
  --set methods.distilled.teacher=annealed_dropout --set methods.distilled_compaction.teacher=annealed_dropout "$@"
