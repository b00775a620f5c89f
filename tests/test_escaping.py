"""Labels and texts that are markup stay text: in Markdown, in SVG, in the README for servers, on a terminal."""

from __future__ import annotations

import html
import json
import re
import shutil
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from markdown_it import MarkdownIt

from tfpipe.config.file import parse_config
from tfpipe.escaping import block, code, markdown, printable
from tfpipe.evaluate import serving_files
from tfpipe.rundir.fingerprint import sealed
from tfpipe.rundir.stage import StageDirectory
from tfpipe.stages import report
from tfpipe.tools.pareto import markdown_table, plot

EVIL = "<script>alert(1)</script> | `x` [a](javascript:b) ![c](d) *e* $f$ \\ &lt;"


def test_markdown_shows_what_is_written():
    assert (
        markdown("saved_model 1.2-3") == "saved_model 1.2-3"
        and markdown("_a_") == r"\_a\_"
        and markdown("a b\n# c") == r"a b \# c"
    )
    shown = markdown(EVIL)
    assert shown == (
        r"&lt;script&gt;alert(1)&lt;/script&gt; \| \`x\` \[a\](javascript:b) \!\[c\](d) \*e\* \$f\$ \\ &amp;lt;"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("see HTTPS://evil.org", "see HTTPS:<!-- -->//evil.org"), ("ftp://e.org", "ftp:<!-- -->//e.org"),
        ("(www.evil.org)", "(www<!-- -->.evil.org)"), ("a_@b.co", r"a\_<!-- -->@b.co"),
        ("mailto:a.b@c.d.co", "mailto:a.b<!-- -->@c.d.co"), ("hf:name@1234abc", "hf:name@1234abc"),
        ("gs://bucket/x", "gs://bucket/x"), ("@ a.b", "@ a.b"), ("http: //a", "http: //a"),
    ],
)  # fmt: skip
def test_no_address_in_markdown_becomes_a_link(value, shown):
    assert markdown(value) == shown
    html = MarkdownIt().render(markdown(value))
    assert html.replace("<!-- -->", "").strip() == f"<p>{value}</p>"


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a/b", "`a/b`"), ("a`b", "``a`b``"), ("`a``", "``` `a`` ```"), ("a\n```\nb", "````a ``` b````")],
)
def test_code_ends_where_it_should(value, shown):
    assert code(value) == shown


def test_a_block_ends_after_its_content():
    assert block("a: 1", "yaml") == "```yaml\na: 1\n```"
    assert block("a: |\n  ```\n  <script>", "yaml") == "````yaml\na: |\n  ```\n  <script>\n````"


def test_a_terminal_gets_no_commands():
    assert printable("a\x1b[2J\x9b1m\u202eb\n c") == "a\ufffd[2J\ufffd1m\ufffdb c"
    assert printable("a\u200eb\u200fc\u061cd") == "a\ufffdb\ufffdc\ufffdd"
    assert printable("👨‍👩‍👧 ünd") == "👨‍👩‍👧 ünd"


