"""Does the service do what /openapi.json says? schemathesis makes requests of it, good ones and
bad, and follows what one makes to where another uses it."""

import re
import subprocess
import sys
from pathlib import Path

SECONDS = 45
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_schema_conformance", "ensure_resource_availability", "use_after_free")


def run(test):
    server = test.server("described", "--max-answer-tokens", "8", "--max-requests", "8")
    server.make("there", "A text about the sea.")
    report = test.stores / "described" / "schemathesis.txt"
    command = [Path(sys.executable).parent / "schemathesis", "run", f"{server.base}/openapi.json",
               "--checks", ",".join(CHECKS), "--max-time", str(SECONDS), "--max-examples", "15",
               "--seed", "6", "--request-timeout", "30", "--no-color", "--warnings", "off"]
    with open(report, "w") as out:
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, timeout=4 * SECONDS,
                                cwd=report.parent).returncode
    said = report.read_text()
    n_cases = re.search(r"(\d+) generated", said)
    failures = re.findall(r"^\s+❌ (\w+\d .*)", said, re.MULTILINE)
    test.check(f"schemathesis: {n_cases[1] if n_cases else 0} requests, no server error",
               n_cases and int(n_cases[1]) > 500 and "Server error" not in said, said[-400:])
    test.check("schemathesis: replies are as described", status == 0 and not failures,
               f"{failures}; see {report}")
    test.check("schemathesis: all places are free again", server.wait_idle()[0]
               and "panicked" not in server.log())
