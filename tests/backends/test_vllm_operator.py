"""The operator that steers in vLLM's workers, without vLLM: what it changes and counts, and that graphs keep it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from windowshift.backends.vllm import push_table as push_table_module
from windowshift.backends.vllm import worker_extension
from windowshift.backends.vllm.batch_steering import BatchSteering
from windowshift.backends.vllm.decoder_layers import install_pushes
from windowshift.backends.vllm.engine import SLOT
from windowshift.backends.vllm.push_operator import push, use_table
from windowshift.backends.vllm.push_table import IN_PROMPT, IS_FIRST, RECIPE_SHIFT, Place, PushTable
from windowshift.backends.vllm.pushes import from_json, to_json
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Tokens
from windowshift.steering.architecture import Decoder
from windowshift.steering.recipe import Push

LAYERS, WIDTH, ROOM = 3, 16, 64


def one_push(
    layer: int = 1, alpha: float = 0.5, tokens: Tokens = "all", *, ablate: bool = False, seed: int = 0, slot: int = 0
) -> Push:
    """As it comes to a worker."""
    direction = np.random.default_rng(seed).normal(size=WIDTH)
    direction = direction / np.linalg.norm(direction) if ablate else direction
    made = Push(f"v{seed}", layer, alpha, tokens, ablate, direction, (f"file{seed}", 0), slot)
    return from_json(to_json(made), slot)


def entries(*runs: tuple[int, Place | None, bool]) -> Any:
    """The entries of runs of tokens: how many, whose, and whether they are of the prompt."""
    found, seen = [], set()
    for count, place, prompt in runs:
        for _ in range(count):
            entry = 0 if place is None else (place.number << RECIPE_SHIFT) | (IN_PROMPT if prompt else 0)
            if place is not None and place.number not in seen:
                seen.add(place.number)
                entry |= IS_FIRST
            found.append(entry)
    return np.array(found, dtype=np.int32)


@pytest.fixture
def table() -> Iterator[PushTable]:
    made = PushTable(LAYERS, WIDTH, ROOM, torch.device("cpu"), torch.float32)
    use_table(made)
    yield made
    use_table(None)


def streams(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, WIDTH, generator=draw), torch.randn(rows, WIDTH, generator=draw)


def steered(pushes: list[Push], stream: Tensor, prompt: bool) -> Tensor:
    """What pushes make of a stream [width], written out."""
    for each in pushes:
        direction = torch.from_numpy(each.direction).float()
        if each.tokens not in ("all", "prompt" if prompt else "response"):
            continue
        stream = stream - (stream @ direction) * direction if each.ablate else stream + each.alpha * direction
    return stream


def test_it_pushes_the_tokens_that_asked_and_leaves_the_others_to_the_bit(table: PushTable) -> None:
    """Two slots among plain tokens: an ablation before an addition, on the prompt or the response alone."""
    first = [one_push(1, 0.0, ablate=True, seed=1, slot=1), one_push(1, 0.5, seed=2)]
    second = [one_push(1, -2.0, "response", seed=3), one_push(2, 1.0, "prompt", seed=3, slot=1)]
    one, other = table.add(first[::-1]), table.add(second)
    tokens = [(2, None, False), (3, one, True), (1, one, False), (2, other, True), (2, other, False), (3, None, False)]
    before, after = streams(13), [part.clone() for part in streams(13)]
    table.begin(entries(*tokens))
    push(*after, 1)
    table.end()
    plain = [0, 1, 6, 7, 10, 11, 12]  # the other slot's prompt among them: nothing pushes it at this layer
    for mine, its in zip(after, before, strict=True):
        assert torch.equal(mine[plain], its[plain])
    for row, pushes, prompt in ((2, first, True), (5, first, False), (8, second[:1], False), (9, second[:1], False)):
        torch.testing.assert_close(after[0][row], steered(pushes, before[0][row] + before[1][row], prompt))
        assert not after[1][row].any()
    done, second_done = table.read([one, other])
    assert (done[0].calls, done[0].tokens, done[1].tokens) == (1, 4.0, 4.0)
    assert done[0].moved == pytest.approx(done[0].wanted) == pytest.approx(4 * 0.5 * np.linalg.norm(first[1].direction))
    assert done[1].moved == pytest.approx(done[1].wanted, rel=1e-5)
    assert (second_done[0].calls, second_done[0].tokens) == (1, 2.0)
    assert (second_done[1].calls, second_done[1].tokens) == (0, 0.0)  # layer 2 was not run


def test_a_pass_without_requests_finds_nothing_of_the_pass_before(table: PushTable) -> None:
    place = table.add([one_push()])
    table.begin(entries((4, place, False)))
    table.end()
    before, after = streams(4), [part.clone() for part in streams(4)]
    push(*after, 1)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert table.read([place])[0][0].calls == 0


def test_torch_knows_what_it_changes(table: PushTable) -> None:
    place = table.add([one_push()])
    table.begin(entries((4, place, False)))
    with torch.inference_mode(False):
        torch.library.opcheck(push, (*streams(4), 1), test_utils=("test_schema", "test_faketensor"))


class Layer(nn.Module):
    """Gives out what it adds and the stream before it, as vLLM's layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        residual = hidden + residual
        return torch.tanh(self.linear(residual)), residual


