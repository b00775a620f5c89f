"""`tfpipe explain`: what it prints and writes, and each refusal in one line."""

import base64
import hashlib
import json
import re
import shutil

import pytest
import yaml
from conftest import last_line
from explained_texts import Page, explanation_of
from rich.console import Console

from tfpipe.files import sha256_of_file
from tfpipe.rundir.fingerprint import sealed
from tfpipe.tools.explain import terminal

GOOD, BAD = "this film is very GOOD and lovely", "this film is very bad and awful"


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_without_a_terminal_words_have_numbers(tfpipe_command, tiny_run):
    code, out, error = tfpipe_command("explain", tiny_run[1], GOOD, BAD)
    assert code == 0
    assert error.splitlines()[-2:] == [
        "the variant pruned explains, the last one whose activations are floats; for int8, without the rounding of its "
        "activations: --variant int8",
        f"explaining {tiny_run[1]} pruned",
    ]
    first, second = out.strip().split("\n\n")
    number = r"\+0\.\d+"
    assert re.match(r"positive, probability 0\.\d{4}\nthis\[[+-]0\.\d+\] film", first)
    assert second.startswith("negative, probability 0.")
    assert re.search(rf"GOOD\[{number}\] and\S* lovely\[{number}\]\n  for      \w+ {number}   \w+ {number}", first)
    assert re.search(
        r"\n  words sum to \+\S+ of a difference of \+\S+ from the baseline; completeness error \S+ %, \d+", first
    )


def shown(explanation, **options):
    console = Console(width=80, force_terminal=True, highlight=False, markup=False, legacy_windows=False, **options)
    with console.capture() as captured:
        terminal.show(explanation, console)
    return captured.get()


def test_a_terminal_shows_words_by_color_and_the_strongest_with_numbers():
    explanation = explanation_of("a joyless film[/] \x1b[2J", 0.01, 1.0, -0.5, 0.0, label="neg[red]ative")
    plain = "a joyless film[/] \ufffd[2J\n  for      joyless +1.00\n  against  film[/] -0.50\n"
    colored = shown(explanation, color_system="truecolor")
    assert "\x1b[1;37;48;2;11;79;138mjoyless\x1b[0m" in colored
    assert re.sub(r"\x1b\[[\d;]*m", "", colored).startswith("neg[red]ative, probability 0.7500\n" + plain)
    few = shown(explanation, color_system="standard")
    assert "\x1b[37;44mjoyless" in few and "\x1b[1;33mfilm[/]" in few
    assert "a[+0.01] joyless[+1.00] film[/][-0.50]" in shown(explanation, color_system="truecolor", no_color=True)


def test_json_lines_hold_words_that_sum_to_the_difference(tfpipe_command, tiny_run):
    for options in ((), ("--variant", "int8"), ("--variant", "dense", "--label", "negative")):
        code, out, _ = tfpipe_command("explain", tiny_run[1], GOOD, BAD, "--output", "-", *options)
        found = lines_of(out)
        assert code == 0 and [each["text"] for each in found] == [GOOD, BAD]
        for each in found:
            assert {"label", "target", "probability", "steps", "method", "read_to"} < each.keys()
            assert [each["text"][word["start"] : word["end"]] for word in each["words"]] == each["text"].split()
            total = sum(word["attribution"] for word in each["words"])
            assert total + each["remainder"] == pytest.approx(each["difference"], abs=2e-5)
            assert total == pytest.approx(each["difference"], rel=0.01) and each["completeness_error"] < 0.01
            assert ("rounding" in each) == ("int8" in options)
        assert [each["label"] for each in found] == ["positive", "negative"]
        assert [each["target"] for each in found] == (
            ["negative"] * 2 if "negative" in options else ["positive", "negative"]
        )


