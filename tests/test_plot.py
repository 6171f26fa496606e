"""Pictures: what is drawn where, checked on the artists, and that every kind of map and rollout can be drawn."""

import io
import sys
from typing import Any

import numpy as np
import pytest

from ipodyn import plot
from ipodyn.plot._figure import cell_edges, is_geometric
from ipodyn.plot._simplex import barycentric

xarray = pytest.importorskip("xarray")
pytest.importorskip("matplotlib")


def dataset(rng, M=5, alpha=None, beta=None, **attributes):
    """A made-up map whose contraction bound is 1 on a known curve: alpha + beta / 10 for every matrix."""
    alpha = np.linspace(0, 0.9, 7) if alpha is None else np.asarray(alpha)
    beta = np.linspace(1, 12, 9) if beta is None else np.asarray(beta)
    shape = (M, alpha.size, beta.size)
    dims = ("matrix", "alpha", "beta")
    bound = np.broadcast_to(alpha[:, None] + beta / 10, shape)
    regime = rng.integers(0, 4, shape).astype(np.int8)
    meanings = {"flag_values": [0, 1, 2, 3], "flag_meanings": "converges oscillates collapses unresolved"}
    return xarray.Dataset(
        {
            "variance": (dims, rng.uniform(size=shape)),
            "entropy": (dims, rng.uniform(size=shape)),
            "regime": (dims, regime, meanings),
            "contraction_bound": (dims, bound),
        },
        coords={"alpha": alpha, "beta": beta},
        attrs={"objective": "IPO", "lam": 0.5, "num_steps": 300, "source": "a test", **attributes},
    )


def analytic_dataset(rng, M=5, **grid):
    """A made-up map without rollouts: matrix m loses stability where alpha + beta / 10 reaches 1.5 - m / 10."""
    data = dataset(rng, M=M, **grid).drop_vars(["variance", "entropy"]).drop_attrs(deep=False)
    shift = np.arange(M)[:, None, None] / 10
    data["radius"] = data["contraction_bound"] - 0.5 + xarray.DataArray(shift[:, 0, 0], dims="matrix")
    data["fixed_point_entropy"] = data["radius"] / 3
    return data.assign_attrs(lam=0.5, regime_from="fixed point")


def contours(axes):
    """The vertices of the contour lines of a panel."""
    found: Any = [path.vertices for line in axes.collections[1:] for path in line.get_paths()]
    return found


def heat(axes):
    """The numbers of a panel's colour mesh, (beta, alpha)."""
    return np.ma.filled(axes.collections[0].get_array(), np.nan)


_ALPHA, _BETA = "α (how far the reference follows)", "β (preference strength; TRL's beta is 1/β)"


def drawn(figure):
    """The figure as pixels: it renders without a warning, and is not blank."""
    matplotlib_image = pytest.importorskip("matplotlib.image")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    buffer.seek(0)
    pixels = matplotlib_image.imread(buffer)
    assert pixels[..., :3].std() > 0.02
    return pixels


def titled(figure, title) -> Any:
    return next(axes for axes in figure.axes if axes.get_title(loc="left").startswith(title))


def test_map_shows_mean_and_spread_over_matrices(rng):
    data = dataset(rng)
    figure = plot.stability_map(data)
    for name, what in (("variance", "variance over time"), ("entropy", "final entropy")):
        values = data[name].values
        np.testing.assert_allclose(heat(titled(figure, f"Mean {what}")), values.mean(0).T)
        np.testing.assert_allclose(heat(titled(figure, f"Spread of {what}")), values.std(0).T)
    np.testing.assert_allclose(
        heat(titled(figure, "Fraction that converges")), np.mean(data.regime.values == 0, axis=0).T
    )


def test_boundaries_lie_where_they_should(rng):
    data = dataset(rng, M=1)
    data["radius"] = (("matrix", "alpha", "beta"), data["contraction_bound"].values / 1.1)
    axes = titled(plot.stability_map(data), "Variance over time")
    lines: list[Any] = [line.get_paths()[0].vertices for line in axes.collections[1:]]
    assert len(lines) == 2
    # Both fields are linear in alpha and beta, so that the contour is exact.
    for vertices, level in zip(lines, (1.0, 1.1), strict=True):
        np.testing.assert_allclose(vertices[:, 0] + vertices[:, 1] / 10, level, atol=1e-12)


