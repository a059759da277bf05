#!/usr/bin/env bash
# Builds both variants of the Dockerfile without Docker, then starts the CPU image and asks it a search.
#
# Root, and Debian's buildah and debootstrap. The base image is stood in for by a small Debian of the
# same release with its own Python 3.11; pip and apt in the build are told what they are told here.
# `docker/images.sh cpu` leaves the GPU variant out, which fetches CUDA's libraries: 12 GB of disk.
set -euo pipefail -o monitor # a job is a process group: stopping it reaches the service inside
cd "$(dirname "$0")/.."
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
work=$(mktemp -d)
server=
# The service itself is told to end: buildah, told so, leaves a stack trace.
stop() { [ -z "$server" ] || { pkill -g "$server" -f '^/opt/venv/bin/python -m service$' || true; wait "$server" || true; }; buildah rm --all > /dev/null; rm -rf --one-file-system "$work"; }
trap stop EXIT

if ! buildah inspect --type image lipsim-base > /dev/null 2>&1; then
  mirror=$(apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(RELEASE)' | awk '$1 == "Packages" && $3 == "bookworm" { print $2; exit }')
  debootstrap --variant=minbase --include=python3.11,python3.11-venv,python3-pip,ca-certificates \
    bookworm "$work/base" "${mirror:-${DEBIAN_MIRROR:?apt knows no archive of bookworm here}}" > /dev/null
  for name in python python3; do ln -s /usr/bin/python3.11 "$work/base/usr/local/bin/$name"; done
  base=$(buildah from scratch)
  buildah add -q "$base" "$work/base" / > /dev/null
  buildah commit -q "$base" lipsim-base > /dev/null
  rm -rf --one-file-system "$work/base"
fi

# What pip is told here, as a file; and the files and folders that it names, where they are.
volumes=(--volume "$work/pip.conf:/etc/pip.conf:ro")
{ echo "[global]"; python3 -m pip config list | sed -nE "s/^(global|:env:)\.+([a-z-]+)='(.*)'$/\2 = \3/p" | grep -v '^constraint' | sort -u -t= -k1,1; } > "$work/pip.conf"
for path in $(grep -oE '(^|[ /=])/[^ ]+' "$work/pip.conf" | sed 's#^[ =]*##; s#^//*#/#' | sort -u); do
  [ ! -d "$path" ] || path=$(cut -d/ -f1-3 <<< "$path") # an index names files beside itself
  [ ! -e "$path" ] || volumes+=(--volume "$path:$path:ro")
done

for variant in ${1:-cpu gpu}; do
  SECONDS=0
  buildah bud --quiet --format docker --build-arg PYTHON_IMAGE=localhost/lipsim-base --build-arg VARIANT="$variant" \
    "${volumes[@]}" --file docker/Dockerfile --tag "lipsim-retrieval:$variant" . > /dev/null
  image=$(buildah from "lipsim-retrieval:$variant")
  echo "$variant: built in $SECONDS s, $(du -sm "$(buildah mount "$image")" | cut -f1) MB"
done

# As uid 10001, as the image says; only /data may be written.
image=$(buildah from lipsim-retrieval:cpu)
install -d -o 10001 -g 10001 "$work/data"
inside() { buildah run --volume "$work/data:/data" --volume "$PWD/examples:/examples:ro" --env LIPSIM_HOST=127.0.0.1 --env LIPSIM_PORT="$port" "$image" -- python -m "$@"; }
chmod 755 "$work"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
inside index_builder build /examples/gallery --json | tail -1
inside service & server=$!
for _ in $(seq 60); do curl -sf "http://127.0.0.1:$port/readyz" > /dev/null && break; sleep 1; done
answer=$(curl -sf -F image=@examples/queries/astronaut-cropped.jpg -F k=1 "http://127.0.0.1:$port/search")
python3 -c 'import json, sys; r = json.loads(sys.argv[1])["results"][0]; print("answer:", r["id"], r["certified_radius"]); sys.exit(not (r["id"].startswith("photos/astronaut") and r["certified_radius"] > 0))' "$answer"
