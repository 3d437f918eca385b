#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Check, measure, judge on a machine with a GPU, within ten minutes: tools/gpu_bench.sh
#   1. conformance and kernels of tools/gpu_check.sh, at most 200 s
#   2. benchmarks/run.py --quick against what needs no compiler, at most two minutes
#   3. benchmarks/overhead.py
#   4. benchmarks/run.py --quick against the other packages, in the time that is left: some compile
#      for each shape
#   5. benchmarks/goals.py over 2 and 4
# Everything runs, whatever became of the rest. Results go to benchmarks/results, and where OUT names
# a folder, there too, in one archive. PYTHON= chooses the interpreter (.venv/bin/python if there is
# one, else python3), TOTAL= the seconds in all. What .whl/ holds is installed first, offline.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

TOTAL=${TOTAL:-570}
if [[ -z ${PYTHON:-} ]]; then
  PYTHON=python3
  [[ -x .venv/bin/python ]] && PYTHON=.venv/bin/python
fi
export PYTHON PYTHONUNBUFFERED=1
# Without a device everything would print limits, which must not look like results.
reason=$("$PYTHON" -c 'from tests.kernels import cuda_skip_reason; print(cuda_skip_reason() or "")')
[[ $? -eq 0 && -z $reason ]] || { echo "tools/gpu_bench.sh: nothing to run: $reason" >&2; exit 2; }
RESULTS=benchmarks/results
mkdir -p "$RESULTS" build/gpu
started=$(mktemp)
failed=0

# Seconds that are left, but for the last minute: plots, goals, the archive.
left() {
  echo $((TOTAL - SECONDS - 60))
}

step() {
  local name=$1 limit=$2
  shift 2
  echo "== $name"
  timeout "$limit" "$@" 2>&1 | tee "build/gpu/bench_$name.log"
  [[ ${PIPESTATUS[0]} -eq 0 ]] || { failed=1; echo "== $name FAILED"; }
}

if compgen -G '.whl/*.whl' >/dev/null; then
  site=$(mktemp -d)
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$site" .whl/*.whl &&
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi

LIMIT=100 step check 200 tools/gpu_check.sh conformance kernels
step quick 180 "$PYTHON" benchmarks/run.py --quick \
  --peers cublas,pad+slice,aligned,batch_invariant
step overhead 60 "$PYTHON" benchmarks/overhead.py --out "$RESULTS/$(date +%Y%m%d%H%M%S)_overhead.jsonl"
if [[ $(left) -gt 60 ]]; then
  step peers "$(($(left) + 30))" "$PYTHON" benchmarks/run.py --quick --budget-seconds "$(left)" \
    --peers humming,vllm-marlin,machete,gptqmodel-marlin,gemlite,int4pack
fi

mapfile -t written < <(find "$RESULTS" -newer "$started" -type f)
measured=()
for file in "${written[@]}"; do
  [[ $file == *_check.jsonl || $file == *_overhead.jsonl || $file != *.jsonl ]] || measured+=("$file")
done
if [[ ${#measured[@]} -gt 0 ]]; then
  echo "== goals"
  "$PYTHON" benchmarks/goals.py "${measured[@]}" | tee build/gpu/bench_goals.log
fi
if [[ -n ${OUT:-} ]]; then
  tar czf "$OUT/results.tgz" "${written[@]}" build/gpu
  cp "${measured[@]}" "$OUT" 2>/dev/null
fi
printf '%s\n' "${written[@]}"
echo "$SECONDS s"
exit $failed
