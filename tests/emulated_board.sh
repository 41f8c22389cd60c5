#!/usr/bin/env bash
# Run an exported step on an aarch64 CPU under emulation: tests/emulated_board.sh ARTIFACT OUT.json [FOLDER]
#
# For Debian 12 on x86, as root: qemu-user, Python and its libraries for arm64 come from Debian, jax and numpy
# from PyPI. Says that the program and the runner work on that processor; its seconds are the emulator's.
set -euo pipefail
artifact=$(realpath "$1") out=$(realpath "$2")
here=$(dirname "$(dirname "$(realpath "$0")")")
folder=$(realpath "${3:-$(mktemp -d)}")
mkdir -p "$folder/debs" "$folder/root"

if [ ! -e "$folder/root/usr/bin/python3.11" ]; then
    apt-get install --yes --quiet qemu-user-static
    dpkg --add-architecture arm64
    apt-get update --quiet
    (cd "$folder/debs" && apt-get download libc6:arm64 libgcc-s1:arm64 libstdc++6:arm64 libgomp1:arm64 \
        zlib1g:arm64 libexpat1:arm64 libssl3:arm64 libffi8:arm64 libbz2-1.0:arm64 liblzma5:arm64 \
        libsqlite3-0:arm64 libuuid1:arm64 libncursesw6:arm64 libtinfo6:arm64 libreadline8:arm64 \
        python3.11:arm64 python3.11-minimal:arm64 libpython3.11-minimal:arm64 libpython3.11-stdlib:arm64)
    for package in "$folder"/debs/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
fi
if [ ! -e "$folder/site/jax" ]; then
    versions=$(grep -E '^(jax|jaxlib|numpy|flatbuffers)==' "$here/constraints.txt")
    # shellcheck disable=SC2086
    python3 -m pip install --quiet --target "$folder/site" --only-binary=:all: --implementation cp \
        --python-version 311 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 --platform any $versions
fi
# The runner starts a child by sys.executable, which must be the emulator again.
cat > "$folder/python" <<END
#!/bin/sh
exec env PYTHONHOME="$folder/root/usr" PYTHONPATH="$folder/site" qemu-aarch64-static -0 "$folder/python" \\
    -L "$folder/root" "$folder/root/usr/bin/python3.11" "\$@"
END
chmod +x "$folder/python"
# From the artifact's own folder, so that the command that is written down names no other.
cd "$(dirname "$artifact")"
name=$(basename "$artifact")
"$folder/python" "$name/runner.py" "$name" --out "$name.timings.json" --platform cpu \
    --device emulated-aarch64 --seconds 5
mv "$name.timings.json" "$out"
