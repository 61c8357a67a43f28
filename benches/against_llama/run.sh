#!/usr/bin/env bash
# How fast is mneme beside llama.cpp? Same model file, same prompt, same threads, in turn.
#   benches/against_llama/run.sh PROMPT_FILE [ROUNDS]
# Prints one row a length: medians of both, and the median of the ratios of neighbouring runs
# (absolute speeds drift on shared machines; neighbours drift together).
# LENGTHS="512 8192 16384" and THREADS=2 and DECODE=64 may be set; needs node and npm.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
prompt=$(realpath "$1")
rounds=${2:-5}
threads=${THREADS:-2}
decode=${DECODE:-64}
work=${WORK:-$root/target/against_llama}

mkdir -p "$work"
cp "$here/package.json" "$here/llama.mjs" "$work/"
[ -d "$work/node_modules/node-llama-cpp" ] || (cd "$work" && npm install --ignore-scripts --no-audit)
(cd "$root" && cargo build --release --bin mneme)
mneme=${CARGO_TARGET_DIR:-$root/target}/release/mneme
model=$("$mneme" pull smollm2-135m)

for length in ${LENGTHS:-512 8192}; do
  : >"$work/rows.jsonl"
  for round in $(seq "$rounds"); do
    ours=$("$mneme" bench --model "$model" --prompt-file "$prompt" --prompt-tokens "$length" \
      --decode-tokens "$decode" --threads "$threads" ${MNEME_FLAGS:-} --json)
    theirs=$(cd "$work" && node llama.mjs "$model" "$prompt" "$length" "$decode" "$threads")
    echo "{\"mneme\": $ours, \"llama\": $theirs}" >>"$work/rows.jsonl"
    echo "length $length round $round of $rounds" >&2
  done
  python3 "$here/summarise.py" "$length" "$work/rows.jsonl"
done
