"""The world is what it says: its state obeys closed forms, and its pixels show its state."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from data.sources.moving_shapes import MIN_RADIUS, PALETTE, SHAPES, World
from data.sources.simulated import Simulated, splits

WORLD = World(8, 16, 16)
AREAS = {  # of shapes in the square of side 2 r, from geometry
    "disk": lambda r: math.pi * r**2,
    "square": lambda r: 4 * r**2,
    "triangle": lambda r: 3 * math.sqrt(3) / 4 * r**2,
    "diamond": lambda r: 2 * r**2,
    "ring": lambda r: math.pi * (r**2 - (r / 2) ** 2),
}


def train(world: World = WORLD, num_clips: int = 400, seed: int = 0) -> Simulated:
    return Simulated(world, "train", num_clips, seed)


def videos(source: Simulated, count: int) -> np.ndarray:
    return np.stack([source[index]["video"] for index in range(count)])


def triangle_wave(u: np.ndarray, length: float) -> np.ndarray:
    """A path between mirrors at 0 and `length`, by trigonometry: another route than the source's step by step."""
    return length / np.pi * np.arccos(np.cos(np.pi * u / length))


@pytest.mark.feature("D1")
def test_clips_are_functions_of_seed_split_and_index():
    source = train()
    backwards = [source[index]["video"] for index in (7, 3)]
    again = splits(WORLD, num_train=9, num_validation=9)
    assert np.array_equal(backwards[0], again.train[7]["video"])
    assert np.array_equal(backwards[1], again.train.example(3, np.random.default_rng(5))["video"])
    others = [train()[8], again.validation[7], train(seed=1)[7]]
    assert not any(np.array_equal(backwards[0], other["video"]) for other in others)


@pytest.mark.feature("D1")
def test_fingerprint_tells_data_apart():
    options = [
        {"num_frames": 9},
        {"shapes": ("disk",)},
        {"speeds": (2.0,)},
        {"radius": 2.0},
        {"background": -0.5},
        {"gravity": 0.1},
        {"trail": 0.5},
        {"cue": True},
        {"action_probability": 0.1},
    ]
    sources = [train(dataclasses.replace(WORLD, **option)) for option in options]
    sources += [train(), train(seed=1), train(num_clips=5), Simulated(WORLD, "validation", 400)]
    assert len({source.fingerprint for source in sources}) == len(sources)
    assert train().fingerprint == train(World(8, 16, 16)).fingerprint


def test_sources_do_not_load_jax():
    code = "import sys, data.sources.moving_shapes; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.feature("D1")
@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("radius", [2.5, 6.0])
def test_pixels_cover_the_area_around_the_position(name, radius):
    world = World(5, 24, 40, shapes=("disk", name) if name != "disk" else ("square", name), radius=radius)
    centres = np.random.default_rng(0).uniform([radius, radius], [40 - radius, 24 - radius], (200, 2))
    coverage = world.coverage(1, centres).astype(float)
    mass = coverage.sum((1, 2))
    centroid = np.stack([coverage.sum(1) @ np.arange(0.5, 40), coverage.sum(2) @ np.arange(0.5, 24)], 1) / mass[:, None]
    assert mass == pytest.approx(AREAS[name](radius), rel=0.05)
    assert mass.mean() == pytest.approx(AREAS[name](radius), rel=0.02)
    assert np.abs(centroid - centres).max() < 0.1
    assert coverage.min() == 0 and coverage.max() <= 1


@pytest.mark.feature("D1")
def test_motion_is_uniform_between_mirrors():
    world = World(12, 14, 20, speeds=(1.0, 2.5), num_directions=6, radius=3.0)
    length = np.array([20, 14]) - 6
    bounced = 0
    for state in map(train(world).state, range(200)):
        angle = 2 * np.pi * state.direction / 6
        first = state.speed * np.array([np.cos(angle), -np.sin(angle)])
        path = 3 + triangle_wave(state.position[0] - 3 + np.arange(12)[:, None] * first, length)
        np.testing.assert_allclose(state.position, path, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(state.velocity, axis=1), state.speed)
        bounced += np.any(np.sign(state.velocity) != np.sign(state.velocity[0]))
    assert bounced > 150


