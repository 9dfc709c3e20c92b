import subprocess
import sys
from pathlib import Path

from nas.searchers.catalog import SEARCHERS

ROOT = Path(__file__).parents[3]


def test_the_catalog_and_making_load_no_library():
    code = (
        "import sys, nas.searchers.catalog, nas.searchers.make; "
        "assert not {'torch', 'sklearn', 'optuna', 'pymoo'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_summary_is_one_line():
    assert all(entry.summary and "\n" not in entry.summary and len(entry.summary) < 100 for entry in SEARCHERS.values())
