"""What lies on the device when: of a run whose device is another one than the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch

from modelgrow.train.placing import Parts, called

GPU = torch.device("cuda")


class Part(torch.nn.Module):
    """Knows where it was sent, and says so as a parameter does: with the device's number."""

    def __init__(self) -> None:
        super().__init__()
        self.place = torch.device("cpu")

    def to(self, device: torch.device) -> Part:  # type: ignore[override]
        self.place = torch.device(device.type, 0) if device.type != "cpu" else device
        return self

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        yield SimpleNamespace(device=self.place)


class Pipeline:
    """Takes its device from the first of its parts, as diffusers' do."""

    def __init__(self, *names: str) -> None:
        self.components: dict[str, Any] = {name: Part() for name in names} | {"tokenizer": object()}

    def __getattr__(self, name: str) -> Any:
        return self.components[name]

    @property
    def _execution_device(self) -> torch.device:
        place: torch.device = next(iter(self.components.values())).place
        return place

    @property
    def there(self) -> set[str]:
        parts = {name: part for name, part in self.components.items() if isinstance(part, Part)}
        return {name for name, part in parts.items() if part.place.type == GPU.type}


NAMES = ("text_encoder", "vae", "transformer", "transformer_2", "controlnet")


def parts(*names: str) -> Parts:
    return Parts(pipeline=Pipeline(*names), trained="transformer", called=("controlnet",), device=GPU)


def test_encoders_and_then_the_model() -> None:
    found = parts(*NAMES)
    found.place_encoders()
    assert found.pipeline.there == {"text_encoder", "vae"}
    found.place_model(split=False)
    assert found.pipeline.there == {"transformer", "controlnet"}
    with found.all_placed():
        assert found.pipeline.there == set(NAMES)
    assert found.pipeline.there == {"transformer", "controlnet"}


def test_a_pipeline_that_goes_by_its_transformer_takes_it_along() -> None:
    found = parts("transformer", *(name for name in NAMES if name != "transformer"))
    found.place_encoders()
    assert found.pipeline.there == set(NAMES)
    found.place_model(split=False)
    assert found.pipeline.there == {"transformer", "controlnet"}


def test_a_model_that_is_to_be_split_is_there_for_previews_only() -> None:
    found = parts(*NAMES)
    found.place_model(split=True)
    assert found.pipeline.there == {"controlnet"}
    with found.all_placed():
        assert found.pipeline.there == set(NAMES)
    assert found.pipeline.there == {"controlnet"}


def test_what_families_say_of_it() -> None:
    assert called(SimpleNamespace(CALLED=("controlnet",))) == ("controlnet",)
    assert called(SimpleNamespace()) == ()
