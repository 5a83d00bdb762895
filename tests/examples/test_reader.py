"""The reader sees what the world drew: all of it in clean clips, nearly all of it in damaged ones, nothing in noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest

from modelgrow.examples.shapes import (
    BACKGROUNDS,
    COLORS,
    MOTIONS,
    Object,
    Reading,
    Scene,
    Score,
    SeenObject,
    make_clip,
    read_clip,
    render,
    score,
)
from modelgrow.examples.shapes.reader import motion_name

PERFECT = Score(count=1, background=1, colors=1, shapes=1, sizes=1, motions=1)
NAMES = tuple(field.name for field in fields(Score))

RED = Object(shape="circle", color="red", size="small", motion="right", x=0.3, y=0.2)
BLUE = Object(shape="square", color="blue", size="large", motion="still", x=0.75, y=0.75)


def seen(obj: Object, **changes: str) -> SeenObject:
    """What a perfect reader would see of an object, but for the changes."""
    return SeenObject(**{**vars(obj), "velocity": (0.0, 0.0), "radius": obj.radius, "confidence": 1.0, **changes})


def plain(color: tuple[int, int, int]) -> np.ndarray:
    return np.full((17, 64, 64, 3), color, dtype=np.uint8)


def noisy(sigma: float) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    return lambda frames, rng: frames + rng.normal(0, sigma, frames.shape)


def blurred(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A box of 3 x 3, twice."""
    for axis in (1, 2, 1, 2):
        size = frames.shape[axis]
        padded = np.take(frames, np.clip(np.arange(-1, size + 1), 0, size - 1), axis=axis)
        frames = np.mean([np.take(padded, np.arange(k, k + size), axis=axis) for k in range(3)], axis=0)
    return frames


