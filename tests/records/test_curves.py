"""What runs have in common, and an arm's curve above the best arm's, seed by seed."""

import numpy as np

from vdm.records import curves


def test_curves_are_taken_together_where_all_of_them_have_a_value():
    assert curves.together([[(2, 1.0), (1, 5.0), (9, 0.0)], [(1, 6.0), (2, 3.0)]]) == {1: [5.0, 6.0], 2: [1.0, 3.0]}
    assert list(curves.together([[(2, 1.0), (1, 5.0)], [(1, 6.0), (2, 3.0)]])) == [1, 2]
    assert curves.together([]) == {}


def test_the_excess_is_above_the_best_arm_of_the_same_seed_where_an_arm_was_trained():
    """Both arms rise by 2 from seed to seed: that moves no difference, so nothing is left of it but a band of zero."""
    of_arms = {
        "a": {0: [(0.0, 1.0), (1.0, 5.0)], 1: [(0.0, 3.0), (1.0, 7.0)]},
        "b": {1: [(1.0, 6.0)], 0: [(1.0, 4.0)], 2: [(1.0, -9.0)]},
    }
    found = curves.excess(of_arms)
    np.testing.assert_allclose(found["a"], [(0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)])
    np.testing.assert_allclose(found["b"], [(1.0, 0.0, 0.0, 0.0)], err_msg="its third seed has no counterpart")


def test_the_band_of_the_excess_is_that_of_paired_differences():
    """At its one level a is the best by its mean, though not in the first seed."""
    found = curves.excess({"a": {0: [(0.0, 5.0)], 1: [(0.0, 1.0)]}, "b": {0: [(0.0, 4.0)], 1: [(0.0, 4.0)]}})
    assert found == {"a": [(0.0, 0.0, 0.0, 0.0)], "b": [(0.0, -1.0, 1.0, 3.0)]}


def test_arms_without_a_common_seed_have_no_excess():
    assert curves.excess({"a": {0: [(0.0, 1.0)]}, "b": {1: [(0.0, 2.0)]}}) == {"a": [], "b": []}
    assert curves.excess({}) == {}
