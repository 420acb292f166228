"""Whether a stage is already done, whether its inputs are there, and running it.

A finished stage leaves a stamp: a JSON file with everything that it depends on (configuration values, contents of given files, keys
of the stages before it) and the sizes of its outputs. A stage is done when its stamp says what is wanted now and its outputs are
still there. Nothing here imports torch, so that checking costs little.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib
import importlib.util
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import dropasr
from dropasr.config import REPOSITORY, Config, rows
from dropasr.errors import ConfigError, StageError
from dropasr.files import hash_of, read_json, sha256_file, write_json
from dropasr.lang.dictionary import PACKAGE, package_file
from dropasr.log import get_logger
from dropasr.paths import GRAPH_CONSTRUCTION, Paths
from dropasr.stages import BY_VERB, Stage, ancestors

FILE_VALUES = ("lang.lexicon", "lang.arpa", "lang.text", "lang.dictionary", "lang.texts")
"""Configuration values that name a file or several: their contents count, not their names."""
NOT_DONE = "not done yet"
log = get_logger(__name__)


def installed_backends() -> list[str]:
    """The search backends that are installed, the preferred one first; found without importing them."""
    packages = {"k2": "k2", "kaldi": "kaldi_decoder"}
    return [backend for backend, package in packages.items() if importlib.util.find_spec(package)]


def resolved_backend(config: Config) -> str:
    """The search backend that `decode.backend: auto` stands for here."""
    return config.decode.backend if config.decode.backend != "auto" else "".join(installed_backends()[:1])


def folder_fingerprint(folder: str | Path, written: Iterable[Path] = ()) -> str:
    """Hash of the names, sizes and modification times below a folder, the folders `written` (by stages) left out.

    ConfigError where the folder does not exist, or is one of those.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"corpus.corpus_dir: expected a folder with the corpus, but '{folder}' is not one. Give --corpus-dir DIR.")
    folder, own = folder.resolve(), {str(path.resolve()) for path in written}
    if str(folder) in own:
        raise ConfigError(
            f"corpus.corpus_dir: '{folder}' is also where this run writes, so the corpus would change with each stage. "
            "Give --data-dir and --exp-dir other folders; they may lie below the corpus."
        )
    entries = []
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if os.path.join(place, name) not in own]
        for name in names:
            path = os.path.join(place, name)
            state = os.lstat(path)
            entries.append((os.path.relpath(path, folder), state.st_size, state.st_mtime_ns))
    return hash_of(sorted(entries))


def _file_fingerprint(key: str, name: str) -> str:
    path = REPOSITORY / name
    if not path.is_file():
        raise ConfigError(f"{key}: there is no file '{path}'. Correct the path in the configuration.")
    return f"SHA-256 {sha256_file(path)}"


def _script_fingerprint(name: str) -> str:
    """Hash of a prepare script and of the modules in folders beside it, which scripts may import."""
    path = REPOSITORY / name
    modules = sorted(path.parent.glob("*/*.py"))
    return f"SHA-256 {hash_of([_file_fingerprint('corpus.prepare', name), *map(sha256_file, modules)])}"


