"""Plans against the indices of the published schemes, and against processes whose distribution is known exactly."""

import tracemalloc

import numpy as np
import pytest

from vdm.tasks import plans
from vdm.tasks.completion import Task
from vdm.tasks.extension import extended
from vdm.tasks.plans import Plan, frames_of

# (given, wanted) of every window, by improved_diffusion/sampling_schemes.py of github.com/plai-group/flexible-video-
# diffusion-modeling at 0581cf9: video_length, num_obs, max_frames and step_size as the first four numbers
PUBLISHED = {
    (plans.autoregression, (20, 4, 8, 4)): [
        ([0, 1, 2, 3], [4, 5, 6, 7]),
        ([4, 5, 6, 7], [8, 9, 10, 11]),
        ([8, 9, 10, 11], [12, 13, 14, 15]),
        ([12, 13, 14, 15], [16, 17, 18, 19]),
    ],
    (plans.long_range, (20, 4, 8, 4)): [
        ([0, 1, 2, 3], [4, 5, 6, 7]),
        ([2, 3, 6, 7], [8, 9, 10, 11]),
        ([2, 3, 10, 11], [12, 13, 14, 15]),
        ([2, 3, 14, 15], [16, 17, 18, 19]),
    ],
    (plans.long_range, (24, 0, 8, 4)): [
        ([], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([4, 5, 6, 7], [8, 9, 10, 11]),
        ([6, 7, 10, 11], [12, 13, 14, 15]),
        ([6, 7, 14, 15], [16, 17, 18, 19]),
        ([6, 7, 18, 19], [20, 21, 22, 23]),
    ],
    (plans.hierarchy, (40, 4, 10, 3, 2)): [
        ([0, 1, 2, 3], [4, 21, 39]),
        ([0, 1, 2, 3, 4, 21, 39], [5, 6, 7]),
        ([3, 4, 5, 6, 7, 21, 39], [8, 9, 10]),
        ([6, 7, 8, 9, 10, 21, 39], [11, 12, 13]),
        ([9, 10, 11, 12, 13, 21, 39], [14, 15, 16]),
        ([12, 13, 14, 15, 16, 21, 39], [17, 18, 19]),
        ([15, 16, 17, 18, 19, 21, 39], [20, 22, 23]),
        ([18, 19, 20, 21, 22, 23, 39], [24, 25, 26]),
        ([21, 22, 23, 24, 25, 26, 39], [27, 28, 29]),
        ([24, 25, 26, 27, 28, 29, 39], [30, 31, 32]),
        ([27, 28, 29, 30, 31, 32, 39], [33, 34, 35]),
        ([30, 31, 32, 33, 34, 35, 39], [36, 37, 38]),
    ],
    (plans.hierarchy, (34, 4, 9, 3, 3)): [
        ([0, 1, 2, 3], [4, 18, 33]),
        ([1, 2, 3, 4, 18, 33], [7, 10, 13]),
        ([4, 7, 10, 13, 18, 33], [16, 19, 22]),
        ([13, 16, 18, 19, 22, 33], [25, 28, 31]),
        ([2, 3, 4, 7, 10, 13], [5, 6, 8]),
        ([6, 7, 8, 10, 13, 16], [9, 11, 12]),
        ([11, 12, 13, 16, 18, 19], [14, 15, 17]),
        ([17, 18, 19, 22, 25, 28], [20, 21, 23]),
        ([21, 22, 23, 25, 28, 31], [24, 26, 27]),
        ([25, 26, 27, 28, 31, 33], [29, 30, 32]),
    ],
}
SCHEMES = {
    "autoregression": (plans.autoregression, {}),
    "long_range": (plans.long_range, {}),
    "hierarchy": (plans.hierarchy, {"num_levels": 2}),
    "hierarchy of 3": (plans.hierarchy, {"num_levels": 3}),
}
EVERY = pytest.mark.parametrize("scheme", SCHEMES)


def windows(plan):
    return [(list(frames_of(task, task.given)), list(frames_of(task, task.wanted))) for task in plan.tasks]


@pytest.mark.feature("X4")
@pytest.mark.parametrize(("scheme", "numbers"), PUBLISHED, ids=lambda part: getattr(part, "__name__", str(part)))
def test_windows_are_those_of_the_published_schemes(scheme, numbers):
    assert windows(scheme(*numbers)) == PUBLISHED[scheme, numbers]


@pytest.mark.feature("X3")
@pytest.mark.feature("X4")
@EVERY
@pytest.mark.parametrize("num_observed", [0, 3, 5])
@pytest.mark.parametrize("num_frames", [17, 40, 101])
def test_every_frame_is_made_once_and_windows_have_one_length(scheme, num_observed, num_frames):
    """A plan refuses what is made twice or given too early; here that no window is longer or needlessly shorter."""
    make, options = SCHEMES[scheme]
    plan = make(num_frames, num_observed, 8, 3, **options)
    made = [frame for _, wanted in windows(plan) for frame in wanted]
    assert sorted([*made, *range(num_observed)]) == list(range(num_frames))
    assert {task.num_frames for task in plan.tasks[1:]} == {8}
    assert plan.window == 8 and plan.frames_seen() == sum(len(given) + len(wanted) for given, wanted in windows(plan))


def conditional_draws(covariance, noise):
    """`draw` of a window by the exact conditional distribution of its frames, from rows of noise [draws, frames]."""

    def draw(number, task, clip):
        a, b = frames_of(task, task.given), frames_of(task, task.wanted)
        known = clip[:, list(task.given), 0, 0, 0]
        gain = covariance[np.ix_(b, a)] @ np.linalg.pinv(covariance[np.ix_(a, a)])
        rest = covariance[np.ix_(b, b)] - gain @ covariance[np.ix_(a, b)]
        root = np.linalg.cholesky(rest + 1e-12 * np.eye(len(b)))
        made = clip.copy()
        made[:, list(task.wanted), 0, 0, 0] = known @ gain.T + noise[:, list(b)] @ root.T
        return made

    return draw


def covariance_of(plan, covariance):
    """Of the clips that the plan makes: the map from noise to clip is linear, so unit noises tell it."""
    unit = np.eye(plan.num_frames)
    root = np.linalg.cholesky(covariance)
    observed = np.zeros((len(unit), len(plan.observed), 1, 1, 1))
    observed[:, :, 0, 0, 0] = unit @ root[list(plan.observed)].T  # noises of observed frames make these
    pieces = list(extended(plan, observed, conditional_draws(covariance, unit)))
    response = np.concatenate(pieces, axis=1)[..., 0, 0, 0]
    return response.T @ response


def auto_regressive(num_frames, correlation=0.9):
    frame = np.arange(num_frames)
    return correlation ** np.abs(frame[:, None] - frame)


@pytest.mark.feature("X3")
@pytest.mark.feature("X4")
@EVERY
@pytest.mark.parametrize("num_observed", [0, 2])
def test_windows_of_an_ar_1_process_make_its_exact_joint_distribution(scheme, num_observed):
    """Its frames know all of the past by the last frame, and all between two frames by these: at any length."""
    make, options = SCHEMES[scheme]
    plan = make(60, num_observed, 8, 3, **options)
    covariance = auto_regressive(60)
    np.testing.assert_allclose(covariance_of(plan, covariance), covariance, atol=1e-4)


@pytest.mark.feature("X4")
@pytest.mark.parametrize("num_observed", [1, 3])
def test_what_a_clip_began_with_is_remembered_by_long_range_and_hierarchy_alone(num_observed):
    """A cue in the last observed frame that the last one shows again, and noise between: their correlation."""
    covariance, cue = np.eye(40), num_observed - 1
    covariance[cue, -1] = covariance[-1, cue] = 0.9
    kept = {}
    for name, (make, options) in SCHEMES.items():
        made = covariance_of(make(40, num_observed, 8, 3, **options), covariance)
        np.testing.assert_allclose(np.diag(made), 1.0, atol=1e-5)
        kept[name] = made[cue, -1]
    assert kept.pop("autoregression") == pytest.approx(0.0, abs=1e-6)
    assert list(kept.values()) == pytest.approx([0.9] * 3, abs=1e-5)


@EVERY
@pytest.mark.parametrize("num_observed", [0, 2, 5])
def test_a_window_that_is_given_one_frame_is_given_the_last(scheme, num_observed):
    make, options = SCHEMES[scheme]
    window, num_new = (8, 7) if make is plans.hierarchy else (5, 4)  # of a hierarchy the first window alone
    plan = make(60, num_observed, window, num_new, **options)
    covariance = auto_regressive(60)
    np.testing.assert_allclose(covariance_of(plan, covariance), covariance, atol=1e-4)


@EVERY
@pytest.mark.parametrize("num_frames", [5, 8])
def test_a_clip_no_longer_than_a_window_is_one(scheme, num_frames):
    make, options = SCHEMES[scheme]
    assert windows(make(num_frames, 0, 8, 3, **options)) == [([], list(range(num_frames)))]


def test_frames_are_handed_out_in_order_and_few_are_held():
    """200 frames of 80 kB, of which a window has 8."""
    plan = plans.autoregression(200, 2, 8, 4)
    handed = []

    def draw(number, task, clip):
        made = np.full_like(clip, -1.0)  # of given frames too: those are not taken
        for index in task.wanted:
            made[:, index] = task.positions[index]
        return made

    observed = np.broadcast_to(np.arange(2.0)[None, :, None, None, None], (1, 2, 100, 100, 1))
    tracemalloc.start()
    for number, frames in enumerate(extended(plan, observed, draw)):
        handed += frames[0, :, 0, 0, 0].tolist()
        assert len(handed) == min(2 + 4 * number, 200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert handed == list(range(200))
    assert peak < 40 * 80_000


def test_a_window_that_comes_back_in_another_shape_is_refused():
    plan = plans.autoregression(8, 2, 4, 2)
    with pytest.raises(ValueError, match=r"window 0 of shape .* came back as .*; return all its frames"):
        list(extended(plan, np.zeros((1, 2, 1, 1, 1)), lambda number, task, clip: clip[:, 2:]))


def test_other_observed_frames_than_the_plans_are_refused():
    plan = plans.autoregression(8, 2, 4, 2)
    with pytest.raises(ValueError, match=r"observes frames \(0, 1\), and 3 frames were handed over"):
        next(extended(plan, np.zeros((1, 3, 1, 1, 1)), lambda number, task, clip: clip))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: plans.autoregression(8, 8, 4, 2), "8 of 8 frames are observed"),
        (lambda: plans.long_range(8, 0, 4, 4), "a window of 4 frames is to make 4; give 1 to 3"),
        (lambda: plans.hierarchy(20, 0, 8, 3, 1), "needs 2 levels and 2 new frames in a window; got 1 and 3"),
        (lambda: Plan(3, (), (Task((), (0, 1), (0, 1)),)), "leave \\[2\\] out of place"),
        (lambda: Plan(2, (0,), (Task((), (0, 1), (0, 1)),)), "makes frames again: \\[0\\]"),
        (lambda: Plan(2, (), (Task((0,), (1,), (0, 1)),)), "gives frames that nobody made: \\[0\\]"),
        (lambda: Plan(2, (0, 1), ()), "a plan makes one frame or more"),
        (lambda: Plan(2, (0, 0), (Task((0,), (1,), (0, 1)),)), "observes each once"),
        (lambda: Plan(2, (2,), (Task((), (0, 1), (0, 1)),)), "frames \\(2,\\) are observed of a clip of 2"),
    ],
)
def test_impossible_plans_are_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()


def test_a_plan_is_drawn():
    text = str(plans.autoregression(8, 2, 4, 2))
    assert text.splitlines() == [
        "oo##....",
        "--oo##..",
        "----oo##",
        "3 windows, 12 frames seen to make 6 (2.00 times)",
    ]
