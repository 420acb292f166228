"""The verbs of `python -m dropasr`: what each does, takes and is for. Each imports what it needs when it runs."""

from __future__ import annotations

import functools
import shlex
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dropasr import log
from dropasr.errors import UsageError
from dropasr.invocation import check_components, load
from dropasr.options import OPTIONS, REPOSITORY, Invocation, Option, whole_number
from dropasr.stages import BY_VERB, STAGES, Stage, list_text

if TYPE_CHECKING:
    from dropasr.config import Config
    from dropasr.paths import Paths

logger = log.get_logger(__name__)


def _stage(stage: Stage, invocation: Invocation) -> None:
    from dropasr.stamps import Stamps

    config, paths = load(invocation)
    stamps = Stamps(config, paths)
    reason = stamps.reason_to_run(stage)
    if reason is None:
        print(f"stage {stage.number} {stage.verb}: already done for this configuration")
        return
    log_file = paths.logs / f"{stage.number}-{stage.verb}.log"
    log.setup(log_file)
    logger.info("stage %d %s: %s (%s)", stage.number, stage.verb, stage.purpose, reason)
    started = time.monotonic()
    try:
        stamps.run(stage, invocation.nj, ahead=stage.number < invocation.stop_stage)
    except BaseException:
        with open(log_file, "a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        raise
    logger.info("stage %d %s: done in %.1f s", stage.number, stage.verb, time.monotonic() - started)


def _plan(invocation: Invocation) -> None:
    """Check the whole configuration and say which stages have to run."""
    from dropasr.stamps import Stamps

    config, paths = load(invocation)
    check_components(config, invocation.row)
    stamps = Stamps(config, paths)
    for stage in STAGES:
        stamps.parts(stage)  # refuses files that are missing, before anything is computed
    print(f"{config.corpus.name}: data in {_short(paths.data_dir)}, experiment in {_short(paths.system_home)}")
    for stage in STAGES:
        if invocation.stage <= stage.number <= invocation.stop_stage:
            reason = stamps.reason_to_run(stage)
            print(f"  {stage.number} {stage.verb:<9} {'done' if reason is None else 'to do: ' + reason}")


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(REPOSITORY))
    except ValueError:
        return str(path)


def _list(invocation: Invocation) -> None:
    print(list_text())


def _stack(invocation: Invocation) -> None:
    """One line for local/env.sh: which stack, which search backend. Fails where the stack cannot be imported."""
    import platform

    import lhotse
    import torch
    import torchaudio

    name = "k2 stack" if sys.version_info[:2] == (3, 10) else "torch 2 stack"
    try:
        import k2

        search = f"k2 {k2.__dev_version__ if hasattr(k2, '__dev_version__') else ''}".strip()
    except ImportError as error:
        if name == "k2 stack":
            raise UsageError(
                f"k2 cannot be imported ({error}), though this is the k2 stack. Remove the environment's folder and run again, or: "
                "pip install --no-deps --require-hashes --force-reinstall -r local/k2.txt"
            ) from None
        import kaldi_decoder  # noqa: F401

        search = "kaldi-decoder"
    packages = f"torch {torch.__version__}, torchaudio {torchaudio.__version__}, lhotse {lhotse.__version__}"
    print(f"{name} (Python {platform.python_version()}, {packages}), search: {search}")


def _table(invocation: Invocation) -> None:
    from dropasr.report.recipe import table

    table(_recipe(invocation))


def _collect(invocation: Invocation) -> None:
    from dropasr.report.recipe import collect

    config, paths = load(invocation)
    collect(config, paths, _recipe(invocation))


def _row(invocation: Invocation) -> None:
    """Train one row of the table as a job of its own."""
    if invocation.row is None:
        raise UsageError("the name of the row is missing: expected python -m dropasr row --row NAME, such as svd@0.125.")
    from dropasr.stamps import Stamps, lock_folder
    from dropasr.training.jobs import train_one
    from dropasr.training.rows import row_by_name

    config, paths = load(invocation)
    row_by_name(config, invocation.row)
    stamps, stage = Stamps(config, paths), BY_VERB["train"]
    log.setup(paths.logs / f"row-{invocation.row}.log")
    with stamps.locked(stage, beside_others=True), lock_folder(paths.net(invocation.row), shared=False):
        stamps.check_inputs(stage)
        train_one(config, paths, invocation.row)


def _jobs(invocation: Invocation) -> None:
    """Print a command for every row that is not trained yet."""
    from dropasr.stamps import Stamps
    from dropasr.training.jobs import waves

    config, paths = load(invocation)
    check_components(config)
    Stamps(config, paths).check_inputs(BY_VERB["train"])
    for number, wave in enumerate(waves(config, paths)):
        if number:
            print("# when those above have ended, which are the teachers of these:")
        for row in wave:
            print(shlex.join(["bash", str(REPOSITORY / "run.sh"), *sys.argv[2:], "--row", row.name]))