def _flatten(value: Any, name: str, into: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            _flatten(below, f"{name}.{key}", into)
    else:
        into[name] = value


def _is_hash(key: str, *values: Any) -> bool:
    return key.startswith(("stage ", "files of ")) or any(str(value).lstrip("['").startswith("SHA-256 ") for value in values)


def _change(before: Any, after: Any) -> str:
    if all(isinstance(value, list) and all(isinstance(item, str) for item in value) for value in (before, after)):
        gone, added = ([item for item in first if item not in second] for first, second in ((before, after), (after, before)))
        if gone or added:
            return " ".join([*(f"+{item}" for item in added), *(f"-{item}" for item in gone)])
    return f"{before} → {after}"


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What changed, as `key old → new`; of hashes the name alone, of lists of names what is new (+) and what is gone (-)."""
    told = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key, "(not set)"), new.get(key, "(not set)")
        if before != after:
            told.append(f"{key} changed" if _is_hash(key, before, after) else f"{key} {_change(before, after)}")
    return ", ".join(told)


class Stamps:
    """The state of all stages of one experiment, for one configuration."""

    def __init__(self, config: Config, paths: Paths) -> None:
        self.config = config
        self.paths = paths
        counting = {"training": config.train.training_values(), "decode": config.decode.counting_values()}
        self._values = {**config.model_dump(mode="json"), **counting}
        self._parts: dict[str, dict[str, Any]] = {}

    def parts(self, stage: Stage) -> dict[str, Any]:
        """Everything that the result of a stage depends on, by name; ConfigError when a given file or folder is missing."""
        if stage.verb not in self._parts:
            self._parts[stage.verb] = self._collect(stage)
        return self._parts[stage.verb]

    def key(self, stage: Stage) -> str:
        """Hash of `parts`."""
        return hash_of(self.parts(stage))

    def path(self, stage: Stage) -> Path:
        """Where the stage leaves its stamp."""
        return self._home(stage) / "stamps" / f"{stage.number}-{stage.verb}.json"

    def reason_to_run(self, stage: Stage) -> str | None:
        """None when the stage is done for this configuration, else why it has to run."""
        path = self.path(stage)
        if not path.exists():
            return NOT_DONE
        stamp, wanted = read_json(path), self.parts(stage)
        if stamp["key"] != hash_of(wanted):
            return differences(stamp["parts"], wanted)
        for name, size in stamp["outputs"].items():
            output = self._home(stage) / name
            if not output.exists():
                return f"{output} is missing"
            if output.stat().st_size != size:
                return f"{output} was changed: it had {size} bytes, now {output.stat().st_size}"
        return None

    def check_inputs(self, stage: Stage) -> None:
        """Raise StageError naming the first earlier stage whose outputs are missing or belong to another configuration."""
        for earlier in ancestors(stage):
            reason = self.reason_to_run(earlier)
            if reason is None:
                continue
            name = f"stage {earlier.number} ({earlier.verb})"
            if reason == NOT_DONE:
                what = f"its inputs are missing: {name} makes them ({earlier.writes})"
            else:
                what = f"what {name} made is not for this configuration: {reason}"
            raise StageError(
                f"stage {stage.number} ({stage.verb}): {what}. Run: bash run.sh --stage {earlier.number} --stop-stage {stage.number},"
                f" with the other options of this run (its stamp is expected at {self.path(earlier)})."
            )

    def check_features(self) -> None:
        """Raise StageError where features were made with other options of `features` or another sample rate, or not at all.

        For what describes a net by the configuration; the corpus itself need not be there any more.
        """
        stage, wanted = BY_VERB["features"], {"corpus.sample_rate": self._values["corpus"]["sample_rate"]}
        _flatten(self._values["features"], "features", wanted)
        if not self.path(stage).exists():
            raise StageError(f"{self.path(stage)}: the stamp of stage 2 (features) is missing. Give --data-dir and --exp-dir of the run.")
        made = read_json(self.path(stage))["parts"]
        changed = differences({key: made.get(key, "(not set)") for key in wanted}, wanted)
        if changed:
            raise StageError(
                f"{self.path(stage)}: what stage 2 (features) made is not for this configuration: {changed}. Give the options of the run"
                " (--conf, --set, --with)."
            )

    def run(self, stage: Stage, nj: int, ahead: bool = False) -> None:
        """Run a stage and stamp it; StageError when its inputs are missing, stale, or in use by another process.

        `ahead`: the next stage is to run, too, and its work may be done along with this one's.
        """
        with self.locked(stage):
            self.check_inputs(stage)
            wanted = self.parts(stage)
            self.path(stage).unlink(missing_ok=True)
            started = time.monotonic()
            called = stage.ahead if ahead and stage.ahead else stage.function
            module, _, function = called.partition(":")
            try:
                getattr(importlib.import_module(module), function)(self.config, self.paths, nj)
            except BrokenExecutor:
                raise StageError(
                    f"stage {stage.number} ({stage.verb}): one of up to {nj} processes was killed, most likely for lack of memory. What is"
                    " finished is kept; run the same command with a smaller --nj."
                ) from None
            self._write(stage, wanted, time.monotonic() - started)

    def _collect(self, stage: Stage) -> dict[str, Any]:
        result: dict[str, Any] = {"dropasr": dropasr.__version__}
        for name in stage.depends:
            section, _, key = name.partition(".")
            if name == "backend":
                result[name] = resolved_backend(self.config)
            elif name == "backends":
                result[name] = installed_backends()
            elif name == "construction":
                result["graph construction"] = GRAPH_CONSTRUCTION
            elif name == "rows":
                result[name] = [row.name for row in rows(self.config)]
            elif name == "seed":
                result[name] = self.paths.seed
            elif name.startswith("-"):
                del result[name[1:]]
            else:
                shown = name.replace("training", "train", 1)
                _flatten(self._values[section][key] if key else self._values[section], shown, result)
        for name in FILE_VALUES:
            value = result.get(name)
            if isinstance(value, str):
                result[name] = _file_fingerprint(name, str(package_file()) if value == PACKAGE else value)
            elif isinstance(value, list):
                result[name] = [_file_fingerprint(name, file) for file in value]
        if result.get("corpus.corpus_dir"):
            result["files of corpus.corpus_dir"] = folder_fingerprint(
                result["corpus.corpus_dir"], (self.paths.data_dir, self.paths.exp_dir)
            )
        for name in [name for name in result if name.startswith("corpus.options.")]:
            path = REPOSITORY / str(result[name])
            if isinstance(result[name], str) and path.exists():
                result[f"files of {name}"] = folder_fingerprint(path) if path.is_dir() else sha256_file(path)
        if str(result.get("corpus.prepare", "")).endswith(".py"):
            result["code of corpus.prepare"] = _script_fingerprint(result["corpus.prepare"])
        for verb in stage.upstream:
            result[f"stage {verb}"] = self.key(BY_VERB[verb])
        return result

    def _write(self, stage: Stage, wanted: dict[str, Any], seconds: float) -> None:
        outputs: dict[str, int] = {}
        for output in stage.outputs(self.config, self.paths):
            if not output.exists():
                raise StageError(f"stage {stage.number} ({stage.verb}) ended without writing {output}. This is a bug in {stage.function}.")
            files = sorted(path for path in output.rglob("*") if path.is_file()) if output.is_dir() else [output]
            outputs.update({os.path.relpath(path, self._home(stage)): path.stat().st_size for path in files})
        finished = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        stamp = {"stage": stage.verb, "key": hash_of(wanted), "parts": wanted, "outputs": outputs, "finished": finished}
        write_json(self.path(stage), {**stamp, "seconds": round(seconds, 3)})

    def _home(self, stage: Stage) -> Path:
        return getattr(self.paths, stage.home)

    @contextlib.contextmanager
    def locked(self, stage: Stage, beside_others: bool = False) -> Iterator[None]:
        """Keep other processes from writing what this stage reads or writes; any number of stages may read one folder.

        `beside_others`: what it writes is shared, too, with others that say so.
        """
        own = self._home(stage)
        read = {self._home(earlier) for earlier in ancestors(stage)} - {own}
        with contextlib.ExitStack() as stack:
            for folder in sorted({own, *read}):
                stack.enter_context(lock_folder(folder, shared=beside_others or folder != own))
            yield


@contextlib.contextmanager
def lock_folder(folder: Path, shared: bool) -> Iterator[None]:
    """Hold the lock file of a folder; StageError naming it when another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with open(path, "a+", encoding="utf-8") as file:
        # A worker process that outlives a killed parent must not go on holding the lock.
        os.register_at_fork(after_in_child=file.close)
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageError(
                f"{path}: another dropasr process is working in this folder. Wait until it has ended, or give this run folders of its"
                " own with --exp-dir and --data-dir."
            ) from None
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
