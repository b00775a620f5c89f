"""Fine-tuning against transformers' Trainer and KerasHub: examples per second and accuracy, from the same weights.

    tfpipe run configs/quickstart.yaml --until train
    python3 -m venv .venv-peer && .venv-peer/bin/pip install -r benchmarks/finetune.requirements.txt
    .venv/bin/python benchmarks/finetune.py speed runs/quickstart --peer .venv-peer/bin/python
    .venv/bin/python benchmarks/finetune.py accuracy runs/quickstart --peer .venv-peer/bin/python --seeds 0 1 2

All train on the rows that the run prepared, the same token ids, with the run's batch size, epochs, learning rate,
warm-up and weight decay, on two threads: tfpipe as its loop runs it, packed, and for `speed` bucketed and padded too;
the Trainer on PyTorch in bfloat16, with `group_by_length` and without; KerasHub's BertTextClassifier on TensorFlow in
mixed_bfloat16, each batch padded to its longest row, as the Trainer's (its own preprocessor pads to one length), and
without XLA, which is slower on a CPU.

`speed`: every contestant is a process of its own that trains some steps and then waits; they take turns, so that each
round measures all of them within minutes. The first turn of each is not counted. `accuracy`: each trains to the end
once per seed, keeps its best epoch by validation accuracy, and answers the test rows. Both write
benchmarks/results/finetune_*.json.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2
SPEED = ("tfpipe", "trainer_grouped", "trainer_default", "keras_hub", "tfpipe_bucketed", "tfpipe_padded")
ACCURACY = ("tfpipe", "trainer_grouped")
RESULTS = Path(__file__).parent / "results"


def read_run(run: Path) -> dict[str, Any]:
    """What every contestant needs to know of a run."""
    import yaml

    config = yaml.safe_load((run / "config.yaml").read_text())
    source = config["encoder"]["source"].removeprefix("package:")
    package, _, rest = source.partition("/")
    encoder = source
    if config["encoder"]["source"].startswith("package:"):
        (root,) = importlib.util.find_spec(package).submodule_search_locations
        encoder = str(Path(root) / rest)
    train = config["train"]
    names = ("epochs", "batch_size", "learning_rate", "warmup_fraction", "weight_decay", "clip_global_norm")
    return {
        "run": str(run.resolve()),
        "encoder": encoder,
        "max_length": config["data"]["max_length"],
        **{name: train[name] for name in names},
        "set": [],
    }


class Pacer:
    """Lets a worker train `steps` at a time, when its driver says so, and reports each turn."""

    def __init__(self):
        self._left, self._began, self._examples, self._tokens = 0, 0.0, 0, 0

    def before_step(self) -> None:
        """Waits for the driver when the turn is over."""
        if self._left == 0:
            print("READY", flush=True)
            line = sys.stdin.readline()
            if not line.strip():
                os._exit(0)
            self._left, self._began, self._examples, self._tokens = int(line), time.perf_counter(), 0, 0

    def after_step(self, examples: int, tokens: int) -> None:
        """Counts the step; `tokens` are real ones."""
        self._examples, self._tokens, self._left = self._examples + examples, self._tokens + tokens, self._left - 1
        if self._left == 0:
            seconds = time.perf_counter() - self._began
            print(json.dumps({"seconds": seconds, "examples": self._examples, "tokens": self._tokens}), flush=True)


def read_rows(run: str, split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Token ids and the class of each row of a split."""
    import pyarrow as pa

    ids, labels = [], []
    for path in sorted((Path(run) / "prepare" / split).glob("part-*.arrow")):
        with pa.ipc.open_file(str(path)) as reader:
            shard = reader.get_batch(0).to_pydict()
        ids += [np.array(row, np.int64) for row in shard["input_ids"]]
        labels += [int(np.argmax(row)) for row in shard["labels"]]
    return ids, np.array(labels)


def tfpipe_fit(task: dict[str, Any], seed: int, epochs: float, wrap_step=None):
    """tfpipe's own stage, as its loop runs it; `wrap_step(train_steps, plan)` may stand between."""
    import tempfile

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    from tfpipe.config.file import load_config
    from tfpipe.rundir.stage import StageDirectory
    from tfpipe.stages import train
    from tfpipe.train import loop, recipe, session

    run = Path(task["run"])
    config = load_config(run / "config.yaml", [f"seed={seed}", f"train.epochs={epochs}", *task["set"]])
    if wrap_step is not None:
        make, plan_of = loop.make_train_step, recipe.training_plan

        def make_wrapped(*args, **kwargs):
            return wrap_step(make(*args, **kwargs))

        loop.make_train_step = make_wrapped
        recipe.Recipe.is_evaluated = lambda *args: False  # the others do not evaluate meanwhile either
        session.training_plan = lambda *args: wrap_step.plan(plan_of(*args))
    directory = Path(tempfile.mkdtemp())
    stage = StageDirectory("train", directory, {"prepare": run / "prepare"})
    train.run(config, stage)
    return config, stage


