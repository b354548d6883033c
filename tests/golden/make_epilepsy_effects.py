"""Write the published effects of epilepsy on regions: a small table from the ENIGMA Toolbox's files.

    python tests/golden/make_epilepsy_effects.py DIRECTORY

DIRECTORY holds ``allepi_case-controls_CortThick.csv`` and ``allepi_case-controls_SubVol.csv`` of the ENIGMA
Toolbox (BSD-3-Clause; Whelan et al. 2018, Brain 141:391). Only region and Cohen's d are taken.
"""

import csv
import hashlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from esn_core.connectome.atlas import load_atlas

ATLAS = "desikan-killiany-83"
TABLE = Path(__file__).parents[2] / "esn_core" / "simulation" / "enigma-epilepsy.tsv"
SUBCORTICAL = {
    "thal": "thalamusproper",
    "caud": "caudate",
    "put": "putamen",
    "pal": "pallidum",
    "accumb": "accumbensarea",
    "hippo": "hippocampus",
    "amyg": "amygdala",
}
# Not a region of the atlas.
VENTRICLES = "LatVent"


def main() -> None:
    directory = Path(sys.argv[1])
    found, digests = {}, {}
    for kind in ("CortThick", "SubVol"):
        path = directory / f"allepi_case-controls_{kind}.csv"
        digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        with path.open(encoding="utf-8-sig") as table:
            for row in csv.DictReader(table):
                name = row["Structure"].strip()
                if kind == "SubVol":
                    if name[1:] == VENTRICLES:
                        continue
                    name = f"{name[0]}_{SUBCORTICAL[name[1:]]}"
                found[name] = float(row["d_icv"])
    names = [name for name in load_atlas(ATLAS).names if name in found]
    if sorted(names) != sorted(found) or len(names) != 82:
        raise SystemExit(f"82 regions of {ATLAS} are expected, not {len(names)} of {len(found)}")
    text = "region\tcohen_d\n" + "".join(f"{name}\t{found[name]:.3f}\n" for name in names)
    TABLE.write_text(text, encoding="utf-8")
    provenance = {
        "What": "Cohen's d of all epilepsies against controls: cortical thickness, subcortical volume",
        "Source": "Whelan et al. 2018, Brain 141:391, as the ENIGMA Toolbox distributes it (BSD-3-Clause)",
        "Command": "python tests/golden/make_epilepsy_effects.py DIRECTORY",
        "Date": datetime.now(UTC).date().isoformat(),
        "FilesSha256": digests,
        "Sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    TABLE.with_suffix(".json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
