"""Stage 9: the table on the terminal, `results.json`, and the report as Markdown and as one HTML page."""

from __future__ import annotations

from dropasr.config import Config
from dropasr.files import write_json, write_text
from dropasr.log import get_logger
from dropasr.paths import Paths
from dropasr.report.load import load_run
from dropasr.report.page import Figure, to_html, to_markdown
from dropasr.report.results import make_results
from dropasr.report.schema import check_results
from dropasr.report.sections import all_sections, cautions, headline
from dropasr.report.tables import extra_table, terminal_table

logger = get_logger(__name__)


def build(config: Config, paths: Paths, nj: int) -> None:
    """Read the finished run, write `results.json` and the report folder, print the table. `nj` is not used: this takes seconds.

    Raises StageError or MeasurementError naming the file and the stage to run where a figure or its counterpart is missing.
    """
    run = load_run(config, paths)
    results = make_results(config, run)
    value = results.model_dump(mode="json")
    check_results(value, str(paths.results))
    blocks = all_sections(run, results)
    title = f"{results.corpus}{results.system and ', ' + results.system}: {results.error_rate} error rate against speed"
    for block in blocks:
        if isinstance(block, Figure):
            write_text(paths.report / "plots" / f"{block.name}.svg", block.svg + "\n")
    write_text(paths.report / "report.md", to_markdown(title, blocks))
    write_text(paths.report / "report.html", to_html(title, blocks))
    write_json(paths.results, value)
    logger.info("")
    logger.info(terminal_table(results))
    if len(results.tests) > 1:
        logger.info("")
        logger.info(extra_table(results, results.rows).terminal())
    logger.info("")
    for line in (*headline(results), *cautions(results)):
        logger.info(line)
    logger.info(f"report: {paths.report / 'report.html'}; table for programs: {paths.results}")