def test_the_fast_method_says_what_it_is(tfpipe_command, tiny_run):
    code, out, error = tfpipe_command("explain", tiny_run[1], GOOD, "--method", "gradient_x_input", "--output", "-")
    (found,) = lines_of(out)
    assert code == 0 and "gradient × input is a local approximation" in error
    assert (found["method"], found["steps"]) == ("gradient_x_input", 1) and found["completeness_error"] > 0.01


ROWS = """id,text,stars
1,this film is good,5
2,,1
3,"a <script>alert(""1"")</script> ""bad"" film",
4,the plot was dull and weak,nan
"""


def test_files_are_explained_with_their_columns(tfpipe_command, tiny_run, tmp_path):
    (tmp_path / "rows.csv").write_text(ROWS)
    code, out, error = tfpipe_command("explain", tiny_run[1], "--input", "rows.csv", "--output", "why.jsonl")
    assert (code, out) == (0, "")
    assert "warning: rows.csv, line 3: not explained: empty text" in error
    assert error.endswith("why.jsonl: 3 rows explained, 3 explanations\n")
    found = lines_of((tmp_path / "why.jsonl").read_text())
    assert [each["row"] for each in found] == [
        {"id": "1", "stars": "5"},
        {"id": "3", "stars": ""},
        {"id": "4", "stars": "nan"},
    ]
    message = last_line(tfpipe_command("explain", tiny_run[1], "--input", "rows.csv", "--output", "why.jsonl"))
    assert message.endswith("why.jsonl: exists already; give another name, or --overwrite to replace it")
    (tmp_path / "texts.txt").write_text("this film is good\n\n\u200b\na bad film\n")
    options = ("--output", "why.jsonl", "--overwrite", "--limit", "3")
    code, _, error = tfpipe_command("explain", tiny_run[1], "--input", "texts.txt", *options)
    assert code == 0 and "warning: text 2, '', has no word that the model reads: not explained" in error
    assert [each["text"] for each in lines_of((tmp_path / "why.jsonl").read_text())] == ["this film is good"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "texts.txt", "why.jsonl"]


def test_columns_may_hold_what_utf_8_has_no_form_for(tfpipe_command, tiny_run, tmp_path):
    """Half a character within another value keeps its JSON escape."""
    (tmp_path / "rows.jsonl").write_text('{"text": "this film is good", "meta": {"a": "\\ud83d"}}\n')
    code, _, error = tfpipe_command("explain", tiny_run[1], "--input", "rows.jsonl", "--output", "why.jsonl")
    assert code == 0, error
    (found,) = lines_of((tmp_path / "why.jsonl").read_text())
    assert found["row"] == {"meta": {"a": "\ud83d"}}


