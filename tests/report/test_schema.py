"""The form of results.json, and the page that describes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dropasr.errors import MeasurementError
from dropasr.report.records import Record
from dropasr.report.schema import Results, check_results

sys.path.insert(0, str(Path(__file__).parent))
from report_case import make_config, make_run, results_of  # noqa: E402 (the folder above is on the path only now)

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def run(tmp_path):
    config = make_config()
    return config, make_run(tmp_path, config)


def test_schema_in_docs_is_the_one_in_code():
    assert json.loads((DOCS / "results.schema.json").read_text(encoding="utf-8")) == Results.model_json_schema()


def _fields(record: type[Record]) -> set[str]:
    return set(record.model_fields)


def test_schema_page_names_every_field():
    from dropasr.report import recipe_schema, records, schema

    text = (DOCS / "results-schema.md").read_text(encoding="utf-8")
    records = {value for module in (records, schema, recipe_schema) for value in vars(module).values() if isinstance(value, type)}
    for record in records:
        if issubclass(record, Record) and record is not Record:
            missing = [name for name in _fields(record) if f"`{name}`" not in text]
            assert not missing, f"{record.__name__}: {missing}"


def test_every_field_has_a_line_of_documentation():
    for name, field in Results.model_json_schema()["$defs"].items():
        assert all(value.get("description") for value in field["properties"].values()), name


def test_results_of_another_form_are_refused(run):
    value = results_of(run).model_dump(mode="json")
    del value["rows"][0]["wer_interval"]
    with pytest.raises(MeasurementError, match=r"x\.json: rows\.0\.wer_interval"):
        check_results(value, "x.json")
