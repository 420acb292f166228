"""The verbs of `python -m dropasr VERB [options]`: parse, check, call.

Nothing heavy is imported before a verb needs it, so that a stage that is already done answers at once.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dropasr import log, options
from dropasr.errors import DropasrError, UsageError
from dropasr.stages import BY_VERB, STAGES, list_text

if TYPE_CHECKING:
    from dropasr.config import Config
    from dropasr.options import Invocation
    from dropasr.paths import Paths

PATH_KEYS = ("corpus.corpus_dir", "lang.lexicon", "lang.arpa", "lang.text")
"""Configuration values that are paths: relative to the caller's folder in `--set`, to the repository in a YAML."""
PATH_OPTIONS = {"local/prepare_kaldi_dir.py": ("train", "dev", "test")}
"""The same of `corpus.options`, by prepare script; where `corpus.corpus_dir` is given, they are relative to that instead."""
CORPUS_KEYS = ("lang.dictionary", "lang.texts")
"""Paths, or lists of them, that a YAML gives relative to the corpus folder (or the folder around it), else to the repository."""
logger = log.get_logger(__name__)


def _absolute(base: Path, value: str) -> str:
    return str(base / os.path.expanduser(value))


def _beside_corpus(value: str, corpus_dir: str | None) -> str:
    """A path of a YAML that is relative to the corpus folder, to the folder around it, or to the repository: where it exists."""
    if corpus_dir is not None:
        for folder in (Path(corpus_dir), Path(corpus_dir).parent):
            if (folder / os.path.expanduser(value)).exists():
                return str(folder / os.path.expanduser(value))
    return _absolute(options.REPOSITORY, value)


def _with_corpus_files(config: Config, invocation: Invocation, typed: set[str]) -> Config:
    """The configuration with the paths of CORPUS_KEYS made absolute; the name of a pip package is none. `typed`: keys given by --set."""
    from dropasr.lang.dictionary import PACKAGE

    def absolute(name: str, key: str) -> str:
        if name == PACKAGE:
            return name
        return _absolute(invocation.base, name) if key in typed else _beside_corpus(name, config.corpus.corpus_dir)

    changed = {}
    for path_key in CORPUS_KEYS:
        key = path_key.rpartition(".")[2]
        value = getattr(config.lang, key)
        if value:
            changed[key] = absolute(value, path_key) if isinstance(value, str) else [absolute(name, path_key) for name in value]
    return config.model_copy(update={"lang": config.lang.model_copy(update=changed)})


def load(invocation: Invocation) -> tuple[Config, Paths]:
    """The configuration and the folders of a command line; raises ConfigError."""
    from dropasr.config import REPOSITORY, load_config, system_folder
    from dropasr.paths import Paths

    settings = []
    for setting in invocation.settings:
        key, _, value = setting.partition("=")
        is_path = key in PATH_KEYS and value and value not in ("null", "~") and not value.startswith("{")
        settings.append(f"{key}={_absolute(invocation.base, value)}" if is_path else setting)
    corpus_dir = str(invocation.corpus_dir) if invocation.corpus_dir else None
    config = load_config(invocation.conf, invocation.model, invocation.method, corpus_dir, settings, invocation.overlays)
    for path_key in PATH_KEYS:
        section, _, key = path_key.partition(".")
        value = getattr(getattr(config, section), key)
        if isinstance(value, str):
            changed = getattr(config, section).model_copy(update={key: _absolute(REPOSITORY, value)})
            config = config.model_copy(update={section: changed})
    typed = {setting.partition("=")[0] for setting in invocation.settings}
    config = _with_corpus_files(config, invocation, typed)
    if config.corpus.corpus_dir is None:
        found = dict(config.corpus.options)
        for key in PATH_OPTIONS.get(config.corpus.prepare, ()):
            if isinstance(found.get(key), str):
                found[key] = _absolute(invocation.base if f"corpus.options.{key}" in typed else REPOSITORY, found[key])
        config = config.model_copy(update={"corpus": config.corpus.model_copy(update={"options": found})})
    return config, Paths(invocation.data_dir, invocation.exp_dir, str(config.model["name"]), invocation.seed, system_folder(config))


