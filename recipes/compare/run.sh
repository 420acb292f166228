#!/usr/bin/env bash
# Every method at the same budgets on the same alignments, pooled over seeds to RESULTS.md and results.json here.
#
#   bash recipes/compare/run.sh [--conf conf/X.yaml] [options of run.sh]                  the whole table (default corpus: synth_commands)
#   bash recipes/compare/run.sh --smoke [--conf …] [options of run.sh]                    one seed, one budget, LSTMs too; results in smoke/
#   bash recipes/compare/run.sh --search-rates [--conf …] [options of run.sh]             choose learning rates on dev, once, before the table
#   bash recipes/compare/run.sh --list-jobs [--conf …] [options of run.sh]                a command per net that is still to train
#   bash recipes/compare/run.sh --retime [--conf …] [options of run.sh]                   time the acoustic models of all rows in one run
#
# SEEDS="1 2 3 4 5" sets other seeds. The methods stand in methods.yaml, what one corpus has otherwise in corpora/, the families that share a
# learning rate in families.yaml, rates that were chosen in rates/. A seed whose rows are all in rows/ for this configuration is not run
# again; what was killed goes on where it was. Rows are kept as they are: a method is added to a table without training its other nets
# again, beside the large net that RESULTS.md names as its reference, with --set "experiment.large=[dense,dropout]"
# --set "experiment.small=[dense]" --set "experiment.compact=[METHOD]". Commands of --list-jobs are independent of each other but for the teachers, which come first;
# run from one folder, on machines that share it. When all have ended, the first command does the rest.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
root=$(realpath --relative-to="$PWD" "$recipe/../..") # relative, so that the recorded commands hold on other machines
mode=table
given=()
recurrent=(lstm)
conf=$root/conf/synth_commands.yaml
while (($#)); do
  case $1 in
    --smoke | --search-rates | --list-jobs | --retime)
      if [[ $mode != table ]]; then
        echo "error: option '$1': it cannot stand beside '--$mode'; give one of them." >&2
        exit 2
      fi
      mode=${1#--}
      ;;
    --help | -h)
      sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
      exec bash "$root/run.sh" --help
      ;;
    --conf=*) conf=${1#*=} ;;
    --conf)
      if (($# == 1)); then
        echo "error: option '--conf': its value is missing; expected '--conf FILE'." >&2
        exit 2
      fi
      conf=$2
      shift
      ;;
    --model | --model=*)
      recurrent=() # a smoke run is of that model alone
      given+=("$1")
      ;;
    *) given+=("$1") ;;
  esac
  shift
done
name=$(basename "$conf" .yaml)

options=(--conf "$conf" --data-dir "$root/data/$name")
smoke() { # smoke OPTIONS...
  SEEDS=${SEEDS:-1} bash "$root/local/recipe.sh" "$recipe/smoke" "${options[@]}" --exp-dir "$root/exp/compare_${name}_smoke" \
    --with "$root/recipes/compare/smoke.yaml" "$@"
}
if [[ $mode == smoke ]]; then
  smoke "${given[@]}"
  for model in "${recurrent[@]}"; do # they have methods that others have not
    smoke "${given[@]}" --model "$model"
  done
  exit
fi
options+=(--exp-dir "$root/exp/compare_$name" --with "$root/recipes/compare/methods.yaml")
[[ ! -e $recipe/corpora/$name.yaml ]] || options+=(--with "$root/recipes/compare/corpora/$name.yaml")
if [[ $mode != search-rates ]]; then
  for rates in "$root/recipes/compare/rates/$name"-*.yaml; do # each counts for its own model alone
    [[ ! -e $rates ]] || options+=(--with "$rates")
  done
fi
options+=("${given[@]}")

verb() { # verb VERB ARGUMENTS...: one verb in the environment of run.sh
  (
    export DROPASR_CALLER_DIR=$PWD
    cd "$root"
    # shellcheck source=local/env.sh
    source local/env.sh
    dropasr_environment >&2
    exec python -m dropasr "$@"
  )
}

case $mode in
  table) exec bash "$root/local/recipe.sh" "$recipe" "${options[@]}" ;;
  search-rates)
    bash "$root/run.sh" "${options[@]}" --stop-stage 4
    verb rates "$recipe" "${options[@]}"
    ;;
  retime)
    bash "$root/run.sh" "${options[@]}" --stop-stage 4 # the search between two models needs the graph
    verb bench retime "$recipe" "${options[@]}"
    verb table "$recipe"
    ;;
  list-jobs)
    bash "$root/run.sh" "${options[@]}" --stop-stage 4 >&2
    for seed in ${SEEDS:-1 2 3}; do
      verb jobs "${options[@]}" --seed "$seed"
    done
    ;;
esac
