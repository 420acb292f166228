#!/usr/bin/env bash
# mini LibriSpeech, pooled to RESULTS.md and results.json here, with the claims. At every third frame: three seeds at 1/8 and 1/16, of which seed 1
# has nets with a teacher, too, and seed 2 has 1/4; one seed of LSTMs; one seed rescored with a larger language model, at every third and at every
# frame. With CTC, one seed each: on characters, feed-forward nets and LSTMs, and on word pieces. On 2 cores 24 minutes of preparation and two
# hours or so per seed of the first three, an hour for each of the others.
#
#   bash recipes/mini_librispeech/run.sh --corpus-dir …/LibriSpeech [options of run.sh]
#
# A run whose rows are all in rows/ for this configuration is not made again; what was killed goes on where it was. All of a table, taught nets and
# 1/4 included, for the seeds of SEEDS: bash local/recipe.sh DIR --conf recipes/mini_librispeech/conf.yaml --corpus-dir …/LibriSpeech
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
given=("$@")
run() { # run SEED CONF DATA EXP OPTIONS...
  SEEDS=$1 bash "$root/local/recipe.sh" "$recipe" --conf "$recipe/$2.yaml" --data-dir "$root/data/$3" --exp-dir "$root/exp/$4" "${given[@]}" "${@:5}"
}
hybrid=(conf mini_librispeech mini_librispeech)

budgets=(--set "experiment.budgets=[0.125,0.0625]")
plain=(--set "experiment.small=[dense]" --set "experiment.compact=[dropout_compaction,random_removal]")
run 1 "${hybrid[@]}" "${budgets[@]}"
run 2 "${hybrid[@]}" "${plain[@]}"
run 3 "${hybrid[@]}" "${budgets[@]}" "${plain[@]}"

few=(--set "experiment.small=[dense]" --set "experiment.compact=[dropout_compaction]")
run 1 "${hybrid[@]}" "${few[@]}" --model lstm --set "experiment.budgets=[0.25,0.125]"
run 1 "${hybrid[@]}" "${few[@]}" --set "experiment.budgets=[0.125]" --set decode.rescore=nbest
run 1 "${hybrid[@]}" "${few[@]}" --set "experiment.budgets=[0.125]" --set decode.rescore=nbest --set train.frame_subsampling=1

run 1 ctc mini_librispeech_ctc mini_librispeech_chars
run 1 ctc mini_librispeech_ctc mini_librispeech_chars "${few[@]}" --model lstm
run 1 ctc_bpe mini_librispeech_ctc mini_librispeech_bpe
