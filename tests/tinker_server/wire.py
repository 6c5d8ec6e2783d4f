"""What client 0.38 sends and expects, in protobuf, and SkyRL's own types."""

from __future__ import annotations

from typing import Any

import numpy as np
from tinker.proto import tinker_public_pb2 as proto

_NUMPY = {proto.DTYPE_FLOAT32: np.float32, proto.DTYPE_INT64: np.int64, proto.DTYPE_INT32: np.int32}
_STOP = {"stop": proto.STOP_REASON_STOP, "length": proto.STOP_REASON_LENGTH}


def read_model_pass(body: bytes) -> tuple[dict[str, Any], bool]:
    """A forward-backward request as SkyRL's JSON, and whether it is a forward pass only."""
    message = proto.ForwardBackwardRequest()
    message.ParseFromString(body)
    data = [
        {
            "model_input": {
                "chunks": [
                    {"tokens": np.frombuffer(chunk.encoded_text.tokens, dtype=np.int32).tolist()}
                    for chunk in datum.model_input
                ]
            },
            "loss_fn_inputs": {
                name: {"data": np.frombuffer(tensor.dense, dtype=_NUMPY[tensor.dtype]).tolist()}
                for name, tensor in datum.loss_fn_inputs.items()
            },
        }
        for datum in message.data
    ]
    return {
        "model_id": message.model_id,
        "input": {"data": data, "loss_fn": message.loss_fn, "loss_fn_config": dict(message.loss_fn_config) or None},
    }, message.forward_only


def write_model_pass(result: dict[str, Any]) -> bytes:
    """The outcome of a forward-backward pass."""
    message = proto.ForwardBackwardOutput()
    message.loss_fn_output_type = "ArrayRecord"
    message.metrics.update(result["metrics"])
    outputs = result["loss_fn_outputs"]
    record = message.loss_fn_outputs.add()
    record.num_datums = len(outputs)
    rows = [np.asarray(each["logprobs"]["data"], dtype=np.float32) for each in outputs]
    field = record.fields["logprobs"]
    field.dtype = proto.DTYPE_FLOAT32
    field.data = b"".join(row.tobytes() for row in rows)
    field.offsets = np.cumsum([0, *(row.nbytes for row in rows)], dtype=np.int64).tobytes()
    return message.SerializeToString()


def write_samples(result: dict[str, Any]) -> bytes:
    """Sampled sequences."""
    message = proto.SampleResponse()
    for each in result["sequences"]:
        sequence = message.sequences.add()
        sequence.stop_reason = _STOP[each["stop_reason"]]
        sequence.tokens = np.asarray(each["tokens"], dtype=np.int32).tobytes()
        sequence.logprobs = np.asarray(each["logprobs"], dtype=np.float32).tobytes()
    if result.get("prompt_logprobs"):
        # The first token has no probability; SkyRL leaves it out, the client expects a place for it.
        values = [float("nan"), *result["prompt_logprobs"]]
        message.prompt_logprobs = np.asarray(values, dtype=np.float32).tobytes()
    return message.SerializeToString()
