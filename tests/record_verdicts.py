"""Record a study's verdicts at desk size, for `pytest -m desk`: python tests/record_verdicts.py SLUG ..."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

KNOWN = Path(__file__).parent / "desk_verdicts.json"

if __name__ == "__main__":
    known = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    for slug in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "armillary", "run", slug, "--json", "--out", folder]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        known[slug] = {claim["id"]: claim["verdict"] for claim in result["claims"]}
        print(slug, result["seconds"], "s", known[slug])
    KNOWN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