def _rates(invocation: Invocation) -> None:
    from dropasr.stamps import Stamps
    from dropasr.training.rate_search import search_rates, seeds_of

    config, paths = load(invocation)
    stage, folder = BY_VERB["train"], _recipe(invocation)
    source, target = folder / "families.yaml", folder / "rates" / f"{invocation.conf.stem}-{paths.model}.yaml"
    log.setup(paths.logs / "rates.log")
    with ExitStack() as stack:
        for seed in seeds_of(config, source):
            stack.enter_context(Stamps(config, replace(paths, seed=seed)).locked(stage))
        Stamps(config, paths).check_inputs(stage)
        search_rates(config, paths, source, target, invocation.nj)


def _check_row(config: Config, paths: Paths, row: str) -> None:
    """Refuse a row whose features, net or scores are not of this configuration, which is to describe it."""
    from dropasr.stamps import Stamps
    from dropasr.training.evaluate import check_scored, check_trained
    from dropasr.training.rows import row_by_name

    row_by_name(config, row)
    Stamps(config, paths).check_features()
    check_trained(config, paths, row)
    check_scored(config, paths, row)


def _greedy(invocation: Invocation) -> None:
    """Print what the best unit of every frame says, beside the words that were spoken."""
    if not invocation.arguments:
        raise UsageError("the name of the row is missing: expected python -m dropasr greedy ROW [options], such as dense.")
    from dropasr.training.greedy import show

    config, paths = load(invocation)
    for line in show(config, paths, invocation.arguments[0]):
        print(line)


def _compact_net(invocation: Invocation) -> None:
    """Compact a net of the user's own."""
    if not invocation.arguments:
        raise UsageError("the YAML is missing: expected python -m dropasr compact-net FILE.yaml, see docs/compact-your-own-net.md.")
    from dropasr.adapt.verb import compact_net

    default = REPOSITORY / "exp" / invocation.conf.stem
    folder = None if invocation.exp_dir == default else invocation.exp_dir
    path = (invocation.base / invocation.arguments[0]).resolve()
    own = invocation.own
    epochs = whole_number(own, "--epochs", 10, 1) if "--epochs" in own else None
    compact_net(path, own.get("--budget", [None])[-1], invocation.method, invocation.seed, invocation.settings, folder, epochs)


def _budget(invocation: Invocation) -> None:
    """Say which finished net meets a budget: of this experiment, or of the recipe whose folder is given."""
    if "--budget" not in invocation.own:
        raise UsageError("option '--budget' is missing: expected python -m dropasr budget [RECIPE_DIR] --budget wer-loss=0.5.")
    from dropasr.report.budget import show

    path = _recipe(invocation) / "results.json" if invocation.arguments else load(invocation)[1].results
    for line in show(path, invocation.own["--budget"][-1]):
        print(line)


def _target(invocation: Invocation, verb: str) -> tuple[str, Path, str]:
    """Row, folder and licence of what is written for elsewhere."""
    if len(invocation.arguments) < 2:
        raise UsageError(f"row or folder is missing: expected python -m dropasr {verb} ROW DIR [options], such as {verb} dense my-net.")
    row, folder = invocation.arguments
    return row, (invocation.base / folder).resolve(), invocation.own.get("--licence", ["unknown"])[-1]


def _package(invocation: Invocation) -> None:
    """Write what transcription needs without torch, or what a benchmark needs."""
    row, folder, licence = _target(invocation, "package")
    from dropasr.runtime.export import export
    from dropasr.runtime.packaging import write_bundle, write_package

    config, paths = load(invocation)
    _check_row(config, paths, row)
    log.setup()
    write = write_bundle if "--bench" in invocation.own else write_package
    write(config, paths, row, folder, lambda *target: export(*target, licence=licence))


def _export(invocation: Invocation) -> None:
    """Write what engines run of a row, and compare it with the net in torch."""
    row, folder, licence = _target(invocation, "export")
    from dropasr.runtime.export import export

    config, paths = load(invocation)
    _check_row(config, paths, row)
    log.setup()
    exported = export(config, paths, row, folder, licence)
    print(f"{folder}: {', '.join(sorted(exported.files))}, model.json")


def _bench(invocation: Invocation) -> None:
    """Measure exported nets."""
    if len(invocation.arguments) < 2:
        raise UsageError(f"expected python -m dropasr bench {'|'.join(BENCHMARKS)} FOLDER|ROW... [options], found too few words.")
    from dropasr.bench.verb import run

    config, paths = load(invocation)
    log.setup()
    print(run(config, paths, invocation))


