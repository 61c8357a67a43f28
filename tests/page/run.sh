#!/usr/bin/env bash
# The page in headless Chromium, on a service of its own: tests/page/run.sh BINARY [WORK] [OPTIONS]
#
# BINARY is a built `mneme` whose default model is at hand. Store and log lie in WORK; options are
# those of page_test.py (--help lists them). The exit status is 0 where all passed, 2 where there is
# no Chromium.
set -euo pipefail

if [ $# -lt 1 ]; then
  sed -n '2,6s/^# \?//p' "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "$1")
shift
work=/tmp/mneme-page-test
if [ $# -gt 0 ] && [[ $1 != --* ]]; then
  work=$1
  shift
fi
rm -rf "$work/store"
mkdir -p "$work"

"$binary" serve --store "$work/store" --listen 127.0.0.1:0 >"$work/log.txt" 2>&1 &
server=$!
trap 'kill -9 $server 2>/dev/null || true' EXIT
address=
for _ in $(seq 600); do
  address=$(sed -n 's|.*\(http://127\.0\.0\.1:[0-9]*\).*|\1|p' "$work/log.txt" | head -n 1)
  if [ -n "$address" ]; then break; fi
  if ! kill -0 $server 2>/dev/null; then
    echo "the service ended before it listened; it said:" >&2
    cat "$work/log.txt" >&2
    exit 1
  fi
  sleep 0.1
done
if [ -z "$address" ]; then
  echo "the service does not say where it listens; see $work/log.txt" >&2
  exit 1
fi

# Nothing of this may hang.
timeout --kill-after=30 "${PAGE_TEST_SECONDS:-600}" \
  python3 "$here/page_test.py" "$address" "$@"
