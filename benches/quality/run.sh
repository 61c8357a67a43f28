#!/usr/bin/env bash
# Measures a table of docs/quality.md again:
#
#   benches/quality/run.sh TABLE TEXTS
#
# TABLE: needle (with its plots, which go to docs/plots), clipped, passkey, several, perplexity, kv-types,
# recall, million, qa, kv. TEXTS is what benches/quality/texts.sh makes. Results are kept in $WORK (target/quality
# unless set), where a run that was stopped goes on. What takes how long on two cores is said beside each.
set -euo pipefail
table=${1:?which table; see the head of this file}
texts=$(cd "${2:?the folder that texts.sh made}" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
work=${WORK:-$root/target/quality}
mkdir -p "$work"
mneme=${MNEME:-${CARGO_TARGET_DIR:-$root/target}/release/mneme}
[ -n "${MNEME:-}" ] || cargo build --release --bin mneme
policies=configs/policies
prose=$texts/war-and-peace.txt,$texts/bible.txt,$texts/sotu.txt,$texts/xquad.txt

evaluate() { # evaluate NAME ARGUMENTS...
  local name=$1
  shift
  "$mneme" eval "$@" --out "$work/$name.jsonl"
}
setting() { # setting NAME LINES: a file of settings
  printf '%b' "$2" >"$work/$1.toml"
  echo "$work/$1.toml"
}

case $table in
needle) # half an hour, most of it for InfLLM's and the window's beside the defaults
  defaults=$(setting defaults '')
  evaluate needle --task needle --haystack "$prose" --lengths 8192,16384,32768 --samples 1 --seed 1000 \
    --compare "$defaults,$policies/infllm.toml,$policies/none.toml" --plot docs/plots
  ;;
clipped) # attention to every key: six texts a length, an hour and more
  defaults=$(setting defaults '')
  for length in 8192 16384 32768; do
    evaluate "clipped-$length" --task needle --lengths "$length" --samples 1 --seed 1000 --depths 0.25,0.75 \
      --haystack "$texts/war-and-peace.txt,$texts/sotu.txt,$texts/xquad.txt" --compare "$defaults,$policies/clipped.toml"
  done
  ;;
passkey) # twenty minutes
  evaluate passkey --task passkey,number --lengths 16384,32768,65536
  evaluate passkey-long --task passkey --lengths 131072,262144 --depths 0,0.5,1
  ;;
several) # ten minutes
  for seed in 500 1000; do
    evaluate "several-$seed" --task multi-needle --samples 2 --seed "$seed" --lengths 16384 \
      --haystack "$texts/bible.txt,$texts/sotu.txt,$texts/xquad.txt"
  done
  ;;
perplexity) # ten minutes
  score() {
    echo "$*: $("$mneme" score "$texts/war-and-peace.txt" --from-token 4096 --to-token 8192 --json "$@" |
      python3 -c 'import json, sys; print(round(json.load(sys.stdin)["perplexity"], 3))')"
  }
  near="--window-tokens 1024 --retrieved-units 16"
  score --attention full
  score --attention full --kv-type f16
  for more in "" "--read-query-tokens 4" "--read-query-tokens 16" \
    "--read-query-tokens 16 --neighbour-units 0" "--read-query-tokens 16 --unit-cuts sentence" \
    "--read-query-tokens 16 --unit-cuts surprise" "--kv-type f16" "--kv-type int4" "--attention window"; do
    score $near $more
  done
  score --window-tokens 2048 --retrieved-units 32
  ;;
recall | million) # ten minutes; a million takes a quarter of an hour and 16 GB of memory
  whole=$(setting whole '[memory]\nread-query-tokens = 0\ncluster-from-tokens = 0\n')
  listed=$(setting listed '[memory]\nread-query-tokens = 0\ncluster-from-tokens = 1\n')
  few=$(setting few '[memory]\nread-query-tokens = 0\ncluster-from-tokens = 1\nprobed-lists = 8\n')
  many=$(setting many '[memory]\nread-query-tokens = 0\ncluster-from-tokens = 1\nprobed-lists = 32\n')
  graph=$(setting graph '[memory]\nread-query-tokens = 0\ncluster-from-tokens = 1\ngraph-from-lists = 1\n')
  lengths=32768,131072
  text=$texts/sotu.txt
  compared=$whole,$few,$listed,$many,$graph
  if [ "$table" = million ]; then
    lengths=1000000
    text=$texts/sotu-all.txt
    more=$(setting more '[memory]\nread-query-tokens = 0\ncluster-from-tokens = 1\nprobed-lists = 24\n')
    compared=$whole,$listed,$more # each has an index of its own
  fi
  "$mneme" recall --haystack "$text" --lengths "$lengths" --compare "$compared"
  ;;
qa) # an hour
  evaluate qa --task qa --qa-file "$texts/xquad.en.json" --lengths 0,16384 --depths 0.5 --samples 25 --seed 2000 \
    --read-query-tokens 0
  ;;
kv) # forty minutes
  evaluate kv --task kv --kv-file "$texts/kv-retrieval-75.jsonl.gz" --lengths 6000 --samples 100
  ;;
*)
  echo "no table $table; see the head of $0" >&2
  exit 2
  ;;
esac
