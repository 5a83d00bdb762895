"""Plans of longer clips: the VAE's arithmetic, who gets which method, what is refused, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from architectures import ARCHITECTURES, Architecture, row_of

from modelgrow.surgery import Checkpoint, PlanError, Tensor, Zeros, anatomies
from modelgrow.surgery.extend_frames import ExtendOptions, plan_extend_frames
from modelgrow.surgery.positions import Frames


def checkpoint_of(class_name: str, config: Any, tensors: dict[str, Tensor] | None = None) -> Checkpoint:
    """A model of one tensor, or of those given, that nobody reads."""
    one = {"proj.weight": Tensor(dtype="BF16", shape=(2, 2), file=Path("nowhere"), offset=0, nbytes=8)}
    return Checkpoint(path=Path("model"), tensors=tensors or one, config={"_class_name": class_name, **config})


def planned(row: Architecture | str, to: int = 128, **options: Any) -> Any:
    row = row_of(row) if isinstance(row, str) else row
    config = next(iter(row.published.values()), row.tiny)
    return plan_extend_frames(
        checkpoint_of(row.class_name, config), anatomies()[row.class_name], ExtendOptions(to=to, **options)
    )


@pytest.mark.parametrize(
    ("vae", "asked", "made", "latents"),
    [
        ("4k+1", 128, 129, 33), ("4k+1", 129, 129, 33), ("4k+1", 1, 1, 1), ("4k+1", 2, 5, 2),
        ("8k+1", 128, 129, 17), ("8k+1", 130, 137, 18),
        ("6k+1", 128, 133, 23), ("6k+1", 127, 127, 22),
        ("4k", 128, 128, 32), ("4k", 1, 4, 1), ("4k", 129, 132, 33),
        ("k", 128, 128, 128), ("k", 1, 1, 1),
        ("17:5", 408, 408, 120), ("17:5", 128, 128, 38), ("17:5", 17, 17, 5), ("17:5", 1, 1, 1), ("17:5", 18, 18, 6),
    ],
)  # fmt: skip
def test_vae_arithmetic(vae: str, asked: int, made: int, latents: int) -> None:
    """By hand: 33 latent frames of stride 4 are 1 + 32 * 4 = 129; 7 groups of 17 make 35, and 9 more make 3."""
    frames = Frames(unit="latent frames", note="", vae=vae)
    assert (frames.fit(asked), frames.latents(made)) == (made, latents)
    assert frames.fit(frames.pixels(latents)) == frames.pixels(latents) >= made


@pytest.mark.parametrize(
    ("family", "config", "rule"),
    [
        ("4k+1", {"scale_factor_temporal": 2}, "2k+1"),
        ("4k", {"temporal_compression_ratio": 8.0}, "8k"),
        ("8k+1", {"temporal_compression_ratio": None}, "8k+1"),
        ("8k+1", {"spatio_temporal_scaling": [True, True, False]}, "4k+1"),
        ("8k+1", {"spatio_temporal_scaling": [True, True, True, False], "patch_size_t": 1}, "8k+1"),
        ("k", {"temporal_compression_ratio": 4}, "k"),
        ("17:5", {"temporal_compression_ratio": 4}, "17:5"),
        ("4k+1", {"temporal_compression_ratio": 2.5}, "4k+1"),
    ],
)
def test_the_vae_itself_knows_best(family: str, config: dict[str, Any], rule: str) -> None:
    assert Frames(unit="latent frames", note="", vae=family).decoded_by(config).vae == rule


SPECIFIED = {
    "wan": ("riflex", 129, 21, 33), "sana-video": ("riflex", 129, 21, 33), "wan-animate": ("riflex", 129, 20, 33),
    "hunyuan-video": ("none", 129, 33, 33), "hunyuan-video-1.5": ("riflex", 129, 31, 33),
    "cogvideox-2b": ("interpolate", 129, 13, 33), "cogvideox-5b": ("riflex", 129, 13, 33),
    "cogvideox-5b-i2v": ("riflex", 129, 13, 33), "cogvideox-1.5": ("riflex", 129, 21, 33),
    "easyanimate": ("riflex", 129, 13, 33), "kandinsky5": ("riflex", 129, 31, 33), "mochi": ("none", 133, 28, 23),
    "latte": ("interpolate", 128, 16, 128), "allegro": ("riflex", 128, 22, 32), "ltx": ("none", 129, 33, 17),
    "ltx2": ("none", 129, 61, 17), "cosmos1": ("ntk", 129, 16, 17), "cosmos2": ("ntk", 129, 24, 33),
    "stdit3": ("none", 128, 120, 38),
}  # fmt: skip
"""Row -> what 128 frames of the published model get: method, frames to ask for, latent frames trained and wanted."""


@pytest.mark.parametrize("name", SPECIFIED)
def test_128_frames_of_published_models(name: str) -> None:
    method, num_frames, trained, wanted = SPECIFIED[name]
    plan = planned(name)
    assert (plan.options["method"], plan.options["num_frames"], plan.options["to"]) == (method, num_frames, 128)
    frames = anatomies()[row_of(name).class_name].frames_of(row_of(name).tiny)
    assert frames.latents(plan.options["base_frames"]) == trained
    assert frames.latents(num_frames) == wanted
    extension = plan.config_edits.get("frame_extension")
    assert (extension is None) == (method == "none")
    if extension:
        assert (extension["base_frames"], extension["frames"], extension["clip_frames"]) == (trained, wanted, 128)
    says = " ".join(plan.notes)
    assert ("--to 128" in says) == (num_frames != 128)
    assert ("need no extension" in says) == (wanted <= trained)


@pytest.mark.parametrize(
    ("name", "dim", "theta"),
    [
        ("wan", 44, 1e4), ("sana-video", 40, 1e4), ("hunyuan-video-1.5", 16, 256.0), ("cogvideox-5b", 16, 1e4),
        ("easyanimate", 16, 1e4), ("kandinsky5", 16, 1e4), ("allegro", 32, 1e4), ("cosmos2", 44, 1e4),
    ],
)  # fmt: skip
def test_frequencies_of_published_models(name: str, dim: int, theta: float) -> None:
    """128 channels of a head: 42 for height, 42 for width, 44 for time, and so on."""
    plan = planned(name, 400, trainable=True)
    extension = plan.config_edits["frame_extension"]
    assert (extension["dim"], extension["theta"]) == (dim, theta)
    (new,) = (tensor for tensor in plan.tensors if tensor.is_new)
    assert (new.name, new.shape, new.dtype) == ("frame_rope.log_scale", (dim // 2,), "BF16")
    assert new.content == Zeros()


def test_other_published_models() -> None:
    plan = planned("ltx", 400)
    assert plan.config_edits["frame_extension"]["dim"] == 2 * (32 * 64 // 6)
    plan = planned("ltx2", 961)
    assert plan.config_edits == {"pos_embed_max_pos": 40, "audio_pos_embed_max_pos": 40}
    assert "EVERY length change" in " ".join(plan.notes)
    plan = planned("stdit3", 800)
    assert plan.config_edits["frame_extension"]["dim"] == 72
    plan = planned("wan", 5001)
    assert plan.config_edits["rope_max_seq_len"] == 1251
    plan = planned("cosmos2", 1001)
    assert plan.config_edits["max_size"] == [251, 240, 240]
    plan = planned("cogvideox-5b-i2v", trainable=True)
    assert {tensor.name: tensor.shape for tensor in plan.tensors if tensor.is_new} == {
        "frame_rope.log_scale": (8,),
        "frame_table.delta": (33, 3072),
    }
    assert "sample_frames" not in plan.config_edits  # the trained table has that many rows
    assert planned("cogvideox-5b").config_edits["sample_frames"] == 129
    assert planned("allegro").config_edits["sample_frames"] == 32
    assert planned("latte").config_edits["video_length"] == 128


def test_far_beyond_what_riflex_was_shown_at_a_note_says_so() -> None:
    assert "this is 3.1 times" in " ".join(planned("wan", 257).notes)
    assert "this is" not in " ".join(planned("wan").notes)


def test_wan_2_2_was_trained_on_longer_clips() -> None:
    (config,) = (config for name, config in row_of("wan").published.items() if "TI2V-5B" in name)
    anatomy = anatomies()["WanTransformer3DModel"]
    plan = plan_extend_frames(checkpoint_of(anatomy.class_name, config), anatomy, ExtendOptions(to=128))
    assert plan.options["base_frames"] == 121


@pytest.mark.parametrize("row", [r for r in ARCHITECTURES if anatomies()[r.class_name].frames.kind == "none"])
def test_images_have_no_frames(row: Architecture) -> None:
    with pytest.raises(PlanError, match="makes images"):
        planned(row)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mochi", {"to": 200, "method": "riflex"}, "--method riflex is not for it; choose from none, interpolate"),
        ("ltx", {"to": 400, "method": "yarn"}, "depend on the frame rate"),
        ("hunyuan-video", {"to": 128, "method": "riflex"}, "no more than it was trained on .129."),
        ("ltx2", {"to": 999, "trainable": True}, "leave --trainable out"),
        ("svd", {"method": "ntk"}, "is extended by ExVideo"),
    ],
)
def test_what_can_not_be_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        planned(name, **options)


def test_a_length_that_nobody_knows_is_asked_for() -> None:
    anatomy = anatomies()["AllegroTransformer3DModel"]
    checkpoint = checkpoint_of(anatomy.class_name, {"sample_frames": None})
    with pytest.raises(PlanError, match=r"sample_frames is None.*--base-frames"):
        plan_extend_frames(checkpoint, anatomy, ExtendOptions(to=128))
    plan = plan_extend_frames(checkpoint, anatomy, ExtendOptions(to=128, base_frames=40))
    assert plan.config_edits["frame_extension"]["base_frames"] == 10


def test_extending_again_counts_from_the_first_base() -> None:
    anatomy = anatomies()["WanTransformer3DModel"]
    first = plan_extend_frames(checkpoint_of(anatomy.class_name, {}), anatomy, ExtendOptions(to=128, trainable=True))
    tensors = {
        tensor.name: Tensor(
            dtype=tensor.dtype, shape=tensor.shape, file=Path("nowhere"), offset=0, nbytes=tensor.nbytes
        )
        for tensor in first.tensors
    }
    grown = checkpoint_of("GrownWanTransformer3DModel", dict(first.config_edits), tensors)
    second = plan_extend_frames(grown, anatomy, ExtendOptions(to=256))
    assert "_class_name" not in second.config_edits
    extension = second.config_edits["frame_extension"]
    assert (extension["base_frames"], extension["frames"], extension["trainable"]) == (21, 65, True)
    assert second.new_names == ()
