"""The documents' blocks that need torch and transformers, with all that comes before them."""

import pytest

from tests.docs import run as docs_run
from tests.docs.blocks import GUIDES

WITH_TRANSFORMERS = [
    path for path in GUIDES if len(docs_run.chosen(path, "parity")) > len(docs_run.chosen(path))
]


@pytest.mark.parity
@pytest.mark.parametrize("path", WITH_TRANSFORMERS, ids=lambda path: path.name)
def test_blocks_run_beside_transformers(path, tmp_path):
    docs_run.run(docs_run.chosen(path, "parity"), tmp_path)
