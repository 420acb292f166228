"""Experiments over several seeds: one JSON file per net and seed, and the table that pools them.

`collect` keeps what a finished run measured in `RECIPE/rows/`; `table` makes RESULTS.md and results.json from these files alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from dropasr.config import Config, system_name, system_slug
from dropasr.errors import ConfigError, MeasurementError, StageError
from dropasr.files import hash_of, read_json, sha256_file, write_json, write_text
from dropasr.paths import Paths
from dropasr.report import recipe_page
from dropasr.report.inputs import SplitScore
from dropasr.report.load import Net, Run, evaluations_on_test, load_run
from dropasr.report.page import Figure, to_markdown
from dropasr.report.pool import make_recipe_results, reference_name
from dropasr.report.recipe_schema import StoredRow, Utterance
from dropasr.report.results import make_results, row_hashes
from dropasr.report.schema import SCHEMA_VERSION, Results, check_results


def _file_name(corpus: str) -> str:
    return re.sub(r"[ /]", "_", corpus)


def row_path(folder: Path, corpus: str, model: str, row: str, seed: int, system: str = "") -> Path:
    """The file of one net and seed."""
    parts = [_file_name(corpus), model, *([system_slug(system)] if system else []), row, f"seed{seed}"]
    return folder / "rows" / f"{'-'.join(parts)}.json"


def is_collected(config: Config, paths: Paths, folder: Path) -> bool:
    """Whether the recipe holds every row of this configuration, model and seed."""
    for name, wanted in row_hashes(config).items():
        path = row_path(folder, config.corpus.name, paths.model, name, paths.seed, system_name(config))
        if not path.exists() or read_json(path).get("config_hash") != wanted:
            return False
    return True


def _check_reference(config: Config, paths: Paths, folder: Path) -> None:
    """Rows are added to others only beside the large net that these were measured against: said before hours are spent on training."""
    made, system = set(row_hashes(config)), system_name(config)
    files = (folder / "rows").glob(f"{_file_name(config.corpus.name)}-{paths.model}-*.json")
    rows = [
        row for row in map(_read, sorted(files)) if (row.corpus, row.figures.model, row.system) == (config.corpus.name, paths.model, system)
    ]
    kept = sorted({row.figures.name for row in rows} - made)
    reference = reference_name(rows)
    if kept and reference is not None and reference not in made:
        raise ConfigError(
            f"experiment.large: expected {reference} among them, found {', '.join(config.experiment.large)}. {folder / 'rows'} has rows"
            f" that this run does not make ({len(kept)}, {kept[0]} first), measured against {reference}: it has to be timed beside the"
            " new ones. Add it, or collect into another folder."
        )


def _stored(net: Net, run: Run, results: Results, hashes: dict[str, str], paths: Paths) -> StoredRow:
    figures = next(row for row in results.rows if row.name == net.name)
    return StoredRow(
        corpus=results.corpus,
        note=results.note,
        experiment_note=results.experiment_note,
        one_speaker=results.one_speaker,
        error_rate=results.error_rate,
        system=results.system,
        command=results.command,
        config_hash=hashes[net.name],
        timing_id=sha256_file(paths.rtf)[:16],
        busy_share=results.busy_share,
        test_evaluations=evaluations_on_test(paths.test_log, model=paths.model, seed=paths.seed, row=net.name, system=results.system),
        hardware=results.hardware,
        stack=results.stack,
        figures=figures,
        utterances=_utterances(net.scores.test),
        dev_utterances=_utterances(net.scores.dev),
        extra_utterances={name: _utterances(score) for name, score in net.scores.extra.items()},
        characters={
            name: [(item.characters, item.character_errors) for item in score.utterances] for name, score in net.scores.tests.items()
        },
        model_seconds=rounded(net.timing.model_seconds),
        total_seconds=rounded(net.timing.total_seconds),
    )


def _utterances(score: SplitScore) -> list[Utterance]:
    return [(item.id, item.speaker, item.words, item.errors) for item in score.utterances]


def rounded(seconds: np.ndarray) -> list[list[float]]:
    """Microseconds are more than a clock gives."""
    return [[float(f"{value:.4g}") for value in line] for line in seconds]


def _write(path: Path, row: StoredRow) -> None:
    """One key per line, long lists on one line: small, and readable in a diff."""
    lines = [f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in row.model_dump(mode="json").items()]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def collect(config: Config, paths: Paths, folder: Path) -> None:
    """Add the nets of a finished run to a recipe; rows that are there for this configuration are left alone.

    Large ones that are there keep their figures and get their times beside the new rows: methods can be added to a table without
    training its other nets again. Raises StageError where the run is not finished, or was made with another configuration,
    ConfigError where the net that the recipe's rows are measured against is not among those of the run.
    """
    folder = Path(folder)
    if is_collected(config, paths, folder):
        print(f"{config.corpus.name}, {paths.model}, seed {paths.seed}: already in {folder.name}/rows; remove its files to measure again")
        return
    _check_reference(config, paths, folder)
    hashes = row_hashes(config)
    again = f"Run all stages with the same options first: bash run.sh … --seed {paths.seed}"
    if not paths.results.exists():
        raise StageError(f"{paths.results}: no finished run to collect. {again}.")
    recorded = check_results(read_json(paths.results), str(paths.results))
    if recorded.config_hash != hash_of(hashes):
        raise StageError(f"{paths.results}: made with another configuration than the one given now. {again}.")
    run = load_run(config, paths)
    results = make_results(config, run).model_copy(update={"command": recorded.command})
    places = {net.name: row_path(folder, results.corpus, paths.model, net.name, paths.seed, results.system) for net in run.nets}
    for name, path in places.items():
        if path.exists() and read_json(path).get("config_hash") != hashes[name]:
            raise StageError(f"{path}: a row of another configuration. Remove it, or collect into another folder; nothing was overwritten.")
    rows = {net.name: _stored(net, run, results, hashes, paths) for net in run.nets}
    new = {name: row for name, row in rows.items() if not places[name].exists()}
    for name, row in new.items():
        _write(places[name], row)
    for name in rows.keys() - new.keys():
        _write_timing(places[name], rows[name])
    print(f"{results.corpus}, {paths.model}, seed {paths.seed}: {len(new)} rows written to {folder.name}/rows")


def _write_timing(path: Path, again: StoredRow) -> None:
    """Keep the times of a large net that a run has trained again to add other rows."""
    kept = _read(path)
    timing = again.timing(again.timing_id)
    if kept.figures.kind == "large" and kept.timing(again.timing_id) is None and timing is not None:
        _write(path, kept.model_copy(update={"further_timings": [*kept.further_timings, timing]}))


def rewrite(folder: Path, row: StoredRow) -> None:
    """Write a row that is there anew, such as with other times."""
    figures = row.figures
    _write(row_path(folder, row.corpus, figures.model, figures.name, figures.seed, row.system), row)


def load_rows(folder: Path) -> list[StoredRow]:
    """All rows of a recipe; MeasurementError naming a file that has another form, StageError where there are none."""
    files = sorted((folder / "rows").glob("*.json"))
    if not files:
        raise StageError(f"{folder / 'rows'}: no rows to make a table from. Run: bash recipes/{folder.name}/run.sh.")
    return [_read(path) for path in files]


def _read(path: Path) -> StoredRow:
    try:
        return StoredRow.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        again = f"Remove the file and run: bash recipes/{path.parent.parent.name}/run.sh."
        raise MeasurementError(f"{path}: {key}: {first['msg']}. {again}") from None


def table(folder: Path) -> None:
    """Pool the rows of a recipe: write RESULTS.md with its plots and results.json, print the table and the claims.

    Beside it results-MODEL.json, the same for one model alone, where there are several. Rows of several corpora are pooled corpus by
    corpus: RESULTS.md then has a part for each, and results.json holds them under `corpora`. Plots that only an
    earlier page had are removed.
    """
    folder = Path(folder)
    rows, command = load_rows(folder), recipe_command(folder)
    of_corpus = {name: [row for row in rows if row.corpus == name] for name in sorted({row.corpus for row in rows})}
    several, pages, found, drawn = len(of_corpus) > 1, [], {}, set()
    for name, own in of_corpus.items():
        results = make_recipe_results(own, command)
        plots = f"plots/{_file_name(name)}" if several else "plots"
        blocks = recipe_page.page(results)
        for block in blocks:
            if isinstance(block, Figure):
                path = folder / plots / f"{block.name}.svg"
                write_text(path, block.svg + "\n")
                drawn.add(path)
        pages.append(to_markdown(recipe_page.title(results), blocks, plots))
        found[name] = results.model_dump(mode="json")
        _write_models(folder, own, command, f"{_file_name(name)}-" if several else "")
        print(recipe_page.to_terminal(results))
    write_json(folder / "results.json", {"schema_version": SCHEMA_VERSION, "corpora": found} if several else found[rows[0].corpus])
    write_text(folder / "RESULTS.md", "\n".join(pages))
    for path in set((folder / "plots").rglob("*.svg")) - drawn:
        path.unlink()


def recipe_command(folder: Path) -> str:
    """The command that makes a recipe's rows; a folder below the recipe's own is what the option of its name makes."""
    home = next((place for place in (folder, *folder.parents) if (place / "run.sh").exists() and place.parent.name == "recipes"), folder)
    return " ".join([f"bash recipes/{home.name}/run.sh", *(f"--{part}" for part in folder.relative_to(home).parts)])


def _write_models(folder: Path, rows: list[StoredRow], command: str, prefix: str) -> None:
    """results-MODEL.json for each model, where there are several."""
    models = {row.figures.model for row in rows}
    for model in sorted(models) if len(models) > 1 else []:
        own = make_recipe_results([row for row in rows if row.figures.model == model], command)
        write_json(folder / f"results-{prefix}{model}.json", own.model_dump(mode="json"))
