#!/usr/bin/env bash
# What does remembering cost? Reading with and without the store, in turn; asking a context of another
# process, small and large; a fork.
#
#   benches/contexts/run.sh TEXT [RUNS]     TEXT: a UTF-8 file of some 900 KB or more
#
# Contexts go to $WORK (a new folder unless set), which needs some 4 GB. SIZES="4300 430000 860000" are
# the bytes of the contexts that are asked, the largest last.
set -euo pipefail
text=$1
runs=${2:-3}
work=${WORK:-$(mktemp -d)}
root=$(cd "$(dirname "$0")/../.." && pwd)
mneme=${CARGO_TARGET_DIR:-$root/target}/release/mneme
sizes=${SIZES:-4300 430000 860000}
store=$work/store
mkdir -p "$work"
(cd "$root" && cargo build --release --bin mneme)

part() { # part BYTES: the beginning of the text, whole characters of it
  head -c "$1" "$text" |
    python3 -c 'import sys; sys.stdout.write(sys.stdin.buffer.read().decode("utf-8", "ignore"))' \
      >"$work/part-$1.txt"
  echo "$work/part-$1.txt"
}
field() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
wall() { # wall COMMAND...: seconds that it takes
  local from
  from=$(date +%s.%N)
  "$@" >/dev/null 2>&1
  python3 -c 'import sys,time; print(f"{time.time() - float(sys.argv[1]):.3f}")' "$from"
}

echo "reading 8,192 tokens, without and with the store (tokens/s):"
small=$(part 36000)
for run in $(seq "$runs"); do
  plain=$("$mneme" bench --prompt-file "$small" --prompt-tokens 8192 --decode-tokens 1 --json \
    2>/dev/null | field prefill_tokens_per_second)
  kept=$("$mneme" ingest --store "$work/run-$run" --context a --json "$small" 2>/dev/null |
    python3 -c 'import json,sys; r=json.load(sys.stdin); print(r["tokens"] / r["seconds"])')
  rm -rf "$work/run-$run"
  python3 -c 'import sys; a, b = map(float, sys.argv[1:]); print(f"  {a:6.0f} {b:6.0f}  ratio {b / a:.3f}")' \
    "$plain" "$kept"
done

echo "a process that asks, to its first token (s):"
for bytes in $sizes; do
  "$mneme" ingest --store "$store" --context "b$bytes" "$(part "$bytes")" >/dev/null 2>&1
done
ask=(ask --store "$store" --max-tokens 1)
for run in $(seq "$runs"); do
  for bytes in $sizes; do
    echo "  b$bytes: $(wall "$mneme" "${ask[@]}" --context "b$bytes" "Who was there?")"
  done
done
"$mneme" contexts list --store "$store"

largest=b${sizes##* }
echo "a fork of $largest (s):"
before=$(du -sb "$store" | cut -f1)
for run in $(seq "$runs"); do
  echo "  $(wall "$mneme" contexts fork --store "$store" "$largest" "fork-$run")"
done
echo "  listing alone: $(wall "$mneme" contexts list --store "$store")"
after=$(du -sb "$store" | cut -f1)
echo "  bytes: $before before, $after after $runs forks"
