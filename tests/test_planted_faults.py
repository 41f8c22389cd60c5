"""The planted faults still fit the code that they are planted in."""

import pytest

from tests.paths import ROOT
from tests.planted_faults import FAULTS


@pytest.mark.parametrize("name", FAULTS)
def test_the_text_to_replace_is_there(name):
    planted = FAULTS[name]
    text = (ROOT / planted.file).read_text()
    for old, _ in planted.changes:
        assert old in text
    assert (ROOT / planted.tests.split(" ")[0]).exists()
