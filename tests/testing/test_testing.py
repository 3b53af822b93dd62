"""What is public of the test kit."""

from types import ModuleType

from dgreceiver import testing
from dgreceiver.testing.payloads import BUILDERS


def test_all_lists_the_public_names_in_order():
    public = {name for name, value in vars(testing).items() if name[0] != "_" and not isinstance(value, ModuleType)}
    assert sorted(testing.__all__) == sorted(public)


def test_every_builder_is_public():
    assert {builder.__name__ for builder in BUILDERS.values()} <= set(testing.__all__)
