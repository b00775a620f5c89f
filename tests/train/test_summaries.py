"""What TensorBoard shows of a fit, by its own readers: curves without a second point for a step, whatever happened."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups
from tensorboard.util import grpc_util
from test_loop import (
    BUCKETED,
    MAX_LENGTH,
    PACKED,
    RECIPE,
    Killed,
    diverging,
    do_fit,  # noqa: F401
    killed_before,
    table_rows,
    training,  # noqa: F401
    validation,  # noqa: F401
    with_settings,
)

from tfpipe.config.file import flattened
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.plan import Plan
from tfpipe.train import loop, summaries
from tfpipe.train.summaries import Summaries, hyperparameters
from tfpipe.train.throughput import Throughput

PER_STEP = {"loss", "gradient_norm", "learning_rate", "token_efficiency"}
MEASURES = {"loss", "accuracy", "macro_f1", "calibration_error"}


def by_python(directory: Path) -> dict[str, dict[str, dict[int, float]]]:
    """Run -> tag -> step -> value, as `tensorboard --load_fast=false` reads them; no step is there twice."""
    multiplexer = EventMultiplexer(tensor_size_guidance={"scalars": 0, "histograms": 0})
    multiplexer.AddRunsFromDirectory(str(directory)).Reload()
    found = {}
    for run, tags in multiplexer.Runs().items():
        for tag in tags["tensors"]:
            events = multiplexer.Tensors(run, tag)
            steps = [event.step for event in events]
            if not tag.startswith("_hparams_"):
                assert steps == sorted(set(steps)), (run, tag, steps)
                found.setdefault(run, {})[tag] = {event.step: tf.make_ndarray(event.tensor_proto) for event in events}
    return found


def by_data_server(directory: Path) -> dict[str, dict[str, list[int]]]:
    """Run -> tag -> steps of the scalars, as `tensorboard` itself reads them, by its data server."""
    server_ingester = pytest.importorskip("tensorboard.data.server_ingester")  # imports pkg_resources: findings/
    ingester = server_ingester.SubprocessServerDataIngester(
        server_binary=server_ingester.get_server_binary(),
        logdir=str(directory),
        reload_interval=1,
        channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
    )
    ingester.start()
    try:
        asked = {"experiment_id": "", "plugin_name": "scalars"}
        before, provider = None, ingester.data_provider
        for _ in range(100):
            read = provider.read_scalars(context.RequestContext(), downsample=10_000, **asked)
            now = {
                run: {tag: [each.step for each in points] for tag, points in tags.items()} for run, tags in read.items()
            }
            if now and now == before:
                return now
            before = now
            time.sleep(0.5)
    finally:
        ingester._data_server_process.kill() if hasattr(ingester, "_data_server_process") else None
    raise AssertionError("the data server found nothing")


def scalars(directory: Path, tag: str) -> dict[int, float]:
    (tags,) = by_python(directory).values()
    return {step: float(value) for step, value in tags[tag].items()}


@pytest.fixture(scope="module")
def killed(do_fit, tmp_path_factory) -> Path:  # noqa: F811
    """The logs of a fit that was killed at step 6, went on after step 4, and was asked for again at its end."""
    path = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "make_train_step", killed_before(6))
        do_fit(path)
    # The kill tears the last record, as it does where a process is gone at once.
    (first,) = (path / "logs").iterdir()
    with open(first, "ab") as file:
        file.write(b"\x18\x00\x00\x00torn")
    time.sleep(1.0)  # TensorBoard's writer names files by the second
    do_fit(path)
    time.sleep(1.0)
    do_fit(path)
    return path / "logs"


def test_a_fit_that_was_killed_has_every_point_once(killed):
    (tags,) = by_python(killed).values()
    for name in PER_STEP:
        assert list(tags[name]) == [1, 2, 3, 4, 5, 6, 7], name
    for name in MEASURES:
        assert list(tags[f"validation/{name}"]) == [3, 6, 7]
        assert list(tags[f"kept/{name}"]) == [8]  # behind the last step
        assert tags[f"kept/{name}"][8] == tags[f"validation/{name}"][7]
    assert {tag for tag in tags if "/" not in tag} == PER_STEP | {"examples_per_second", "tokens_per_second"}
    assert all(value > 0 for value in tags["tokens_per_second"].values())


def test_the_default_reader_shows_the_same(killed):
    (tags,) = by_data_server(killed).values()
    (expected,) = by_python(killed).values()
    for tag, steps in tags.items():
        assert steps == sorted(set(steps)), tag
        if not tag.endswith("_per_second"):  # not known at the first step of a session
            assert steps == list(expected[tag]), tag


def test_a_fit_that_went_back_has_every_point_once(do_fit, tmp_path, monkeypatch):  # noqa: F811
    """Twice: from step 5 to step 3, and from there to the beginning."""
    diverging(monkeypatch, at=4, above=0.3 * RECIPE.learning_rate)
    recipe = with_settings(nonfinite="rollback", nonfinite_limit=4, schedule="constant")
    result = do_fit(tmp_path, recipe)
    assert result.stage.notes["steps_slowed"] == [3, 0]
    rates = scalars(tmp_path / "logs", "learning_rate")
    assert [rates[step] / RECIPE.learning_rate for step in range(1, 8)] == pytest.approx([0.5] * 3 + [0.25] * 4)
    (tags,) = by_data_server(tmp_path / "logs").values()
    assert tags["loss"] == [1, 2, 3, 4, 5, 6, 7] and tags["validation/loss"] == [3, 6, 7]


@pytest.mark.parametrize("batching", [BUCKETED, PACKED], ids=["bucketed", "packed"])
def test_token_efficiency_is_the_share_of_real_tokens(batching):
    lengths = np.array([len(row.input_ids) for row in table_rows(40, seed=1)], np.int32)
    plan = Plan(lengths, batching, seed=11)
    rows = batching.rows + 1  # one that fills the batch up for two replicas
    throughput = Throughput(plan, rows)
    real, computed = [], []
    for step in range(2 * plan.steps_per_epoch):
        examples, row_length = plan.step(step)
        assert row_length <= 2 * MAX_LENGTH
        real.append(lengths[examples[examples >= 0]].sum())
        computed.append(rows * row_length)
        assert throughput.token_efficiency(step, step) == pytest.approx(real[-1] / computed[-1])
    assert throughput.token_efficiency(0, step) == pytest.approx(sum(real) / sum(computed))


def test_a_long_fit_has_so_many_points(tmp_path, monkeypatch):
    monkeypatch.setattr(summaries, "LOGGED_STEPS", 4)
    plan = Plan(np.full(40, 8, np.int32), PACKED, seed=0)
    with Summaries(StageDirectory("train", tmp_path, {}), Throughput(plan, PACKED.rows), 10, {}, writes=True) as drawn:
        drawn.begin(0)
        for step in range(10):
            drawn.step(step, 1.0 / (step + 1), 1.0, 1e-3)
    assert list(scalars(tmp_path / "logs", "loss")) == [1, 4, 7, 10]


def test_a_worker_that_is_not_the_chief_writes_nothing(tmp_path):
    plan = Plan(np.full(40, 8, np.int32), PACKED, seed=0)
    with Summaries(StageDirectory("train", tmp_path, {}), Throughput(plan, 7), 10, {}, writes=False) as drawn:
        drawn.begin(0)
        drawn.step(0, 1.0, 1.0, 1e-3)
        drawn.evaluation(1, {"loss": 1.0})
        drawn.go_back(0)
        drawn.flush()
        drawn.end(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_sparsity_is_that_of_the_weights(tmp_path):
    """Of two of each four weights, which an even stride would miss, and of one layer that lost nothing."""
    random = np.random.default_rng(0)
    half = random.normal(size=(512, 256)).astype(np.float32)
    half[::2] = 0.0
    kernels = {
        "bert.encoder.layer.0.output.dense.weight": tf.Variable(half),
        "bert.encoder.layer.0.intermediate.dense.weight": tf.Variable(half + 1.0),
        "bert.encoder.layer.1.output.dense.weight": tf.Variable(np.ones((4, 4), np.float32)),
        "bert.embeddings.word_embeddings.weight": tf.Variable(half[:4]),
    }
    plan = Plan(np.full(40, 8, np.int32), PACKED, seed=0)
    stage = StageDirectory("prune", tmp_path, {})
    with Summaries(stage, Throughput(plan, 7), 10, kernels, writes=True) as drawn:
        drawn.begin(0)
        drawn.evaluation(3, {"loss": 1.0})
    (tags,) = by_python(tmp_path / "logs").values()
    found = {tag.removeprefix("sparsity/"): float(of[3]) for tag, of in tags.items() if tag.startswith("sparsity/")}
    assert found == pytest.approx(
        {
            "layer.0": 0.25,
            "layer.1": 0.0,
            "embeddings.word_embeddings": 0.5,
            "all": (65536 + 512) / (262144 + 16 + 1024),
        }
    )
    assert tags["sparsity_of_kernels"][3][:, 2].sum() == 4  # a histogram: [buckets, (left, right, count)]
    left = tags["weights/layer.0"][3]
    shown = -(-half.size // summaries.SHOWN_WEIGHTS) | 1
    assert shown == 3 and left[:, 2].sum() == pytest.approx(1.5 * half.size / shown, rel=0.01)  # zeros are left out
    assert half.min() <= left[0, 0] < -3.0 and 4.0 < left[-1, 1] <= half.max() + 1.0


def test_a_run_shows_its_zeros_where_it_prunes(tiny_run):
    config, run = tiny_run
    found = by_python(run)
    assert found.keys() == {f"{stage}/logs" for stage in ("train", "prune", "quantize")}
    with_zeros = {
        stage for stage, tags in found.items() if any(tag.startswith(("sparsity", "weights")) for tag in tags)
    }
    assert with_zeros == {"prune/logs"}
    shares = found["prune/logs"]["sparsity/all"]
    assert float(shares[max(shares)]) == pytest.approx(config.prune.sparsity, abs=0.01)


def test_hparams_compares_runs_and_stages(tiny_run):
    """By the plugin's own backend: a session for each stage that trained, with its settings and last measures.

    Another run of the same settings, such as a point of a sweep that took a stage over, is in one group with it.
    """
    config, run = tiny_run
    trained = [f"{name}/{stage}/logs" for name in ("one", "other") for stage in ("train", "prune", "quantize")]
    multiplexer = EventMultiplexer()
    for session in trained:
        multiplexer.AddRun(str(run / session.partition("/")[2]), session)
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(run))
    backend, asked = backend_context.Context(base_plugin.TBContext(data_provider=provider)), context.RequestContext()
    others = backend.hparams_from_data_provider(asked, "", None)
    experiment = backend.experiment_from_metadata(asked, "", True, backend.hparams_metadata(asked, ""), others)
    infos = {info.name: info for info in experiment.hparam_infos}
    assert infos["train.learning_rate"].type == api_pb2.DATA_TYPE_FLOAT64
    assert infos["prune.sparsity"].domain_interval.max_value == config.prune.sparsity
    assert "data.max_length" in infos and "data.label_names" in infos and "data.workers" not in infos
    metrics = [metric.name for metric in experiment.metric_infos]
    assert {f"kept/{name}" for name in MEASURES} <= {metric.tag for metric in metrics}
    request = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        col_params=[api_pb2.ColParams(metric=metric) for metric in metrics],
        slice_size=100,
    )
    groups = list_session_groups.Handler(asked, backend, "", request).run().session_groups
    assert sorted(session.name for group in groups for session in group.sessions) == sorted(trained)
    assert len(groups) == 3
    (of_train,) = (group for group in groups if "one/train/logs" in {each.name for each in group.sessions})
    found = {value.name.tag: value.value for value in of_train.metric_values}
    history = json.loads((run / "train" / "history.json").read_text())
    assert found["kept/accuracy"] == pytest.approx(max(entry["accuracy"] for entry in history))


def test_settings_are_those_of_all_stages_before(tiny_run):
    _, run = tiny_run
    stage = StageDirectory("prune", run / "prune", {name: run / name for name in ("prepare", "train")})
    found = hyperparameters(stage)
    assert found["data.max_length"] == 32 and found["train.epochs"] == 4 and found["train.early_stopping"] == "null"
    assert found["data.label_names"] == '{"0": "negative", "1": "positive"}'
    assert "train.class_weights" in found and "data.workers" not in found
    assert all(isinstance(value, bool | int | float | str) for value in found.values())
    assert hyperparameters(replace(stage, settings={"prune": {"sparsity": 0.75}}))["prune.sparsity"] == 0.75


def test_sections_are_taken_apart_and_mappings_stay_whole():
    settings = {"train": {"epochs": 1.0, "class_weights": {"a b": 2.0}}, "data.label_names": {"0": "no"}, "prune": None}
    assert flattened(settings) == {
        "train.epochs": 1.0,
        "train.class_weights": {"a b": 2.0},
        "data.label_names": {"0": "no"},
        "prune": None,
    }
