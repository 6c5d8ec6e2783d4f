"""What the backends of a spec can do, against what the spec asks of them."""

from __future__ import annotations

from collections.abc import Mapping

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.inside import InsideBackend
from windowshift.core.spec.grid_spec import GridSpec
from windowshift.core.spec.spec import Spec


def check_capabilities(spec: Spec, grid: GridSpec, backends: Mapping[str, Backend]) -> None:
    """Refuse what a backend of the spec cannot do.

    Raises:
        SpecError: the first thing that one cannot do, and what to write in its place.
    """
    trainer, sampler = backends[spec.train_backend].capabilities, backends[spec.generate_backend].capabilities
    if not trainer.trains:
        raise SpecError(f"backend '{spec.train_backend}' cannot train: write  backend: {{train: local, generate: ...}}")
    if not sampler.generates:
        raise SpecError(f"backend '{spec.generate_backend}' cannot generate: name another one under backend.generate")
    if spec.train_backend != spec.generate_backend and not (trainer.leaves_peft and sampler.loads_peft):
        one, lacks = (
            (spec.generate_backend, "does not load the adapters of another backend")
            if trainer.leaves_peft
            else (spec.train_backend, "leaves no adapters that another backend could load")
        )
        raise SpecError(
            f"backend: {{train: {spec.train_backend}, generate: {spec.generate_backend}}} cannot work: "
            f"'{one}' {lacks}; write  backend: local,  or  backend: {{train: local, generate: vllm}}"
        )
    if spec.data.weights and not trainer.weighs:
        raise SpecError(
            f"data.{min(spec.data.weights)}: backend '{spec.train_backend}' cannot weigh examples or tokens: train "
            "with backend local or tinker"
        )
    if not trainer.continues and any(row.after for row in grid.rows):
        raise SpecError(
            f"conditions.train: backend '{spec.train_backend}' cannot train on from an adapter, which 'stages' needs: "
            "train with backend local"
        )
    if spec.inside is not None and spec.inside.along:
        inside_backend(spec, backends)
    if spec.inside is not None and spec.inside.watch is not None and not trainer.watches:
        raise SpecError(
            f"inside.watch: backend '{spec.train_backend}' reads no texts while it trains: train with backend local "
            "or tinker, or leave watch out"
        )
    trained = [part.train for part in grid.parts]
    for condition in (*grid.generate, *grid.evaluate, *grid.base, *trained):
        for name, able in ((spec.generate_backend, sampler.steers), (spec.train_backend, trainer.steers)):
            used = condition in trained or name == spec.generate_backend
            if condition.arm == "steering" and used and not able:
                raise SpecError(
                    f"condition '{condition.name}' is a steering dose, which backend '{name}' cannot do: "
                    "name one that steers, e.g. local"
                )
    if spec.checkpoints and not trainer.checkpoints:
        size = spec.data.size
        for step in spec.checkpoints.steps(size * spec.sft.epochs):
            if step > size and not (trainer.epoch_checkpoints and step % size == 0):
                raise SpecError(
                    f"checkpoints: backend '{spec.train_backend}' cannot stop after {step} examples, within a later "
                    f"epoch: name numbers up to data.size ({size}), or multiples of it"
                )


def check_system_channel(spec: Spec, backends: Mapping[str, Backend]) -> None:
    """Refuse the system channel where a chat template takes no system message.

    Raises:
        SpecError: one does not.
    """
    if "system" in (spec.channel.train, spec.channel.evaluate, spec.channel.generate):
        check_system(spec, backends, "set channel: {train: user, evaluate: user}")


def check_system(spec: Spec, backends: Mapping[str, Backend], remedy: str) -> None:
    """Refuse system messages, whatever asks for them, where a chat template takes none; `remedy` says what to do.

    Raises:
        SpecError: it takes none.
    """
    for name in sorted({spec.train_backend, spec.generate_backend}):
        if not backends[name].supports_system(spec.model, spec.revision):
            raise SpecError(f"the chat template of '{spec.model}' refuses or drops system messages: {remedy}")


def inside_backend(spec: Spec, backends: Mapping[str, Backend]) -> str:
    """The backend that reads inside the model.

    Raises:
        SpecError: none of the spec's does.
    """
    for name in spec.vector_backends:
        if isinstance(backends[name], InsideBackend):
            return name
    raise SpecError(
        f"inside: backend '{spec.generate_backend}' reads no activations: write  backend: local,  or leave inside out"
    )
