"""The mechanism of abilities: declare a protocol, and ask an instance for it.

A model has an ability if it has the methods of its protocol. The command line, evaluation, dashboards and tables read
`model.abilities`, a mapping of names to labels. An instance removes an ability that its data or settings rule out:
`self.lacks("interpolate")`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.core.errors import ConfigError
from zoo.data.loader import make_generator


@dataclass(frozen=True)
class Ability:
    """One ability.

    Args:
        name: for programs.
        label: for people.
        methods: of the protocol.
    """

    name: str
    label: str
    methods: tuple[str, ...]

    def of(self, model: Any) -> bool:
        """Whether a model, or its class, has all methods."""
        return all(callable(getattr(model, method, None)) for method in self.methods)


ABILITIES: dict[str, Ability] = {}


_NAMES: dict[type, str] = {}


def ability(name: str, label: str) -> Any:
    """Declare a protocol as an ability, also from another package.

    Args:
        name: key in `model.abilities`.
        label: words for tables.
    """

    def declare(protocol: type) -> type:
        methods = sorted(m for m, value in vars(protocol).items() if callable(value) and not m.startswith("_"))
        ABILITIES[name] = Ability(name, label, tuple(methods))
        _NAMES[protocol] = name
        return protocol

    return declare


def supports(model: Any, protocol: type) -> bool:
    """Whether a model has the ability that a protocol describes."""
    return _NAMES[protocol] in getattr(model, "abilities", {})


def seedable(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method with the parameter `generator` take `seed` in its place.

    Raises:
        ConfigError: a call with both.
    """

    @wraps(method)
    def seeded(*args: Any, seed: int | None = None, **kwargs: Any) -> Any:
        if seed is not None:
            if kwargs.get("generator") is not None:
                raise ConfigError(f"seed={seed}: the generator has its own seed. Leave one of them out.")
            kwargs["generator"] = make_generator(seed)
        return method(*args, **kwargs)

    signature = inspect.signature(method)
    own = list(signature.parameters.values())
    last = len(own) - any(p.kind is p.VAR_KEYWORD for p in own)
    own.insert(last, inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=int | None))
    seeded.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    return seeded


class HasAbilities:
    """Base class that fills in `abilities`, and lets their methods with a `generator` take a `seed`."""

    abilities: ClassVar[dict[str, str]] = {}
    without: ClassVar[tuple[str, ...]] = ()  # inherited abilities that the class does not have

    if TYPE_CHECKING:  # methods of abilities, after a check by `supports`

        def __getattr__(self, name: str) -> Any: ...

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        had = {name: found.label for name, found in ABILITIES.items() if found.of(cls)}
        cls.abilities = {name: label for name, label in had.items() if name not in cls.without}
        for name in {method for found in ABILITIES.values() for method in found.methods}:
            method = getattr(cls, name, None)
            if inspect.isfunction(method):
                parameters = inspect.signature(method).parameters
                if "generator" in parameters and "seed" not in parameters:
                    setattr(cls, name, seedable(method))

    def lacks(self, *names: str) -> None:
        """Remove abilities from this instance."""
        kept = {name: label for name, label in self.abilities.items() if name not in names}
        self.__dict__["abilities"] = kept