def _recipe(invocation: Invocation) -> Path:
    if not invocation.arguments:
        raise UsageError("the folder of the recipe is missing: expected python -m dropasr table RECIPE_DIR, such as recipes/fsdd.")
    return (invocation.base / invocation.arguments[0]).resolve()


@dataclass(frozen=True)
class Verb:
    """One verb of the command line."""

    function: Callable[[Invocation], None]
    help: str
    arguments: int = 0
    """How many words may stand beside the options."""
    takes: tuple[Option, ...] = tuple(option for option in OPTIONS if option.name != "--row")
    """Options of run.sh: by default those of a run, so that the same ones serve for the run and for what is made of it."""
    own: tuple[Option, ...] = ()
    """Options beside those of run.sh."""


def _only(*names: str) -> tuple[Option, ...]:
    return tuple(option for option in OPTIONS if option.name in (*names, "--help", "--list"))


MANY = 1000
BENCHMARKS = ("rtf", "roofline", "auto", "search", "causes", "retime")
LICENCE = Option("--licence", "TEXT", "licence of the corpus, for the card of the exported net")
BUDGET = Option("--budget", "KIND=VALUE", "macs=1/8, latency=1/4, bytes=200k, wer-loss=0.5, …")
VERBS = {
    **{stage.verb: Verb(functools.partial(_stage, stage), f"stage {stage.number}: {stage.purpose}") for stage in STAGES},
    "plan": Verb(_plan, "check the configuration, say which stages are to do", takes=OPTIONS),
    "list": Verb(_list, "show the stages with what each reads and writes", takes=_only()),
    "stack": Verb(_stack, "say which versions and which search backend are installed", takes=_only()),
    "greedy": Verb(_greedy, "ROW: words and best phones per frame of the first dev utterances, without a search, to find faults", 1),
    "budget": Verb(
        _budget, "[RECIPE_DIR]: which finished net meets --budget, such as wer-loss=0.5, bytes=2M or latency=1/4", 1, own=(BUDGET,)
    ),
    "compact-net": Verb(
        _compact_net,
        "FILE.yaml: remove units of a net of your own until it meets --budget",
        1,
        takes=_only("--method", "--seed", "--exp-dir", "--set"),
        own=(BUDGET, Option("--epochs", "N", "passes over the data (default: epochs of the YAML)")),
    ),
    "row": Verb(_row, "train the one net of the table that --row names", takes=OPTIONS),
    "jobs": Verb(_jobs, "print a command for every net of the table that is not trained yet"),
    "rates": Verb(_rates, "RECIPE_DIR: search the learning rates of its families.yaml on dev, write them to its rates/", 1),
    "package": Verb(
        _package,
        "ROW DIR: write a folder that `transcribe` needs: net, graph, words, units",
        2,
        own=(LICENCE, Option("--bench", "", "a benchmark instead: the net and bench.py, which needs ONNX Runtime alone")),
    ),
    "export": Verb(
        _export, "ROW DIR: write the net of a row as ONNX and TorchScript, and compare it with the net in torch", 2, own=(LICENCE,)
    ),
    "bench": Verb(
        _bench,
        "rtf|roofline|auto FOLDER..., search ROW, causes LARGE SMALL, retime RECIPE_DIR: measure nets in engines, searches and tables",
        MANY,
        own=(
            Option("--engines", "A,B", "engines to measure (default: all that can run); of search: k2, k2_batched, kaldi"),
            Option("--beams", "A,B", "of search: beams to try (default 8 to 16)"),
            Option("--max-active", "A,B", "of search: numbers of active states to try (default 300 to 7000)"),
            Option("--repeats", "N", "timed passes (default rtf.repeats of the configuration)"),
            Option("--utterances", "N", "utterances of which the words are compared (default all)"),
            Option("--threads", "T", "threads of an additional measurement of throughput (default 1)"),
            Option("--batch", "B", "utterances at once in it (default 1)"),
            Option("--first", "KEY=VALUE", "of causes: what the first decoder has in place of the file's, such as decode.beam=12"),
            Option("--tolerance", "PERCENT", "of auto, search: by how much the WER on dev may be above the best (default 0.1)"),
            Option("--under-load", "", "measure although other processes keep the machine busy, and mark the figures"),
            Option("--out", "DIR", "folder of the figures (default bench/ beside the scores of the experiment)"),
        ),
    ),
    "collect": Verb(_collect, "RECIPE_DIR: add this experiment's rows to a recipe", 1),
    "table": Verb(_table, "RECIPE_DIR: make a recipe's tables from its rows", 1, takes=_only()),
}
"""All verbs but `transcribe`, which has options of its own. A later verb is one entry here."""