def test_maps_without_rollouts_show_the_fixed_points(rng):
    data = analytic_dataset(rng)
    figure = plot.stability_map(data)
    heading = figure.get_suptitle()
    assert "fixed points, no rollouts" in heading and "rounds" not in heading
    for name, what in (("radius", "spectral radius"), ("fixed_point_entropy", "entropy of the fixed point")):
        values = data[name].values
        np.testing.assert_allclose(heat(titled(figure, f"Mean {what}")), values.mean(0).T)
        np.testing.assert_allclose(heat(titled(figure, f"Spread of {what}")), values.std(0).T)
    drawn(figure)
    drawn(plot.stability_map(analytic_dataset(rng, beta=[2.0])))
    drawn(plot.stability_map(analytic_dataset(rng, alpha=[0.2], beta=[2.0])))


def test_the_first_matrix_to_lose_stability_has_its_line(rng):
    data = analytic_dataset(rng).drop_vars("contraction_bound")
    data["radius"].values[4, 3, 4] = np.nan  # the others still have a number there
    data["radius"].values[:, 0, 0] = np.nan  # no matrix has one
    figure = plot.stability_map(data)
    # Linear fields: exact contours. The median matrix is the third, 1.5 - 0.2; the first to lose stability the fifth,
    # whose line is only shifted next to the cell where it has no fixed point.
    (median,) = contours(titled(figure, "Mean spectral radius"))
    sums = median[:, 0] + median[:, 1] / 10
    assert np.median(sums) == pytest.approx(1.3, abs=1e-12)
    panel = titled(figure, "Fraction that converges")
    dashed = [v for v in contours(panel) if np.median(v[:, 0] + v[:, 1] / 10) == pytest.approx(1.1, abs=1e-9)]
    assert len(dashed) == 1 and np.isfinite(dashed[0]).all()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "the first matrix to lose stability" in labels
    drawn(figure)


def test_the_legend_knows_only_lines_that_are_there(rng):
    data = analytic_dataset(rng)
    data["radius"].values[:] = 0.5  # stable throughout
    figure = plot.stability_map(data)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert not any("exact boundary" in label or "lose stability" in label for label in labels)
    assert len(set(labels)) == len(labels)
    drawn(figure)


def test_cells_whose_verdicts_differ_are_marked(rng):
    data = dataset(rng, M=30)
    codes = np.zeros(data["regime"].shape, np.int8)
    flags = {"flag_values": [0, 1, 2], "flag_meanings": "none stable_but_moving unstable_but_still"}
    data["disagreement"] = (("matrix", "alpha", "beta"), codes, flags)

    def marks(figure):
        lines = titled(figure, "Regime of most").lines
        return {line.get_marker(): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in lines}

    def legend(figure):
        return " ".join(text.get_text() for text in figure.legends[0].get_texts())

    data["disagreement"].values[0, 1, 1] = 1  # one of thirty: too few to be marked
    figure = plot.stability_map(data)
    assert marks(figure) == {} and "stable fixed point" not in legend(figure)
    data["disagreement"].values[:2, 2, 3] = 1
    data["disagreement"].values[5:9, 4, 0] = 2
    figure = plot.stability_map(data)
    alpha, beta = data.alpha.values, data.beta.values
    assert marks(figure) == {"o": [(alpha[2], beta[3])], "x": [(alpha[4], beta[0])]}
    assert "move beside a stable fixed point" in legend(figure) and "where a nudge would grow" in legend(figure)
    drawn(figure)


def test_most_common_regime_gives_the_colour(rng):
    data = dataset(rng, M=3)
    data["regime"].values[:] = np.array([1, 1, 2], np.int8)[:, None, None]
    axes = titled(plot.stability_map(data), "Regime of most")
    colours = np.unique(np.asarray(axes.collections[0].get_array()).reshape(-1, 3), axis=0)
    assert len(colours) == 1
    # A shade of orange: the mixture of #E69F00 with white keeps red above green above blue.
    assert colours[0, 0] > colours[0, 1] > colours[0, 2]


def test_holes_are_not_coloured(rng):
    data = dataset(rng)
    data["variance"].values[:, 2, 3] = np.nan
    data["variance"].values[0, 0, 0] = np.nan  # one matrix of five: the mean of the rest
    shown = heat(titled(plot.stability_map(data), "Mean variance"))
    assert np.isnan(shown).sum() == 1 and np.isnan(shown[3, 2])


def test_headings_say_what_it_is(rng):
    assert "SYNTHETIC" in plot.stability_map(dataset(rng, synthetic=True)).get_suptitle()
    heading = plot.stability_map(dataset(rng, synthetic=False)).get_suptitle()
    assert "SYNTHETIC" not in heading
    for fact in ("a test", "5 preference matrices", "IPO", "λ = 0.5", "300 rounds"):
        assert fact in heading