@pytest.mark.feature("D1")
def test_draws_are_uniform():
    world = dataclasses.replace(WORLD, shapes=("disk", "ring", "square"), speeds=(1.0, 2.0))
    states = [train(world, 3000).state(index) for index in range(3000)]
    cells = np.ravel_multi_index(
        ([s.shape for s in states], [s.colour for s in states], [s.direction for s in states]), (3, 3, 8)
    )
    assert stats.chisquare(np.bincount(cells, minlength=72)).pvalue > 1e-3
    assert stats.chisquare(np.bincount([s.speed == 1.0 for s in states])).pvalue > 1e-3
    starts = np.array([s.position[0] for s in states])
    for axis in range(2):
        assert stats.kstest(starts[:, axis], stats.uniform(2.5, 11).cdf).pvalue > 1e-3


def test_labels_and_captions_say_what_is_shown():
    source = train(dataclasses.replace(WORLD, shapes=("triangle", "disk"), colours=("orange", "blue")))
    for index in range(60):
        state, caption = source.state(index), source.caption(index)
        colour, shape = source.class_names[source[index]["label"]].split()
        assert source.world.shapes[state.shape] == shape and source.world.colours[state.colour] == colour
        assert caption.startswith(f"{'an' if colour == 'orange' else 'a'} {colour} {shape} moves ")
        x, y = np.round(state.velocity[0], 9)
        ways = caption.split()[-1].split("-")
        assert ("right" in ways, "left" in ways, "down" in ways, "up" in ways) == (x > 0, x < 0, y > 0, y < 0)
        # The middle of the object has its colour exactly.
        column, row = np.floor(state.position[0]).astype(int)
        assert tuple(source[index]["video"][0, row, column]) == PALETTE[colour]
    odd = train(World(8, 16, 16, num_directions=5, speeds=(0.5, 2.0)))
    assert {odd.caption(index).partition("moves ")[2] for index in range(60)} == {
        f"{way} at {speed} pixels a frame"
        for way in ("right", "at 72 degrees", "at 144 degrees", "at 216 degrees", "at 288 degrees")
        for speed in ("0.5", "2")
    }


@pytest.mark.feature("D1")
def test_gravity_accelerates_and_has_a_direction_in_time():
    world = World(8, 32, 32, gravity=0.2)
    states = [train(world).state(index) for index in range(400)]
    free = [s for s in states if np.all(np.abs(s.position[:, 1] - 16) < 13.5 - 2.6)]  # no wall within the fastest step
    assert len(free) > 50
    for state in free:
        np.testing.assert_allclose(np.diff(state.position[:, 1], 2), 0.2, atol=1e-9)
    steps = np.diff([s.position[:, 1] for s in states], axis=1)
    # On average objects fall; played backwards they would rise.
    assert stats.ttest_1samp(steps.mean(1), 0).statistic > 5


@pytest.mark.feature("D1")
def test_trail_fades_geometrically_behind_the_object_only():
    world = World(8, 16, 16, colours=("white",), trail=0.5, num_directions=1, speeds=(2.0,), background=-0.5)
    ground = (1 - 0.5) * 127.5
    checked = 0
    for index in range(30):
        source = train(world)
        video, state = source[index]["video"].astype(float), source.state(index)
        plain = train(dataclasses.replace(world, trail=0.0))[index]["video"]
        np.testing.assert_array_equal(video[0], plain[0])
        coverage = world.coverage(state.shape, state.position)
        left = (coverage[0] == 1) & (coverage[1:4] == 0).all(0)
        checked += left.sum()
        for frame in (1, 2, 3):
            assert np.abs((video[frame] - ground)[left] - 0.5**frame * (224 - ground)).max(initial=0) <= 1
    assert checked > 50


@pytest.mark.feature("D1")
def test_sensor_noise_is_gaussian_about_the_clean_clip_and_never_cut_off():
    noisy = World(8, 16, 16, background=96 / 127.5 - 1, noise=0.05)  # a ground of exactly 96, without rounding
    difference = videos(train(noisy), 50) / 127.5 - videos(train(dataclasses.replace(noisy, noise=0.0)), 50) / 127.5
    assert difference.std() == pytest.approx(math.hypot(0.05, math.sqrt(2 / 12) / 127.5), rel=0.01)
    assert abs(difference.mean()) < 4 * 0.05 / math.sqrt(difference.size)
    assert abs(stats.kurtosis(difference.ravel())) < 0.05
    values = videos(train(noisy), 50)
    assert values.min() > 0 and values.max() < 255


