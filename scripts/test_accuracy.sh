#!/usr/bin/env bash
# Trains, and says whether accuracy and speed reach the published figures: "&&&& PASSED" and status 0, or "&&&& FAILED" and 1.
#
#   bash scripts/test_accuracy.sh [CONFIG.yaml] [KEY VALUE]...      trains by scripts/train.sh, with its environment
#   LOG=FILE bash scripts/test_accuracy.sh                          judges a log that is there
#
# Without words it trains the published job: 8 GPUs, 96 images, 16667 iterations. From the environment:
#   MIN_BBOX_AP, MIN_MASK_AP   default 0.375 and 0.341; an empty MIN_MASK_AP: boxes only
#   MIN_SPEED                  iterations a second; default 2.57, or 1.9 with DTYPE=float32; empty: not judged
#   TOLERANCE                  the part of MIN_SPEED that is enough (default 0.9)
set -eo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MIN_BBOX_AP="${MIN_BBOX_AP:-0.375}" MIN_MASK_AP="${MIN_MASK_AP-0.341}" TOLERANCE="${TOLERANCE:-0.9}"
case "${DTYPE:-float16}" in
    float16 | fp16 | bfloat16 | bf16) MIN_SPEED="${MIN_SPEED-2.57}" ;;
    *) MIN_SPEED="${MIN_SPEED-1.9}" ;;
esac
for name in MIN_BBOX_AP MIN_MASK_AP MIN_SPEED TOLERANCE; do
    [[ "${!name}" =~ ^([0-9]+\.?[0-9]*|\.[0-9]+)?$ ]] || die "$name is '${!name}'; it is a number such as 0.3."
done

reaches() { # FIGURE LEAST: no figure reaches nothing
    [[ -n "$1" ]] && awk -v figure="$1" -v least="$2" 'BEGIN { exit !(figure >= least) }'
}

judge() { # NAME STATUS: prints the verdict and returns the status
    if [[ "$2" -eq 0 ]]; then say "&&&& $1 TEST PASSED"; else say "&&&& $1 TEST FAILED"; fi
    return "$2"
}

judge_accuracy() { # of the last evaluation: boxes first, then masks
    local lines figures=() kinds=1 failed=0
    [[ -z "$MIN_MASK_AP" ]] || kinds=2
    lines="$(grep -F 'Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ]' <<<"$log" || true)"
    read -ra figures <<<"$(tail -n "$kinds" <<<"$lines" | sed -E 's/.*= *//' | tr '\n' ' ')"
    say "box AP: ${figures[0]:-none} (at least $MIN_BBOX_AP)"
    reaches "${figures[0]:-}" "$MIN_BBOX_AP" || failed=1
    if [[ -n "$MIN_MASK_AP" ]]; then
        say "mask AP: ${figures[1]:-none} (at least $MIN_MASK_AP)"
        reaches "${figures[1]:-}" "$MIN_MASK_AP" || failed=1
    fi
    judge ACCURACY "$failed"
}

judge_speed() {
    local seconds speed=""
    seconds="$(grep -F 'maskrcnn_benchmark.trainer INFO: Total training time' <<<"$log" | tail -n 1)" || true
    seconds="$(sed -E 's/.*\(([0-9.]+) s .*/\1/' <<<"$seconds")"
    [[ ! "$seconds" =~ ^[0-9.]+$ ]] || speed="$(awk -v s="$seconds" 'BEGIN { if (s > 0) printf "%.4f", 1 / s }')"
    say "speed: ${speed:-none} iterations a second (at least $TOLERANCE of $MIN_SPEED)"
    reaches "$speed" "$(awk -v a="$MIN_SPEED" -v b="$TOLERANCE" 'BEGIN { print a * b }')"
    judge PERFORMANCE $?
}

before=0
if [[ -z "${LOG:-}" ]]; then
    choose_results
    LOG="$RESULTS/joblog.log"
    export RESULTS
    job=("$@")
    if [[ $# -eq 0 ]]; then
        job=(
            SOLVER.BASE_LR 0.12 SOLVER.MAX_ITER 16667 SOLVER.STEPS "(12000, 16000)" SOLVER.IMS_PER_BATCH 96
            TEST.IMS_PER_BATCH 8
        )
    fi
    [[ ! -f "$LOG" ]] || before="$(wc -c <"$LOG")" # of earlier runs, which are not judged
    bash "$ROOT/scripts/train.sh" "${job[@]}" || {
        say "&&&& FAILED"
        exit 1
    }
fi
[[ -f "$LOG" ]] || die "There is no log $LOG; LOG names the joblog.log of a training that has ended."
log="$(tail -c "+$((before + 1))" "$LOG" | grep -E 'Average Precision|Total training time' || true)"

failed=0
judge_accuracy || failed=1
if [[ -n "$MIN_SPEED" ]]; then
    judge_speed || failed=1
fi
if [[ "$failed" -eq 0 ]]; then say "&&&& PASSED"; else say "&&&& FAILED"; fi
exit "$failed"
