#!/usr/bin/env bash
# The service against real clients: tests/service/run.sh BINARY [WORK] [OPTIONS]
#
# BINARY is a built `mneme` whose default model is at hand. WORK is where the clients are installed,
# once, and where stores and logs lie; options are those of service_test.py (--help lists them).
# One line a check, then `N passed, M failed`; the exit status is 0 where all passed.
set -euo pipefail

if [ $# -lt 1 ]; then
  sed -n '2,6s/^# \?//p' "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "$1")
shift
work=/tmp/mneme-service-test
if [ $# -gt 0 ] && [[ $1 != --* ]]; then
  work=$1
  shift
fi
mkdir -p "$work"
work=$(realpath "$work")

# What was installed for other pins is installed anew.
if ! cmp -s "$here/requirements.txt" "$work/venv/installed.txt"; then
  rm -rf "$work/venv"
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$work/venv/installed.txt"
fi

# Nothing of this may hang: who is late is told to end, with all servers that it started.
exec timeout --kill-after=30 "${SERVICE_TEST_SECONDS:-1200}" \
  "$work/venv/bin/python" "$here/service_test.py" "$binary" "$work" "$@"
