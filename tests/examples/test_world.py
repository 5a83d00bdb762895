"""The small world is what it says: the same on every machine, drawn to measure, described in the right words."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from modelgrow.examples.shapes import (
    BACKGROUNDS,
    COLORS,
    MOTIONS,
    SHAPES,
    SIZES,
    Object,
    Scene,
    detailed_caption,
    make_clip,
    render,
    sample_scene,
    short_caption,
)

RED = Object(shape="circle", color="red", size="small", motion="right", x=0.3, y=0.2)
BLUE = Object(shape="square", color="blue", size="large", motion="still", x=0.75, y=0.8)
CYAN = Object(shape="cross", color="cyan", size="small", motion="up left", x=0.5, y=0.5)


def one(**changes: str | float) -> Scene:
    """One object in the middle of a black picture."""
    return Scene(objects=(Object(**{**vars(CYAN), "motion": "still", **changes}),), background="black")


def covered(scene: Scene, *, pixels: int) -> np.ndarray:
    """How much of each pixel of a still picture is not background. Shape (pixels, pixels)."""
    (obj,) = scene.objects
    picture = render(scene, num_frames=1, height=pixels, width=pixels)[0].astype(float)
    line = np.subtract(COLORS[obj.color], BACKGROUNDS[scene.background])
    cover: np.ndarray = (picture - BACKGROUNDS[scene.background]) @ (line / (line @ line))
    return cover


def test_same_number_same_clip() -> None:
    first, again = make_clip(seed=3, index=5), make_clip(seed=3, index=5)
    assert first.frames.tobytes() == again.frames.tobytes()
    assert (first.scene, first.caption, first.detailed_caption) == (again.scene, again.caption, again.detailed_caption)
    for other in (make_clip(seed=3, index=6), make_clip(seed=4, index=5)):
        assert other.frames.tobytes() != first.frames.tobytes()
        assert other.scene != first.scene


def test_a_longer_clip_begins_with_the_shorter_one() -> None:
    scene = Scene(objects=(RED, BLUE, CYAN), background="navy")
    long = render(scene, num_frames=50)
    assert long.shape == (50, 64, 64, 3)
    assert np.array_equal(long[:17], render(scene, num_frames=17))
    assert not np.array_equal(long[17], long[16])


def test_the_world_is_a_torus() -> None:
    """40 frames to the right at 1/40 a frame: once round, and the circle is back."""
    scene = Scene(objects=(RED,), background="white")
    frames = render(scene, num_frames=81).astype(int)
    assert np.abs(frames[40] - frames[0]).max() <= 1
    assert np.abs(frames[80] - frames[0]).max() <= 1
    assert np.abs(frames[20] - frames[0]).max() > 100


@pytest.mark.parametrize("aspect", [1.0, 5 / 3, 2 / 3])
def test_objects_stay_apart_and_inside(aspect: float) -> None:
    for index in range(60):
        scene = sample_scene(np.random.default_rng([11, index]), aspect=aspect)
        paths = [(obj, obj.path(17, scene.extent)) for obj in scene.objects]
        for obj, path in paths:
            assert (path >= obj.radius - 1e-9).all()
            assert (path <= np.array(scene.extent) - obj.radius + 1e-9).all()
        for (a, path_a), (b, path_b) in combinations(paths, 2):
            assert (np.abs(path_a - path_b).max(axis=1) >= a.radius + b.radius).all()


def test_everything_can_be_drawn() -> None:
    scenes = [sample_scene(np.random.default_rng([12, index])) for index in range(150)]
    objects = [obj for scene in scenes for obj in scene.objects]
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3}
    assert {obj.color for obj in objects} == set(COLORS)
    assert {(obj.shape, obj.size) for obj in objects} == {(shape, size) for shape in SHAPES for size in SIZES}
    assert {obj.motion for obj in objects} == set(MOTIONS)
    for scene in scenes:
        assert len({obj.color for obj in scene.objects}) == len(scene.objects)


def test_the_number_of_objects_is_what_was_asked() -> None:
    rng = np.random.default_rng(0)
    assert [len(sample_scene(rng, num_objects=n).objects) for n in (1, 2, 3)] == [1, 2, 3]
    assert {len(sample_scene(rng, num_objects=(1, 3)).objects) for _ in range(30)} == {1, 3}


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", 3.14159265),  # pi r^2
        ("square", 3.1684),  # (2 * 0.89 r)^2
        ("triangle", 2.0),  # base 2 r, height 2 r
        ("cross", 2.3616),  # two bars of 2 r by 0.72 r, less the middle counted twice
    ],
)
@pytest.mark.parametrize(("size", "radius"), [("small", 0.11), ("large", 0.18)])
def test_areas_by_hand(shape: str, area: float, size: str, radius: float) -> None:
    cover = covered(one(shape=shape, size=size), pixels=256)
    assert cover.sum() / 256**2 == pytest.approx(area * radius**2, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_place_is_the_middle_of_the_box(shape: str) -> None:
    """Also of a triangle, whose centroid is lower: by a third of its radius."""
    cover = covered(one(shape=shape, size="large", x=0.4, y=0.55), pixels=256)
    rows, columns = np.nonzero(cover > 0.5)
    assert (columns.min() + columns.max() + 1) / 512 == pytest.approx(0.4, abs=1 / 128)
    assert (rows.min() + rows.max() + 1) / 512 == pytest.approx(0.55, abs=1 / 128)
    centroid = cover.sum(axis=1) @ (np.arange(256) + 0.5) / cover.sum() / 256
    assert centroid - 0.55 == pytest.approx(0.06 if shape == "triangle" else 0.0, abs=0.005)


@pytest.mark.parametrize(
    ("motion", "direction"),
    [
        ("still", (0, 0)),
        ("right", (1, 0)),
        ("down right", (1, 1)),
        ("down", (0, 1)),
        ("down left", (-1, 1)),
        ("left", (-1, 0)),
        ("up left", (-1, -1)),
        ("up", (0, -1)),
        ("up right", (1, -1)),
    ],
)
def test_motion_on_the_screen(motion: str, direction: tuple[int, int]) -> None:
    """8 frames at 1/40 of 80 pixels a frame: 16 pixels, x to the right, y downwards."""
    frames = render(one(motion=motion), num_frames=9, height=80, width=80)[..., 1].astype(float) - 14
    mass = frames.sum(axis=(1, 2))
    x = frames.sum(axis=1) @ np.arange(80) / mass
    y = frames.sum(axis=2) @ np.arange(80) / mass
    length = np.hypot(*direction)
    expected = np.array(direction) / max(length, 1) * 16
    assert np.array([x[-1] - x[0], y[-1] - y[0]]) == pytest.approx(expected, abs=0.1)


def test_resolution_does_not_change_the_picture() -> None:
    scene = Scene(objects=(RED, BLUE, CYAN), background="gray")
    small = render(scene, height=64, width=64).astype(float)
    large = render(scene, height=128, width=128).astype(float)
    halved = large.reshape(17, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - small).mean() < 0.3
    assert np.abs(halved - np.roll(small, 1, axis=2)).mean() > 1.0


def test_later_objects_are_drawn_over_earlier_ones() -> None:
    under = Object(shape="square", color="blue", size="large", motion="still", x=0.5, y=0.5)
    frames = render(Scene(objects=(under, CYAN), background="black"), num_frames=1)
    assert tuple(frames[0, 32, 32]) == COLORS["cyan"]
    frames = render(Scene(objects=(CYAN, under), background="black"), num_frames=1)
    assert tuple(frames[0, 32, 32]) == COLORS["blue"]


def test_short_captions() -> None:
    def caption(*objects: Object) -> str:
        return short_caption(Scene(objects=objects, background="white"))

    assert caption(RED) == "a red circle moves right"
    assert caption(RED, BLUE) == "a red circle moves right and a blue square stays still"
    assert caption(RED, BLUE, CYAN) == (
        "a red circle moves right, a blue square stays still and a cyan cross moves up and left"
    )


def test_detailed_captions_say_everything() -> None:
    scene = Scene(objects=(RED, BLUE), background="navy")
    captions = {detailed_caption(scene, np.random.default_rng(seed)) for seed in range(30)}
    assert len(captions) > 20
    for caption in captions:
        assert 30 <= len(caption.split()) <= 80
        assert "plain navy background" in caption
        assert "two objects" in caption
        red, blue = caption.index("red circle"), caption.index("blue square")
        assert red < blue
        assert caption[:red].rstrip().endswith(("small", "little"))
        assert caption[:blue].rstrip().endswith(("large", "big"))
        assert "at the top left of the frame" in caption[red:blue]  # x 0.3, y 0.2
        assert "right" in caption[red:blue].replace("at the top left", "")
        assert "at the bottom right of the frame" in caption[blue:]
        assert "still" in caption[blue:]