class Paced:
    """tfpipe's compiled step, paced."""

    def __init__(self, task: dict[str, Any]):
        self._pacer, self._run, self._plan = Pacer(), Path(task["run"]), None

    def plan(self, chosen):
        """Remembers the plan."""
        from tfpipe.tokens.table import TokenTable

        self._plan, self._lengths = chosen[0], TokenTable.open(self._run / "prepare" / "train").lengths
        return chosen

    def __call__(self, train_steps):
        def run(iterator, first, rates):
            self._pacer.before_step()
            losses, norms = train_steps(iterator, first, rates)
            losses.numpy()
            examples = self._plan.step(int(first))[0]
            filled = examples[examples >= 0]
            self._pacer.after_step(len(filled), int(self._lengths[filled].sum()))
            return losses, norms

        return run


def tfpipe_speed(task: dict[str, Any]) -> None:
    """Trains until the driver has enough."""
    tfpipe_fit(task, seed=0, epochs=100.0, wrap_step=Paced(task))


def tfpipe_accuracy(task: dict[str, Any], seed: int) -> dict[str, float]:
    """The stage `train`, then its classifier over the test rows."""
    from tfpipe.evaluate.loaded import batches_of
    from tfpipe.model.classifier import float_model, load_classifier
    from tfpipe.tokens.table import TokenTable

    started = time.perf_counter()
    _, stage = tfpipe_fit(task, seed, task["epochs"])
    seconds = time.perf_counter() - started
    classifier = load_classifier(stage.path)
    model = float_model(classifier)
    table = TokenTable.open(Path(task["run"]) / "prepare" / "test")
    right = 0
    for rows, batch in batches_of(table, np.arange(table.num_rows), 64):
        answers = model(batch.tokens, training=False).numpy().argmax(axis=1)
        right += int((answers == table.labels[rows].argmax(axis=1)).sum())
    history = json.loads((stage.path / "history.json").read_text())
    return {
        "test": right / table.num_rows,
        "validation": max(entry["accuracy"] for entry in history),
        "seconds": seconds,
    }


def trainer_of(task: dict[str, Any], seed: int, grouped: bool, epochs: float, pacer: Pacer | None):
    """transformers' Trainer with the run's settings, in bfloat16."""
    import tempfile

    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)

    class Rows(torch.utils.data.Dataset):
        def __init__(self, split):
            self.ids, self.labels = read_rows(task["run"], split)

        def __len__(self):
            return len(self.ids)

        def __getitem__(self, n):
            return {"input_ids": self.ids[n], "attention_mask": np.ones_like(self.ids[n]), "labels": self.labels[n]}

    class Turns(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            pacer.before_step()

        def on_step_end(self, args, state, control, **kwargs):
            pacer.after_step(*seen)

    collator = DataCollatorWithPadding(AutoTokenizer.from_pretrained(task["encoder"]))
    seen = [0, 0]

    def collate(rows):
        batch = collator(rows)
        seen[:] = len(rows), int(batch["attention_mask"].sum())
        return batch

    training, validation = Rows("train"), Rows("validation")
    evaluated = pacer is None
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=True,
        num_train_epochs=epochs,
        per_device_train_batch_size=task["batch_size"],
        per_device_eval_batch_size=64,
        learning_rate=task["learning_rate"],
        warmup_steps=task["warmup_fraction"],  # below 1: a share of all steps
        weight_decay=task["weight_decay"],
        max_grad_norm=task["clip_global_norm"],
        train_sampling_strategy="group_by_length" if grouped else "random",
        seed=seed,
        eval_strategy="epoch" if evaluated else "no",
        save_strategy="epoch" if evaluated else "no",
        load_best_model_at_end=evaluated,
        metric_for_best_model="accuracy",
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        logging_steps=50,
    )
    model = AutoModelForSequenceClassification.from_pretrained(task["encoder"], num_labels=2, dtype=torch.float32)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=training,
        eval_dataset=validation,
        data_collator=collate,
        callbacks=[Turns()] if pacer is not None else [],
        compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
    )
    return trainer, Rows