def decoded(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Like the output of a small autoencoder: soft, grainy, every color a little off."""
    changed: np.ndarray = blurred(frames, rng) + rng.normal(0, 8, frames.shape) + rng.uniform(-12, 12, 3)
    return changed


def flickering(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Like a small diffusion model: pale in some frames, a pixel off in others, and soft."""
    ground = np.median(frames.reshape(-1, 3), axis=0)
    frames = ground + (blurred(frames, rng) - ground) * rng.uniform(0.65, 1.1, (len(frames), 1, 1, 1))
    return np.stack([np.roll(frame, tuple(rng.integers(-1, 2, 2)), axis=(0, 1)) for frame in frames])


def damage(frames: np.ndarray, how: Callable[[np.ndarray, np.random.Generator], np.ndarray], index: int) -> np.ndarray:
    changed = how(frames.astype(np.float32), np.random.default_rng(index))
    rounded: np.ndarray = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
    return rounded


@pytest.mark.parametrize(
    ("clips", "num_frames", "height", "width"),
    [
        (100, 17, 64, 64),
        (30, 17, 32, 32),
        (30, 17, 48, 80),
        (30, 17, 96, 64),
        (15, 17, 128, 128),
        (30, 5, 64, 64),
        (30, 9, 64, 64),
        (30, 33, 64, 64),
        (10, 128, 64, 64),
    ],
)
def test_clean_clips_are_read_without_a_mistake(clips: int, num_frames: int, height: int, width: int) -> None:
    for index in range(clips):
        clip = make_clip(seed=21, index=index, num_frames=num_frames, height=height, width=width)
        reading = read_clip(clip.frames)
        assert score(reading, clip.scene) == PERFECT, f"clip {index}: {clip.detailed_caption}\n{reading}"


@pytest.mark.parametrize("num_frames", [1, 17, 40])
def test_first_place_speed_and_size(num_frames: int) -> None:
    for index in range(20):
        clip = make_clip(seed=22, index=index, num_objects=1, num_frames=num_frames)
        (true,), (found,) = clip.scene.objects, read_clip(clip.frames).objects
        assert (found.x, found.y) == pytest.approx((true.x, true.y), abs=0.015)
        assert found.radius == pytest.approx(true.radius, rel=0.06)
        assert found.confidence > 0.95
        speed = 1 / 40 if num_frames > 1 else 0.0
        assert found.velocity == pytest.approx([speed * step for step in MOTIONS[true.motion]], abs=0.001)


def test_one_frame_has_no_motion() -> None:
    for index in range(20):
        clip = make_clip(seed=23, index=index, num_frames=1)
        still = tuple(replace(obj, motion="still") for obj in clip.scene.objects)
        assert score(read_clip(clip.frames), replace(clip.scene, objects=still)) == PERFECT


def test_covered_objects_are_followed() -> None:
    """A large square over the small circle's way: the circle is gone for some frames, and comes out behind it."""
    square = replace(BLUE, x=0.6, y=0.2)
    scene = Scene(objects=(RED, square), background="gray")
    frames = render(scene, num_frames=33)
    assert not (frames[12] == COLORS["red"]).all(axis=-1).any()
    assert score(read_clip(frames), scene) == PERFECT


@pytest.mark.parametrize(
    ("how", "bounds"),
    [
        (noisy(10), {"count": 0.99, "background": 1.0, "colors": 0.99, "shapes": 0.99, "sizes": 0.99, "motions": 0.99}),
        (noisy(20), {"count": 0.99, "background": 1.0, "colors": 0.99, "shapes": 0.99, "sizes": 0.99, "motions": 0.99}),
        (blurred, {"count": 0.99, "background": 1.0, "colors": 0.99, "shapes": 0.99, "sizes": 0.99, "motions": 0.99}),
        (decoded, {"count": 0.99, "background": 1.0, "colors": 0.99, "shapes": 0.99, "sizes": 0.99, "motions": 0.99}),
        (
            flickering,
            {"count": 0.98, "background": 1.0, "colors": 0.98, "shapes": 0.98, "sizes": 0.98, "motions": 0.98},
        ),
    ],
    ids=["noise 10", "noise 20", "blurred", "decoded", "flickering"],
)
def test_damaged_clips(how: Callable[[np.ndarray, np.random.Generator], np.ndarray], bounds: dict[str, float]) -> None:
    scores = []
    for index in range(60):
        clip = make_clip(seed=24, index=index)
        scores.append(score(read_clip(damage(clip.frames, how, index)), clip.scene))
    for name in NAMES:
        assert np.mean([getattr(one, name) for one in scores]) >= bounds[name], name


def test_small_and_damaged() -> None:
    """At 32 x 32 a blurred small cross, its arms 2.5 pixels wide, is nearly a circle."""
    shapes = []
    for index in range(60):
        clip = make_clip(seed=25, index=index, height=32, width=32)
        one = score(read_clip(damage(clip.frames, decoded, index)), clip.scene)
        assert one == replace(PERFECT, shapes=one.shapes)
        shapes.append(one.shapes)
    assert np.mean(shapes) >= 0.97


@pytest.mark.parametrize("scale", [0.88, 1.12])
def test_a_size_that_is_a_little_off(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [make_clip(seed=26, index=index) for index in range(20)]
    monkeypatch.setattr(Object, "radius", property(lambda obj: {"small": 0.11, "large": 0.18}[obj.size] * scale))
    for clip in clips:
        assert score(read_clip(render(clip.scene)), clip.scene) == PERFECT


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_an_empty_picture_has_no_objects(background: str) -> None:
    frames = plain(BACKGROUNDS[background])
    assert read_clip(frames) == Reading(background=background, objects=())
    grain = np.random.default_rng(0).normal(0, 20, frames.shape)
    noise = np.clip(np.rint(frames + grain), 0, 255).astype(np.uint8)
    assert read_clip(noise) == Reading(background=background, objects=())


@pytest.mark.parametrize("shape", [(1, 32, 32, 3), (2, 32, 96, 3), (17, 64, 64, 3), (5, 50, 70, 3)])
def test_noise_has_no_objects(shape: tuple[int, ...]) -> None:
    for seed in range(5):
        frames = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        assert read_clip(frames).objects == ()


@pytest.mark.parametrize("color", COLORS)
def test_a_picture_full_of_one_color_is_no_object(color: str) -> None:
    assert read_clip(plain(COLORS[color])).objects == ()


def test_two_blobs_of_one_color_are_two_objects() -> None:
    twin = replace(BLUE, color="red", x=0.75, y=0.75)
    reading = read_clip(render(Scene(objects=(RED, twin), background="white")))
    assert [(obj.color, obj.shape, obj.motion) for obj in reading.objects] == [
        ("red", "square", "still"),
        ("red", "circle", "right"),
    ]


def test_score_by_hand() -> None:
    scene = Scene(objects=(RED, BLUE), background="gray")
    both = Reading(background="gray", objects=(seen(BLUE), seen(RED)))
    assert score(both, scene) == PERFECT
    assert score(Reading(background="navy", objects=()), scene) == Score(
        count=0, background=0, colors=0, shapes=0, sizes=0, motions=0
    )
    one = Reading(background="gray", objects=(seen(BLUE),))
    assert score(one, scene) == Score(count=0, background=1, colors=0.5, shapes=0.5, sizes=0.5, motions=0.5)
    extra = Reading(background="gray", objects=(*both.objects, seen(RED, color="cyan")))
    assert score(extra, scene) == replace(PERFECT, count=0)


def test_score_pairs_by_color_first() -> None:
    scene = Scene(objects=(RED, BLUE), background="gray")
    swapped = Reading(background="gray", objects=(seen(BLUE, color="red"), seen(RED, color="blue")))
    assert score(swapped, scene) == Score(count=1, background=1, colors=1, shapes=0, sizes=0, motions=0)
    green = Reading(background="gray", objects=(seen(RED, color="green"), seen(BLUE, color="purple")))
    assert score(green, scene) == replace(PERFECT, colors=0)
    half = Reading(background="gray", objects=(seen(RED, motion="left"), seen(BLUE, shape="circle")))
    assert score(half, scene) == replace(PERFECT, shapes=0.5, motions=0.5)


@pytest.mark.parametrize(
    ("velocity", "name"),
    [
        ((0.0, 0.0), "still"),
        ((0.012, 0.0), "still"),  # half the usual speed is 0.0125
        ((0.013, 0.0), "right"),
        ((0.02, 0.008), "right"),  # 21.8 degrees down; the border is at 22.5
        ((0.02, 0.009), "down right"),  # 24.2 degrees
        ((-0.02, -0.02), "up left"),
        ((0.0, -0.05), "up"),
    ],
)
def test_motion_names_by_hand(velocity: tuple[float, float], name: str) -> None:
    assert motion_name(velocity) == name


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((17, 64, 64, 3), dtype=np.float32),
        np.zeros((64, 64, 3), dtype=np.uint8),
        np.zeros((17, 3, 64, 64), dtype=np.uint8),
        np.zeros((0, 64, 64, 3), dtype=np.uint8),
    ],
)
def test_other_arrays_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected \(T, H, W, 3\) and uint8"):
        read_clip(frames)