def check_components(config: Config) -> None:
    """Check what only models, methods and the search backend know: their options, and which rows may stand together.

    Raises ConfigError. Imports torch.
    """
    from dropasr.decoding.search import need_lattices
    from dropasr.models import model_options
    from dropasr.stamps import resolved_backend
    from dropasr.training.rows import check_rows

    model_options(config.model)
    check_rows(config)
    backend = resolved_backend(config)
    if config.needs_lattices and backend == "kaldi":
        raise need_lattices(backend, config.needs_lattices)


def _stage(verb: str, invocation: Invocation) -> None:
    from dropasr.stamps import Stamps

    stage = BY_VERB[verb]
    config, paths = load(invocation)
    stamps = Stamps(config, paths)
    reason = stamps.reason_to_run(stage)
    if reason is None:
        print(f"stage {stage.number} {verb}: already done for this configuration")
        return
    log_file = paths.logs / f"{stage.number}-{verb}.log"
    log.setup(log_file)
    logger.info("stage %d %s: %s (%s)", stage.number, verb, stage.purpose, reason)
    started = time.monotonic()
    try:
        stamps.run(stage, invocation.nj)
    except BaseException:
        with open(log_file, "a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        raise
    logger.info("stage %d %s: done in %.1f s", stage.number, verb, time.monotonic() - started)


def _plan(invocation: Invocation) -> None:
    """Check the whole configuration and say which stages have to run."""
    from dropasr.stamps import Stamps

    config, paths = load(invocation)
    check_components(config)
    stamps = Stamps(config, paths)
    print(f"{config.corpus.name}: data in {_short(paths.data_dir)}, experiment in {_short(paths.system_home)}")
    for stage in STAGES:
        if invocation.stage <= stage.number <= invocation.stop_stage:
            reason = stamps.reason_to_run(stage)
            print(f"  {stage.number} {stage.verb:<9} {'done' if reason is None else 'to do: ' + reason}")


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(options.REPOSITORY))
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

    try:
        import k2

        search = f"k2 {k2.__dev_version__ if hasattr(k2, '__dev_version__') else ''}".strip()
    except ImportError:
        import kaldi_decoder  # noqa: F401

        search = "kaldi-decoder"
    name = "k2 stack" if sys.version_info[:2] == (3, 10) else "torch 2 stack"
    if name == "k2 stack" and not search.startswith("k2"):
        raise UsageError("k2 cannot be imported, though this is the k2 stack. Remove the environment's folder and run again.")
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

    config, paths = load(invocation)
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
            print(shlex.join(["bash", str(options.REPOSITORY / "run.sh"), *sys.argv[2:], "--row", row.name]))


def _rates(invocation: Invocation) -> None:
    from dropasr.stamps import Stamps
    from dropasr.training.rate_search import search_rates

    config, paths = load(invocation)
    stamps, stage, folder = Stamps(config, paths), BY_VERB["train"], _recipe(invocation)
    log.setup(paths.logs / "rates.log")
    with stamps.locked(stage):
        stamps.check_inputs(stage)
        target = folder / "rates" / f"{invocation.conf.stem}-{paths.model}.yaml"
        search_rates(config, paths, folder / "families.yaml", target, invocation.nj)


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

    default = options.REPOSITORY / "exp" / invocation.conf.stem
    folder = None if invocation.exp_dir == default else invocation.exp_dir
    path = (invocation.base / invocation.arguments[0]).resolve()
    compact_net(path, invocation.budget, invocation.method, invocation.seed, invocation.settings, folder)


def _budget(invocation: Invocation) -> None:
    """Say which finished net meets a budget: of this experiment, or of the recipe whose folder is given."""
    if invocation.budget is None:
        raise UsageError("option '--budget' is missing: expected python -m dropasr budget [RECIPE_DIR] --budget wer-loss=0.5.")
    from dropasr.report.budget import show

    path = _recipe(invocation) / "results.json" if invocation.arguments else load(invocation)[1].results
    for line in show(path, invocation.budget):
        print(line)


