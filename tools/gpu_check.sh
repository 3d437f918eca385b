#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What to run first on a machine with a GPU: tools/gpu_check.sh [step...]. Steps, all by default:
#   conformance  every primitive on the device against its host twin
#   kernels      gemm and repack on the device
#   suite        all other tests
#   memcheck racecheck synccheck initcheck   compute-sanitizer over tests/sanitize.py
# Every step runs, whatever became of the others. Logs go to build/gpu, a dated report of all steps to
# benchmarks/results; a table ends the output. padmarlin/_C.so is taken as it is, or built if missing.
# PYTHON= chooses the interpreter (default .venv/bin/python), LIMIT= the seconds a step may take.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

PYTHON=${PYTHON:-.venv/bin/python}
LIMIT=${LIMIT:-1200}
LOGS=build/gpu
TOOLS=(memcheck racecheck synccheck initcheck)

fail() {
  echo "tools/gpu_check.sh: $*" >&2
  exit 2
}

sanitizer() {
  local place
  for place in "$(command -v compute-sanitizer)" \
    "${CUDA_HOME:-/usr/local/cuda}"/bin/compute-sanitizer \
    "${CUDA_HOME:-/usr/local/cuda}"/compute-sanitizer/compute-sanitizer; do
    [[ -x $place ]] && echo "$place" && return
  done
  return 1
}

run_pytest() {
  "$PYTHON" -m pytest -q "$@"
}

# The command of a step.
run_step() {
  case $1 in
    # Built first: without nvcc the tests would skip, which must not look like success.
    conformance)
      "$PYTHON" -c 'from tests.conformance.build import device_library; device_library()' &&
        run_pytest tests/test_conformance.py
      ;;
    kernels) run_pytest -m gpu --ignore=tests/test_conformance.py ;;
    suite) run_pytest -m "not gpu" --ignore=tests/test_conformance.py -n 4 ;;
    *)
      local tool
      tool=$(sanitizer) || { echo "no compute-sanitizer on PATH or in CUDA_HOME"; return 1; }
      # One allocation per tensor, so that its end is the end of the allocation.
      PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$tool" --tool "$1" --error-exitcode 1 \
        "$PYTHON" -m tests.sanitize
      ;;
  esac
}

# What a log says of its outcome, in a line.
summary() {
  grep -E '^(=+ )?[0-9]+ (passed|failed|error|deselected|skipped)|SUMMARY|no tests ran|^sanitize:|^no compute-sanitizer|CannotBuild' \
    "$1" | tail -n 2 | tr -d '=' | paste -sd ' ' | sed 's/^ *//; s/  */ /g'
}

steps=("$@")
[[ $# -gt 0 ]] || steps=(conformance kernels suite "${TOOLS[@]}")
for step in "${steps[@]}"; do
  case $step in
    conformance | kernels | suite | memcheck | racecheck | synccheck | initcheck) ;;
    *) fail "step is '$step', expected conformance, kernels, suite, ${TOOLS[*]}" ;;
  esac
done

[[ -f padmarlin/_C.so ]] || make .venv/installed || fail "cannot build padmarlin/_C.so"
[[ -x $(command -v "$PYTHON") ]] || fail "no $PYTHON; run make test first, or set PYTHON="
# Without a device or a library every test would skip, which must not look like success.
reason=$("$PYTHON" -c 'from tests.kernels import cuda_skip_reason; print(cuda_skip_reason() or "")') ||
  fail "cannot import padmarlin and the tests"
[[ -z $reason ]] || fail "nothing to run: $reason"

mkdir -p "$LOGS"
"$PYTHON" -m padmarlin env | tee "$LOGS/env.log"

export PYTHON LOGS
export -f run_step run_pytest sanitizer
rows=() results=() failed=0
for step in "${steps[@]}"; do
  echo "== $step"
  start=$SECONDS outcome=ok
  timeout "$LIMIT" bash -c "run_step $step" 2>&1 | tee "$LOGS/$step.log"
  status=${PIPESTATUS[0]}
  [[ $status -eq 0 ]] || { outcome=FAILED failed=1; }
  [[ $status -ne 124 ]] || outcome=TIMEOUT
  said=$(summary "$LOGS/$step.log")
  rows+=("$(printf '%-12s %-8s %5d s  %s' "$step" "$outcome" $((SECONDS - start)) "$said")")
  results+=("$step" "$outcome" $((SECONDS - start)) "$said")
done

printf '%s\n' '' "${rows[@]}" | tee "$LOGS/table.log"
"$PYTHON" tools/gpu_report.py "${results[@]}"
exit $failed
