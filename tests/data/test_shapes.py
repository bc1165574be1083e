import numpy as np
import pytest

from labeldrop_bench.data._shapes import ellipsoid, smooth_field, tube, turned, voxel_centres


def test_voxel_centres_fill_the_box():
    points = voxel_centres((2, 4, 5), (2.0, 4.0, 10.0), (0.0, 1.0, -1.0))
    assert points.shape == (3, 2, 4, 5)
    np.testing.assert_allclose(points[0, :, 0, 0], [-0.5, 0.5])
    np.testing.assert_allclose(points[1, 0, :, 0], [-0.5, 0.5, 1.5, 2.5])
    np.testing.assert_allclose(points[2, 0, 0], [-5, -3, -1, 1, 3], atol=1e-6)


def test_an_ellipsoid_has_its_volume_and_its_axes():
    points = voxel_centres((60, 60, 60), (6.0, 6.0, 6.0))
    # 4/3 pi a b c; 0.1 is the voxel's side, so the count is right to a few per mille.
    volume = (ellipsoid(points, (0.2, 0, -0.3), (1.0, 0.5, 2.0)) < 1).sum() * 1e-3
    assert volume == pytest.approx(4 / 3 * np.pi, rel=0.01)
    # Turned by 90 degrees from the second axis towards the third, the long axis lies along the second.
    ends = np.array([[0.0, 0.0], [1.9, 0.0], [0.0, 1.9]])
    np.testing.assert_array_equal(ellipsoid(ends, (0, 0, 0), (1.0, 0.5, 2.0), 90.0, (1, 2)) < 1, [True, False])


def test_turning_goes_from_the_first_axis_towards_the_second():
    # In axes turned by 90 degrees, what lay along the second axis lies along the first.
    np.testing.assert_allclose(turned(np.array([[0.0], [1.0], [2.0]]), 90, (0, 1)), [[1], [0], [2]], atol=1e-6)


def test_a_tube_has_round_ends_and_tapers():
    line, radii = ((0, 0, 0), (4, 0, 0), (4, 4, 0)), (2.0, 1.0, 1.0)
    places = np.array([[-2.0, 0, 0], [0, 2, 0], [2, 0, 1.5], [4, 2, 1], [4, 6, 0]]).T
    # On the surface of the end, the start, the taper's middle and the second part; twice the radius beyond the end.
    np.testing.assert_allclose(tube(places, line, radii), [1, 1, 1, 1, 2], atol=1e-6)


def test_fields_are_standard_normal_everywhere_and_smooth():
    rng = np.random.default_rng(0)
    fields = np.stack([smooth_field((1, 9, 16), (2, 3, 4), rng) for _ in range(2000)])
    assert fields.shape == (2000, 1, 9, 16)
    # Standard errors are .022 and .016; extremes of 144 places.
    np.testing.assert_allclose(fields.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(fields.std(0), 1, atol=0.08)
    # Neighbours are a quarter interval apart; the far ends several intervals.
    assert np.corrcoef(fields[:, 0, 4, 7], fields[:, 0, 4, 8])[0, 1] > 0.9
    assert abs(np.corrcoef(fields[:, 0, 0, 0], fields[:, 0, 8, 15])[0, 1]) < 0.1


def test_a_finer_grid_samples_the_same_field():
    coarse, fine = (smooth_field((n, n), (3, 3), np.random.default_rng(1)) for n in (8, 24))
    np.testing.assert_allclose(fine[1::3, 1::3], coarse, atol=1e-5)
