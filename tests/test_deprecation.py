"""Old spellings keep working for a release and say what to write instead."""

# A type checker knows the new spellings only, as it should.
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

import dataclasses
import importlib.util
import inspect
import sys
import types
import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from ipodyn._numerics import deprecation

REMOVED = "0.3"


@deprecation.renamed_keywords(REMOVED, width="spread", seed=("key", jax.random.key))
def scale(values, *, spread=1.0, key=None):
    """Scales."""
    return values * spread, key


class Fields(eqx.Module):
    """Has a field and a method with new names."""

    fraction: jax.Array

    def half(self):
        """Half of it."""
        return self.fraction / 2

    share = deprecation.renamed_attribute("share", "fraction", REMOVED)
    halved = deprecation.renamed_attribute("halved", "half", REMOVED)


class Row(NamedTuple):
    """A tuple whose entry has a new name."""

    certified: bool
    sure = deprecation.renamed_attribute("sure", "certified", REMOVED)


def test_a_keyword_is_passed_on_under_its_new_name():
    with pytest.warns(
        DeprecationWarning, match=r"The argument `width` is deprecated and goes in ipodyn 0\.3: use `spread`"
    ):
        assert scale(3.0, width=2.0) == (6.0, None)
    with pytest.warns(DeprecationWarning, match="`seed`.*`key`"):
        assert jnp.all(jax.random.key_data(scale(1.0, seed=5)[1]) == jax.random.key_data(jax.random.key(5)))
    assert scale(3.0, spread=2.0) == (6.0, None)  # warnings are errors here: the new spelling gives none


def test_both_spellings_are_refused():
    with pytest.raises(TypeError, match=r"scale\(\) got `spread` and its old spelling `width`"):
        scale(1.0, spread=2.0, width=2.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'widht'"):
        scale(1.0, widht=2.0)


def test_the_signature_shows_new_names_only():
    assert list(inspect.signature(scale).parameters) == ["values", "spread", "key"]
    assert scale.__doc__ == "Scales."


def test_it_warns_when_traced_and_computes_the_same():
    with pytest.warns(DeprecationWarning, match="spread"):
        assert jax.jit(lambda x: scale(x, width=2.0)[0])(3.0) == 6.0
    with pytest.warns(DeprecationWarning, match="spread"):
        assert jax.grad(lambda x: scale(3.0, width=x)[0])(2.0) == 3.0


def test_attributes_and_methods_of_modules_and_tuples():
    fields = Fields(jnp.asarray(0.25))
    with pytest.warns(DeprecationWarning, match=r"`Fields\.share` is deprecated .* 0\.3: use `Fields\.fraction`"):
        assert fields.share == 0.25
    with pytest.warns(DeprecationWarning, match=r"`Fields\.half`"):
        assert fields.halved() == 0.125
    with pytest.warns(DeprecationWarning, match=r"`Row\.certified`"):
        assert Row(True).sure
    assert Row._fields == ("certified",)
    assert [field.name for field in dataclasses.fields(Fields)] == ["fraction"]
    assert len(jax.tree.leaves(fields)) == 1


@pytest.mark.parametrize("base", [object, eqx.Module])
def test_fields_of_a_dataclass_are_built_and_read_by_either_name(base):
    class Limits(base):
        fraction: float = 0.05
        floor: float = 1e-6

    cls = Limits if base is eqx.Module else dataclasses.dataclass(frozen=True)(Limits)
    cls = deprecation.renamed_fields(REMOVED, share="fraction")(cls)
    with pytest.warns(DeprecationWarning, match="The argument `share`.*`fraction`"):
        made = cls(share=0.1)
    assert (made.fraction, made.floor) == (0.1, 1e-6) and cls(0.1) == made
    with pytest.warns(DeprecationWarning, match=r"`Limits\.share`.*`Limits\.fraction`"):
        assert made.share == 0.1
    assert list(inspect.signature(cls).parameters) == ["fraction", "floor"]


def test_names_of_a_module():
    module = types.ModuleType("made_module")
    module.new = lambda: 7
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "made_module", module)
        module.__getattr__ = deprecation.renamed_names("made_module", {"old": "new"}, REMOVED)
        with pytest.warns(DeprecationWarning, match=r"`made_module\.old` .* 0\.3: use `made_module\.new`"):
            assert module.old() == 7
        with pytest.raises(AttributeError, match="module 'made_module' has no attribute 'other'"):
            _ = module.other


def test_an_argument_that_moved():
    def is_key(value):
        return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)

    @deprecation.moved_argument(REMOVED, "key", 1, is_key)
    def draw(loop, start=None, *, key):
        return loop, start, key

    key = jax.random.key(0)
    with pytest.warns(DeprecationWarning, match=r"`key` as argument 2 of draw\(\) is deprecated .*: use `key=\.\.\.`"):
        assert draw(1, key, 2) == (1, 2, key)
    with pytest.warns(DeprecationWarning, match="key"):
        assert draw(1, key) == (1, None, key)
    assert draw(1, 2, key=key) == (1, 2, key)
    with pytest.raises(TypeError, match="key"):
        draw(1, 2)


def test_the_warning_points_at_the_caller():
    """Python shows a deprecation where it is the caller's own script; so the warning must carry the caller's file."""
    spec = importlib.util.spec_from_file_location("plain_deprecation", deprecation.__file__)
    assert spec and spec.loader
    plain = importlib.util.module_from_spec(spec)  # without the tests' shape checks, which add frames
    spec.loader.exec_module(plain)
    renamed = plain.renamed_keywords(REMOVED, old="new")(lambda new: new)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        renamed(old=1)
        type("Made", (), {"new": 1, "old": plain.renamed_attribute("old", "new", REMOVED)})().old  # noqa: B018
    assert [warning.filename for warning in caught] == [__file__, __file__]
