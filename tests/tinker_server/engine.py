"""SkyRL's engine, with Tinker's arithmetic where it has its own.

Five differences are taken away, so that a run here is what the same run is at Tinker:

- Cross entropy is the weighted sum over a batch's tokens. SkyRL means over tokens, then over sequences.
- `grad_clip_norm` clips. SkyRL knows no such field.
- Sampler weights are apart from the weights that train, and outlive them. SkyRL loads them over the training ones,
  and only while that run is in memory.
- A new run begins without gradients. SkyRL leaves it those of the run that had its place before.
- A place in memory that nothing trains in is given to whoever needs it. SkyRL refuses.
"""

from __future__ import annotations

import json
import tarfile
import typing
from collections import OrderedDict
from pathlib import Path
from typing import Any

import typing_extensions

typing.TypedDict = typing_extensions.TypedDict  # type: ignore[assignment]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from flax import nnx  # noqa: E402
from skyrl.backends import jax as backend  # noqa: E402
from skyrl.tinker import engine, loss_fns, types  # noqa: E402
from skyrl.tx.layers.lora import init_lora_adapter  # noqa: E402
from skyrl.tx.utils.models import get_adapter_idx, load_lora_checkpoint  # noqa: E402

SAMPLER = "sampler:"


class AdamParams(types.AdamParams):
    """What Tinker's clients send, clipping included."""

    grad_clip_norm: float = 0.0


class OptimStepInput(types.OptimStepInput):
    """One optimizer step."""

    adam_params: AdamParams  # type: ignore[assignment]


def _summed(logprobs: jax.Array, mask: jax.Array, *_: Any) -> jax.Array:
    """Cross entropy by token, times the sum of weights that the caller divides by."""
    return -loss_fns.safe_loss_mask(logprobs, mask) * jnp.maximum(mask.sum(axis=-1), 1e-9)


def _sum_of(self: Any, adapter: jax.Array) -> Any:
    """The gradients of one adapter, as they were added up."""

    def only(path: Any, gradient: jax.Array) -> jax.Array:
        index = get_adapter_idx(path, adapter)
        return jnp.zeros_like(gradient).at[index].set(gradient[index])

    return jax.tree.map_with_path(only, self.grad_sum)


@jax.jit
def _clipped(gradients: Any, adapter: jax.Array, most: jax.Array) -> Any:
    norm = optax.global_norm(_sum_of(gradients, adapter))
    share = jnp.where(norm > most, most / (norm + 1e-6), 1.0)

    def scaled(path: Any, gradient: jax.Array) -> jax.Array:
        index = get_adapter_idx(path, adapter)
        return gradient.at[index].multiply(share)

    summed = jax.tree.map_with_path(scaled, gradients.grad_sum)
    return backend.AccumulatedGradients(grad_sum=summed, counts=gradients.counts)


def _insert(adapter: int, state: Any, saved: Any, rank: int) -> None:
    """Put a saved adapter into its place; SkyRL compiles this anew for every place, which takes seconds."""

    def one(path: Any, old: jax.Array, new: jax.Array) -> jax.Array:
        name = path[-2].key
        if name not in ("lora_A", "lora_B"):
            return new
        at = (*get_adapter_idx(path, adapter), ...)
        return old.at[(*at, slice(rank)) if name == "lora_A" else (*at, slice(rank), slice(None))].set(new)

    nnx.update(state, jax.tree.map_with_path(one, state, saved))