def trainer_speed(task: dict[str, Any], grouped: bool) -> None:
    """Trains until the driver has enough."""
    trainer, _ = trainer_of(task, 0, grouped, 100.0, Pacer())
    trainer.train()


def trainer_accuracy(task: dict[str, Any], seed: int) -> dict[str, float]:
    """Trains to the end, then answers the test rows with the best epoch's weights."""
    trainer, rows = trainer_of(task, seed, True, task["epochs"], None)
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    test = trainer.predict(rows("test")).metrics["test_accuracy"]
    return {"test": test, "validation": trainer.state.best_metric, "seconds": seconds}


def keras_hub_speed(task: dict[str, Any]) -> None:
    """Trains until the driver has enough."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    import keras
    import keras_hub

    keras.config.set_dtype_policy("mixed_bfloat16")
    ids, labels = read_rows(task["run"], "train")
    size = task["batch_size"]
    rows = tf.ragged.constant(ids, dtype=tf.int32)

    def features(rows, labels):
        tokens = rows.to_tensor()
        mask = tf.sequence_mask(rows.row_lengths(), dtype=tf.int32)
        return {"token_ids": tokens, "segment_ids": tf.zeros_like(tokens), "padding_mask": mask}, labels

    dataset = tf.data.Dataset.from_tensor_slices((rows, labels)).shuffle(len(ids), seed=0).batch(size)
    dataset = dataset.map(features).prefetch(tf.data.AUTOTUNE)
    pacer, mean = Pacer(), sum(map(len, ids)) / len(ids)

    class Turns(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            pacer.before_step()

        def on_train_batch_end(self, batch, logs=None):
            count = size if (batch + 1) * size <= len(ids) else len(ids) - batch * size
            pacer.after_step(count, round(count * mean))

    backbone = keras_hub.models.BertBackbone.from_preset(task["encoder"])
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.AdamW(task["learning_rate"], weight_decay=task["weight_decay"], global_clipnorm=1.0),
        jit_compile=False,
    )
    model.fit(dataset, epochs=100, verbose=0, callbacks=[Turns()])


def matrix_rate() -> float:
    """bfloat16 operations per second of a product of the model's shapes (2048 x 384 x 1536), two threads."""
    import tensorflow as tf

    a, b = (tf.cast(tf.random.normal(shape), tf.bfloat16) for shape in ((2048, 384), (384, 1536)))

    copies = [a * (n + 1) for n in range(8)]

    @tf.function
    def many():
        return tf.add_n([tf.matmul(copy, b)[0, 0] for copy in copies])

    many()
    times = []
    for _ in range(30):
        started = time.perf_counter()
        many().numpy()
        times.append(time.perf_counter() - started)
    return 8 * 2 * 2048 * 384 * 1536 / float(np.median(times))


def work(arguments: argparse.Namespace) -> None:
    """One contestant, in its own process."""
    task, name = json.loads(arguments.task), arguments.name
    if arguments.seed is not None:
        run = tfpipe_accuracy if name == "tfpipe" else trainer_accuracy
        print(json.dumps(run(task, arguments.seed)), flush=True)
    elif name == "matrix":
        print(json.dumps(matrix_rate()))
    elif name.startswith("tfpipe"):
        batching = name.removeprefix("tfpipe").removeprefix("_") or "auto"
        task["set"].append(f"train.batching={batching}")
        tfpipe_speed(task)
    elif name == "keras_hub":
        keras_hub_speed(task)
    else:
        trainer_speed(task, grouped=name == "trainer_grouped")


def start(name: str, task: dict[str, Any], peer: str, *extra: str) -> subprocess.Popen:
    """A contestant's process."""
    python = peer if name.startswith("trainer") else sys.executable
    log = open(RESULTS / f"{name}.log", "w")  # noqa: SIM115 - the process holds it
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "TF_CPP_MIN_LOG_LEVEL": "2", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [python, __file__, "work", name, json.dumps(task), *extra],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment,
    )


def answer_of(process: subprocess.Popen, name: str) -> str:
    """The next line that is a message; libraries print theirs between."""
    for line in process.stdout:
        if line.startswith(("READY", '{"')) or line.strip().replace(".", "").isdigit():
            return line.strip()
    raise SystemExit(f"{name} ended; see {RESULTS / name}.log")