@pytest.mark.feature("D1")
def test_cue_in_the_first_frame_alone_decides_the_last():
    world = World(8, 16, 16, cue=True)
    source, plain = train(world), train(WORLD)
    cues = np.array([source.state(index).cue for index in range(200)])
    assert 70 < cues.sum() < 130
    for index, cue in enumerate(cues[:50]):
        with_cue, without = source[index]["video"], plain[index]["video"]
        np.testing.assert_array_equal(with_cue[1:-1], without[1:-1])
        np.testing.assert_array_equal(with_cue[0, 2:], without[0, 2:])
        corners = with_cue[0, :2, :2], with_cue[0, :2, -2:]
        assert (corners[cue] == PALETTE["white"]).all()
        np.testing.assert_array_equal(with_cue[0, :2, 2:-2], without[0, :2, 2:-2])
        column, row = np.floor(source.state(index).position[-1]).astype(int)
        colour = "white" if cue else world.colours[source.state(index).colour]
        assert tuple(with_cue[-1, row, column]) == PALETTE[colour]


@pytest.mark.feature("D1")
def test_actions_turn_the_motion_from_their_frame_on():
    source, plain = train(World(8, 64, 64, action_probability=0.2)), train(World(8, 64, 64))
    turned, acted = 0, []
    for index in range(200):
        state, before = source.state(index), plain.state(index)
        actions = source[index]["actions"]
        np.testing.assert_array_equal(actions, state.actions)
        assert actions[0] == 0 and actions.dtype == np.int32
        acted.extend(actions[1:])
        first = np.argmax(actions > 0) if actions.any() else 8
        np.testing.assert_array_equal(state.position[:first], before.position[:first])
        if np.all(np.abs(state.position - 32) < 28):  # no wall was near
            heading = np.unwrap(np.arctan2(-state.velocity[:, 1], state.velocity[:, 0]))
            np.testing.assert_allclose(np.diff(heading), np.array([0, np.pi / 4, -np.pi / 4])[actions[1:]], atol=1e-9)
            np.testing.assert_allclose(np.diff(state.position, axis=0), state.velocity[1:], atol=1e-9)
            turned += 1
    assert turned > 100
    assert stats.chisquare(np.bincount(acted), np.array([0.8, 0.1, 0.1]) * len(acted)).pvalue > 1e-3
    assert "actions" not in plain[0]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"shapes": ("disk", "heart")}, "heart"),
        ({"colours": ("red", "mauve")}, "mauve"),
        ({"colours": ()}, "colour"),
        ({"shapes": ("disk", "disk")}, "different"),
        ({"radius": 8.0}, "smaller than the frame"),
        ({"radius": MIN_RADIUS - 0.1}, "at least"),
        ({"speeds": (1.0, 5.6)}, "speeds"),
        ({"speeds": (0.0,)}, "speeds"),
        ({"speeds": ()}, "speeds"),
        ({"gravity": 2.0}, "gravity"),
        ({"num_frames": 0}, "num_frames"),
        ({"num_directions": 0}, "num_directions"),
        ({"trail": 1.0}, "trail"),
        ({"noise": -0.1}, "noise"),
        ({"noise": 0.01}, "noise"),  # on a black ground half of it would be cut off
        ({"background": 1.5}, "background"),
        ({"background": 0.7, "colours": ("white",)}, "cannot be told"),
        ({"cue": True, "colours": ("white", "red")}, "cue"),
        ({"action_probability": 1.1}, "action_probability"),
    ],
)
def test_impossible_worlds_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(WORLD, **option)


def test_clips_outside_of_the_split_are_refused():
    for index in (-1, 400):
        with pytest.raises(IndexError, match="400"):
            train()[index]
    with pytest.raises(ValueError, match="train"):
        splits(WORLD, num_train=0, num_validation=1)