class Backend(backend.JaxBackend):
    """SkyRL's backend, with places for sampler weights."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.samplers: OrderedDict[str, None] = OrderedDict()
        super().__init__(*args, **kwargs)

    def create_model(self, model_id: str, *args: Any, **kwargs: Any) -> None:
        """Make room for a run where sampler weights have taken all places."""
        if len(self.models) >= self.config.max_lora_adapters - 1:
            self._evict(())
        super().create_model(model_id, *args, **kwargs)
        # A run that ended between its gradient and its step leaves the gradient in its place.
        index = jnp.int32(self.models[model_id].adapter_index)
        with jax.set_mesh(self.mesh):
            self.accumulated_grads = self.accumulated_grads.reset_adapter(index)

    def optim_step(self, model_id: str, request_data: Any) -> Any:
        """Clip, then step."""
        most = request_data.adam_params.grad_clip_norm
        if most > 0:
            index = jnp.int32(self.models[model_id].adapter_index)
            with jax.set_mesh(self.mesh):
                self.accumulated_grads = _clipped(self.accumulated_grads, index, jnp.float32(most))
        return super().optim_step(model_id, request_data)

    def load_sampler_weights(self, prepared_batch: types.PreparedSampleBatch) -> list[int]:
        """The place of each row's weights; 0 is the base model's."""
        rows = zip(prepared_batch.all_model_ids, prepared_batch.all_checkpoint_paths, strict=True)
        wanted = [f"{SAMPLER}{path}" if model else "" for model, path in rows]
        for name in dict.fromkeys(filter(None, wanted)):
            if name not in self.models:
                self._load(name, wanted)
            self.samplers[name] = None
            self.samplers.move_to_end(name)
        return [self.models[name].adapter_index if name else 0 for name in wanted]

    def _load(self, name: str, wanted: list[str]) -> None:
        path = Path(name.removeprefix(SAMPLER))
        with tarfile.open(path, mode="r:gz") as archive:
            member = next(each for each in archive.getmembers() if each.name.endswith("adapter_config.json"))
            said = json.load(archive.extractfile(member))  # type: ignore[arg-type]
        if len(self.models) >= self.config.max_lora_adapters - 1:
            self._evict(wanted)
        used = {each.adapter_index for each in self.models.values()}
        index = min(set(range(1, self.config.max_lora_adapters)) - used)
        config = types.LoraConfig(rank=said["r"], alpha=said["lora_alpha"], seed=0)
        with jax.set_mesh(self.mesh):
            init_lora_adapter(self.model, index, config)
            load_lora_checkpoint(self.model, config, index, path)
        self.models[name] = types.ModelMetadata(adapter_index=index, lora_config=config)

    def _evict(self, wanted: Any) -> None:
        for name in list(self.samplers):
            if name not in wanted:
                del self.samplers[name], self.models[name]
                return


class Engine(engine.TinkerEngine):
    """SkyRL's engine, whose samplers need no run in memory."""

    def _filter_valid_requests(self, requests: Any) -> Any:
        rest, valid = {}, {}
        for number, (model, data) in requests.items():
            if model and isinstance(data, types.SampleInput):
                valid[number] = (model, data)
            else:
                rest[number] = (model, data)
        errors, others = super()._filter_valid_requests(rest)
        return errors, {**valid, **others}

    def find_batchable_sample(self, session: Any) -> Any:
        """Rows of no more different weights than have a place beside the runs that train."""
        found = super().find_batchable_sample(session)
        room = self.backend.config.max_lora_adapters - 1 - len(self.backend.models) + len(self.backend.samplers)
        weights: dict[tuple[str, str], None] = {}
        for model, data in found.values():
            if model:
                weights[model, data.checkpoint_id] = None
        kept = {("", ""), *list(weights)[: max(1, room)]}
        return {
            number: (model, data)
            for number, (model, data) in found.items()
            if (model, data.checkpoint_id if model else "") in kept
        }


def main() -> None:
    """Change what is different, and run."""
    loss_fns.LOSS_FUNCTIONS[types.LOSS_TYPES["cross_entropy"]] = _summed
    backend.AccumulatedGradients.get_mean = _sum_of
    backend.insert_adapter_state = _insert
    backend.JaxBackend = Backend
    types.OptimStepInput = OptimStepInput
    engine.TinkerEngine = Engine
    engine.main()


if __name__ == "__main__":
    main()