class Stack(nn.Module):
    """Layers one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, hidden: Tensor) -> Tensor:
        residual = torch.zeros_like(hidden)
        for layer in self.layers:
            hidden, residual = layer(hidden, residual)
        return hidden + residual


def test_a_graph_that_was_traced_once_serves_every_push_and_every_length(table: PushTable) -> None:
    """As vLLM compiles: once, for all lengths, without guards. What is pushed later is not in the graph."""
    torch.manual_seed(0)
    model = Stack().eval()
    install_pushes(Decoder("Stack", "layers", tuple(model.layers), WIDTH))
    traced: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        traced.append(graph)
        return aot_eager(graph, inputs)

    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=True)
    with torch.inference_mode():
        compiled(streams(5)[0])  # traced while nothing is steered
        for number, rows in enumerate((7, 3, 12)):
            place = table.add([one_push(number % LAYERS, 1.0 + number, seed=number), one_push(2, 0.3, slot=1, seed=9)])
            hidden = streams(rows, number)[0]
            plain = model(hidden)
            found = []
            for run in (model, compiled):
                table.begin(entries((1, None, False), (rows - 2, place, number == 1), (1, None, False)))
                found.append(run(hidden))
                table.end()
            torch.testing.assert_close(found[1], found[0])
            assert torch.equal(found[0][[0, -1]], plain[[0, -1]])
            assert not torch.isclose(found[0][1:-1], plain[1:-1]).all(dim=1).any()
            (done,) = table.read([place])
            assert [(one.calls, one.tokens) for one in done.values()] == [(2, 2.0 * (rows - 2))] * 2
    assert len(traced) == 1
    assert sum("windowshift.push" in str(node.target) for node in traced[0].graph.nodes) == LAYERS


def test_room_is_given_back_and_a_full_table_says_so(table: PushTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_table_module, "DIRECTIONS", 2)
    table.clear()
    one, other = table.add([one_push(seed=1)]), table.add([one_push(alpha=3.0, seed=1), one_push(0, seed=2, slot=1)])
    with pytest.raises(BackendError, match=r"more is steered at once .* 2 directions"):
        table.add([one_push(seed=3)])
    table.remove(other)
    again = table.add([one_push(0, seed=3), one_push(2, seed=1, slot=1)])
    assert (again.number, again.first) == (other.number, other.first)
    table.begin(entries((2, one, False), (2, again, False)))
    for layer in range(LAYERS):
        push(*streams(4), layer)
    table.end()
    mine, its = table.read([one, again])
    assert mine[0].moved / 2 == pytest.approx(0.5 * float(np.linalg.norm(one_push(seed=1).direction)), rel=1e-5)
    assert [its[slot].tokens for slot in (0, 1)] == [2.0, 2.0]  # from zero again


@pytest.mark.parametrize(("wrong", "said"), [({"layer": 3}, "no layer 3, only 3"), ({}, "width 4")])
def test_a_push_that_does_not_fit_is_refused(table: PushTable, wrong: dict[str, Any], said: str) -> None:
    made = one_push(**wrong)
    if not wrong:
        made = from_json(to_json(Push("v", 1, 1.0, "all", False, np.ones(4), ("f", 0), 0)), 0)
    with pytest.raises(BackendError, match=said):
        table.add([made])


@pytest.mark.parametrize(
    ("hidden", "residual", "said"),
    [((4, WIDTH + 1), (4, WIDTH + 1), "twice"), ((4, WIDTH), (3, WIDTH), "twice"), ((65, WIDTH), (65, WIDTH), "65")],
)
def test_what_is_no_stream_is_left_alone_and_told(
    table: PushTable, hidden: tuple[int, int], residual: tuple[int, int], said: str
) -> None:
    table.begin(entries((4, table.add([one_push()]), False)))
    push(torch.zeros(hidden), torch.zeros(residual), 1)
    assert said in table.problem


def test_a_stream_of_another_precision_is_left_alone_and_told(table: PushTable) -> None:
    table.begin(entries((4, table.add([one_push()]), False)))
    push(torch.zeros(4, WIDTH).half(), torch.zeros(4, WIDTH), 1)
    assert "torch.float16 and torch.float32, not twice torch.float32" in table.problem


def test_the_same_tokens_again_are_pushed_by_what_is_asked_then(table: PushTable) -> None:
    """Steps of decoding look alike, and share what a layer does; another recipe in the same room must not."""
    place = table.add([one_push(alpha=1.0)])
    found = []
    for alpha in (None, None, 3.0):
        if alpha is not None:
            table.remove(place)
            assert table.add([one_push(alpha=alpha)]).number == place.number
        before, after = streams(2), [part.clone() for part in streams(2)]
        table.begin(entries((2, place, False)))
        push(*after, 1)
        table.end()
        found.append(float((after[0] - before[0] - before[1]).norm()))
    assert found[1] == found[0]
    assert found[2] == pytest.approx(3 * found[0], rel=1e-5)


# -- the batches of a runner -----------------------------------------------------------------------


class LlamaDecoderLayer(Layer):
    """By the name of vLLM's class."""


