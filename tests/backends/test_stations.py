"""Workers elsewhere, without a cluster: what is checked before they work, and what comes back."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from windowshift.backends.local.cluster.freight import Delivered, Hello, Shipper, StationPost
from windowshift.backends.local.cluster.installation import difference, installation
from windowshift.backends.local.cluster.named_files import named_files, renamed
from windowshift.backends.local.cluster.parcels import Dropbox, Enclosed, Packed, Parcel, packed, unpack
from windowshift.backends.local.cluster.station import Station
from windowshift.backends.local.messages import Ended, Order, Ready, Unfit, Yielded
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling, Steering
from windowshift.core.contract.training import Example, Sft, TrainJob

ASKED = (Message("user", "Bees?"),)


def request(**changes: Any) -> GenerateRequest:
    return GenerateRequest("a", ASKED, Model("microworld", **changes), Sampling(max_tokens=4), 0)


async def heard(station: Station, kind: type) -> Any:
    known = 0
    for _ in range(60):
        for number, message in await station.said(known, 5.0):
            known = number
            if isinstance(message, kind):
                return message
    raise AssertionError(f"no {kind.__name__} came")


@pytest.mark.slow
async def test_a_station_does_what_a_worker_does_and_says_what_it_is() -> None:
    station = Station({"workers": 1, "threads": 1}, Enclosed(), Enclosed())
    hello = await heard(station, Hello)
    assert hello.installation == installation()
    station.put(Shipper(Enclosed()).shipment(Order(1, "generate", [request()])))
    yielded = await heard(station, Yielded)
    assert [type(item) for item in yielded.items] == [Completion]
    assert (await heard(station, Ended)).error is None


async def test_another_model_under_the_same_name_is_refused_before_it_works() -> None:
    station = Station({"workers": 1, "threads": 1}, Enclosed(), Enclosed())
    shipment = Shipper(Enclosed()).shipment(Order(1, "generate", [request()]))
    station.put(dataclasses.replace(shipment, fingerprints={("microworld", None): "another"}))
    assert "'microworld' is another model there" in (await heard(station, Unfit)).reason
    station = Station({"workers": 1, "threads": 1}, Enclosed(), Enclosed())
    station.put(dataclasses.replace(shipment, fingerprints={("./not/there", None): "one"}))
    assert "'./not/there' does not exist" in (await heard(station, Unfit)).reason


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"torch": "1.0"}, "it has torch 1.0, and this machine has 2.0"),
        ({"torch": "2.0"}, None),
        ({}, None),
        ({"torch": "2.0", "code": "other"}, "its windowshift has other source files than this machine's"),
    ],
)
def test_a_node_must_have_what_this_machine_has(there: dict[str, str], said: str | None) -> None:
    assert difference({"torch": "2.0", "code": "ours"}, {"code": "ours", **there}) == said


def test_a_post_says_who_is_unfit_and_writes_nothing_once_it_is_closed(tmp_path: Path) -> None:
    said: list[Any] = []
    post = StationPost("node 1", Enclosed(), lambda _: None, lambda: "")
    post.listen(said.append)
    post.heard(Hello("alpha", {**installation(), "numpy": "0.1"}))
    assert isinstance(said[-1], Unfit)
    assert "it has numpy 0.1" in said[-1].reason
    post.heard(Hello("alpha", installation()))
    assert said[-1] == Ready("alpha")
    job = TrainJob("k", Model("m"), [Example(ASKED, "Yes.")], Sft(), 0, tmp_path / "out")
    post.send(Order(1, "train", [job]))
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "state.pt").write_bytes(b"1")
    parcel = packed(tmp_path / "made", Enclosed())
    post.heard(Delivered(1, "k", parcel))
    assert (tmp_path / "out" / "state.pt").read_bytes() == b"1"
    post.close()
    post.heard(Delivered(1, "k", Parcel((), ("state.pt",))))
    assert (tmp_path / "out" / "state.pt").exists()


def test_what_cannot_be_kept_ends_the_order_with_a_sentence(tmp_path: Path) -> None:
    said: list[Any] = []
    post = StationPost("alpha", Enclosed(), lambda _: None, lambda: "")
    post.listen(said.append)
    (tmp_path / "out").write_text("a file where a folder should be")
    post.send(Order(1, "train", [TrainJob("k", Model("m"), [Example(ASKED, "Yes.")], Sft(), 0, tmp_path / "out")]))
    post.heard(Delivered(1, "k", Parcel((Packed("state.pt", "", b""),))))
    assert "what alpha made cannot be kept" in said[-1].error


@pytest.mark.parametrize("name", ["../state.pt", "/etc/state.pt", "a//b", "..", "a\\b"])
def test_a_file_never_leaves_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(BackendError, match="a worker sent a file of the name"):
        unpack(Parcel((Packed(name, "", b""),)), tmp_path / "out", Enclosed())


def test_what_was_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.safetensors").write_bytes(b"vector")
    carrier = Dropbox(str(tmp_path / "shared"))
    parcel = packed(tmp_path / "v.safetensors", carrier)
    unpack(parcel, tmp_path / "out", carrier)
    assert (tmp_path / "out" / "v.safetensors").read_bytes() == b"vector"
    next((tmp_path / "shared").iterdir()).write_bytes(b"other")
    with pytest.raises(BackendError, match="came otherwise than it was sent"):
        unpack(parcel, tmp_path / "out", carrier)
    with pytest.raises(BackendError, match="artifacts: 'nowhere://x' cannot be used"):
        Dropbox("nowhere://x")


def test_every_path_that_is_read_is_named_anew() -> None:
    asked = dataclasses.replace(request(adapter="/a", merged="/m"), steering=(Steering("/v", 1.0),))
    assert named_files([asked, asked]) == ["/a", "/m", "/v"]
    (there,) = renamed([asked], lambda path: f"/there{path}")
    assert (there.model.adapter, there.model.merged, there.steering[0].vector) == ("/there/a", "/there/m", "/there/v")


@pytest.mark.slow
async def test_files_come_before_the_words_that_speak_of_them(tmp_path: Path) -> None:
    job = TrainJob(
        "k", Model("microworld"), [Example(ASKED, "Yes.")] * 4, Sft(rank=2), 0, tmp_path / "out", checkpoints=(2,)
    )
    station = Station({"workers": 1, "threads": 1, "state_seconds": 0}, Enclosed(), Enclosed())
    post = StationPost("here", Enclosed(), lambda _: None, lambda: "")
    said: list[Any] = []
    post.listen(said.append)
    post.send(Order(1, "train", [job]))
    station.put(Shipper(Enclosed()).shipment(Order(1, "train", [job])))
    known = 0
    while not any(isinstance(one, Ended) for one in said):
        for number, message in await station.said(known, 5.0):
            known = number
            post.heard(message)
            for event in getattr(said[-1], "items", []):
                if hasattr(event, "adapter"):
                    assert (Path(event.adapter) / "adapter_model.safetensors").is_file()
                    assert Path(event.adapter).parent == tmp_path / "out"
        await asyncio.sleep(0)
    assert said[-1].error is None
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == ["adapter", "checkpoint-2"]
