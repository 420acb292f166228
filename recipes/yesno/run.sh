#!/usr/bin/env bash
# Three seeds of conf/yesno.yaml (one speaker, 240 test words), pooled to RESULTS.md and results.json here; too few words for claims.
#
#   bash recipes/yesno/run.sh [--corpus-dir DIR] [options of run.sh]
#
# SEEDS="1 2 3 4 5" sets other seeds. A seed whose rows are in rows/ for this configuration is not run again.
set -euo pipefail

recipe=$(dirname "${BASH_SOURCE[0]}")
exec bash "$recipe/../../local/recipe.sh" "$recipe" --conf conf/yesno.yaml "$@"