class Runner:
    """The methods of vLLM's model runner that are wrapped: a step gives its tokens to the model."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.model = Stack().eval()
        self.model.layers = nn.ModuleList(LlamaDecoderLayer() for _ in range(LAYERS))
        self.model.config = SimpleNamespace(hidden_size=WIDTH, num_hidden_layers=LAYERS)  # type: ignore[assignment]
        self.input_batch: Any = None
        self.found: Tensor = torch.empty(0)

    def get_model(self) -> nn.Module:
        return self.model

    def _prepare_inputs(self, output: Any) -> None:
        names = list(output.num_scheduled_tokens)
        computed = np.array([output.computed[name] for name in names])
        self.input_batch = SimpleNamespace(req_ids=names, num_reqs=len(names), num_computed_tokens_cpu=computed)

    @torch.inference_mode()
    def execute_model(self, output: Any) -> None:
        self._prepare_inputs(output)
        self.found = self.model(streams(sum(output.num_scheduled_tokens.values()))[0])


def configuration(**parallel: Any) -> Any:
    return SimpleNamespace(
        parallel_config=SimpleNamespace(
            **{
                "pipeline_parallel_size": 1, "data_parallel_size": 1, "prefill_context_parallel_size": 1,
                "use_ubatching": False, **parallel,
            }
        ),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=False),
        scheduler_config=SimpleNamespace(max_num_batched_tokens=32),
        compilation_config=SimpleNamespace(cudagraph_capture_sizes=[]),
        speculative_config=None,
        additional_config={"theirs": 1},
    )  # fmt: skip


def step(
    scheduled: dict[str, int], computed: dict[str, int], new: dict[str, str] | None = None, ended: tuple[str, ...] = ()
) -> Any:
    """What a scheduler says: tokens of each request, and the slots of new ones, whose prompts have 5 tokens."""
    return SimpleNamespace(
        finished_req_ids=ended,
        num_scheduled_tokens=scheduled,
        computed=computed,
        scheduled_new_reqs=[
            SimpleNamespace(
                req_id=name,
                sampling_params=SimpleNamespace(extra_args={SLOT: slot}),
                prompt_token_ids=[0] * 5,
                num_computed_tokens=computed[name],
            )
            for name, slot in (new or {}).items()
        ],
    )


@pytest.fixture
def steering() -> Iterator[tuple[Runner, Any, BatchSteering]]:
    runner, config = Runner(), configuration()
    yield runner, config, BatchSteering(runner, config)
    use_table(None)


def test_requests_are_steered_from_their_first_step_to_their_end(
    steering: tuple[Runner, Any, BatchSteering],
) -> None:
    """A prompt in two parts and four drawn tokens, beside a plain request; closed before its last step."""
    runner, config, made = steering
    assert config.additional_config == {"theirs": 1, "windowshift": "push-1"}  # its graphs have names of their own
    made.open({"s": [to_json(one_push()), to_json(one_push(2, 0.2, "response", seed=1))]})
    runner.execute_model(step({"plain": 5, "a": 3}, {"plain": 0, "a": 0}, {"plain": "", "a": "s"}))
    runner.execute_model(step({"a": 2, "plain": 1}, {"a": 3, "plain": 5}))
    runner.execute_model(step({"plain": 1, "a": 1}, {"plain": 6, "a": 5}))
    done = made.close(["s", "s", "unknown"])
    assert done.keys() == {"s"}
    first, second = done["s"]["pushes"]
    assert (done["s"]["passes"], done["s"]["requests"], first["calls"], second["calls"]) == (3, 1, 3, 3)
    assert (first["tokens"], first["tokens_asked"]) == (6, 6)
    assert (second["tokens"], second["tokens_asked"]) == (1, 1)
    runner.execute_model(step({"plain": 1, "a": 1}, {"plain": 7, "a": 6}))
    late = runner.found
    made.open({"t": [to_json(one_push(alpha=9.0))]})  # in room of its own, as the first request still runs
    runner.execute_model(step({"plain": 1, "a": 1}, {"plain": 7, "a": 6}))
    assert torch.equal(runner.found, late)
    runner.execute_model(step({"plain": 1}, {"plain": 9}, ended=("a",)))
    made.open({"u": [to_json(one_push()), to_json(one_push(2, seed=1))]})
    assert made._slots["u"].place.first == 0  # the room of the first


def test_slots_are_opened_all_or_none(steering: tuple[Runner, Any, BatchSteering]) -> None:
    _, _, made = steering
    with pytest.raises(BackendError, match="no layer 7"):
        made.open({"good": [to_json(one_push())], "bad": [to_json(one_push(7))]})
    assert made.close(["good", "bad"]) == {}
    made.open({"next": [to_json(one_push())]})
    assert made._slots["next"].place.first == 0


@pytest.mark.parametrize(
    ("parallel", "said"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline"),
        ({"data_parallel_size": 2}, "one server for each replica"),
        ({"use_ubatching": True}, "--enable-dbo"),
        ({"prefill_context_parallel_size": 2}, "context parallelism"),
    ],
)
def test_an_engine_that_shows_layers_a_part_of_a_step_is_refused(parallel: dict[str, Any], said: str) -> None:
    with pytest.raises(BackendError, match=said):
        BatchSteering(Runner(), configuration(**parallel))


# -- the worker --------------------------------------------------------------------------------------


def test_a_worker_steers_its_model_as_soon_as_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it runs for the first time; a worker whose model cannot be steered says why, and serves on."""

    class Worker:
        """vLLM's, which the extension is made a base of."""

        model_runner: Any
        vllm_config: Any

        def load_model(self, layer: type[nn.Module], *, load_dummy_weights: bool = False) -> str:
            self.model_runner = Runner()
            self.model_runner.model.layers = nn.ModuleList(layer() for _ in range(LAYERS))
            self.vllm_config = configuration()
            return "loaded"

    monkeypatch.setitem(sys.modules, "vllm.v1.worker.gpu_worker", SimpleNamespace(Worker=Worker))
    for _ in range(2):  # the second time changes nothing
        worker_extension._steer_what_is_loaded()
    extended: Any = type("Extended", (Worker, worker_extension.SteeringWorker), {})
    order = json.dumps({"s": [to_json(one_push())]})
    try:
        worker = extended()
        assert "generate with  backend: local" in worker.windowshift_open(order)["error"]  # it did not go through here
        assert worker.load_model(LlamaDecoderLayer, load_dummy_weights=False) == "loaded"
        assert worker.windowshift_open(order) == {"layers": LAYERS, "width": WIDTH}
        worker.model_runner.execute_model(step({"a": 5}, {"a": 0}, {"a": "s"}))
        (done,) = worker.windowshift_close(json.dumps(["s"]))["s"]["pushes"]
        assert (done["calls"], done["tokens"]) == (1, 5)
        assert "no layer 9" in worker.windowshift_open(json.dumps({"t": [to_json(one_push(9))]}))["error"]
        other = extended()
        assert other.load_model(Layer) == "loaded"
        assert "class 'Layer' have not been tried" in other.windowshift_about("null")["error"]
    finally:
        use_table(None)
