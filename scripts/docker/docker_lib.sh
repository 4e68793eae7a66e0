# shellcheck shell=bash disable=SC2034
# What the scripts of this folder share; it is sourced, not run. Sets ROOT, IMAGE, CONTAINER and GPU_FLAGS.
set -euo pipefail
unset CDPATH
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
IMAGE="${IMAGE:-nvidia_joc_maskrcnn_pt}"
CONTAINER="${CONTAINER:-mask_rcnn}"
# Words for docker run. Empty: no GPU. --runtime=nvidia: where only the old runtime is registered with the daemon.
read -ra GPU_FLAGS <<<"${DOCKER_GPU_FLAGS---gpus all}"

die() {
    printf '%s\n' "$@" >&2
    exit 1
}

need_docker() {
    command -v docker >/dev/null ||
        die "docker was not found. Install Docker Engine, or Docker Desktop with its WSL 2 integration switched on."
}

# absolute FOLDER WHAT: prints the path that docker wants, for a folder that has to be there.
absolute() {
    [[ -d "$1" ]] || die "The folder '$1' for $2 does not exist."
    local path
    path="$(cd -- "$1" && pwd)"
    [[ "$path" != *:* ]] || die "docker cannot mount '$path': a colon separates the parts of -v."
    printf '%s' "$path"
}

# port_of GIVEN DEFAULT: prints the port of a server.
port_of() {
    [[ "${1:-$2}" =~ ^[1-9][0-9]{0,4}$ ]] || die "'$1' is not a port; it is a number such as $2."
    printf '%s' "${1:-$2}"
}