@pytest.mark.parametrize(
    ("alpha", "beta", "many", "across"),  # the last: what runs along the horizontal axes
    [
        ([0.5], None, True, {_BETA}),
        (None, [2.0], False, {_ALPHA}),
        ([0.5], [2.0], True, {"Σₖ Varₜ π[k]", "nats"}),
        (None, np.geomspace(0.1, 100, 6), True, {_ALPHA}),
        ([0.0, 1.0], [1.0, 2.0], False, {_ALPHA}),
    ],
    ids=["one alpha", "one beta", "one point", "logarithmic", "two by two"],
)
def test_every_grid_can_be_drawn(rng, alpha, beta, many, across):
    data = dataset(rng, alpha=alpha, beta=beta)
    figure = plot.stability_map(data if many else data.isel(matrix=[0]).drop_vars("contraction_bound"))
    drawn(figure)
    assert {axes.get_xlabel() for axes in figure.axes if axes.get_visible()} - {""} == across
    logarithmic = any(axes.get_yscale() == "log" for axes in figure.axes if axes.get_ylabel() == _BETA)
    assert logarithmic == (beta is not None and len(beta) > 2)


def test_product_axis(rng):
    data = dataset(rng)
    axes = titled(plot.stability_map(data, product=True), "Fraction")
    np.testing.assert_allclose(axes.get_ylim(), cell_edges(data.beta.values * 0.5)[[0, -1]])


def test_missing_variables_are_named(rng):
    with pytest.raises(ValueError, match=r"lacks the variables \['entropy'\]"):
        plot.stability_map(dataset(rng).drop_vars("entropy"))


def test_cell_edges():
    np.testing.assert_allclose(cell_edges(np.array([1.0, 2.0, 4.0])), 2.0 ** np.array([-0.5, 0.5, 1.5, 2.5]))
    np.testing.assert_allclose(cell_edges(np.array([1.0, 2.0, 3.0])), [0.5, 1.5, 2.5, 3.5])
    assert is_geometric(np.geomspace(0.1, 10, 5)) and not is_geometric(np.linspace(0.1, 10, 5))


def test_barycentric_is_the_triangle():
    corners = barycentric(np.eye(3))
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    np.testing.assert_allclose(sides, 1, rtol=1e-12)
    np.testing.assert_allclose(barycentric(np.full(3, 1 / 3)), corners.mean(0), rtol=1e-12)


def test_rollout_draws_the_probabilities(rng):
    policies = rng.dirichlet(np.ones(4), size=30)
    figure = plot.rollout(policies, first_round=1)
    (axes,) = figure.axes
    for k, line in enumerate(axes.lines):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 31))
        np.testing.assert_array_equal(line.get_ydata(), policies[:, k])
    assert {text.get_text() for text in axes.texts} == {f"response {k}" for k in range(4)}
    drawn(figure)


def test_long_rollouts_show_both_ends(rng):
    policies = rng.dirichlet(np.ones(3), size=500)
    figure = plot.rollout(policies, show=20, labels=["a", "b", "c"])
    first, last, *_ = figure.axes
    np.testing.assert_array_equal(first.lines[0].get_xdata(), np.arange(20))
    np.testing.assert_array_equal(last.lines[0].get_xdata(), np.arange(480, 500))
    np.testing.assert_array_equal(last.lines[2].get_ydata(), policies[-20:, 2])
    titled(figure, "In the simplex")
    assert {"a", "b", "c"} <= {text.get_text() for text in figure.axes[2].texts}
    drawn(figure)


def test_many_responses_are_grey_but_there(rng):
    policies = rng.dirichlet(np.ones(30), size=10)
    (axes,) = plot.rollout(policies).axes
    assert len(axes.lines) == 30 and len(axes.texts) == 8
    assert "22 more" in axes.get_xlabel()


def test_simplex_path(rng):
    policies = rng.dirichlet(np.ones(3), size=12)
    figure = plot.simplex(policies)
    scatter: Any = figure.axes[0].collections[1]
    np.testing.assert_allclose(scatter.get_offsets(), barycentric(policies))
    drawn(figure)
    drawn(plot.simplex(policies[:1]))


def test_corners_of_the_simplex_have_the_names_of_the_responses(rng):
    policies = rng.dirichlet(np.ones(3), size=4)
    corners = np.array([text.get_text() for text in plot.simplex(policies, labels=["a", "b", "c"]).axes[0].texts])
    assert corners[-3:].tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="`labels` has 2 names for 3 responses"):
        plot.simplex(policies, labels=["a", "b"])


@pytest.mark.parametrize("call", [plot.simplex, plot.rollout])
def test_wrong_shapes_are_named(call):
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        call(np.full(4, 0.25))


def test_no_pyplot_state(rng):
    plot.stability_map(dataset(rng))
    assert "matplotlib.pyplot" not in sys.modules


def test_missing_matplotlib_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"^`ipodyn.plot` needs matplotlib: pip install 'ipodyn\[plot\]'$"):
        plot.simplex(np.full((2, 3), 1 / 3))
