"""Holds proto/*.cddl to the test vectors, with cddl-verifier, which anchors `.regexp` as RFC 8610 does.

Parses every layout; then what is valid in proto/vectors must have its layout, and what is malformed must not, but for
what says that it is malformed beyond its layout.
"""

import json
import sys
from pathlib import Path

from cddl_verifier import SchemaError, Validator

# What is not of its file's first rule.
OTHER_RULES = {"read_refusal_record": "refusal-record"}


def main(proto):
    wrong = 0
    for layout in sorted(proto.glob("*.cddl")):
        try:
            Validator(layout)
        except SchemaError as error:
            sys.exit(f"{layout}: {error}")
    for path in sorted((proto / "vectors").glob("*.json")):
        file = json.loads(path.read_text())
        if file["kind"] in ("hint", "checkpoint", "merkle"):  # No CBOR.
            continue
        layout, checked = proto / file["layout"], 0
        whole, validators = Validator(layout), {}
        for operation, rule in OTHER_RULES.items():  # The first rule is what an object must be.
            if any(vector["operation"] == operation for vector in file["vectors"]):
                validators[operation] = Validator(f"start = {rule}\n{layout.read_text()}")
        for vector in file["vectors"]:
            if vector["verdict"] in ("valid", "OBJECT_MALFORMED") and "bytes" in vector:
                wanted = vector["verdict"] == "valid" or vector.get("beyond_layout", False)
                checked += 1
                validator = validators.get(vector["operation"], whole)
                result = validator.validate(bytes.fromhex(vector["bytes"]))
                if result.valid != wanted:
                    wrong += 1
                    print(f"{vector['id']}: {vector['what']}: {result.diagnostics or 'has the layout'}")
        print(f"{file['layout']}: {checked} vectors")
    sys.exit(f"{wrong} vectors and their layouts differ" if wrong else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
