import json

from tfpipe.config.file import parse_config
from tfpipe.data import readers
from tfpipe.data.files.sources import source_files
from tfpipe.data.labels.survey import before_reading
from tfpipe.data.survey import Survey, Surveyor


def surveyed(path, **data) -> tuple[Survey, list]:
    tree = {"name": "x", "data": {"source": str(path), **data}, "encoder": {"source": "x"}}
    config = parse_config(tree, where="test")
    survey, rejections, files = Survey(), [], source_files(config.data)
    for file in files:
        for block in readers.blocks(file, config.data):
            found = Surveyor(config, *before_reading(config, files))(block)
            survey.add(found)
            rejections += found.rejections
    return survey, rejections


def test_cells_of_other_kinds_are_counted(tmp_path):
    rows = [{"text": value, "other": "x", "label": "a"} for value in (1, 2.5, True, "x", None)]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    assert surveyed(tmp_path / "x.json")[0].kinds == {"int": 1, "float": 1, "bool": 1}
    assert surveyed(tmp_path / "x.json", text_column="other")[0].kinds == {}
    survey, _ = surveyed(tmp_path / "x.json", text="{other} {text}", text_pair_column="text")
    assert survey.kinds == {"int": 2, "float": 2, "bool": 2}


def test_rejections_of_documents_count_records_and_those_of_lines_lines(tmp_path):
    rows = [{"text": "x", "label": "a"}, {"text": "x"}, {"text": "", "label": "a"}]
    (tmp_path / "x.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, unit in (("x.json", "record"), ("x.jsonl", "line")):
        rejections = surveyed(tmp_path / name)[1]
        assert [(rejection.unit, rejection.line) for rejection in rejections] == [(unit, 2), (unit, 3)]