def test_a_page_stands_alone_and_runs_nothing(tfpipe_command, tiny_run, tmp_path):
    (tmp_path / "rows.csv").write_text(ROWS)
    code, _, error = tfpipe_command("explain", tiny_run[1], "--input", "rows.csv", "--output", "why.html")
    assert code == 0 and error.endswith("why.html: 3 rows explained, 3 explanations\n")
    text = (tmp_path / "why.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.elements[0][0] == "html" and len(page.named("article")) == 3
    assert not {"script", "link", "img", "iframe", "object", "base", "form", "a"} & {name for name, _ in page.elements}
    assert not re.search(r"https?:|url\(|@import|srcdoc|\son\w+=", text.replace("&#34;", ""))
    assert '<script>alert("1")</script> "bad" film' in page.text
    policies = [each["content"] for each in page.named("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policies == [f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"]
    assert not any("style" in attributes for _, attributes in page.elements)
    assert "prefers-color-scheme: dark" in style and "width=device-width" in text


def test_a_page_of_many_rows_ends_where_nobody_reads_on(tfpipe_command, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr("tfpipe.tools.explain.command._ON_A_PAGE", 2)
    (tmp_path / "texts.txt").write_text("a good film\na bad film\na dull film\n")
    arguments = ("explain", tiny_run[1], "--input", "texts.txt", "--output", "why.html")
    code, _, error = tfpipe_command(*arguments)
    assert code == 0 and "warning: a page shows the first 2 rows; --limit N for another number of them" in error
    assert error.endswith("why.html: 2 rows explained, 2 explanations\n")
    code, _, error = tfpipe_command(*arguments, "--overwrite", "--limit", "3")
    assert code == 0 and error.endswith("why.html: 3 rows explained, 3 explanations\n")


@pytest.fixture
def changed_run(copied_run):
    """Changes a run's configuration, or that of its dense classifier, as if it had been made so."""
    _, run = copied_run

    def change(data=None, classifier=None):
        config = yaml.safe_load((run.path / "config.yaml").read_text())
        config["data"] |= data or {}
        (run.path / "config.yaml").write_text(yaml.safe_dump(config))
        file, record = run.path / "train" / "config.json", json.loads((run.path / "train" / "stage.json").read_text())
        file.write_text(json.dumps(json.loads(file.read_text()) | (classifier or {})))
        written = {"sha256": sha256_of_file(file), "size_bytes": file.stat().st_size}
        record["files_written"]["config.json"] = written
        (run.path / "train" / "stage.json").write_text(json.dumps(sealed(record)))
        return run.path

    return change


def test_pairs_are_explained_as_pairs(tfpipe_command, changed_run, tmp_path):
    run = changed_run(data={"text_pair_column": "answer"})
    dense = ("--variant", "dense", "--output", "-")
    code, out, _ = tfpipe_command("explain", run, "good film", "--text-pair", "It's bad", *dense)
    (found,) = lines_of(out)
    assert code == 0 and found["text_pair"] == "It's bad" and found["text_pair_read_to"] == 8
    assert [word["text"] for word in found["text_pair_words"]] == ["It's", "bad"]
    total = sum(word["attribution"] for word in (*found["words"], *found["text_pair_words"]))
    assert total == pytest.approx(found["difference"], rel=0.01)
    (tmp_path / "rows.csv").write_text("text,answer\na good film,no\n")
    code, out, _ = tfpipe_command("explain", run, "--input", "rows.csv", *dense)
    assert code == 0 and lines_of(out)[0]["text_pair"] == "no" and "row" not in lines_of(out)[0]
    code, out, _ = tfpipe_command("explain", run, "good film", "--text-pair", "bad")
    assert code == 0 and len(out.splitlines()) > 4
    for arguments, said in (
        (["good"], "explain: the run's texts come in pairs; give --text-pair TEXT once for each text"),
        (["good", "bad", "--text-pair", "x"], "--text-pair: 1 for 2 texts; give one for each text"),
        (["--input", "-"], "--input -: texts come in pairs; give a file with two columns"),
    ):
        assert said in last_line(tfpipe_command("explain", run, *arguments))


def test_of_several_labels_each_is_a_line(tfpipe_command, changed_run):
    run = changed_run(classifier={"problem_type": "multi_label_classification"})
    code, out, _ = tfpipe_command("explain", run, "--variant", "dense", GOOD, "--output", "-")
    (found,) = lines_of(out)
    assert code == 0 and found["labels"] == ["positive"] and found["target"] == "positive"
    code, out, _ = tfpipe_command("explain", run, "--variant", "dense", GOOD, "--label", "negative")
    assert code == 0 and "  (the answer is positive)" in out


def test_texts_of_a_pipe_are_explained_as_they_come(tfpipe_command, tiny_run, tmp_path, monkeypatch):
    (tmp_path / "texts").write_text("a good film\n\na bad film\n")
    with open(tmp_path / "texts") as pipe:
        monkeypatch.setattr("sys.stdin", pipe)
        code, out, error = tfpipe_command("explain", tiny_run[1], "--input", "-", "--output", "-")
    assert code == 0 and [each["text"] for each in lines_of(out)] == ["a good film", "a bad film"]
    assert "text 2, '', has no word" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "explain: no texts; give them as arguments"),
        ([GOOD, "--input", "x.csv"], "texts and --input FILE; give the texts in another call"),
        (["  "], "explain: an empty text; give a text with a word in it"),
        (["\u200b"], "has no word that the model reads; leave it out"),
        (["bad \udcff"], r"is not UTF-8; convert it"),
        ([GOOD, "--label", "postive"], "no such label; the labels are negative, positive; did you mean positive?"),
        ([GOOD, "--variant", "prune"], "expected one of dense, distilled, pruned, int8; did you mean pruned?"),
        ([GOOD, "--variant", "distilled"], "distill is not done, so there is no variant distilled; finish"),
        ([GOOD, "--method", "lime"], "--method lime: expected integrated_gradients or gradient_x_input"),
        ([GOOD, "--text-pair", "bad"], "--text-pair: the run takes single texts, so it has no effect; leave it out"),
        ([GOOD, "--output", "x.csv"], "--output x.csv: explanations are written as .jsonl or .html; give a name that"),
        ([GOOD, "--output", "no/x.html"], "no/x.html: can't be written (no such directory); give another path"),
        ([GOOD, "--output", "."], "--output .: a directory; give the name of a file"),
        ([GOOD, "--output", "gs://b/x.html"], "outputs are written on this machine; give a path here"),
        ([GOOD, "--overwrite"], "--overwrite: has no effect without --output FILE"),
        ([GOOD, "--limit", "3"], "--limit: has no effect without --input FILE; leave it out"),
        ([GOOD, "--text-column", "x"], "--text-column: has no effect without --input FILE; leave it out"),
        (["--input", "absent.csv"], "absent.csv: no such file"),
        (["--input", "-", "--text-column", "x"], "--text-column: has no effect on a stream"),
        (["--input", "-", "--input", "x.csv"], "--input -: a stream comes alone"),
    ],
)  # fmt: skip
def test_wrong_arguments_end_in_one_line(tfpipe_command, tiny_run, arguments, said):
    assert said in last_line(tfpipe_command("explain", tiny_run[1], *arguments))