def _package(invocation: Invocation) -> None:
    """Write what transcription needs without torch, or what a benchmark needs."""
    if len(invocation.arguments) < 2:
        raise UsageError(
            "row or folder is missing: expected python -m dropasr package ROW DIR [options], such as package dense my-package."
        )
    from dropasr.runtime.export import export
    from dropasr.runtime.packaging import write_bundle, write_package

    config, paths = load(invocation)
    log.setup()
    row, folder = invocation.arguments[0], (invocation.base / invocation.arguments[1]).resolve()
    licence = invocation.own.get("--licence", ["unknown"])[-1]
    write = write_bundle if "--bench" in invocation.own else write_package
    write(config, paths, row, folder, lambda *target: export(*target, licence=licence))


def _export(invocation: Invocation) -> None:
    """Write what engines run of a row, and compare it with the net in torch."""
    if len(invocation.arguments) < 2:
        raise UsageError("row or folder is missing: expected python -m dropasr export ROW DIR [options], such as export dense my-net.")
    from dropasr.runtime.export import export

    config, paths = load(invocation)
    log.setup()
    row, folder = invocation.arguments[0], (invocation.base / invocation.arguments[1]).resolve()
    exported = export(config, paths, row, folder, invocation.own.get("--licence", ["unknown"])[-1])
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


MANY = 1000
BENCHMARKS = ("rtf", "roofline", "auto", "search", "causes")
LICENCE = options.Option("--licence", "TEXT", "licence of the corpus, for the card of the exported net")
OWN_OPTIONS = {
    "export": (LICENCE,),
    "package": (LICENCE, options.Option("--bench", "", "a benchmark instead: the net and bench.py, which needs ONNX Runtime alone")),
    "bench": (
        options.Option("--engines", "A,B", "engines to measure (default: all that can run); of search: k2, k2_batched, kaldi"),
        options.Option("--beams", "A,B", "of search: beams to try (default 8 to 16)"),
        options.Option("--max-active", "A,B", "of search: numbers of active states to try (default 300 to 7000)"),
        options.Option("--repeats", "N", "timed passes (default rtf.repeats of the configuration)"),
        options.Option("--utterances", "N", "utterances of which the words are compared (default all)"),
        options.Option("--threads", "T", "threads of an additional measurement of throughput (default 1)"),
        options.Option("--batch", "B", "utterances at once in it (default 1)"),
        options.Option("--first", "KEY=VALUE", "of causes: what the first decoder has in place of the file's, such as decode.beam=12"),
        options.Option("--tolerance", "PERCENT", "of auto, search: by how much the WER on dev may be above the best (default 0.1)"),
        options.Option("--under-load", "", "measure although other processes keep the machine busy, and mark the figures"),
        options.Option("--out", "DIR", "folder of the figures (default bench/ beside the scores of the experiment)"),
    ),
}
"""Options that a verb has beside those of run.sh."""
VERBS: dict[str, tuple[Callable[[Invocation], None], int, str]] = {
    "plan": (_plan, 0, "check the configuration, say which stages are to do"),
    "list": (_list, 0, "show the stages with what each reads and writes"),
    "stack": (_stack, 0, "say which versions and which search backend are installed"),
    "greedy": (_greedy, 1, "ROW: words and best phones per frame of the first dev utterances, without a search, to find faults"),
    "budget": (_budget, 1, "[RECIPE_DIR]: which finished net meets --budget, such as wer-loss=0.5, bytes=2M or latency=1/4"),
    "compact-net": (_compact_net, 1, "FILE.yaml: remove units of a net of your own until it meets --budget"),
    "row": (_row, 0, "train the one net of the table that --row names"),
    "jobs": (_jobs, 0, "print a command for every net of the table that is not trained yet"),
    "rates": (_rates, 1, "RECIPE_DIR: search the learning rates of its families.yaml on dev, write them to its rates/"),
    "package": (_package, 2, "ROW DIR: write a folder that `transcribe` needs: net, graph, words, units"),
    "export": (_export, 2, "ROW DIR: write the net of a row as ONNX and TorchScript, and compare it with the net in torch"),
    "bench": (_bench, MANY, "rtf|roofline|auto FOLDER..., search ROW, causes LARGE_ROW SMALL_ROW: measure nets in engines and searches"),
    "collect": (_collect, 1, "RECIPE_DIR: add this experiment's rows to a recipe"),
    "table": (_table, 1, "RECIPE_DIR: make a recipe's tables from its rows"),
}
"""Verbs besides the nine stages: function, number of arguments, help. A later verb is one entry here."""
TRANSCRIBE = "transcribe"
"""The verb that has options of its own, and needs neither a configuration nor torch."""


