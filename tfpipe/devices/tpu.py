"""TPUStrategy: the TPU of this machine, or the one that TPU_NAME names, with one line for each error.

One process trains, on the TPU VM itself (`TPU_NAME` unset or `local`) or, for a pod, on its first worker with
`TPU_NAME` set: see `feed`. Text is tokenized in `prepare`, on the host's CPU: only integers of fixed shapes enter the
device.
"""

from __future__ import annotations

import socket
from functools import cache

import tensorflow as tf

from tfpipe.errors import InputError
from tfpipe.tpu_environment import local_device, pod_name

SECONDS_TO_ANSWER = 30.0


def is_here() -> bool:
    """Tells whether there is a TPU to train on."""
    return pod_name() is not None or local_device() is not None


def described() -> str:
    """Names the TPU that is going to be used."""
    return f"TPU_NAME={pod_name()}" if pod_name() is not None else str(local_device() or "the TPU of this machine")


def has_other_hosts(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether replicas are on hosts that run no Python of tfpipe."""
    return isinstance(strategy, tf.distribute.TPUStrategy) and pod_name() is not None


@cache
def strategy() -> tf.distribute.TPUStrategy:
    """Makes the strategy over all chips, once for the process: initializing a TPU again would clear its memory.

    Raises:
      InputError: there is no such TPU, it can't be reached, or may not be used.
    """
    name = pod_name() or "local"
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        master = resolver.master()
        if master.startswith("grpc://"):
            _check_that_it_answers(master.removeprefix("grpc://"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except InputError:
        raise
    except Exception as error:  # of urllib, google-auth, the API's client and TensorFlow: what can go wrong is theirs
        raise explained(name, error) from error


def explained(name: str, error: Exception) -> InputError:
    """Turns an exception of a resolver or of TensorFlow into one line."""
    kind, said = type(error).__name__, " ".join(str(error).split())[:200]
    if name == "local":
        return InputError(
            f"train.strategy: tpu: TensorFlow finds no TPU on this machine ({kind}: {said}); on a TPU VM, install "
            "tensorflow-tpu as tpu/setup.sh does; elsewhere use train.strategy: auto"
        )
    if kind in ("DefaultCredentialsError", "RefreshError", "ApplicationDefaultCredentialsError"):
        what = "Google Cloud gave no credentials; run gcloud auth application-default login, or train on the TPU VM"
    elif kind in ("ImportError", "ModuleNotFoundError"):
        what = "it is looked up by name with google-api-python-client, which is not installed; train on the TPU VM"
    elif kind == "URLError":
        what = "the metadata server that knows project and zone does not answer, so this is no machine of Google Cloud"
    else:
        what = "no such TPU, or it is not ready; see gcloud compute tpus tpu-vm list"
    return InputError(f"TPU_NAME: {name}: {what} ({kind}: {said})")


def _check_that_it_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"TPU_NAME: the TPU at {address} does not answer ({error}); is it READY, "
            "and reachable from here? see gcloud compute tpus tpu-vm list"
        ) from None
