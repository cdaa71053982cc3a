"""The page of all networks says what the package says."""

import pathlib
import runpy

SCRIPT = pathlib.Path(__file__).parents[2] / "docs" / "models.py"


def test_page_of_the_networks_is_up_to_date():
    page = runpy.run_path(SCRIPT)["page"]()
    assert SCRIPT.with_suffix(".md").read_text() == page, "run `python docs/models.py`"
