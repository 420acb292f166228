#!/usr/bin/env bash
# From nothing to one table: word error rate against real-time factor, for large, compacted and small nets.
#
#   bash run.sh [options]                          all stages, or those of --stage N to --stop-stage M; bash run.sh --help
#   bash run.sh test [fast|slow|lint] [pytest …]   linters and fast tests (default), slow recipe tests, linters alone
#
# Every stage is one call of `python -m dropasr VERB`; bash run.sh --list shows what each reads and writes.
set -euo pipefail

caller_dir=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=local/env.sh
source local/env.sh

if [[ ${1:-} == test ]]; then
  kind=${2:-fast}
  case $kind in
    fast) selection='not slow' ;;
    slow) selection='slow' ;;
    lint) selection= ;;
    *)
      echo "error: unknown kind of test '$kind': expected 'fast', 'slow' or 'lint', such as 'bash run.sh test slow'." >&2
      exit 2
      ;;
  esac
  dropasr_environment
  if [[ $kind != slow ]]; then
    ruff check .
    shopt -s nullglob
    shellcheck -x run.sh .ci/run local/*.sh recipes/*/*.sh
    codespell
  fi
  [[ $kind != lint ]] || exit 0
  exec python -m pytest -m "$selection" "${@:3}"
fi

export DROPASR_CALLER_DIR=$caller_dir # relative paths in options are meant from here
# Wrong options are answered by any Python at hand, before anything is installed.
any_python=$(dropasr_any_python)
answer=$("$any_python" -m dropasr.options "$@")
if [[ $answer != run:* ]]; then # --help, --list
  printf '%s\n' "$answer"
  exit 0
fi
read -ra verbs <<<"${answer#run:}"

dropasr_environment
python -m dropasr plan "$@"
for verb in "${verbs[@]}"; do
  python -m dropasr "$verb" "$@"
done