def help_text() -> str:
    """The answer to `python -m dropasr --help`."""
    lines = ["usage: python -m dropasr VERB [options]", "", "verbs:"]
    lines += [f"  {stage.verb:<11} stage {stage.number}: {stage.purpose}" for stage in STAGES]
    lines += [f"  {verb:<11} {text}" for verb, (_, _, text) in VERBS.items()]
    lines.append(f"  {TRANSCRIBE:<11} FILE…: words of audio files with a package; options of its own, see transcribe --help")
    for verb, own in OWN_OPTIONS.items():
        lines += ["", f"options of {verb} alone:", *(f"  {(option.name + ' ' + option.value).strip():<26} {option.help}" for option in own)]
    return "\n".join([*lines, "", options.help_text()])


def _run(argv: list[str]) -> None:
    known = [*BY_VERB, *VERBS, TRANSCRIBE]
    if argv[:1] in ([], ["--help"], ["-h"]):
        print(help_text())
        return
    verb = argv[0]
    if verb not in known:
        raise UsageError(f"unknown verb '{verb}': did you mean '{options.nearest(verb, known)}'? See python -m dropasr --help.")
    if verb == TRANSCRIBE:
        from dropasr.transcribe import run

        run(argv[1:], Path(os.environ.get(options.CALLER_DIR) or os.getcwd()))
        return
    most = VERBS[verb][1] if verb in VERBS else 0
    takes = {0: "no arguments", 1: "one argument", 2: "two arguments"}.get(most, "arguments")
    own = OWN_OPTIONS.get(verb, ())
    invocation = options.parse(argv[1:], max_arguments=most, where=f"'{verb}' takes {takes} besides options", own=own)
    if verb not in ("budget", "compact-net"):
        options.refuse_budget(invocation)
    if invocation.wants_help or invocation.wants_list:
        print(help_text() if invocation.wants_help else list_text())
    elif verb in BY_VERB:
        _stage(verb, invocation)
    else:
        VERBS[verb][0](invocation)


_INSTALL = "`transcribe` alone needs what `pip install dropasr[runtime]` brings; all else requirements.txt, as bash run.sh installs it."


def _disk_full(error: BaseException) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT)
    return (isinstance(error, OSError) and error.errno in full) or "No space left on device" in str(error)


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 0, 1 for a failure, 2 for a wrong command line or configuration, 130 when interrupted."""
    try:
        _run(sys.argv[1:] if argv is None else argv)
    except DropasrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has ended; nothing more can be said there, at the end of the process neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "dropasr").partition(".")[0] == "dropasr":
            raise
        print(f"error: the package '{error.name}' is not installed. {_INSTALL}", file=sys.stderr)
        return 1
    except Exception as error:
        if not _disk_full(error):
            traceback.print_exc()
            return 1
        where = f" while writing {error.filename}" if isinstance(error, OSError) and error.filename else ""
        print(f"error: the disk is full{where}. Make room and give the same command again; finished stages are kept.", file=sys.stderr)
        return 1
    return 0