def test_a_wrong_column_is_told_in_options_of_this_command(tfpipe_command, tiny_run, tmp_path):
    (tmp_path / "rows.csv").write_text("review,n\ngood,1\n")
    message = last_line(tfpipe_command("explain", tiny_run[1], "--input", "rows.csv"))
    assert "no column 'text'" in message and "--text-column" in message
    code, out, _ = tfpipe_command("explain", tiny_run[1], "--input", "rows.csv", "--text-column", "review")
    assert code == 0 and "good[" in out


def test_what_is_no_run_is_refused_with_what_to_give(tfpipe_command, copied_run, tmp_path):
    _, run = copied_run
    for below in ("serving/dense/1", "export/int8/onnx", "export/dense/saved_model"):
        message = last_line(tfpipe_command("explain", run.path / below, GOOD))
        assert "explanations need gradients, so give the directory of its run" in message
    assert f"give that of its run, {run.path}" in last_line(tfpipe_command("explain", run.path / "train", GOOD))
    assert "no such run; give a directory" in last_line(tfpipe_command("explain", tmp_path / "absent", GOOD))
    assert "no run, as it has no config.yaml" in last_line(tfpipe_command("explain", run.path / "serving", GOOD))
    shutil.rmtree(run.path / "prune")
    message = last_line(tfpipe_command("explain", run.path, GOOD, "--variant", "pruned"))
    assert (
        "prune is not done, so there is no variant pruned; finish `tfpipe run`, or give --variant dense, int8"
        in message
    )
    for stage in ("train", "quantize"):
        shutil.rmtree(run.path / stage)
    message = last_line(tfpipe_command("explain", run.path, GOOD))
    assert message.endswith("train is not done yet, so nothing can explain; finish `tfpipe run`")


def test_weights_that_were_changed_are_refused(tfpipe_command, copied_run):
    _, run = copied_run
    path = run.path / "prune" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    message = last_line(tfpipe_command("explain", run.path, GOOD))
    assert str(path) in message and "--redo prune" in message
