"""Every public name is documented: what it takes and gives, and an example that runs as a
doctest."""

import importlib
import inspect
import pkgutil

import pytest

PACKAGES = ("labtools", "apogee_archive", "mock_survey", "survey_batch", "lab_course")
MODULES = [
    module.name
    for package in PACKAGES
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}.")
    if not module.name.endswith("__main__")
]


def public_functions(module):
    """Functions, classes and public methods that a module defines and names in `__all__`."""
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        yield name, thing
        if inspect.isclass(thing):
            for method, function in vars(thing).items():
                plain = getattr(function, "__func__", function)
                if not method.startswith("_") and inspect.isfunction(plain):
                    yield f"{name}.{method}", plain


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_a_docstring(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert [what for what, thing in public_functions(module) if not inspect.getdoc(thing)] == []


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("labtools.")])
def test_parameters_are_described(name):
    """What a notebook may call says of each argument what it is."""
    bare = []
    for what, thing in public_functions(importlib.import_module(name)):
        if not inspect.isfunction(thing):
            continue
        wanted = [p for p in inspect.signature(thing).parameters if p not in ("self", "cls")]
        documentation = inspect.getdoc(thing) or ""
        missing = [p for p in wanted if p not in documentation]
        if wanted and ("Parameters" not in documentation or missing):
            bare.append((what, missing))
    assert bare == []
