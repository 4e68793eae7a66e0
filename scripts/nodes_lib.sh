# shellcheck shell=bash disable=SC2034
# Several nodes: what the scripts know of them, and how a job is started, told to stop, and ends. lib.sh sources it.
# The scripts that use it set "pipefail".

# choose_nodes: reads NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, MAX_RESTARTS, RDZV_BACKEND, RDZV_ENDPOINT, RDZV_ID,
# RDZV_TIMEOUT and RDZV_CONF, for which Kubernetes' training operator says PET_NNODES and so on. Sets MOST_NODES, JOBLOG
# (the name of this node's log) and NODE_OPTS (what torchrun is told of the nodes).
choose_nodes() {
    NNODES="${NNODES:-${PET_NNODES:-1}}" NODE_RANK="${NODE_RANK:-${PET_NODE_RANK:-}}"
    JOBLOG=joblog.log NODE_OPTS=()
    if [[ -z "$NODE_RANK" && -n "${PET_RDZV_ENDPOINT:-}" && "$(hostname)" =~ -worker-([0-9]+)$ ]]; then
        NODE_RANK="${BASH_REMATCH[1]}" # the name of a pod of an elastic job; the first one is where all meet
    fi
    [[ "$NNODES" =~ ^([1-9][0-9]*)(:([1-9][0-9]*))?$ ]] ||
        die "NNODES is '$NNODES'; it is the number of nodes, such as 2, or MIN:MAX, such as 1:4."
    local fewest="${BASH_REMATCH[1]}"
    MOST_NODES="${BASH_REMATCH[3]:-$fewest}"
    ((fewest <= MOST_NODES)) || die "NNODES is '$NNODES'; MIN:MAX needs a MIN that is not above MAX."
    if [[ -n "$NODE_RANK" ]]; then
        if [[ ! "$NODE_RANK" =~ ^(0|[1-9][0-9]*)$ ]] || ((NODE_RANK >= MOST_NODES)); then
            die "NODE_RANK is '$NODE_RANK', but NNODES is $NNODES: nodes are numbered from 0 to $((MOST_NODES - 1))."
        fi
    fi
    local restarts="${MAX_RESTARTS:-${PET_MAX_RESTARTS:-}}"
    [[ "$restarts" =~ ^[0-9]*$ ]] || die "MAX_RESTARTS is '$restarts'; it is a number, 0 or more."
    if ((MOST_NODES == 1)); then
        if ((${restarts:-0} > 0)); then
            NODE_OPTS=(--standalone --max_restarts="$restarts")
        fi
        return
    fi
    _choose_rendezvous "$fewest" "${restarts:-3}"
}

# _choose_rendezvous FEWEST RESTARTS: where and how the nodes of a job meet.
_choose_rendezvous() {
    local master="${MASTER_ADDR:-${PET_MASTER_ADDR:-}}" port="${MASTER_PORT:-${PET_MASTER_PORT:-29500}}" reached host
    local endpoint="${RDZV_ENDPOINT:-${PET_RDZV_ENDPOINT:-}}" backend="${RDZV_BACKEND:-c10d}"
    if [[ -z "$endpoint" ]]; then
        [[ -n "$master" ]] || die "NNODES is $NNODES, but nothing says where the nodes meet; set MASTER_ADDR to the name \
or address of the first node, the same on every node."
        endpoint="$master:$port"
    elif [[ "$endpoint" != *:* ]]; then
        endpoint="$endpoint:$port"
    fi
    master="${endpoint%:*}" port="${endpoint##*:}"
    if [[ ! "$port" =~ ^[1-9][0-9]{0,4}$ ]] || ((port > 65535)); then
        die "The port of $endpoint is '$port'; MASTER_PORT is a number from 1 to 65535."
    fi
    [[ "$backend" =~ ^(c10d|static)$ ]] || die "RDZV_BACKEND is '$backend'; it is c10d or static."
    RDZV_TIMEOUT="${RDZV_TIMEOUT:-600}"
    [[ "$RDZV_TIMEOUT" =~ ^[1-9][0-9]*$ ]] || die "RDZV_TIMEOUT is '$RDZV_TIMEOUT'; it is a number of seconds."
    # Prints the address by which the others reach this node, and whether this node is the one where all meet.
    reached="$("$PYTHON" "$ROOT/scripts/check_nodes.py" "$master" "$port" "$NODE_RANK")" || exit 1
    host="${reached##* }" reached="${reached% *}"
    if [[ "$host" != True ]]; then
        JOBLOG="joblog_node${NODE_RANK:-_$(hostname)}.log"
    fi
    NODE_OPTS=(--nnodes="$NNODES" --max_restarts="$2" --rdzv_backend="$backend")
    if [[ "$backend" == static ]]; then
        [[ -n "$NODE_RANK" && "$1" == "$MOST_NODES" ]] ||
            die "RDZV_BACKEND is static, which needs NODE_RANK on every node and a fixed NNODES; NNODES is $NNODES."
        NODE_OPTS+=(--node_rank="$NODE_RANK" --master_addr="$master" --master_port="$port")
    else
        # Processes are numbered in the order of these names: with NODE_RANK the first ones are on the node where all
        # meet, without which no job goes on anyway. Only the name of node 0 is ever used as an address.
        if [[ -n "$NODE_RANK" && "$host" != True ]]; then
            reached="~$(printf '%05d' "$NODE_RANK")-$reached"
        fi
        NODE_OPTS+=(
            --rdzv_endpoint="$master:$port" --rdzv_id="${RDZV_ID:-${PET_RDZV_ID:-maskrcnn}}" --local_addr="$reached"
            --rdzv_conf="is_host=$host,join_timeout=$RDZV_TIMEOUT${RDZV_CONF:+,$RDZV_CONF}"
        )
        # A node that comes back learns the address of process 0 only where that is told anew in every round.
        export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    fi
    export NNODES
    say "Node ${NODE_RANK:-$reached} of $NNODES: the nodes meet at $master:$port. The log of this node is $JOBLOG."
}

