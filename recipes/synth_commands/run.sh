#!/usr/bin/env bash
# Three seeds of conf/synth_commands.yaml, pooled to RESULTS.md and results.json here, with the claims. About half an hour on 2 cores.
#
#   bash recipes/synth_commands/run.sh [options of run.sh]
#
# SEEDS="1 2 3 4 5" sets other seeds. A seed whose rows are in rows/ for this configuration is not run again.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
exec bash "$recipe/../../local/recipe.sh" "$recipe" --conf conf/synth_commands.yaml "$@"
