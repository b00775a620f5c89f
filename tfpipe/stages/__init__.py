"""The stages of a run, in their order: each is a module here, and `table.py` lists what each reads."""

SUMMARIES = {
    "prepare": "rows, splits, token tables",
    "train": "the dense classifier",
    "distill": "a smaller classifier that the dense one teaches",
    "prune": "zeros in its kernels, or fewer heads and columns",
    "quantize": "8-bit weights and activations",
    "export": "SavedModel and ONNX of every variant",
    "verify": "every artifact against its Keras model, latencies, the budget",
    "publish": "what passed, as versions for TF Serving",
    "report": "the table, metrics.json, report.html, model_card.md",
}
"""name of a stage -> its output, in a phrase"""