# is_first_node: whether this is the node that has process 0, which writes.
is_first_node() { [[ "$JOBLOG" == joblog.log ]]; }

# run_logged COMMAND...: runs it, shows what it prints and keeps it in RESULTS/JOBLOG; ends with the command's status, or
# with that of the first of torchrun's processes that failed, which torchrun itself does not pass on. Being told to stop
# (TERM, USR1, HUP: by a batch system, or as first process of a container) is passed on to the command as TERM; Ctrl-C
# reaches all its processes.
run_logged() {
    local folder job="" logger status=0 last told="" passed_on=""
    folder="$(mktemp -d)"
    export MASKRCNN_STATUS_FILE="$folder/status"
    mkfifo "$folder/output"
    (
        trap '' INT TERM USR1 HUP # the last lines are the ones that say why
        exec tee -a "$RESULTS/$JOBLOG" <"$folder/output"
    ) &
    logger=$!
    # TERM once: a second one would keep torchrun from waiting for its processes.
    trap 'told=1 passed_on=TERM; trap "" TERM USR1 HUP; [[ -z "$job" ]] || kill -TERM "$job" 2>/dev/null || true' TERM USR1 HUP
    trap 'told=1 passed_on=INT; [[ -z "$job" ]] || kill -INT -- "-$job" 2>/dev/null || true' INT
    set -m # a group of its own, in which Ctrl-C is not ignored
    "$@" >"$folder/output" 2>&1 </dev/null &
    job=$!
    set +m
    if [[ -n "$passed_on" ]]; then # told before the job had a number
        kill "-$passed_on" -- "-$job" 2>/dev/null || true
    fi
    while :; do
        told="" last=0
        wait "$job" || last=$?
        ((last == 127)) || status=$last # 127: it had ended when the signal came
        [[ -n "$told" ]] || break       # otherwise the signal ended the waiting, not the job
    done
    trap - TERM USR1 HUP INT
    wait "$logger" || true
    if ((status != 0)) && [[ -s "$MASKRCNN_STATUS_FILE" ]]; then
        status="$(<"$MASKRCNN_STATUS_FILE")"
    fi
    rm -rf "$folder"
    if ((status != 0)) && ((MOST_NODES > 1)); then
        _explain_rendezvous
    fi
    return "$status"
}

# torchrun says in many lines that the nodes have not met; this says it in one, with the remedy.
_explain_rendezvous() {
    if tail -n 60 "$RESULTS/$JOBLOG" | grep -qE 'Rendezvous(Timeout|Connection|Closed)'; then
        say "The nodes have not met within $RDZV_TIMEOUT s (RDZV_TIMEOUT), or the node where they meet has ended: start" \
            "every node with the same NNODES, MASTER_ADDR, MASTER_PORT and RDZV_ID, and open the ports between them" \
            "(docs/deployment.md). The same command goes on from the last checkpoint." >&2
    fi
}
