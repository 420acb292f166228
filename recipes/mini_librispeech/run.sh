#!/usr/bin/env bash
# mini LibriSpeech, pooled to RESULTS.md and results.json here, with the claims: three seeds of the table at every third frame, one seed of a part of it
# rescored with a larger language model, at every third and at every frame, and with CTC on characters and on word pieces. About four hours per
# seed on 2 cores, estimated from 11 of the 17 nets of seed 2 (preparation 24 minutes, training 65, decoding 50, timing 8); rescored 20 and 45
# minutes; with CTC about an hour each.
#
#   bash recipes/mini_librispeech/run.sh --corpus-dir …/LibriSpeech [options of run.sh]
#
# SEEDS="1" sets the seeds of the table. Rows that are in rows/ for this configuration are not run again; what was killed goes on where it was.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
run() { # run CONF DATA EXP OPTIONS...
  bash "$root/local/recipe.sh" "$recipe" --conf "$recipe/$1.yaml" --data-dir "$root/data/$2" --exp-dir "$root/exp/$3" "${@:4}"
}

run conf mini_librispeech mini_librispeech "$@"
export SEEDS=1
part=(--set "experiment.budgets=[0.125]" --set "experiment.compact=[dropout_compaction]" --set "experiment.small=[dense]" --set decode.rescore=nbest)
run conf mini_librispeech mini_librispeech "$@" "${part[@]}"
run conf mini_librispeech mini_librispeech "$@" "${part[@]}" --set train.frame_subsampling=1
run ctc mini_librispeech_ctc mini_librispeech_chars "$@"
run ctc_bpe mini_librispeech_ctc mini_librispeech_bpe "$@"