def speed(arguments: argparse.Namespace) -> None:
    """Lets the contestants take turns and writes the table."""
    task = read_run(arguments.run)
    task["set"].append("train.checkpoint_every=1000000")
    if arguments.batch_size:
        task["batch_size"] = arguments.batch_size
        task["set"].append(f"train.batch_size={arguments.batch_size}")
    names = [name for name in SPEED if name in arguments.only]
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    processes = {}
    for name in names:
        processes[name] = start(name, task, arguments.peer)
        assert answer_of(processes[name], name) == "READY"
        print(f"{name} is ready", flush=True)
    for number in range(arguments.rounds + 1):
        for name, process in processes.items():
            process.stdin.write(f"{arguments.steps}\n")
            process.stdin.flush()
            turn = json.loads(answer_of(process, name))
            assert answer_of(process, name) == "READY"
            rate = turn["examples"] / turn["seconds"]
            print(f"round {number}  {name:16s} {rate:6.1f} examples/s", flush=True)
            if number:
                turns[name].append(turn)
    for process in processes.values():
        process.stdin.close()
        process.wait()
    matrix = start("matrix", task, arguments.peer)
    flops = float(answer_of(matrix, "matrix"))
    result = {"task": task, **machine(arguments.peer), "steps_a_turn": arguments.steps, "matrix_flops": flops}
    result["contestants"] = {}
    for name, done in turns.items():
        rates = [turn["examples"] / turn["seconds"] for turn in done]
        seconds = sum(turn["seconds"] for turn in done)
        tokens = sum(turn["tokens"] for turn in done) / seconds
        result["contestants"][name] = {
            "examples_per_second": float(np.median(rates)),
            "of_all_turns": sum(turn["examples"] for turn in done) / seconds,
            "examples_per_step": sum(turn["examples"] for turn in done) / (arguments.steps * len(done)),
            "tokens_per_second": tokens,
            "share_of_matrix_rate": tokens * flops_per_token(task) / flops,
            "rounds": rates,
        }
    ours = result["contestants"]["tfpipe"]["of_all_turns"]
    result["ratios"] = {
        name: ours / other["of_all_turns"] for name, other in result["contestants"].items() if name != "tfpipe"
    }
    write(f"finetune_speed_{arguments.run.name}", result)


def flops_per_token(task: dict[str, Any]) -> float:
    """Of a training step of the whole encoder: two operations a weight forward, four backward."""
    config = json.loads((Path(task["encoder"]) / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return 6.0 * config["num_hidden_layers"] * (4 * hidden * hidden + 2 * hidden * inner)


def accuracy(arguments: argparse.Namespace) -> None:
    """Trains every contestant once per seed and writes the table."""
    task = read_run(arguments.run)
    result: dict[str, Any] = {"task": task, **machine(arguments.peer), "contestants": {}}
    for seed in arguments.seeds:
        for name in ACCURACY:
            if name not in arguments.only:
                continue
            found = json.loads(answer_of(start(name, task, arguments.peer, "--seed", str(seed)), name))
            print(f"seed {seed}  {name:16s} {found}", flush=True)
            result["contestants"].setdefault(name, {"runs": []})["runs"].append({"seed": seed, **found})
    for contestant in result["contestants"].values():
        for key in ("test", "validation"):
            contestant[key] = float(np.mean([run[key] for run in contestant["runs"]]))
    write(f"finetune_accuracy_{arguments.run.name}", result)


def machine(peer: str) -> dict[str, Any]:
    """Versions, processor, date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    listed = subprocess.run([peer, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    peers = {line.split("==")[0]: line.split("==")[1] for line in listed.splitlines() if "==" in line}
    here = ("tensorflow", "tf-keras", "keras-hub", "keras")
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": next(line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in here}
        | {name: peers[name] for name in ("torch", "transformers", "accelerate") if name in peers},
    }


def write(name: str, result: dict[str, Any]) -> None:
    """The JSON file, and what it says."""
    result["task"] = {key: value for key, value in result["task"].items() if key not in ("run", "encoder")}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("speed", speed), ("accuracy", accuracy)):
        command = commands.add_parser(name)
        command.add_argument("run", type=Path, help="a run directory with its stage `prepare` done")
        command.add_argument("--peer", required=True, help="the Python that has the peer's requirements")
        command.add_argument("--only", nargs="+", default=SPEED, help="contestants to run")
        command.set_defaults(function=function)
        if name == "speed":
            command.add_argument("--steps", type=int, default=63, help="steps a turn; the Trainer sorts 50 at once")
            command.add_argument("--rounds", type=int, default=3, help="turns that count")
            command.add_argument("--batch-size", type=int, help="instead of the run's")
        else:
            command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    worker = commands.add_parser("work")
    worker.add_argument("name")
    worker.add_argument("task")
    worker.add_argument("--seed", type=int)
    worker.set_defaults(function=work)
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    arguments.function(arguments)


if __name__ == "__main__":
    main()