def test_the_model_card_and_the_page_of_evil_labels(tiny_run, tmp_path):
    config, directory = tiny_run
    inputs = {}
    for stage in ("prepare", "train", "prune", "quantize", "export", "verify", "publish"):
        inputs[stage] = Path(shutil.copytree(directory / stage, tmp_path / stage))
    labels = json.loads((inputs["prepare"] / "labels.json").read_text())
    (inputs["prepare"] / "labels.json").write_text(json.dumps(labels | {"names": [EVIL, "```\n\n# Title"]}))
    statistics = json.loads((inputs["prepare"] / "statistics.json").read_text())
    (inputs["prepare"] / "statistics.json").write_text(json.dumps(statistics | {"source": EVIL}))
    record = json.loads((inputs["verify"] / "stage.json").read_text())
    record |= {"machine": EVIL, "versions": {EVIL: EVIL}}
    (inputs["verify"] / "stage.json").write_text(json.dumps(sealed(record)))
    tree = config.model_dump(mode="json", exclude_defaults=True)
    tree["data"]["label_names"] = {"0": EVIL, "1": "```\n\n<script>"}
    (tmp_path / "report").mkdir()
    report.run(parse_config(tree, where="the test"), StageDirectory("report", tmp_path / "report", inputs))
    card = (tmp_path / "report" / "model_card.md").read_text(encoding="utf-8")
    outside = re.sub(r"(?ms)^(`{3,})yaml\n.*?^\1$", "", card)
    assert outside != card
    outside = re.sub(r"(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    assert "<script" not in outside and "](" not in re.sub(r"\\\]\(", "", outside)
    assert len(re.findall("(?m)^#", outside)) == len(
        re.findall("(?m)^#", (directory / "report/model_card.md").read_text())
    )
    rows = [line for line in outside.splitlines() if line.startswith("| dense")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(report.COLUMNS) + 2}
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and html.escape(EVIL).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["labels"] == [EVIL, "```\n\n# Title"] and metrics["versions"] == {EVIL: EVIL}


def row(point):
    return {
        "point": point, "variant": "int8", "validation_accuracy": 0.9, "accuracy": 0.9, "accuracy_change": 0.0,
        "accuracy_change_95": [0.0, 0.1], "size_bytes": 10**6, "latency_ms": 1.0, "speedup": 2.0, "agrees": True,
        "within_budget": True, "on_speed_front": True, "on_size_front": True,
    }  # fmt: skip


def test_the_table_and_the_plot_of_evil_points(tmp_path):
    rows = [row(EVIL), row("$\\evil{")]
    lines = markdown_table(rows).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {10} and "<script" not in "".join(lines)
    plot(rows, tmp_path / "pareto.svg")
    tree = xml.etree.ElementTree.parse(tmp_path / "pareto.svg")
    assert not [each for each in tree.iter() if each.tag.endswith("script")]
    assert "<script>alert(1)</script>" in "".join(tree.getroot().itertext())


def test_the_readme_for_servers_of_evil_texts(tmp_path):
    class Served(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def serve(self, text):
            return {"label": text, "logits": tf.zeros([1, 2]), "probabilities": tf.zeros([1, 2])}

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, "input_ids")])
        def tokens(self, input_ids):
            return {"label": tf.constant([text]), "logits": tf.zeros([1, 2]), "probabilities": tf.zeros([1, 2])}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def classify(self, text):
            return {"classes": tf.stack([text, text], 1), "scores": tf.zeros([1, 2])}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def tokenize(self, text):
            return {"input_ids": tf.ones([1, 2], tf.int32)}

        @tf.function(input_signature=[])
        def about(self):
            return {"task": tf.constant("single_label"), "labels": tf.constant([text])}

    text = f"EOF\nEOF\n```\n# Title\n'\"\n{EVIL}\n]))\nimport os"
    module = Served()
    signatures = {"serving_default": module.serve, "tokens": module.tokens, "classify": module.classify}
    tf.saved_model.save(module, str(tmp_path / "dense" / "1"), signatures=signatures)
    published = {("dense", "saved_model"): tmp_path / "dense" / "1"}
    serving_files.write_serving_files(tmp_path, "evil", "2.20.0", published, {"text": [text]}, {1: 1.0, 32: 8.0})
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", readme)
    requests = ["sh", "json"] * 3
    assert [language for language, _ in blocks] == ["sh", *requests, "python", "python", "python", "sh"]
    assert "<script" not in re.sub(r"(?ms)^```.*?^```$", "", readme)
    request = blocks[1][1].split("<<'EOF'\n")[1]
    assert request.count("\n") == 2 and json.loads(request.removesuffix("EOF\n"))["inputs"]["text"] == [text]
    assert json.loads(blocks[2][1])["outputs"]["label"] == [text]
    assert json.loads(blocks[4][1])["outputs"]["classes"] == [[text, text]]
    for _, program in blocks[7:9]:
        assert np.sum([line == "import os" for line in program.splitlines()]) == 0
        compile(program, "README.md", "exec")
