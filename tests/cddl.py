"""Holds proto/*.cddl to the test vectors, with cddl-verifier, which anchors `.regexp` as RFC 8610 does.

Parses every layout; then what is valid in proto/vectors must have its layout, and what is malformed must not, but for
what says that it is malformed beyond its layout.
"""

import json
import sys
from pathlib import Path

from cddl_verifier import SchemaError, Validator


def main(proto):
    wrong = 0
    for layout in sorted(proto.glob("*.cddl")):
        try:
            Validator(layout)
        except SchemaError as error:
            sys.exit(f"{layout}: {error}")
    for path in sorted((proto / "vectors").glob("*.json")):
        file = json.loads(path.read_text())
        if file["kind"] == "hint":  # No CBOR: statement.cddl has it in words.
            continue
        validator, checked = Validator(proto / file["layout"]), 0
        for vector in file["vectors"]:
            if vector["verdict"] in ("valid", "OBJECT_MALFORMED") and "bytes" in vector:
                wanted = vector["verdict"] == "valid" or vector.get("beyond_layout", False)
                checked += 1
                result = validator.validate(bytes.fromhex(vector["bytes"]))
                if result.valid != wanted:
                    wrong += 1
                    print(f"{vector['id']}: {vector['what']}: {result.diagnostics or 'has the layout'}")
        print(f"{file['layout']}: {checked} vectors")
    sys.exit(f"{wrong} vectors and their layouts differ" if wrong else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
