"""Old spellings: they work for one more release, with a warning that names the new one."""

import functools
import operator
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable)
_Class = TypeVar("_Class", bound=type)


def renamed_keywords(
    removed_in: str, **renames: str | tuple[str, Callable[[Any], Any]]
) -> Callable[[_Function], _Function]:
    """A decorator for a function whose keyword arguments have new names: `@renamed_keywords("0.3", old="new")`.

    The old keyword is passed on under its new name; with `old=("new", convert)` its value goes through `convert` first,
    where the meaning changed along with the name. The signature is that of the function, so old names show up nowhere.
    Giving both spellings is a `TypeError`, as any argument given twice.
    """

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def call(*args, **kwargs):
            for old, rename in renames.items():
                if old not in kwargs:
                    continue
                new, convert = (rename, None) if isinstance(rename, str) else rename
                if new in kwargs:
                    raise TypeError(
                        f"{function.__name__}() got `{new}` and its old spelling `{old}`. Give `{new}` alone."
                    )
                warnings.warn(
                    _message(f"The argument `{old}`", f"`{new}`", removed_in), DeprecationWarning, stacklevel=2
                )
                value = kwargs.pop(old)
                kwargs[new] = value if convert is None else convert(value)
            return function(*args, **kwargs)

        return call  # pyright: ignore[reportReturnType]

    return decorate


def renamed_attribute(old: str, new: str, removed_in: str, *, value: Callable[[Any], Any] | None = None) -> Any:
    """A property for a class with a renamed attribute or method: `old = renamed_attribute("old", "new", "0.3")`.

    `new` may be an attribute of an attribute, "part.name". Where its meaning changed along with the name, `value` makes
    of the instance what the old name stood for.
    """
    current = operator.attrgetter(new) if value is None else value

    def get(self):
        what = f"`{type(self).__name__}.{old}`"
        warnings.warn(_message(what, f"`{type(self).__name__}.{new}`", removed_in), DeprecationWarning, stacklevel=2)
        return current(self)

    return property(get, doc=f"The old spelling of `{new}`, until {removed_in}.")


def renamed_names(module: str, renames: Mapping[str, str], removed_in: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module whose functions, classes or constants have new names.

    `__getattr__ = renamed_names(__name__, {"old": "new"}, "0.3")` at the end of the module; the names stand in that
    module. What is asked for and was never there is an `AttributeError` as usual.
    """

    def get(name: str) -> Any:
        if name not in renames:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new = renames[name]
        warnings.warn(_message(f"`{module}.{name}`", f"`{module}.{new}`", removed_in), DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], new)

    return get


def moved_argument(
    removed_in: str, name: str, position: int, belongs: Callable[[Any], bool]
) -> Callable[[_Function], _Function]:
    """A decorator for a function that took the argument `name` at a `position` (from 0) that it does not have now.

    A value at that position that `belongs` to `name` is passed on by name, and the arguments after it move up.
    """

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def call(*args, **kwargs):
            if len(args) > position and name not in kwargs and belongs(args[position]):
                old = f"`{name}` as argument {position + 1} of {function.__name__}()"
                warnings.warn(_message(old, f"`{name}=...`", removed_in), DeprecationWarning, stacklevel=2)
                kwargs[name] = args[position]
                args = args[:position] + args[position + 1 :]
            return function(*args, **kwargs)

        return call  # pyright: ignore[reportReturnType]

    return decorate


def leading_argument(
    removed_in: str, name: str, kind: type, default: Callable[[], Any]
) -> Callable[[_Function], _Function]:
    """A decorator for a function whose first argument `name` was an optional keyword, with None for `default()`.

    A call is an old one where the first value is not of that `kind`, or where `name` is missing or None.
    """

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def call(*args, **kwargs):
            if (args and not isinstance(args[0], kind)) or (not args and kwargs.get(name) is None):
                old = f"{function.__name__}() without `{name}` as its first argument"
                new = f"`{function.__name__}({name}, ...)`"
                warnings.warn(_message(old, new, removed_in), DeprecationWarning, stacklevel=2)
                value = kwargs.pop(name, None)
                args = (default() if value is None else value, *args)
            return function(*args, **kwargs)

        return call  # pyright: ignore[reportReturnType]

    return decorate


def renamed_fields(removed_in: str, **renames: str) -> Callable[[_Class], _Class]:
    """A class decorator for renamed fields, `@renamed_fields("0.3", old="new")`: to construct with and to read."""

    def decorate(cls: _Class) -> _Class:
        setattr(cls, "__init__", renamed_keywords(removed_in, **renames)(cls.__init__))  # noqa: B010
        for old, new in renames.items():
            setattr(cls, old, renamed_attribute(old, new, removed_in))
        return cls

    return decorate


def moved_attributes(removed_in: str, **parts: tuple[str, ...]) -> Callable[[Any], Any]:
    """A class decorator for attributes that are now those of a part: `@moved_attributes("0.3", part=("name", ...))`."""

    def decorate(cls: Any) -> Any:
        for part, names in parts.items():
            for name in names:
                setattr(cls, name, renamed_attribute(name, f"{part}.{name}", removed_in))
        return cls

    return decorate


def _message(old: str, new: str, removed_in: str) -> str:
    return f"{old} is deprecated and goes in ipodyn {removed_in}: use {new}."
